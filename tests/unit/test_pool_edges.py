"""Pods never get a subnet's network address, broadcast address or gateway, even on request."""

import pytest

from cnictl.core.cidr import format_address, parse_address, parse_cidr
from cnictl.core.errors import ADDRESS_CONFLICT, CniError
from cnictl.core.leases.pool import Range, RangeSet, distribute
from tests.unit.test_pool import every_place


def whole(subnet: str) -> RangeSet:
    """Return a range set of a whole subnet."""
    return RangeSet([Range(parse_cidr(subnet))])


@pytest.mark.parametrize(
    ("subnet", "address", "reason"),
    [
        ("10.9.0.0/29", "10.9.0.0", "10.9.0.0 is the address of the subnet 10.9.0.0/29 itself"),
        ("10.9.0.0/29", "10.9.0.7", "10.9.0.7 is the broadcast address of 10.9.0.0/29"),
        ("10.9.0.0/29", "10.9.0.1", "10.9.0.1 is the gateway's address"),
        ("10.9.0.0/29", "10.9.1.1", "10.9.1.1 lies outside 10.9.0.0/29"),
        ("fd00:9::/64", "fd00:9::", "fd00:9:: is the address of the subnet fd00:9::/64 itself"),
        ("fd00:9::/64", "fd00:9::1", "fd00:9::1 is the gateway's address"),
    ],
)
def test_a_special_address_is_refused_with_its_meaning(subnet: str, address: str, reason: str) -> None:
    with pytest.raises(CniError) as refused:
        distribute([whole(subnet)], [parse_address(address)])
    assert refused.value.code == ADDRESS_CONFLICT
    assert address in refused.value.message and refused.value.hint == reason


def test_special_addresses_are_not_given_out() -> None:
    ranges = whole("10.9.0.0/29")
    assert list(map(format_address, ranges.in_turn(b""))) == [f"10.9.0.{last}" for last in range(2, 7)]
    assert ranges.size == 5
    assert format_address(next(whole("fd00:9::/64").in_turn(b""))) == "fd00:9::2"


def test_the_last_address_of_an_ipv6_subnet_is_given_to_pods() -> None:
    last = parse_address("fd00:9::ffff:ffff:ffff:ffff")
    assert distribute([whole("fd00:9::/64")], [last]) == [last]


@pytest.mark.parametrize(
    "last", ["", "10.9.0.1", "10.9.0.2", "10.9.0.4", "10.8.0.2", "10.8.0.6", "10.99.0.1", "fd00::1"]
)
def test_each_address_comes_once_starting_after_the_last(last: str) -> None:
    """The result is the same as that of a scan of one address after the other."""
    pair = RangeSet([Range(parse_cidr("10.9.0.0/29")), Range(parse_cidr("10.8.0.0/29"))])
    every = every_place(pair)
    after = every.index(parse_address(last)) + 1 if last.startswith(("10.9.", "10.8.")) else 0
    rotated = every[after:] + every[:after]
    turn = list(pair.in_turn(parse_address(last) if last else b""))
    assert turn == [packed for packed in rotated if pair.holds(packed)] and len(turn) == pair.size
