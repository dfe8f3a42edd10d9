"""Every command names a rule or route that diverts pods' packets, and its hint fixes it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from cnictl.lab.lab import Lab
from tests.kernel.cluster import Cluster, shell
from tests.kernel.commands import Pod, cnictl, start_pod
from tests.kernel.hints import applies, matches
from tests.kernel.node.test_dual_stack import set_up
from tests.waiting import wait_for

pytestmark = pytest.mark.once

_VPN = (
    "ip link add vpn type veth peer name vpn0; ip link set vpn up; ip link set vpn0 up; "
    "ip {six} route add default dev vpn table 52; "
)
_NO_VPN = "; ip {six} route flush table 52; ip link del vpn"


@dataclass
class World:
    """Two dual-stack nodes with a pod each."""

    cluster: Cluster
    pod: Pod
    far: Pod
    far6: str

    def sh(self, line: str) -> str:
        return shell(self.cluster.here, line.replace("{dev}", self.dev))

    @property
    def dev(self) -> str:
        return "eth0"

    def listed(self) -> tuple[int, dict[str, dict[str, object]]]:
        done = cnictl(self.cluster.here, "route", "list", "-o", "json", check=False)
        return done.status, {row["pod_cidr"]: row for row in json.loads(done.stdout)["items"]}

    def doctor(self) -> list[dict[str, Any]]:
        """Return the findings of the checks about routes."""
        checks = ("pod-routing", "link-forwarding", "peer-route", "peer-link", "overlap", "uplink-down")
        words = [word for check in checks for word in ("--only", check)]
        done = cnictl(self.cluster.here, "doctor", "-o", "json", *words, check=False)
        findings: list[dict[str, Any]] = json.loads(done.stdout)["items"]
        assert done.status == any(finding["severity"] == "error" for finding in findings)
        return findings


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with Lab(nodes=2, dual_stack=True) as lab:
        set_up(lab, both=True)
        cluster = Cluster(lab)
        pod, far = start_pod(cluster.here, "web"), start_pod(cluster.there, "far")
        far6 = shell(cluster.there, "ip netns exec far ip -6 -o address show dev eth0 scope global").split()[3]
        yield World(cluster, pod, far, far6.partition("/")[0])


@dataclass(frozen=True)
class Case:
    """A rule or route that diverts packets."""

    name: str
    fault: str
    undo: str
    named: tuple[str, ...]
    """Words in the finding."""
    ipv6: bool = False
    peer: bool = True
    """Whether packets to or from the peer's pods are diverted."""

    def __str__(self) -> str:
        return self.name


CASES = (
    Case("a VPN's table for everything", _VPN + "ip rule add pref 5270 lookup 52", "ip rule del pref 5270" + _NO_VPN,
         ("5270: from all lookup 52", "table 52", "go to vpn")),
    Case("a VPN's table for IPv6", _VPN + "ip -6 rule add pref 5270 lookup 52", "ip -6 rule del pref 5270" + _NO_VPN,
         ("5270: from all lookup 52", "table 52", "go to vpn"), ipv6=True),
    Case("a rule by link", _VPN + "ip rule add pref 90 iif cni0 lookup 52", "ip rule del pref 90" + _NO_VPN,
         ("90: from all iif cni0 lookup 52",)),
    Case("a rule by source that refuses", "ip rule add pref 90 from 10.244.0.0/24 prohibit", "ip rule del pref 90",
         ("90: from 10.244.0.0/24 prohibit", "refused (prohibit)")),
    Case("a rule that drops", "ip rule add pref 90 to 10.244.1.0/24 blackhole", "ip rule del pref 90",
         ("90: from all to 10.244.1.0/24 blackhole",)),
    Case("a rule that refuses IPv6", "ip -6 rule add pref 90 iif cni0 unreachable", "ip -6 rule del pref 90",
         ("90: from all iif cni0 unreachable",), ipv6=True),
    Case("the way back alone", "ip rule add pref 90 from 10.244.1.0/24 unreachable", "ip rule del pref 90",
         ("from pods of 10.244.1.0/24 to pods here are refused",)),
    Case("what comes in by the uplink", _VPN + "ip rule add pref 90 iif {dev} lookup 52",
         "ip rule del pref 90" + _NO_VPN,
         ("from pods of 10.244.1.0/24 to pods here", "go to vpn")),
    Case("the host's own pod", _VPN + "ip rule add pref 90 iif lo to 10.244.0.0/16 lookup 52",
         "ip rule del pref 90" + _NO_VPN, ("to its own pod 10.244.0.2",), peer=False),
    Case("a VPN that keeps specific routes", _VPN + "ip rule add pref 89 lookup main suppress_prefixlength 0; "
         "ip rule add pref 90 not fwmark 0xca6c lookup 52", "ip rule del pref 89; ip rule del pref 90" + _NO_VPN,
         ("90: not from all fwmark 0xca6c lookup 52", "to the outside"), peer=False),
    Case("packets with kube-proxy's mark", _VPN + "ip rule add pref 90 fwmark 0x4000/0x4000 lookup 52",
         "ip rule del pref 90" + _NO_VPN, ("with the mark 0x4000",)),
    Case("a foreign route inside a peer's pod CIDR in another table",
         _VPN + "ip route add blackhole 10.244.1.64/26 table 52; ip rule add pref 90 to 10.244.0.0/16 lookup 52",
         "ip rule del pref 90" + _NO_VPN, ("90: from all to 10.244.0.0/16 lookup 52",)),
)  # fmt: skip


