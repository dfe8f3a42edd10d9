"""Accept rules beside firewalls that drop let pods' packets pass, keep specific drops, and admit no strangers.

A stranger is a host on one of the node's own links that is not a peer. It also has the clouds' metadata address.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from cnictl.lab.lab import Lab, Node
from tests.kernel.cluster import shell
from tests.kernel.commands import Lines, Pod, cnictl, drifted, outcomes, start_pod
from tests.kernel.node.test_dual_stack import options, set_up
from tests.waiting import wait_for

pytestmark = pytest.mark.once

METADATA = {"4": "169.254.169.254", "6": "fd00:ec2::254"}
_STRANGER = """
ip netns add stranger
ip link add strange0 type veth peer name eth0 netns stranger
ip link set strange0 up
ip -n stranger link set eth0 up
ip -n stranger link set lo up
ip address add 198.51.100.1/24 dev strange0
ip -n stranger address add 198.51.100.2/24 dev eth0
ip -n stranger address add 169.254.169.254/32 dev lo
ip -n stranger route add default via 198.51.100.1
ip route add 169.254.169.254/32 via 198.51.100.2
ip address add 2001:db8:7::1/64 dev strange0 nodad
ip -n stranger address add 2001:db8:7::2/64 dev eth0 nodad
ip -n stranger address add fd00:ec2::254/128 dev lo nodad
ip -n stranger -6 route add default via 2001:db8:7::1
ip -6 route add fd00:ec2::254/128 via 2001:db8:7::2
"""


@dataclass(frozen=True)
class Firewall:
    """Another program's firewall: it forwards only replies, and nothing to the metadata address."""

    name: str
    resources: tuple[str, ...]
    """The cnictl resources that handle its drops."""
    load: str
    append: str
    """Adds a drop of `{there}` and `{there6}` at the end."""
    unload: str

    def __str__(self) -> str:
        return self.name


def _of_iptables(name: str, programs: tuple[str, ...], drop: str, metadata: str) -> Firewall:
    """Return a firewall whose FORWARD chain drops by its policy or by its last rule."""
    load, unload, append = [], [], []
    for program in programs:
        six = "6" if program.startswith("ip6") else ""
        load += [
            f"{program} -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            f"{program} -A FORWARD -d {METADATA[six or '4']} -j {metadata}",
            f"{program} {drop}",
        ]
        append.append(f"{program} -A FORWARD -d {{there{six}}} -j DROP")
        unload += [f"{program} -P FORWARD ACCEPT", f"{program} -F FORWARD"]
    return Firewall(name, tuple(f"forward/{program}" for program in programs), *map("; ".join, (load, append, unload)))


_NFT = """
table {family} theirs {{
    chain guard {{ type filter hook forward priority 0; policy drop;
        ct state established,related accept
        jump particular
    }}
    chain particular {{
        ip daddr 169.254.169.254 drop
        ip6 daddr fd00:ec2::254 reject
        {last}
    }}
}}
"""


def _of_nft(name: str, policy: str, last: str) -> Firewall:
    text = _NFT.format(family="inet", last=last).replace("policy drop", f"policy {policy}")
    append = "; ".join(f"nft add rule inet theirs guard {ip} drop" for ip in ("ip daddr {there}", "ip6 daddr {there6}"))
    return Firewall(name, ("forward/nft",), f"nft -f - <<'E'\n{text}\nE", append, "nft delete table inet theirs")


FIREWALLS = (
    _of_nft("nft-policy", "drop", ""),
    _of_nft("nft-last-rule", "accept", 'iifname != "docker0" reject with icmpx admin-prohibited'),
    _of_iptables("iptables-policy", ("iptables", "ip6tables"), "-P FORWARD DROP", "DROP"),
    _of_iptables("iptables-last-rule", ("iptables", "ip6tables"), "-A FORWARD -j REJECT", "REJECT"),
    _of_iptables("iptables-legacy", ("iptables-legacy", "ip6tables-legacy"), "-P FORWARD DROP", "DROP"),
)


