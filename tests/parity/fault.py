"""Define a fault and its row, and the steps that several faults share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tests.kernel.plugin.client import Answer
from tests.parity import answers, observe, packets
from tests.parity.answers import Facts
from tests.parity.families import FAMILIES, Family
from tests.parity.places import DELEGATES, Json, Place
from tests.parity.scenario import NOTHING, POD, Row, base, merged
from tests.waiting import wait_for

IPV4, IPV6, DUAL = FAMILIES


NOTHING_LEFT: Facts = {"outcome": answers.REFUSED, "left": []}
"""The facts that must hold after an ADD that can't succeed."""


@dataclass(frozen=True)
class Fault:
    """A fault around a call of a verb, and the facts that must hold afterwards."""

    name: str
    verb: str
    wanted: Facts
    act: Callable[[Place, Family], Facts]
    family: Family = IPV4

    @property
    def row(self) -> Row:
        """The fault's row."""
        return Row("fault", self.name, self.verb, self.family.name, self.wanted)

    @property
    def id(self) -> str:
        """The fault's name in lists."""
        return self.row.id

    def run(self, place: Place) -> Facts:
        """Cause the fault on one side, and return the facts."""
        return self.act(place, self.family)


def conf_of(family: Family, **change: object) -> Json:
    """Return the plainest conf with these changes merged into it."""
    return merged(base(family), change)


def span(family: Family, first: int, last: int) -> Json:
    """Return an `ipam` section whose ranges hold only these addresses."""
    sets = [[{"subnet": net.subnet, "rangeStart": net.at(first), "rangeEnd": net.at(last)}] for net in family.nets]
    return {"ranges": sets}


def add(
    place: Place, pod: str, conf: Json, extra: Mapping[str, str] = MappingProxyType({}), ifname: str = "eth0"
) -> Answer:
    """Call ADD for a pod."""
    return place.call("ADD", pod, conf, extra=extra, ifname=ifname)


def added(place: Place, pod: str, conf: Json, extra: Mapping[str, str] = MappingProxyType({})) -> Json:
    """Call ADD and return its result; {} if it was refused, which later steps report."""
    return answers.result_of(add(place, pod, conf, extra)) or {}


def worst(*ended: Answer, silent: bool = False) -> Facts:
    """Return the outcome of the first call that did not succeed, or else of the last call."""
    facts = [answers.outcome(answer, silent) for answer in ended]
    return next((outcome for outcome in facts if outcome["outcome"] != answers.OK), facts[-1])


def sends(place: Place, sender: str, receiver: str, address: str, bound: float = 0.0) -> str:
    """Return POD if a datagram arrives and is answered, else NOTHING."""
    seen = packets.source_seen(place, sender, receiver, address, bound)
    return POD if "." in seen or ":" in seen else NOTHING


def vanish(place: Place, pod: str) -> None:
    """Delete the pod's namespace, and wait until the kernel has removed its links."""
    host_end = observe.take(place, (pod,)).host_end(pod)
    place.ip(f"netns delete {pod}")
    if host_end is not None:
        wait_for(lambda: host_end["ifname"] not in observe.take(place, ()).links, f"removal of {host_end['ifname']}")


def restart(place: Place, pod: str) -> None:
    """Delete the pod's namespace and make a new one at its path, as after a crash or a reboot."""
    vanish(place, pod)
    place.ip(f"netns add {pod}")


def owned(place: Place, pod: str) -> list[str]:
    """Return the addresses that a pod has leases for."""
    leases = observe.leases(observe.take(place, ()))
    return sorted(address for address, text in leases.items() if text.split("\r\n")[0] == place.pods[pod].container)


def stub_ipam(place: Place, *lines: str) -> None:
    """Write `stub-ipam`, an IPAM plugin of a few shell lines that records how it is called."""
    path = place.host.path(f"{DELEGATES}/stub-ipam")
    path.parent.mkdir(parents=True, exist_ok=True)
    script = ["#!/bin/sh", "cat >/dev/null", 'echo "$CNI_COMMAND" >>/opt/calls', *lines]
    path.write_text("\n".join(script) + "\n")
    path.chmod(0o755)


def stub_calls(place: Place) -> list[str]:
    """Return the verbs that `stub-ipam` was called with so far."""
    calls = place.host.path("/opt/calls")
    return calls.read_text().split() if calls.exists() else []


def refused_add(place: Place, conf: Json, pod: str = "a") -> Facts:
    """Call an ADD that must be refused, and return its outcome and what it leaves."""
    before = observe.take(place)
    answer = add(place, pod, conf)
    return {**answers.outcome(answer), "left": observe.left(before, observe.take(place), network_stays=False)}
