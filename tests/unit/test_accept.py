"""Decide which announced nodes become peers: each wrong or hostile announcement is refused with a reason."""

import pytest

from cnictl.core.cidr import parse_cidr
from cnictl.node.reach.accept import (
    ABSENT,
    CONFLICT,
    MAX_JUDGED_NODES,
    PENDING,
    REFUSED,
    ROUTED,
    SELF,
    Host,
    Judgement,
    judge,
)
from cnictl.node.reach.source import Announcement, Snapshot
from cnictl.node.spec.node_spec import NodeSpec, Peer, Reach

SPEC = NodeSpec(("10.244.0.0/24",), ("10.244.0.0/16",), reach=Reach("file"))
HOST = Host(
    own={"10.0.0.1": "eth0", "10.244.0.1": "cni0"},
    gateways=frozenset({"10.0.0.254"}),
    connected=(parse_cidr("10.0.0.0/24"), parse_cidr("10.244.200.128/25")),
    off_link={"192.0.2.9": "192.0.2.9 is on no link of this node"},
)
OWN = Announcement("self", ("10.244.0.0/24",), ("10.0.0.1",))


def judged(*nodes: Announcement, spec: NodeSpec = SPEC, host: Host = HOST) -> Judgement:
    return judge(Snapshot((OWN, *nodes), "1"), spec, host)


def node(name: str = "other", pod_cidr: str = "10.244.1.0/24", address: str = "10.0.0.2") -> Announcement:
    return Announcement(name, (pod_cidr,) if pod_cidr else (), (address,) if address else ())


def test_valid_announcement_becomes_a_peer() -> None:
    result = judged(node())
    assert result.peers == (Peer("10.244.1.0/24", "10.0.0.2"),)
    assert [(row.name, row.state) for row in result.nodes] == [("self", SELF), ("other", ROUTED)]
    assert (result.conflict, result.is_listed) == ("", True)


@pytest.mark.parametrize(
    ("announced", "why"),
    [
        (node(pod_cidr="10.244.1.7/24"), "host bits"),
        (node(pod_cidr="10.244.1.0"), "no prefix length"),
        (node(pod_cidr="nonsense"), "nonsense"),
        (node(pod_cidr="10.245.1.0/24"), "outside the pod network 10.244.0.0/16"),
        (node(pod_cidr="10.244.0.0/16"), "overlaps this node's pod CIDR"),
        (node(pod_cidr="10.244.2.0/25"), "prefix length is 25"),
        (node(pod_cidr="10.244.2.0/23"), "prefix length is 23"),
        (node(pod_cidr="0.0.0.0/0"), "overlaps this node's pod CIDR"),
        (node(pod_cidr="10.244.200.0/24"), "overlaps 10.244.200.128/25"),
        (node(address=""), "no IPv4 address"),
        (node(address="fd00::2"), "no IPv4 address"),
        (node(address="224.0.0.1"), "host can have"),
        (node(address="0.0.0.0"), "host can have"),
        (node(address="127.0.0.1"), "host can have"),
        (node(address="255.255.255.255"), "host can have"),
        (node(address="10.244.9.9"), "lies in the pod network"),
        (node(address="10.0.0.254"), "default gateway"),
        (node(address="192.0.2.9"), "on no link of this node"),
        (node(name="a b"), "not a host name"),
        (node(name="\x1b[31mred"), "not a host name"),
        (node(name="x" * 300), "not a host name"),
        (node(name=""), "not a host name"),
    ],
    ids=str,
)
def test_wrong_announcement_is_refused_with_its_reason(announced: Announcement, why: str) -> None:
    result = judged(announced, node("sound", "10.244.3.0/24", "10.0.0.3"))
    (refused,) = (row for row in result.nodes if row.state == REFUSED)
    assert why in refused.why
    assert all(letter.isprintable() for letter in refused.name + refused.pod_cidr + refused.why)
    assert result.peers == (Peer("10.244.3.0/24", "10.0.0.3"),), "the valid announcement becomes a peer"


def test_own_address_under_a_foreign_name_is_refused_if_the_source_has_node_names() -> None:
    named = NodeSpec(SPEC.subnets, SPEC.networks, reach=Reach("kubernetes", "self"))
    result = judged(node(address="10.0.0.1"), spec=named)
    assert [row.why for row in result.nodes if row.state == REFUSED] == ["10.0.0.1 is this node's own address"]


def test_second_node_with_a_pod_cidr_address_or_name_is_refused() -> None:
    result = judged(node("a"), node("b", address="10.0.0.3"), node("c", "10.244.2.0/24"), node("a", "10.244.4.0/24"))
    assert result.peers == (Peer("10.244.1.0/24", "10.0.0.2"),)
    assert [row.why for row in result.nodes if row.state == REFUSED] == [
        "node a already has this pod CIDR",
        "10.0.0.2 is the address of node a",
        "another announced node has the same name",
    ]


def test_own_pod_cidr_at_another_node_is_a_conflict_and_not_a_peer() -> None:
    result = judged(node(pod_cidr="10.244.0.0/24"))
    assert result.peers == ()
    assert "10.244.0.0/24 also to node other" in result.conflict


def test_another_pod_cidr_for_this_node_is_a_conflict() -> None:
    announced = Announcement("self", ("10.244.7.0/24",), ("10.0.0.1",))
    result = judge(Snapshot((announced, node()), "1"), SPEC, HOST)
    assert result.nodes[0].state == CONFLICT
    assert "gives this node 10.244.7.0/24" in result.conflict
    assert result.peers == (Peer("10.244.1.0/24", "10.0.0.2"),), "the others are still reached"


