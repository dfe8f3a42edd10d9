"""Kill ADD, DEL and GC with SIGKILL before each of their system calls, then do what a runtime and an operator do next.

    python -m tests.faults.sweep                    # every call of every scenario (`make faults`)
    python -m tests.faults.sweep --points 20 masquerade

The next steps alternate: DEL and `ipam gc`; `ipam gc` and DEL; ADD again, then DEL and `ipam gc`. Afterwards the host
must be as it was before the killed call: links, addresses, routes, rules, leases, records. At the end pods take every
address of the subnet, which shows that none was lost and none is given twice.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from cnictl.core.digest import host_veth_name
from tests.faults.inside import Inside, cnictl_inside, plugin_inside
from tests.kernel.plugin.client import LEASES, RECORDS, VALID, WALK_THROUGH, Host, Pod, new_host

Json = dict[str, Any]

VERBS = ("ADD", "DEL", "GC")
EVERY = 0
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_SUBNET = "10.244.0.0/28"
_ALL = 13
"""The number of its addresses that pods can get."""
_NETWORK = str(WALK_THROUGH["name"])

_LOOK = "ip -j -d link; ip -j address; ip -j route; ip -j -6 route; nft -s list ruleset"


@dataclass(frozen=True)
class Scenario:
    """A network, and its pods before the call."""

    conf: Json
    live: int = 3
    """The number of pods that run all the time. If it is 0, the killed call makes the bridge, which stays."""
    families: int = 1
    """The number of leases of an attachment."""
    verbs: tuple[str, ...] = VERBS
    prepare: str = ""
    """Code that is executed in the plugin's process beforehand."""


_MASQUERADE: Json = {**WALK_THROUGH, "cniVersion": "1.1.0", "subnet": _SUBNET, "ipMasq": True}
_DUAL: Json = {
    "cniVersion": "1.1.0",
    "name": _NETWORK,
    "type": "cnictl-bridge",
    "isDefaultGateway": True,
    "ipMasq": True,
    "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": _SUBNET}], [{"subnet": "fd00:10:244::/124", "rangeEnd": "fd00:10:244::e"}]],
    },
}
_STATIC: Json = {"type": "static", "addresses": [{"address": "10.244.0.9/28", "gateway": "10.244.0.1"}]}
SCENARIOS = {
    "dual-stack": Scenario(_DUAL, families=2),
    "masquerade": Scenario(_MASQUERADE),
    # as on NFS, or on an overlay of a kernel before 6.1
    "no O_TMPFILE": Scenario(_DUAL, families=2, prepare="from cnictl.core import durable; durable.O_TMPFILE = 0"),
    "first pod": Scenario(_DUAL, live=0, families=2, verbs=("ADD",)),
    "iptables": Scenario({**_DUAL, "ipMasqBackend": "iptables"}, families=2),
    "guarded": Scenario({**_DUAL, "macspoofchk": True, "hairpinMode": True}, families=2),
    # the static IPAM plugin has no GC, and does not know the CNI version that adds it
    "delegated": Scenario({**_DUAL, "cniVersion": "1.0.0", "ipam": _STATIC}, 0, 0, ("ADD", "DEL")),
}


@dataclass
class Report:
    """The results of a sweep over one verb."""

    verb: str
    states: Counter[str] = field(default_factory=Counter)
    """The parts of the attachment that existed after the kill, and how often."""
    faults: list[str] = field(default_factory=list)
    calls: int = 0
    """The number of system calls that the verb makes if it is not killed."""

    @property
    def kills(self) -> int:
        """The number of killed calls."""
        return sum(self.states.values())

    def __str__(self) -> str:
        lines = [f"{self.verb}: {self.kills} kills over {self.calls} system calls"]
        lines += [f"  {count:4} {state}" for state, count in sorted(self.states.items(), key=lambda item: len(item[0]))]
        return "\n".join([*lines, *(f"  FAULT {fault}" for fault in self.faults)])


