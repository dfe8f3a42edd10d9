"""Each fault leads to its cause, and the first fault on the packet's path counts."""

import errno
import socket
from dataclasses import replace
from typing import Any

import pytest

from cnictl.core.leases.lease_store import Store
from cnictl.core.netlink.rtnetlink import IFF_UP, Link, ifinfo
from cnictl.node.host import neighbours, pod_routes
from cnictl.node.host.route_lookup import RouteResult
from cnictl.node.spec.node_spec import NodeSpec, Peer
from cnictl.probe import causes_local, trace, wire
from cnictl.probe.capture import Sighting
from cnictl.probe.causes import most_likely
from cnictl.probe.failure import (
    EXTERNAL,
    OTHER_HOST,
    OTHER_HOST_POD,
    OWN_HOST,
    SAME_HOST_POD,
    Failure,
    PeerEvidence,
)
from cnictl.probe.host import GONE, Host
from cnictl.probe.icmp import REDIRECT, TIME_EXCEEDED, UNREACHABLE, Refusal, Series
from cnictl.probe.pods import CheckedPod

PEER = Peer("10.244.1.0/24", "10.0.10.51")
SPEC = NodeSpec(("10.244.0.0/24",), ("10.244.0.0/20",), peers=(PEER,))
UP, DOWN = Link(ifinfo(4, IFF_UP)), Link(ifinfo(4))
POD = CheckedPod("p", "/run/netns/p", ("10.244.0.5",), "veth0")
DROP = trace.Drop("ip filter", "FORWARD", "ip daddr 10.244.1.0/24 drop")


class FakeHost(Host):
    """A healthy node; a test adds one fault."""

    forwarding = True
    bridge: Link | None = UP
    bridge_addresses = ["10.244.0.1/24"]
    masquerade_loaded = True
    drifted: tuple[str, ...] = ("route/", "forward/")
    """What `cnictl apply` would change."""

    def __init__(self, spec: NodeSpec = SPEC) -> None:
        self.spec = self.whole = spec
        self.peer_links = dict.fromkeys(spec.peers, "eth0")
        self.diversions = []
        self.silent_links: set[str] = set()
        self.fault = ""
        self.routes: dict[tuple[str, str], RouteResult] = {}
        """The route by target and by the link through which the packet arrived."""

    def differs(self, *kinds: str) -> bool:
        return kinds[0] in self.drifted

    def forwards_from(self, link: str) -> bool:
        return link not in self.silent_links

    def port_fault(self, host_veth: str) -> str:
        return self.fault if host_veth == POD.host_veth else ""

    def strict_reverse_path(self, link: str) -> str:
        return f"net.ipv4.conf.{link}.rp_filter"

    def route(self, to: str, source: str = "", through: str = "") -> RouteResult:
        via = {"10.244.1.7": "10.0.10.51", "1.1.1.1": "10.0.0.1"}.get(to, "")
        forwarded = bool(source)
        return self.routes.get((to, through), RouteResult((("eth0", via),), "" if forwarded else "10.0.0.210"))


def series(to: str, answered: bool = False, *refusals: Refusal) -> Series:
    """Return a finished series."""
    made = Series(socket.socket(), to, 1)
    made.sent = {0: 0.0}
    made.rtts = {0: 0.001} if answered else {}
    made.refusals = list(refusals)
    return made


EXPIRED = Refusal("10.0.10.51", TIME_EXCEEDED, 0)


def at_peer(node: bool = True, gateway: bool = True, from_pod: bool = True, *expired: Refusal) -> PeerEvidence:
    """Return the results of the other pings to the peer."""
    return PeerEvidence(
        PEER,
        series("10.0.10.51", node),
        series("10.244.1.1", gateway),
        series("10.244.1.1", from_pod),
        series("10.244.1.7", False, *expired),
    )