@applies("node.host.pod_routes.hint_for: {}")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_cause_of_lost_packets_is_named_and_the_hint_fixes_it(world: World, case: Case) -> None:
    six = "-6" if case.ipv6 else ""
    before = world.sh("ip rule; ip -6 rule")
    world.sh(case.fault.replace("{six}", six))
    try:
        findings = world.doctor()
        assert [finding["id"] for finding in findings] == ["pod-routing"], findings
        assert all(word in findings[0]["message"] for word in case.named), findings
        status, routes = world.listed()
        assert status == case.peer, routes
        taken = [cidr for cidr, row in routes.items() if row["state"] != "ok"]
        assert [":" in cidr for cidr in taken] == ([case.ipv6] if case.peer else []), routes
        if "outside" not in findings[0]["message"]:
            assert cnictl(world.cluster.here, "status", check=False).status == 1
        world.sh(findings[0]["hint"]["text"])
        assert world.doctor() == []
        assert world.listed()[0] == 0
        target = world.far6 if case.ipv6 else world.far.address
        assert world.pod.pings(target) and world.pod.pings(world.cluster.external)
    finally:
        for family in ("", "-6"):
            selected = "ip {0} rule | grep -v -e 'lookup local' -e '^3276' | cut -d: -f1"
            world.sh(f"for p in $({selected.format(family)}); do ip {family} rule del pref $p; done")
        undo = case.undo.partition("; ip {six} route flush")[2]
        world.sh(f"ip {six} route flush{undo}".replace("{six}", six) if undo else "true")
    assert world.sh("ip rule; ip -6 rule") == before


def test_connectivity_names_the_rule_of_each_failed_check(world: World) -> None:
    world.sh((_VPN + "ip rule add pref 5270 lookup 52").replace("{six}", ""))
    try:
        done = world.cluster.test("--pod", world.far.address)
        failed = [row for row in done.checks if row["state"] == "failed"]
        assert {row["check"] for row in failed if row["family"] == "ipv4"} == {
            "own-host", "other-host", "pod-other-host", "external",
        }  # fmt: skip
        assert all("`5270: from all lookup 52`" in row["cause"] for row in failed), failed
        world.sh(failed[0]["hint"]["text"])
        wait_for(lambda: world.cluster.test().overall != "failed", "the hint helps")
    finally:
        world.sh(
            "ip rule del pref 5270; ip rule del pref 5269; ip rule del pref 5269; true" + _NO_VPN.replace("{six}", "")
        )


APPLY = "node.host.pod_routes: cnictl apply"


@applies(APPLY)
def test_hint_restores_a_missing_route(world: World) -> None:
    here, there = world.cluster.here, world.cluster.there
    world.sh(f"ip route del {there.pod_cidr} proto 67")
    strays = json.loads(cnictl(here, "status", "-o", "json", check=False).stdout)["strays"]
    assert strays
    for printed in {stray["hint"]["text"] for stray in strays}:
        assert matches(APPLY, printed), strays
        world.sh(printed)
    assert json.loads(cnictl(here, "status", "-o", "json").stdout)["strays"] == []


def test_route_behind_another_route_is_not_ok(world: World) -> None:
    here, there = world.cluster.here, world.cluster.there
    world.sh(f"ip route add {there.pod_cidr} via 10.0.0.77 dev {{dev}} metric 0 proto 4; true")
    world.sh(
        f"ip route del {there.pod_cidr} proto 67; ip route add {there.pod_cidr} via {there.address} proto 67 metric 9"
    )
    world.sh(f"ip route replace {there.pod_cidr} via 10.0.0.77 dev {{dev}} proto 4 metric 3")
    try:
        status, routes = world.listed()
        assert status == 1
        assert "diverted: to eth0 via 10.0.0.77" in str(routes[there.pod_cidr]["state"])
    finally:
        world.sh(f"ip route flush {there.pod_cidr}")
        cnictl(here, "apply")
    assert world.listed()[0] == 0


def test_link_that_does_not_forward_is_named_and_fixed(world: World) -> None:
    world.sh("sysctl -qw net.ipv4.conf.{dev}.forwarding=0")
    assert [(finding["id"], finding["subject"]) for finding in world.doctor()] == [
        ("link-forwarding", "net.ipv4.conf.eth0.forwarding")
    ]
    status, routes = world.listed()
    assert (status, routes["10.244.1.0/24"]["state"]) == (1, "not forwarded: net.ipv4.conf.eth0.forwarding is 0")
    cnictl(world.cluster.here, "doctor", "--fix", "--only", "link-forwarding")
    assert world.doctor() == []
