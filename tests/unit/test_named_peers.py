"""Combine the command line's peers with the known ones: none is removed or moved without its option."""

import pytest

from cnictl.core.errors import UsageProblem
from cnictl.node.spec.named_peers import combine
from cnictl.node.spec.node_spec import Peer

ONE, TWO = Peer("10.244.1.0/24", "10.0.10.51", "eth1"), Peer("fd00:244:0:2::/64", "fd00:10::52")
NEW = Peer("10.244.3.0/24", "10.0.10.53")


def test_unnamed_peers_keep_their_order_and_new_ones_follow() -> None:
    combined = combine((ONE, TWO), (NEW,), prune=False, replace=False)
    assert (combined.peers, combined.kept, combined.dropped) == ((ONE, TWO, NEW), (ONE, TWO), ())


def test_prune_drops_exactly_the_unnamed_peers() -> None:
    combined = combine((ONE, TWO), (NEW, TWO), prune=True, replace=False)
    assert (combined.peers, combined.kept, combined.dropped) == ((TWO, NEW), (), (ONE,))
    assert combine((ONE, TWO), (), prune=True, replace=False).peers == ()


@pytest.mark.parametrize("named", [Peer(TWO.pod_cidr, TWO.via), Peer("fd00:244:0:2:0::/64", "FD00:10:0::52")])
def test_same_peer_in_another_spelling_is_not_a_move(named: Peer) -> None:
    assert combine((ONE, TWO), (named,), prune=False, replace=False).peers == (ONE, TWO)


def test_link_that_is_not_named_is_kept() -> None:
    assert combine((ONE,), (Peer(ONE.pod_cidr, ONE.via),), prune=False, replace=False).peers == (ONE,)


@pytest.mark.parametrize("named", [Peer(ONE.pod_cidr, "10.0.10.99"), Peer(ONE.pod_cidr, ONE.via, "eth2")])
def test_peer_at_another_address_moves_only_with_replace(named: Peer) -> None:
    with pytest.raises(UsageProblem, match=r"already reached through 10\.0\.10\.51%eth1.*--replace"):
        combine((ONE, TWO), (named,), prune=False, replace=False)
    combined = combine((ONE, TWO), (named,), prune=False, replace=True)
    assert (combined.peers, combined.moved) == ((named, TWO), ((ONE, named),))


def test_one_peer_at_two_addresses_is_refused() -> None:
    with pytest.raises(UsageProblem, match="given twice"):
        combine((), (NEW, Peer(NEW.pod_cidr, "10.0.10.54")), prune=False, replace=True)


@pytest.mark.parametrize("cidr", ["10.244.0.0/23", "10.244.1.128/25"])
def test_overlap_with_another_peer_is_refused_with_a_hint(cidr: str) -> None:
    with pytest.raises(UsageProblem, match=r"overlaps peer 10\.244\.1\.0/24.*route del-peer 10\.244\.1\.0/24"):
        combine((ONE,), (Peer(cidr, "10.0.10.54"),), prune=False, replace=True)
    assert combine((ONE,), (Peer(cidr, "10.0.10.54"),), prune=True, replace=False).dropped == (ONE,)
