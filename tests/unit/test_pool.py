"""Ranges and range sets: which addresses pods get, and which requests are granted."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnictl.core.cidr import Cidr, format_address, parse_address, parse_cidr
from cnictl.core.conf.network import parse_conf
from cnictl.core.errors import ADDRESS_CONFLICT, CniError
from cnictl.core.leases.pool import Range, RangeSet, distribute, first_overlap


def range_of(text: str, start: str = "", end: str = "", gateway: str = "") -> Range:
    edges = [int.from_bytes(parse_address(edge), "big") if edge else 0 for edge in (start, end)]
    return Range(parse_cidr(text), edges[0], edges[1], parse_address(gateway) if gateway else b"")


def every_place(among: RangeSet) -> list[bytes]:
    return [
        (span.start + place).to_bytes(len(span.subnet.packed), "big")
        for span in among.ranges
        for place in range(span.places)
    ]


def every_address(span: Range) -> list[str]:
    subnet = span.subnet
    return [
        format_address(subnet.nth(n)) for n in range(1 << (subnet.bits - subnet.prefix)) if span.holds(subnet.nth(n))
    ]


@pytest.mark.parametrize(
    ("span", "first", "last", "size"),
    [
        (range_of("10.244.0.0/24"), "10.244.0.2", "10.244.0.254", 253),
        (range_of("10.244.0.0/30"), "10.244.0.2", "10.244.0.2", 1),
        (range_of("10.244.0.0/24", gateway="10.244.0.254"), "10.244.0.1", "10.244.0.253", 253),
        (range_of("10.244.0.0/24", "10.244.0.10", "10.244.0.19"), "10.244.0.10", "10.244.0.19", 10),
        (range_of("10.244.0.0/24", "10.244.0.1", "10.244.0.3"), "10.244.0.2", "10.244.0.3", 2),
        (range_of("10.244.0.0/16"), "10.244.0.2", "10.244.255.254", 65533),
    ],
)
def test_pods_get_every_address_except_network_gateway_and_broadcast(
    span: Range, first: str, last: str, size: int
) -> None:
    addresses = every_address(span)
    assert (addresses[0], addresses[-1], len(addresses), span.size) == (first, last, size, size)
    assert format_address(span.gateway) not in addresses


def test_position_and_address_are_inverse() -> None:
    among = RangeSet([range_of("10.244.0.0/28"), range_of("10.9.0.0/24", "10.9.0.10", "10.9.0.19")])
    assert (among.places, among.size) == (24, 23)
    every = every_place(among)
    assert [among.offset(packed) for packed in every] == list(range(24))
    assert format_address(every[14]) == "10.9.0.10"
    for outside in ("10.244.0.0", "10.244.0.15", "10.245.0.1", "10.9.0.20", "::1"):
        assert among.offset(parse_address(outside)) == -1
        assert not among.holds(parse_address(outside))
        with pytest.raises(LookupError):
            among.range_of(parse_address(outside))
    assert among.range_of(parse_address("10.9.0.11")) is among.ranges[1]
    assert str(among) == "10.244.0.0/28, 10.9.0.10-10.9.0.19"


def test_no_range_gives_the_gateway_of_another_range_of_its_set() -> None:
    low = range_of("10.9.0.0/24", "10.9.0.1", "10.9.0.9", "10.9.0.20")
    high = range_of("10.9.0.0/24", "10.9.0.20", "10.9.0.29", "10.9.0.1")
    among = RangeSet([low, high])
    assert among.size == 17
    assert not among.holds(low.gateway) and not among.holds(high.gateway)


def test_an_enormous_subnet_gives_its_first_addresses_and_any_requested_one() -> None:
    span = range_of("fd00::/64")
    among = RangeSet([span])
    assert (span.places, span.size, among.size) == (1 << 24, (1 << 24) - 1, (1 << 24) - 1)
    above = parse_address("fd00::ffff:ffff")
    assert span.holds(above) and among.offset(above) == -1
    assert among.offset(parse_address("fd00::100:0")) == (1 << 24) - 1


@pytest.mark.parametrize(
    ("first", "other", "shared"),
    [
        (range_of("10.9.0.0/24"), range_of("10.9.0.128/25"), True),
        (range_of("10.9.0.0/24", "", "10.9.0.9"), range_of("10.9.0.0/24", "10.9.0.10"), False),
        (range_of("10.9.0.0/24", "", "10.9.0.9"), range_of("10.9.0.0/24", "10.9.0.9"), True),
        (range_of("fd00::/64"), range_of("10.9.0.0/24"), False),
    ],
)
def test_ranges_that_share_an_address(first: Range, other: Range, shared: bool) -> None:
    assert first.overlaps(other) is shared is other.overlaps(first)


FOUR, SIX = RangeSet([range_of("10.9.0.0/24")]), RangeSet([range_of("fd00::/64")])


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ([], ["", ""]),
        (["fd00::9"], ["", "fd00::9"]),
        (["fd00::9", "10.9.0.7"], ["10.9.0.7", "fd00::9"]),
        (["10.9.0.7", "10.9.0.7"], ["10.9.0.7", ""]),
        (["::ffff:10.9.0.7"], ["10.9.0.7", ""]),
    ],
)
def test_requested_addresses_are_assigned_to_their_sets(wanted: list[str], chosen: list[str]) -> None:
    distributed = distribute([FOUR, SIX], [parse_address(address) for address in wanted])
    assert [format_address(packed) if packed else "" for packed in distributed] == chosen


@pytest.mark.parametrize("wanted", ["10.9.0.1", "10.9.1.7", "10.9.0.255", "fd01::5"])
def test_an_address_that_no_set_has_is_refused(wanted: str) -> None:
    with pytest.raises(CniError, match=f"requested addresses are not available: {wanted};") as refused:
        distribute([FOUR, SIX], [parse_address(wanted)])
    assert refused.value.code == ADDRESS_CONFLICT


def test_a_second_address_of_one_set_is_refused() -> None:
    with pytest.raises(
        CniError, match=r"not available: 10\.9\.0\.8; a pod gets one address from each of 10\.9\.0\.0/24; fd00::/64"
    ):
        distribute([FOUR, SIX], [parse_address("10.9.0.7"), parse_address("10.9.0.8")])


spans = st.builds(
    lambda net, first, length: Range(parse_cidr("10.0.0.0/16"), (net << 8) + first, (net << 8) + first + length),
    st.integers(0, 3), st.integers(1, 40), st.integers(0, 20),
)  # fmt: skip


@given(st.lists(spans, max_size=12))
def test_an_overlap_is_found_if_there_is_one(ranges: list[Range]) -> None:
    pairs = [(first, other) for n, first in enumerate(ranges) for other in ranges[n + 1 :] if first.overlaps(other)]
    assert (first_overlap(ranges) in pairs) if pairs else first_overlap(ranges) is None


def test_ranges_of_two_families_share_nothing() -> None:
    assert first_overlap([range_of("10.0.0.0/8"), range_of("fd00::/64"), range_of("11.0.0.0/8")]) is None


def _counted(method: Callable[[object, object], bool], calls: list[object]) -> Callable[[object, object], bool]:
    def counting(first: object, other: object) -> bool:
        calls.append(other)
        return method(first, other)

    return counting


@pytest.mark.parametrize("in_one_set", [True, False])
def test_work_on_many_ranges_grows_with_their_number(monkeypatch: pytest.MonkeyPatch, in_one_set: bool) -> None:
    calls: list[object] = []
    for kind, name in ((Range, "overlaps"), (Cidr, "covers")):
        monkeypatch.setattr(kind, name, _counted(getattr(kind, name), calls))
    count = 2000
    texts = [f"10.{n >> 8}.{n & 255}.0/24" for n in range(count)]
    listed = [{"subnet": text} for text in texts]
    ranges = [listed] if in_one_set else [[range_conf] for range_conf in listed]
    conf = parse_conf(
        {"name": "n", "cniVersion": "1.0.0", "network": texts, "ipam": {"type": "host-local", "ranges": ranges}}
    )
    assert sum(len(range_set.ranges) for range_set in conf.sets) == count
    assert len(calls) <= 4 * count


@pytest.mark.parametrize(
    ("networks", "subnets", "outside"),
    [
        (["10.0.0.0/8"], ["10.1.0.0/24", "10.255.255.0/24"], ""),
        (["10.0.0.0/8", "10.1.0.0/16"], ["10.9.0.0/24"], ""),
        (["10.1.0.0/16", "10.3.0.0/16"], ["10.2.0.0/24", "10.3.0.0/24"], "10.2.0.0/24"),
        (["10.1.0.0/16", "fd00::/48"], ["10.1.0.0/24", "fd00:0:1::/64"], "fd00:0:1::/64"),
        (["fd00::/48"], ["10.1.0.0/24", "fd00::/64"], ""),
    ],
)
def test_subnet_outside_of_every_network_is_refused(networks: list[str], subnets: list[str], outside: str) -> None:
    document = {"name": "n", "cniVersion": "1.0.0", "network": networks, "subnet": subnets}
    if not outside:
        assert [str(subnet) for subnet in parse_conf(document).subnets] == subnets
        return
    with pytest.raises(CniError, match=f"subnet: {outside} lies outside"):
        parse_conf(document)