def failure(check: str, to: str, host: FakeHost, left_as: str = "10.244.0.5", **more: Any) -> Failure:
    """Return a failed check; its request left with source `left_as`, or not at all if that is empty."""
    seen = [Sighting("eth0", True, False, left_as, to, 0)] if left_as else []
    return Failure(check, POD, series(to), host, more.pop("seen", seen), lambda: None, **more)


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the tests off the machine: no rule drops, neighbours answer, and pods have their route."""
    monkeypatch.setattr(trace, "find_drop", lambda *_: None)
    monkeypatch.setattr(trace, "forward_policies", lambda *_: [])
    monkeypatch.setattr(pod_routes, "judge", lambda *_: [])
    monkeypatch.setattr(wire, "answers", lambda *_: True)
    monkeypatch.setattr(causes_local, "pod_default_route", lambda *_: "10.244.0.1")
    monkeypatch.setattr(neighbours, "state_of", lambda _: "REACHABLE")


@pytest.fixture
def host() -> FakeHost:
    """A healthy node."""
    return FakeHost()


PEER6 = Peer("fd00:244:0:1::/64", "fd00:10::51")
SPEC6 = NodeSpec(("fd00:244::/64",), ("fd00:244::/48",), peers=(PEER6,))
POD6 = CheckedPod("p", "/run/netns/p", ("fd00:244::5",), "veth0")


def named(failed: Failure) -> tuple[str, str]:
    """Return the cause's name and hint."""
    cause = most_likely(failed)
    return cause.name, cause.hint


@pytest.mark.parametrize(
    ("bridge", "addresses", "words"),
    [
        (None, [], "bridge cni0 does not exist"),
        (DOWN, ["10.244.0.1/24"], "bridge cni0 is down"),
        (UP, [], "has no IPv4 address instead of the gateway address 10.244.0.1/24"),
        (UP, ["10.9.0.1/24"], "has 10.9.0.1/24 instead of"),
    ],
)
def test_bridge(host: FakeHost, bridge: Link | None, addresses: list[str], words: str) -> None:
    host.bridge, host.bridge_addresses = bridge, addresses
    cause = most_likely(failure(EXTERNAL, "1.1.1.1", host))
    assert words in cause.words
    assert cause.hint == "cnictl bridge up"


def test_same_host_pods_need_no_gateway(host: FakeHost) -> None:
    host.bridge_addresses = []
    host.fault = "is not on cni0"
    cause = most_likely(failure(SAME_HOST_POD, "10.244.0.6", host))
    assert cause.words == "the pod's host veth veth0 is not on cni0"


