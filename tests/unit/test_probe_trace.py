"""Read the kernel's trace messages, and order them as the packet met the hooks."""

import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnictl.node.host.route_lookup import Packet, RouteResult
from cnictl.probe import packet_path
from cnictl.probe.packet_path import Sources, Step, steps
from cnictl.probe.trace import TABLE, drop_of
from cnictl.probe.trace_events import POLICY, RETURN, RULE, Event, TracedPacket, read_event

POD, FAR, NODE, OUT = "10.244.0.5", "10.244.1.7", "10.0.0.210", "192.0.2.10"


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", len(data) + 4, kind) + data + bytes(-len(data) % 4)


def _message(*parts: bytes) -> bytes:
    return bytes(16) + b"\x02\0\0\0" + b"".join(parts)


_WHERE = _attribute(1, b"filter\0") + _attribute(2, b"FORWARD\0")


def _verdict(code: int, chain: bytes = b"") -> bytes:
    return _attribute(5, _attribute(1, struct.pack("!i", code)) + (_attribute(2, chain) if chain else b""))


def _kind(number: int) -> bytes:
    return _attribute(4, number.to_bytes(4, "big"))


def _handle(number: int) -> bytes:
    return _attribute(3, number.to_bytes(8, "big"))


def test_rules_policies_and_ends_of_chains_are_distinguished() -> None:
    drop = read_event(_message(_WHERE, _handle(7), _kind(3), _verdict(0)))
    assert drop == Event(RULE, "ip", "filter", "FORWARD", 7, "drop")
    assert drop.drops
    policy = read_event(_message(_WHERE, _kind(1), _attribute(16, bytes(4))))
    assert policy is not None
    assert (policy.kind, policy.verdict, policy.drops, policy.handle) == (POLICY, "drop", True, 0)
    jump = read_event(_message(_WHERE, _handle(3), _kind(3), _verdict(-3, b"KUBE\0")))
    assert jump is not None
    assert (jump.verdict, jump.to, jump.drops) == ("jump", "KUBE", False)
    end = read_event(_message(_WHERE, _kind(3), _verdict(-1)))
    assert end is not None
    assert end.kind == RETURN


def test_packet_is_described_by_its_headers() -> None:
    header = bytes([0x45, *bytes(8), 6, 0, 0, 10, 244, 0, 5, 10, 96, 0, 1])
    event = read_event(_message(_WHERE, _kind(1), _attribute(16, b"\0\0\0\1"), _attribute(8, header),
                                _attribute(9, bytes([0x30, 0x39, 1, 0xBB])), _attribute(14, b"\0\0\0\4")))  # fmt: skip
    assert event is not None
    assert event.seen == TracedPacket("", "", "10.244.0.5", "10.96.0.1", 443)
    assert event.mark == 4


@given(st.binary(max_size=120))
def test_any_bytes_are_an_event_or_none(data: bytes) -> None:
    read_event(bytes(16) + data)


def _own(chain: str, kind: str = POLICY, family: str = "inet", seen: TracedPacket | None = None) -> Event:
    return Event(
        kind, family, TABLE, chain, 1 if kind == RULE else 0, "continue" if kind == RULE else "accept", seen=seen
    )


def _forwarded(source: str = POD, to: str = FAR) -> Iterator[Event]:
    """Yield the events of a request up to the forward hook."""
    came = TracedPacket("cni0", "", source, to)
    yield _own("requests", RULE, "inet", came)
    yield _own("last_prerouting", seen=came)


RULES = {7: "ip daddr 10.244.1.0/24 drop", 8: "counter jump KUBE", 9: "tcp dport 1 reject"}


@pytest.fixture
def sources() -> Sources:
    """A node that forwards everything to eth0."""
    ways = {FAR: RouteResult((("eth0", "10.0.10.51"),), table=254, destination="10.244.1.0/24")}
    return Sources(
        {("ip", "filter", "FORWARD"): "forward"},
        lambda *place: RULES[place[3]],
        lambda packet: ways.get(packet.target, RouteResult(errno=101)),
        lambda address, link: f"{address} on {link}",
        lambda *_: "",
    )


def test_steps_are_in_the_order_of_the_hooks(sources: Sources) -> None:
    events = [
        *_forwarded(),
        Event(RULE, "ip", "filter", "FORWARD", 8, "jump", "KUBE", seen=TracedPacket("cni0", "eth0", POD, FAR)),
        Event(RETURN, "ip", "filter", "KUBE"),
        Event(POLICY, "ip", "filter", "FORWARD", 0, "accept"),
        _own("last_postrouting", seen=TracedPacket("", "eth0", POD, FAR)),
        _own("replies", RULE, "inet", TracedPacket("eth0", "", FAR, POD)),
        _own("last_input", seen=TracedPacket("eth0", "", FAR, POD)),
    ]
    assert [(step.packet, step.place, step.what) for step in steps(events, sources)] == [
        ("request", "arrives", f"from cni0: {POD} → {FAR}"),
        ("request", "route", "10.244.1.0/24 dev eth0 via 10.0.10.51, table main"),
        ("request", "forward", "ip filter FORWARD: counter jump KUBE"),
        ("request", "forward", "ip filter FORWARD: policy accept"),
        ("request", "neighbour", "10.0.10.51: 10.0.10.51 on eth0"),
        ("request", "leaves", f"on eth0: {POD} → {FAR}"),
        ("reply", "arrives", f"from eth0: {FAR} → {POD}"),
        ("reply", "delivered", f"to this host: {FAR} → {POD}"),
    ]