class World:
    """Two nodes with both families, pods on each, and the stranger on the first node."""

    def __init__(self, lab: Lab) -> None:
        self.lab, (self.here, self.there) = lab, lab.nodes
        set_up(lab, both=True)
        self.pod, self.far = start_pod(self.here, "pod"), start_pod(self.there, "far")
        shell(self.here, _STRANGER)
        self.six = {pod.name: _address6(pod) for pod in (self.pod, self.far)}

    def reached(self) -> dict[str, bool]:
        """Return who reaches whom over both families."""
        outside, there = self.lab.outside, self.there
        ways = {
            "pod to outside": (self.pod.command(), outside.address, outside.address6),
            "pod to far pod": (self.pod.command(), self.far.address, self.six["far"]),
            "pod to metadata": (self.pod.command(), METADATA["4"], METADATA["6"]),
            "stranger to pod": (["ip", "netns", "exec", "stranger"], self.pod.address, self.six["pod"]),
        }
        reached = {way: pings(self.here, *where) for way, where in ways.items()}
        reached["far pod to pod"] = pings(there, self.far.command(), self.pod.address, self.six["pod"])
        reached["peer to pod"] = pings(there, [], self.pod.address, self.six["pod"])
        return reached

    def run(self, line: str) -> None:
        """Run a shell line on the first node."""
        shell(self.here, line.replace("{there}", self.there.address).replace("{there6}", self.there.address6))


PROMISED = {
    "pod to outside": True, "pod to far pod": True, "pod to metadata": False, "stranger to pod": False,
    "far pod to pod": True, "peer to pod": True,
}  # fmt: skip
OPEN = dict.fromkeys(PROMISED, True)


def pings(node: Node, prefix: list[str], *addresses: str) -> bool:
    """Return whether all of these addresses answer. Fail if only some do."""
    command = "for a in {}; do ping -n -c1 -W1 $a >/dev/null && echo yes || echo no; done".format(" ".join(addresses))
    said = node.run([*prefix, "sh", "-c", command]).stdout.split()
    assert len(set(said)) == 1, (addresses, said)
    return said[0] == "yes"


def _address6(pod: Pod) -> str:
    shown = json.loads(pod.run("ip", "-j", "-6", "address", "show", "dev", "eth0", "scope", "global").stdout)
    return str(shown[0]["addr_info"][0]["local"])


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with Lab(nodes=2, dual_stack=True) as lab:
        yield World(lab)


@pytest.fixture(params=FIREWALLS, ids=str)
def firewall(world: World, request: pytest.FixtureRequest) -> Iterator[Firewall]:
    """Yield each firewall, and unload it after the test."""
    yield request.param
    world.run(request.param.unload)
    cnictl(world.here, "apply")
    assert drifted(world.here) == []


def test_pods_pass_and_other_drop_rules_keep_their_effect(world: World, firewall: Firewall) -> None:
    here = world.here
    assert world.reached() == OPEN
    world.run(firewall.load)
    findings = json.loads(cnictl(here, "doctor", "-o", "json", check=False).stdout)["items"]
    assert {finding["subject"] for finding in findings if "forward" in finding["subject"]} <= set(firewall.resources)
    cnictl(here, "apply")
    assert world.reached() == PROMISED
    assert drifted(here) == []
    # a rule that the firewall appends later is behind the accept rule, so it has no effect until that is moved
    world.run(firewall.append)
    if "last-rule" not in firewall.name:
        ahead = pings(here, world.pod.command(), world.there.address, world.there.address6)
        assert ahead
        assert drifted(here) == list(firewall.resources)
        assert "comes before another program's drop rule" in cnictl(here, "doctor", check=False).stdout
        cnictl(here, "apply")
        assert not pings(here, world.pod.command(), world.there.address, world.there.address6)
    assert drifted(here) == []
    assert world.reached() == PROMISED