class Ground:
    """A host with a scenario's pods, and one more pod, the victim, whose calls are killed."""

    def __init__(self, host: Host, scenario: Scenario, plugin: Inside, cnictl: Inside) -> None:
        self.host, self.scenario, self._plugin, self._cnictl = host, scenario, plugin, cnictl
        self.live = host.pods(scenario.live, "live")
        self.addresses = [self.call("ADD", pod)["ips"] for pod in self.live]
        self.victim = host.pod("victim")

    def call(self, verb: str, pod: Pod | None = None, prev: Json | None = None) -> Json:
        """Make a call that must succeed, and return its result."""
        return self._plugin.call(*self._request(verb, pod, prev)).result

    def cut_off(self, verb: str, before_call: int, prev: Json | None = None) -> int | None:
        """Kill a call for the victim before that system call. Return None, or its number of calls if it ended first."""
        answer, calls = self._plugin.cut_off(*self._request(verb, self.victim, prev), before_call)
        if answer.status >= 0:
            assert answer.result is not None
            return calls
        assert (answer.status, answer.stderr) == (-9, b"")
        return None

    def _request(self, verb: str, pod: Pod | None, prev: Json | None) -> tuple[dict[str, str], bytes]:
        conf = self.scenario.conf
        if verb == "GC":
            pod, valid = None, [{"containerID": live.container, "ifname": live.ifname} for live in self.live]
            conf = {**conf, VALID: valid}
        return self.host.environment(verb, pod), self.host.stdin(conf, prev)

    def ipam_gc(self) -> None:
        """Run `cnictl ipam gc` as an operator does."""
        store = self.host.path(f"{LEASES}/{_NETWORK}")
        records = self.host.path(f"{RECORDS}/{_NETWORK}")
        if store.is_dir() or records.is_dir():  # the command fails for a network that has neither
            answer = self._cnictl.call({"PATH": _PATH}, b"", ["cnictl", "ipam", "gc", "--name", _NETWORK])
            assert answer.status == 0, answer

    def again(self) -> None:
        """Repeat the killed ADD as a runtime does. Code 102 is right if the attachment was already complete."""
        answer = self._plugin.call(*self._request("ADD", self.victim, None))
        assert answer.status == 0 or answer.code == 102, answer

    def state(self) -> str:
        """Return the parts of the victim's attachment that exist."""
        host, pod = self.host, self.victim
        owner = f"{pod.container}\r\n{pod.ifname}"
        store = host.leases()
        leases = [name for name, whose in store.items() if whose == owner and not name.startswith(".")]
        there = {
            "record": f"{pod.container}@{pod.ifname}" in host.records(),
            "temporary file": any(name.startswith(".") for name in store),
            "lease": len(leases) == self.scenario.families > 0,
            "lease of one family": 0 < len(leases) < self.scenario.families,
            "link": f" {host_veth_name(_NETWORK, pod.container, pod.ifname)}:" in _devices(host),
        }
        if there["link"]:
            inside = host.pod_link(pod)
            there["address"] = inside is not None and any(
                address["scope"] == "global" for address in inside["addr_info"]
            )
        return ", ".join(part for part, is_there in there.items() if is_there) or "nothing"

    def picture(self) -> Json:
        """Return everything on the host that an attachment consists of, and the links in the victim's namespace."""
        links, addresses, routes, routes6, *rules = self.host.run("sh", "-c", _LOOK).split("\n")
        state = self.host.path("/var/lib")
        return {
            "links": {link["ifname"]: _link(link) for link in json.loads(links)},
            "addresses": sorted(
                (link["ifname"], a["local"], a["prefixlen"])
                for link in json.loads(addresses)
                for a in link["addr_info"]
            ),
            "routes": sorted(_route(route) for route in [*json.loads(routes), *json.loads(routes6)]),
            "rules": "\n".join(rules),
            "files": {
                str(file.relative_to(state)): file.read_bytes()
                for file in sorted(state.rglob("*"))
                if file.is_file()
                and not file.name.startswith(("lock", "last_reserved_ip"))
                and not {".claimed", "journal"} & set(file.parts)  # a cache, and the records of runs
            },
            "pod": _devices(self.host, self.victim).split(),
        }

    def forget_network(self) -> None:
        """Without other pods, remove what the first ADD makes and no DEL removes, so that each ADD makes it again."""
        if not self.live:
            self.host.run("sh", "-c", "ip link delete cni0; nft delete table inet cnictl", check=False)

    def fill(self) -> None:
        """Attach pods until no address is free, and detach them. Raises AssertionError if an address is missing."""
        if not self.scenario.families:
            return
        free = _ALL - self.scenario.live
        pods = self.host.pods(free + 1, "filling")
        given = [str(ip["address"]) for ips in self.addresses for ip in ips]
        for pod in pods[:free]:
            given += [str(ip["address"]) for ip in self.call("ADD", pod)["ips"]]
        assert len(set(given)) == len(given) == _ALL * self.scenario.families, sorted(given)
        assert self._plugin.call(*self._request("ADD", pods[free], None)).code == 100
        for pod in pods:
            self.call("DEL", pod)
            self.host.kill(pod)