@pytest.mark.parametrize(("handle", "what"), [(7, RULES[7]), (9, f"{RULES[9]} (drops it)")])
def test_rule_that_drops_comes_last_of_all(sources: Sources, handle: int, what: str) -> None:
    events = [*_forwarded(), Event(RULE, "ip", "filter", "FORWARD", handle, "drop")]
    after = [Step("request", "connection", "none"), Step("reply", "answer", "no answer")]
    path = packet_path.ordered([Step("request", "route in the pod", "x")], steps(events, sources), after)
    assert path[-1] == Step("request", "forward", f"ip filter FORWARD: {what}", True)
    assert [step.place for step in path] == [
        "route in the pod", "arrives", "route", "connection", "answer", "forward"
    ]  # fmt: skip


def test_packet_that_the_kernel_drops_says_why(sources: Sources) -> None:
    lost = steps(_forwarded(to=OUT), sources)[-1]
    assert lost == Step("request", "lost", "the kernel drops it: network is unreachable", True)
    off = Sources(sources.hooks, sources.rule, sources.route, sources.neighbour, lambda *_: "ip_forward is 0")
    assert steps(_forwarded(), off)[-1].what == "the kernel drops it: ip_forward is 0"


def test_packet_that_stays_on_the_bridge_has_no_route(sources: Sources) -> None:
    came = TracedPacket("veth1", "", POD, "10.244.0.6")
    events = [
        _own("requests", RULE, "bridge", came),
        *_forwarded(to="10.244.0.6"),  # from br_netfilter
        _own("last_forward", family="bridge", seen=came),
        Event(POLICY, "ip", "filter", "FORWARD", 0, "accept"),
        _own("last_postrouting", seen=TracedPacket("", "cni0", POD, "10.244.0.6")),
        _own("last_postrouting", family="bridge", seen=TracedPacket("", "veth2", POD, "10.244.0.6")),
    ]
    assert [(step.place, step.what) for step in steps(events, sources)] == [
        ("bridge", f"arrives on veth1: {POD} → 10.244.0.6"),
        ("forward", "ip filter FORWARD: policy accept"),
        ("bridge", "leaves on veth2"),
    ]


def test_packet_that_the_bridge_drops_is_lost_there(sources: Sources) -> None:
    events = [_own("requests", RULE, "bridge", TracedPacket("veth1", "", POD, "10.244.0.6"))]
    assert steps(events, sources)[-1].what.startswith("the bridge does not forward it")


def test_route_lookup_uses_link_mark_and_the_address_after_dnat(sources: Sources) -> None:
    asked: list[Packet] = []

    def route(packet: Packet) -> RouteResult:
        asked.append(packet)
        return RouteResult((("eth0", ""),), table=7, destination="10.244.1.0/24")

    own = Sources(sources.hooks, sources.rule, route, sources.neighbour, sources.unforwarded)
    came = TracedPacket("cni0", "", POD, "10.96.0.1", 443)
    changed = Event(
        POLICY, "inet", TABLE, "last_prerouting", 0, "accept", "", 9, TracedPacket("cni0", "", POD, FAR, 80)
    )
    events = [_own("requests", RULE, "inet", came), changed]
    assert steps(events, own)[1].what == "10.244.1.0/24 dev eth0, table 7"
    assert asked[0] == Packet(FAR, POD, "cni0", mark=9)
    assert packet_path.sent_on_to(events) == (FAR, 80)


def test_table_marks_one_packet_of_each_side() -> None:
    inet, bridge = packet_path.tables(POD, FAR, "tcp", 80)
    assert f"ip saddr {POD} ip daddr {FAR} tcp dport 80 tcp flags & (syn | rst) != 0 meta nftrace set 1" in inet
    assert f"ct direction reply ct original ip saddr {POD} ct original ip daddr {FAR} meta l4proto tcp" in inet
    assert "ct " not in bridge
    six, _ = packet_path.tables("fd00::5", "fd00::7", "icmp", 0)
    assert "ip6 saddr fd00::5 ip6 daddr fd00::7 icmpv6 type echo-request meta nftrace set 1" in six


def test_location_of_a_drop_is_in_words() -> None:
    assert (
        drop_of(Event(POLICY, "ip", "guard", "forward", 0, "drop")).words == "the policy drop of chain ip guard forward"
    )