def test_pod_without_default_route(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(causes_local, "pod_default_route", lambda *_: "")
    assert most_likely(failure(OWN_HOST, "10.0.0.210", host)).name == "pod-without-route"
    assert most_likely(failure(OWN_HOST, "10.244.0.1", host)).name == "unexplained"


def test_forwarding(host: FakeHost) -> None:
    host.silent_links = {"eth0"}
    assert "net.ipv4.conf.eth0.forwarding is 0" in most_likely(failure(EXTERNAL, "1.1.1.1", host)).words
    host.forwarding = False
    failed = failure(EXTERNAL, "1.1.1.1", host)
    assert named(failed) == ("forwarding-off", "cnictl apply")
    assert most_likely(failed).words == "net.ipv4.ip_forward is 0 on this node"


def test_own_host_needs_no_forwarding(host: FakeHost) -> None:
    host.forwarding = False
    assert most_likely(failure(OWN_HOST, "10.0.0.210", host)).name == "unexplained"


def test_peer_route_missing_is_fixed_by_apply_if_the_peer_is_known_else_by_adding_it(host: FakeHost) -> None:
    host.routes["10.244.1.7", "cni0"] = RouteResult((("eth0", "10.0.0.1"),))
    failed = failure(OTHER_HOST_POD, "10.244.1.7", host, at_peer=at_peer())
    assert named(failed) == ("no-route", "cnictl apply")
    assert "no route to the peer's pod CIDR 10.244.1.0/24 through 10.0.10.51: packets would go to 10.0.0.1" in (
        most_likely(failed).words
    )
    stranger = FakeHost(replace(SPEC, peers=()))
    stranger.routes["10.244.1.7", "cni0"] = RouteResult(errno=errno.ENETUNREACH)
    failed = failure(OTHER_HOST_POD, "10.244.1.7", stranger, at_peer=at_peer())
    assert named(failed) == ("no-route", "cnictl route add-peer 10.244.1.0/24 10.0.10.51")
    assert most_likely(failed).words.endswith("network is unreachable")


def test_apply_is_not_a_hint_if_it_would_change_nothing(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    host.drifted = ()
    host.routes["10.244.1.7", "cni0"] = RouteResult((("eth0", "10.0.0.1"),))
    cause = most_likely(failure(OTHER_HOST_POD, "10.244.1.7", host, at_peer=at_peer()))
    assert (cause.name, cause.hint.command) == ("no-route", "")
    assert "another route or rule comes first: ip rule; ip route get 10.244.1.7 from 10.244.0.5 iif cni0" in cause.hint
    del host.routes["10.244.1.7", "cni0"]
    monkeypatch.setattr(trace, "find_drop", lambda *_: DROP)
    cause = most_likely(failure(OTHER_HOST_POD, "10.244.1.7", host, "", at_peer=at_peer()))
    assert (cause.name, cause.hint) == ("dropped-here", "accept 10.244.0.5 in that chain")
    monkeypatch.setattr(trace, "find_drop", lambda *_: None)
    failed = failure(EXTERNAL, "1.1.1.1", host, from_host=series("1.1.1.1", False))
    assert most_likely(failed).words.startswith("the masquerade rule did not apply")
    assert most_likely(failed).hint.command == ""


def test_peer_known_at_another_address_is_moved(host: FakeHost) -> None:
    host.spec = replace(SPEC, peers=(Peer("10.244.1.0/24", "10.0.10.50"),))
    host.routes["10.244.1.7", "cni0"] = RouteResult((("eth0", "10.0.10.50"),))
    failed = failure(OTHER_HOST_POD, "10.244.1.7", host, at_peer=at_peer())
    assert named(failed)[1] == "cnictl route add-peer 10.244.1.0/24 10.0.10.51 --replace"


def test_setting_of_a_link_with_a_dot_is_named_with_slashes(host: FakeHost) -> None:
    host.silent_links = {"eth0.5"}
    host.routes["1.1.1.1", ""] = RouteResult((("eth0.5", "10.0.0.1"),))
    assert most_likely(failure(EXTERNAL, "1.1.1.1", host)).hint == "sysctl -w net/ipv4/conf/eth0.5/forwarding=1"


def test_no_route_to_the_outside(host: FakeHost) -> None:
    host.routes["1.1.1.1", "cni0"] = RouteResult(errno=errno.ENETUNREACH)
    assert most_likely(failure(EXTERNAL, "1.1.1.1", host, "")).words == ("no route to 1.1.1.1: network is unreachable")


def test_neighbour_by_the_table_and_on_the_wire(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "state_of", lambda _: "FAILED")
    failed = failure(OTHER_HOST, "10.0.10.51", host, "", at_peer=at_peer(False))
    assert "10.0.10.51 does not answer ARP on eth0 (neighbour table: FAILED)" in most_likely(failed).words
    monkeypatch.setattr(neighbours, "state_of", lambda _: "REACHABLE")
    monkeypatch.setattr(wire, "answers", lambda *_: False)
    failed = failure(OTHER_HOST, "10.0.10.51", host, "10.0.0.210", at_peer=at_peer(False))
    assert most_likely(failed).name == "neighbour-unresolved"


@pytest.mark.parametrize("error", [errno.EXDEV, errno.EINVAL])
def test_reverse_path_filter_by_the_kernels_own_answer(host: FakeHost, error: int) -> None:
    host.routes["10.244.0.5", "eth1"] = RouteResult(errno=error)
    came = [
        Sighting("eth0", True, False, "10.244.0.5", "10.244.1.7", 0),
        Sighting("eth1", False, True, "10.244.1.7", "10.244.0.5", 0),
    ]
    failed = failure(OTHER_HOST_POD, "10.244.1.7", host, at_peer=at_peer(True, True, False), seen=came)
    assert named(failed) == ("reverse-path", "sysctl -w net.ipv4.conf.eth1.rp_filter=2")


def test_a_rule_that_drops_here_is_named(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "find_drop", lambda *_: DROP)
    failed = failure(OTHER_HOST_POD, "10.244.1.7", host, "", at_peer=at_peer())
    assert most_likely(failed).words == (
        'it is dropped on this node by rule "ip daddr 10.244.1.0/24 drop" of chain ip filter FORWARD'
    )
    came = [
        Sighting("eth0", True, False, "10.244.0.5", "10.244.1.7", 0),
        Sighting("eth0", False, True, "10.244.1.7", "10.244.0.5", 0),
    ]
    failed = failure(OTHER_HOST_POD, "10.244.1.7", host, at_peer=at_peer(True, True, False), seen=came)
    assert most_likely(failed).words.startswith("the reply is dropped on this node by rule")


def test_a_policy_is_suspected_if_no_trace_is_available(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "forward_policies", lambda *_: [trace.Drop("legacy filter", "FORWARD", "")])
    cause = most_likely(failure(EXTERNAL, "1.1.1.1", host, ""))
    assert cause.words == "it is dropped on this node by the policy drop of chain legacy filter FORWARD"


def test_masquerade(host: FakeHost) -> None:
    host.masquerade_loaded = False
    failed = failure(EXTERNAL, "1.1.1.1", host, from_host=series("1.1.1.1", False))
    assert named(failed) == ("no-masquerade", "cnictl nat enable")
    assert most_likely(failed).words == "no masquerade rule: the request left with the pod's own address 10.244.0.5"


def test_pods_are_not_masqueraded_among_each_other(host: FakeHost) -> None:
    host.masquerade_loaded = False
    failed = failure(OTHER_HOST_POD, "10.244.1.7", host, at_peer=at_peer(True, True, False))
    assert most_likely(failed).name == "no-return-route"


def test_outside_that_is_also_silent_for_the_node(host: FakeHost) -> None:
    failed = failure(EXTERNAL, "1.1.1.1", host, "10.0.0.210", from_host=series("1.1.1.1", False))
    assert most_likely(failed).name == "outside-silent"


BRIDGE_UP = (
    "on 10.0.10.51: cnictl bridge up  # if its pod CIDR is no longer 10.244.1.0/24 (cnictl status there), run here: "
    "cnictl route del-peer 10.244.1.0/24, and add-peer with the new one"
)


@pytest.mark.parametrize(
    ("evidence", "name", "hint"),
    [
        (at_peer(False), "peer-silent", "on 10.0.10.51: check that its firewall accepts ICMP echo from this node"),
        (at_peer(True, False, False), "peer-without-bridge", BRIDGE_UP),
        (
            at_peer(True, True, False),
            "no-return-route",
            "on 10.0.10.51: cnictl route add-peer 10.244.0.0/24 10.0.0.210",
        ),
        (at_peer(True, True, True), "peer-forwarding-off", "on 10.0.10.51: cnictl apply"),
        (at_peer(True, True, True, EXPIRED), "peer-drops", "on 10.0.10.51: cnictl apply"),
    ],
)
def test_faults_of_a_peer_are_distinguished_by_its_other_answers(
    host: FakeHost, evidence: PeerEvidence, name: str, hint: str
) -> None:
    assert named(failure(OTHER_HOST_POD, "10.244.1.7", host, at_peer=evidence)) == (name, hint)


@pytest.mark.parametrize(
    ("refusal", "name"),
    [
        (Refusal("10.0.10.51", UNREACHABLE, 1), "no-such-pod"),
        (Refusal("10.0.10.51", UNREACHABLE, 13), "peer-rejects"),
        (Refusal("10.0.10.51", UNREACHABLE, 0), "peer-without-bridge"),
        (Refusal("10.0.10.51", REDIRECT, 1), "peer-without-bridge"),
        (Refusal("10.9.9.9", UNREACHABLE, 13), "refused"),
    ],
)
def test_a_refusal_is_interpreted_by_its_sender_and_code(host: FakeHost, refusal: Refusal, name: str) -> None:
    failed = failure(OTHER_HOST_POD, "10.244.1.7", host, at_peer=at_peer(True, True, True, EXPIRED))
    failed.series.refusals = [refusal]
    assert most_likely(failed).name == name


def test_report_without_a_fault_says_how_far_the_packet_got(host: FakeHost) -> None:
    nowhere = failure(EXTERNAL, "1.1.1.1", host, "")
    assert most_likely(nowhere).words == "the request never left the pod"
    nowhere.series.send_error = "Operation not permitted"
    assert most_likely(nowhere).words == "the pod could not send: Operation not permitted"
    here_only = failure(EXTERNAL, "1.1.1.1", host, seen=[Sighting("cni0", False, False, "10.244.0.5", "1.1.1.1", 0)])
    assert most_likely(here_only).words == "the pod's request reached this node and went no further"
    gone = failure(EXTERNAL, "1.1.1.1", host, "10.0.0.210", from_host=series("1.1.1.1", True))
    assert most_likely(gone).words == "the request left through eth0 with source 10.0.0.210, and no reply came"


def test_ipv6_has_its_own_forwarding_setting_and_neighbour_discovery(monkeypatch: pytest.MonkeyPatch) -> None:
    host = FakeHost(SPEC6)
    host.bridge_addresses = ["fd00:244::1/64"]
    host.routes = {("fd00:10::51", link): RouteResult((("eth0", ""),), "fd00:10::210") for link in ("", "cni0")}
    seen = [Sighting("eth0", True, False, "fd00:244::5", "fd00:10::51", 0)]
    failed = Failure(OTHER_HOST, POD6, series("fd00:10::51"), host, seen, lambda: None)
    monkeypatch.setattr(wire, "answers", lambda *_: False)
    assert "fd00:10::51 does not answer neighbour discovery on eth0" in most_likely(failed).words
    host.forwarding = False
    assert "net.ipv6.conf.all.forwarding is 0 on this node" in most_likely(failed).words
    host.bridge_addresses = []
    assert "no IPv6 address instead of the gateway address fd00:244::1/64" in most_likely(failed).words


def of_host(check: str, to: str, host: FakeHost, left_as: str = "", **more: Any) -> Failure:
    """Return a failed check that this host itself made."""
    failed = failure(check, to, host, left_as, **more)
    failed.pod = CheckedPod("this host", "", ("10.0.0.210",))
    return failed


def test_hosts_own_packets_to_a_pod_must_leave_by_the_bridge(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "read", lambda *_: object())
    diverted = most_likely(of_host(SAME_HOST_POD, "10.244.0.9", host))
    assert (diverted.name, diverted.words) == ("diverted", "packets to pod 10.244.0.9 do not go to cni0: eth0")
    host.routes["10.244.0.9", ""] = RouteResult((("cni0", ""),))
    assert most_likely(of_host(SAME_HOST_POD, "10.244.0.9", host)).words == "10.244.0.9 does not answer this host"


def test_bridge_port_of_a_pinged_pod_is_checked(host: FakeHost) -> None:
    host.fault = "is down"
    other = CheckedPod("db", "/run/netns/db", ("10.244.0.9",), POD.host_veth)
    failed = of_host(SAME_HOST_POD, "10.244.0.9", host, to_pod=other)
    assert named(failed) == ("port-unfit", "cnictl apply")
    host.fault = GONE
    assert most_likely(failed).hint == "restart that pod"


def test_hosts_own_packets_need_no_masquerade_and_no_return_route(host: FakeHost) -> None:
    outside = of_host(EXTERNAL, "1.1.1.1", host, "10.0.0.210")
    assert most_likely(outside).words == "1.1.1.1 does not answer this node (through eth0)"
    silent = of_host(OTHER_HOST_POD, "10.244.1.7", host, "10.0.0.210", at_peer=at_peer(True, True, False, EXPIRED))
    assert most_likely(silent).name == "peer-drops"
    peer = of_host(OTHER_HOST, "10.0.10.51", host, "10.0.0.210", at_peer=at_peer(False))
    assert most_likely(peer).words == "peer 10.0.10.51 does not answer this node, although it answers ARP"