@contextmanager
def ground(scenario: Scenario) -> Iterator[Ground]:
    """Yield a new host for a scenario."""
    with ExitStack() as stack:
        host = stack.enter_context(new_host())
        plugin = stack.enter_context(plugin_inside(host, prepare=scenario.prepare))
        cnictl = stack.enter_context(cnictl_inside(host))
        yield Ground(host, scenario, plugin, cnictl)


def sweep(where: Ground, verb: str, points: int = EVERY) -> Report:
    """Kill a verb before each of its system calls, or before `points` evenly spread calls."""
    report = Report(verb)
    before = where.picture()
    report.calls = _rehearse(where, verb)
    last = report.calls + 3  # a loop that waits may need more calls than in the rehearsal
    step = max(1.0, last / points) if points else 1.0
    numbers = sorted({round(1 + turn * step) for turn in range(int(last / step))})
    for place, number in enumerate(numbers):
        prev = where.call("ADD", where.victim) if verb != "ADD" else None
        if where.cut_off(verb, number, prev) is None:
            report.states[where.state()] += 1
        try:
            _clean_up(where, verb, place)
        except AssertionError as fault:
            report.faults.append(f"before call {number}: {fault}")
            where.call("DEL", where.victim)
        where.forget_network()
        after = where.picture()
        wrong = {key: (before[key], after[key]) for key in before if before[key] != after[key]}
        if wrong:
            report.faults.append(f"before call {number}: {wrong}")
            before = after
    return report


def _rehearse(where: Ground, verb: str) -> int:
    """Run the verb without a kill, and return the number of its system calls."""
    prev = where.call("ADD", where.victim) if verb != "ADD" else None
    calls = where.cut_off(verb, sys.maxsize, prev)
    assert calls is not None
    where.call("DEL", where.victim)
    where.forget_network()
    return calls


def _clean_up(where: Ground, verb: str, place: int) -> None:
    if verb == "GC":
        where.call("GC")
        return
    steps = [("DEL", "gc"), ("gc", "DEL"), ("again", "DEL", "gc")][place % (3 if verb == "ADD" else 2)]
    for step in steps:
        if step == "DEL":
            where.call("DEL", where.victim)
        elif step == "gc":
            where.ipam_gc()
        else:
            where.again()


def _link(link: Json) -> Json:
    told = {key: link.get(key) for key in ("mtu", "master", "address", "ifalias", "ifindex")}
    return {**told, "flags": sorted(set(link["flags"]) - {"NO-CARRIER", "LOWER_UP"})}  # these depend on other links


def _route(route: Json) -> str:
    return " ".join(f"{key}={value}" for key, value in sorted(route.items()) if key != "flags").replace("dev=", "")


def _devices(host: Host, pod: Pod | None = None) -> str:
    """Return the links of the host or of a pod, as /proc/net/dev lists them."""
    if pod is None:
        return host.path(f"/proc/{host.pid}/net/dev").read_text().replace("\n", " \n ")
    lines = host.inside(pod, "cat", "/proc/net/dev").splitlines()[2:]
    return " ".join(line.split(":")[0].strip() for line in lines)


def main() -> None:
    """Sweep over the scenarios, print the results, and exit with status 1 if a fault was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.sweep", description="See the module's docstring.")
    parser.add_argument("scenario", nargs="*", choices=[*SCENARIOS, []], help="default: all")
    parser.add_argument("--points", type=int, default=EVERY, help="only that many system calls, evenly spread")
    options = parser.parse_args()
    faults = 0
    for name in options.scenario or SCENARIOS:
        print(f"== {name}")
        scenario = SCENARIOS[name]
        with ground(scenario) as where:
            for verb in scenario.verbs:
                started = time.monotonic()
                report = sweep(where, verb, options.points)
                print(f"{report}\n  in {time.monotonic() - started:.1f} s", flush=True)
                faults += len(report.faults)
            where.fill()
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