def test_no_forward_adds_no_rule_and_doctor_names_the_drop(world: World) -> None:
    here, firewall = world.here, FIREWALLS[0]
    init = ["init-node", *options(world.lab, here, both=True), "-o", "json"]
    world.run(firewall.load)
    rules = here.run(["nft", "-s", "list", "table", "inet", "theirs"]).stdout
    try:
        assert "forward/iptables" in outcomes(cnictl(here, *init, "--no-forward"))
        assert here.run(["nft", "-s", "list", "table", "inet", "theirs"]).stdout == rules
        assert "cnictl" not in here.run(["iptables-save", "-t", "filter"]).stdout.lower()
        assert "forward = false" in here.run(["cat", "/etc/cnictl/node.toml"]).stdout
        findings = json.loads(cnictl(here, "doctor", "--only", "forward-off", "-o", "json", check=False).stdout)[
            "items"
        ]
        assert [(finding["id"], finding["subject"], finding["severity"]) for finding in findings] == [
            ("forward-off", "inet theirs guard", "error")
        ]
        assert "policy drop" in findings[0]["message"]
        assert drifted(here) == []
        cnictl(here, *init)  # an option that is not given keeps the file's value
        assert "forward = false" in here.run(["cat", "/etc/cnictl/node.toml"]).stdout
        warned = cnictl(here, *init, "--forward").stderr
        assert (
            "warning [forward] inet theirs guard: cnictl will insert an accept rule for pods before this "
            "rule or policy: policy drop" in warned
        )
        assert world.reached() == PROMISED
    finally:
        world.run(firewall.unload)
        cnictl(here, *init, "--forward")
    assert drifted(here) == []


def test_accepts_of_the_former_release_are_moved_and_an_undo_puts_them_back(world: World) -> None:
    here, firewall = world.here, FIREWALLS[0]
    world.run(firewall.load)
    former = [
        'iifname "cni0" ip saddr 10.244.0.0/24 counter accept comment "cnictl:mynet"',
        'oifname "cni0" ip daddr 10.244.0.0/24 counter accept comment "cnictl:mynet"',
    ]
    for rule in former:
        here.run(["nft", f"insert rule inet theirs guard {rule}"])
    old = _chain(here)
    assert drifted(here) == ["forward/nft"]
    cnictl(here, "apply")
    assert world.reached() == PROMISED
    assert not set(former) & set(_chain(here)[:2])
    (latest,) = json.loads(cnictl(here, "history", "--limit", "1", "-o", "json").stdout)["items"]
    cnictl(here, "undo", str(latest["run"]))
    # at its former place, where it let pods bypass the drop
    assert sorted(_chain(here)) == sorted(old) and _chain(here)[0] == former[0]
    world.run(firewall.unload)
    cnictl(here, "apply")


def _chain(node: Node) -> list[str]:
    """Return the rules of the firewall's base chain, without counters."""
    listed = node.run(["nft", "-s", "list", "chain", "inet", "theirs", "guard"]).stdout.splitlines()
    return [re.sub(r"counter packets \d+ bytes \d+", "counter", line.strip()) for line in listed[3:-2]]


def test_a_peer_reaches_pods_only_once_it_is_added(world: World) -> None:
    here, there, firewall = world.here, world.there, FIREWALLS[2]
    world.run(firewall.load)
    cnictl(here, "route", "del-peer", there.pod_cidr)
    assert drifted(here) == []
    assert not pings(there, [], world.pod.address)
    cnictl(here, "route", "add-peer", there.pod_cidr, there.address)
    assert pings(there, [], world.pod.address)
    assert drifted(here) == []
    world.run(firewall.unload)


def test_watch_moves_accepts_behind_a_new_rule(world: World) -> None:
    here, firewall = world.here, FIREWALLS[2]
    world.run(firewall.load)
    watching = here.popen(["cnictl", "watch"])
    said = Lines(watching.stderr)
    try:
        wait_for(lambda: (said.next() or "").startswith("watching"), "watch hears of changes", 30)
        world.run(firewall.append)
        wait_for(
            lambda: not pings(here, world.pod.command(), world.there.address, world.there.address6),
            "the accept rule is behind the new rule", 30,
        )  # fmt: skip
        assert world.reached() == PROMISED
    finally:
        watching.terminate()
        watching.communicate()
        world.run(firewall.unload)
        cnictl(here, "apply")


def test_reset_removes_every_accept_from_foreign_chains(world: World) -> None:
    here = world.here
    for firewall in (FIREWALLS[0], FIREWALLS[2], FIREWALLS[4]):
        world.run(firewall.load)
    listing = "nft -s list table inet theirs; iptables-save -t filter; ip6tables-save -t filter; iptables-legacy -S"
    before = re.sub(r"\[\d+:\d+\]|#.*", "", shell(here, listing))
    cnictl(here, "apply")
    cnictl(here, "reset-node", "--yes", "--force")
    after = re.sub(r"\[\d+:\d+\]|#.*", "", shell(here, listing))
    assert [line for line in after.splitlines() if line] == [
        line for line in before.splitlines() if line and "CNICTL" not in line and "cnictl" not in line
    ]