def test_node_without_a_pod_cidr_is_pending() -> None:
    assert [row.state for row in judged(node(pod_cidr="")).nodes] == [SELF, PENDING]


def test_node_that_the_source_does_not_list_is_absent_and_its_peers_stay() -> None:
    result = judge(Snapshot((node(),), "1"), SPEC, HOST)
    assert [(row.state, row.pod_cidr) for row in result.nodes] == [
        (ABSENT, "10.244.0.0/24"),
        (ROUTED, "10.244.1.0/24"),
    ]
    assert (result.conflict, result.is_listed) == ("", False)


def test_family_without_a_pod_cidr_is_pending() -> None:
    spec = NodeSpec(("10.244.0.0/24", "fd00:1::/64"), ("10.244.0.0/16", "fd00:1::/48"), reach=Reach("file"))
    half = Announcement("half", ("10.244.1.0/24",), ("10.0.0.2", "fd00:2::2"))
    rows = judge(Snapshot((half,), "1"), spec, HOST).nodes[1:]
    assert [(row.state, row.address, row.why) for row in rows] == [
        (ROUTED, "10.0.0.2", ""),
        (PENDING, "fd00:2::2", "it has no IPv6 pod CIDR yet"),
    ]


def test_static_peer_overrides_a_learned_one() -> None:
    spec = NodeSpec(SPEC.subnets, SPEC.networks, peers=(Peer("10.244.1.0/24", "10.0.0.9"),), reach=Reach("file"))
    result = judged(node(), spec=spec)
    assert result.peers == ()
    assert result.nodes[1].why == "node.toml has it via 10.0.0.9"


def test_family_that_this_node_lacks_is_skipped() -> None:
    both = Announcement("both", ("fd00:1::/64", "10.244.1.0/24"), ("10.0.0.2", "fd00::2"))
    assert judged(both).peers == (Peer("10.244.1.0/24", "10.0.0.2"),)


def test_each_family_has_its_route() -> None:
    spec = NodeSpec(("10.244.0.0/24", "fd00:1:0:0::/64"), ("10.244.0.0/16", "fd00:1::/48"), reach=Reach("file"))
    own = Announcement("self", spec.subnets, ("10.0.0.1",))
    both = Announcement("both", ("fd00:1:0:1::/64", "10.244.1.0/24"), ("10.0.0.2", "fd00:2::2"))
    result = judge(Snapshot((own, both), "1"), spec, HOST)
    assert result.peers == (Peer("fd00:1:0:1::/64", "fd00:2::2"), Peer("10.244.1.0/24", "10.0.0.2"))


def test_too_many_nodes_are_truncated_and_reported() -> None:
    many = tuple(Announcement(f"n{at}", (), ()) for at in range(MAX_JUDGED_NODES + 5))
    result = judge(Snapshot(many, "1"), SPEC, HOST)
    assert len(result.nodes) == MAX_JUDGED_NODES + 2, "one row says that this node is absent"
    assert f"at most {MAX_JUDGED_NODES}" in result.nodes[-1].why


def test_many_nodes_with_our_pod_cidr_are_one_short_conflict() -> None:
    thieves = tuple(Announcement(f"n{at}", ("10.244.0.0/24",), (f"10.0.1.{at}",)) for at in range(1, 200))
    assert judge(Snapshot((OWN, *thieves), "1"), SPEC, HOST).conflict.count("to node") == 1


KNOWN = [("known", "10.244.1.0/24", "10.0.0.2")]


def with_known(*nodes: Announcement) -> Judgement:
    return judge(Snapshot((OWN, *nodes), "1"), SPEC, HOST, KNOWN)


@pytest.mark.parametrize(
    ("liar", "why"),
    [
        (node("a-liar", "10.244.1.0/24", "10.0.0.66"), "node known already has this pod CIDR"),
        (node("a-liar", "10.244.66.0/24", "10.0.0.2"), "10.0.0.2 is the address of node known"),
    ],
    ids=["pod CIDR", "address"],
)
def test_known_node_wins_over_an_earlier_announcement_with_the_same_values(liar: Announcement, why: str) -> None:
    result = with_known(liar, node("known"))
    assert result.peers == (Peer("10.244.1.0/24", "10.0.0.2"),)
    assert [row.why for row in result.nodes if row.state == REFUSED] == [why]
    assert [row.name for row in result.nodes] == ["self", "a-liar", "known"], "shown in the source's order"


@pytest.mark.parametrize(
    "now",
    [
        node("known", address="10.0.0.254"),
        node("known", "10.244.0.0/24"),
        node("known", "nonsense"),
        node("known", address=""),
    ],
    ids=str,
)
def test_node_whose_new_entry_is_refused_stays_as_it_was(now: Announcement) -> None:
    result = with_known(now)
    assert result.peers == (Peer("10.244.1.0/24", "10.0.0.2"),)
    assert [row.state for row in result.nodes] == [SELF, REFUSED, ROUTED]
    assert result.nodes[-1].why.startswith("as before, because its new entry is refused: ")


def test_node_that_is_no_longer_announced_or_moved_is_dropped() -> None:
    assert with_known().peers == ()
    moved = with_known(node("known", address="10.0.0.3"))
    assert moved.peers == (Peer("10.244.1.0/24", "10.0.0.3"),)
    renamed = with_known(node("known", "10.244.2.0/25"), node("heir", "10.244.1.0/24", "10.0.0.9"))
    assert renamed.peers == (Peer("10.244.1.0/24", "10.0.0.9"),), "its pod CIDR now belongs to another node"
    pending = with_known(node("known", ""))
    assert pending.peers == ()
