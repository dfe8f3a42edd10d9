"""Overlapping CIDRs are found, with the same result as comparing every pair."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from cnictl.core.cidr import Cidr, parse_cidr
from cnictl.node.spec.overlaps import CidrIndex, overlapping


def _cidr(value: int, prefix: int, wide: bool) -> Cidr:
    packed = (value << 24).to_bytes(4, "big") if not wide else (value << 120).to_bytes(16, "big")
    return Cidr(packed, min(prefix, 8 * len(packed))).network


_CIDRS = st.lists(
    st.builds(_cidr, st.integers(0, 255), st.integers(1, 12), st.booleans()).map(lambda cidr: parse_cidr(str(cidr))),
    max_size=12,
)


@given(_CIDRS)
def test_every_cidr_that_overlaps_another_is_in_a_pair(cidrs: list[Cidr]) -> None:
    by_hand = {at for pair in combinations(range(len(cidrs)), 2) if _overlap(cidrs, *pair) for at in pair}
    pairs = list(overlapping(cidrs))
    assert {at for pair in pairs for at in pair} == by_hand
    assert all(first < second and _overlap(cidrs, first, second) for first, second in pairs)
    assert len(pairs) < max(len(cidrs), 1), "at most one pair for each CIDR"


def _overlap(cidrs: list[Cidr], first: int, second: int) -> bool:
    return cidrs[first].bits == cidrs[second].bits and cidrs[first].overlaps(cidrs[second])


@given(_CIDRS, _CIDRS)
def test_index_names_the_cidrs_that_cover_a_cidr(known: list[Cidr], asked: list[Cidr]) -> None:
    index = CidrIndex(known)
    for inner in asked:
        by_hand = {str(cidr) for cidr in known if cidr.bits == inner.bits and cidr.covers(inner)}
        covering = index.covering(inner)
        assert {str(cidr) for cidr in covering} == by_hand
        assert [cidr.prefix for cidr in covering] == sorted(cidr.prefix for cidr in covering)
