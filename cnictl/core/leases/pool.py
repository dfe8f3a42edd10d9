"""The addresses that pods may get: ranges of subnets, and range sets, of which a pod gets one address each.

Names and defaults are those of host-local (cni.dev, plugins/current/ipam/host-local).
"""

from cnictl.core.cidr import Cidr, format_address, unmapped
from cnictl.core.errors import ADDRESS_CONFLICT, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_FEW = 8
"""Ranges that are searched one by one; more are searched by bisection."""
LARGEST_RANGE = 1 << 24
"""The most addresses of a range that are assigned automatically, as in an IPv4 /8. Those above must be requested."""


class Range:
    """The addresses from `start` to `end` of a subnet, without the gateway."""

    __slots__ = ("end", "gateway", "places", "start", "subnet")

    def __init__(self, subnet: Cidr, start: int = 0, end: int = 0, gateway: bytes = b"") -> None:
        self.subnet = subnet
        self.gateway = gateway or subnet.nth(1)
        self.start = start or subnet.first + 1
        # the last IPv4 address is the broadcast address; IPv6 has none
        self.end = end or subnet.last - (1 if subnet.bits == 32 else 0)
        self.places = max(0, min(self.end - self.start + 1, LARGEST_RANGE))
        """The number of addresses that are assigned automatically (the gateway's counts)."""

    @property
    def size(self) -> int:
        """How many addresses pods can have."""
        taken = self.start <= int.from_bytes(self.gateway, "big") < self.start + self.places
        return self.places - (1 if taken else 0)

    @property
    def limited(self) -> bool:
        """Whether only the first addresses are given, because there are more than LARGEST_RANGE."""
        return self.end - self.start + 1 > self.places

    def holds(self, packed: bytes) -> bool:
        """Return whether a pod may have this address."""
        same_family = len(packed) == len(self.subnet.packed)
        return same_family and packed != self.gateway and self.start <= int.from_bytes(packed, "big") <= self.end

    def overlaps(self, other: "Range") -> bool:
        """Return whether the two ranges share an address."""
        return self.subnet.bits == other.subnet.bits and self.start <= other.end and other.start <= self.end

    def __str__(self) -> str:
        """Return the subnet, or the first and last address of a part of it."""
        whole = Range(self.subnet)
        if (self.start, self.end) == (whole.start, whole.end):
            return str(self.subnet)
        family = len(self.subnet.packed)
        first, last = (format_address(edge.to_bytes(family, "big")) for edge in (self.start, self.end))
        return f"{first}-{last}"


def first_overlap(ranges: "Iterable[Range]") -> tuple[Range, Range] | None:
    """Return two ranges that share an address, in the order in which they are listed, or None.

    Sorted by their first addresses, each range needs to be compared with one other only.
    """
    furthest: tuple[int, Range] | None = None
    for number, span in sorted(enumerate(ranges), key=_first_address):
        if furthest is not None and span.overlaps(furthest[1]):
            earlier, later = sorted((furthest, (number, span)), key=_number)
            return earlier[1], later[1]
        if furthest is None or span.subnet.bits != furthest[1].subnet.bits or span.end > furthest[1].end:
            furthest = (number, span)
    return None


def _first_address(numbered: tuple[int, Range]) -> tuple[int, int]:
    return numbered[1].subnet.bits, numbered[1].start


def _number(numbered: tuple[int, Range]) -> int:
    return numbered[0]


class RangeSet:
    """Ranges of one family, of which an attachment gets one address."""

    __slots__ = ("ranges",)

    def __init__(self, ranges: "Sequence[Range]") -> None:
        self.ranges = tuple(ranges)

    @property
    def size(self) -> int:
        """How many addresses pods can have."""
        return self.places - len({span.gateway for span in self.ranges if self.offset(span.gateway) >= 0})

    @property
    def places(self) -> int:
        """How many addresses are given in turn, including the gateways' places."""
        return sum(span.places for span in self.ranges)

    @property
    def limited(self) -> bool:
        """Whether pods can have only the first addresses of one of the ranges."""
        return any(span.limited for span in self.ranges)

    def holds(self, packed: bytes) -> bool:
        """Return whether a pod may have this address."""
        if len(self.ranges) > 1 and any(packed == span.gateway for span in self.ranges):
            return False
        return any(span.holds(packed) for span in self.ranges)

    def range_of(self, packed: bytes) -> Range:
        """Return the range that an address lies in. Raises LookupError if it lies in none."""
        for span in self.ranges:
            if len(packed) == len(span.subnet.packed) and span.start <= int.from_bytes(packed, "big") <= span.end:
                return span
        raise LookupError(format_address(packed))

    def offset(self, packed: bytes) -> int:
        """Return the place of an address in the set, from 0; -1 if it is not given in turn."""
        value = int.from_bytes(packed, "big")
        before = 0
        for span in self.ranges:
            if len(packed) == len(span.subnet.packed) and 0 <= value - span.start < span.places:
                return before + value - span.start
            before += span.places
        return -1

    def in_turn(self, last: bytes) -> "Iterator[bytes]":
        """Yield every address that pods can have in host-local's order: from the one after `last` on, and around.

        Starts at the beginning if `last` is empty or lies outside.
        """
        gateways = {span.gateway for span in self.ranges}
        turn = self.offset(last) + 1 if last else 0
        for begin, end in ((turn, self.places), (0, turn)):
            before = 0
            for span in self.ranges:
                for place in range(max(begin - before, 0), min(end - before, span.places)):
                    packed = (span.start + place).to_bytes(len(span.subnet.packed), "big")
                    if packed not in gateways:
                        yield packed
                before += span.places

    def __str__(self) -> str:
        shown = ", ".join(str(span) for span in self.ranges[:_FEW])
        remaining = len(self.ranges) - _FEW
        return f"{shown} and {remaining} more" if remaining > 0 else shown


def distribute(sets: "Sequence[RangeSet]", wanted: "Iterable[bytes]") -> list[bytes]:
    """Return for each range set the first wanted address that lies in it, as host-local does; empty if there is none.

    Raises CniError 101 naming wanted addresses that lie in no set, or are a second one in their set.
    """
    remaining = dict.fromkeys(map(unmapped, wanted))
    chosen = []
    for ranges in sets if len(remaining) <= len(sets) else ():  # a pod can't have more addresses than there are sets
        match = next((packed for packed in remaining if ranges.holds(packed)), b"")
        remaining.pop(match, None)
        chosen.append(match)
    if remaining:
        shown = ", ".join(format_address(packed) for packed in remaining)
        raise CniError(
            ADDRESS_CONFLICT,
            f"requested addresses are not available: {shown}; "
            f"a pod gets one address from each of {'; '.join(map(str, sets))}",
            "; ".join(unavailable(sets, packed) for packed in remaining),
        )
    return chosen


def unavailable(sets: "Sequence[RangeSet]", packed: bytes) -> str:
    """Return why a pod can't have an address that is requested for it; the text begins with the address."""
    address = format_address(packed)
    for ranges in sets:
        if ranges.holds(packed):
            return f"{address} is a second request from {ranges}; a pod gets only one address from it"
    for span in (span for ranges in sets for span in ranges.ranges):
        if packed == span.gateway:
            return f"{address} is the gateway's address"
        if len(packed) == len(span.subnet.packed) and span.subnet.holds(packed):
            if packed == span.subnet.nth(0):
                return f"{address} is the address of the subnet {span.subnet} itself"
            if len(packed) == 4 and int.from_bytes(packed, "big") == span.subnet.last:
                return f"{address} is the broadcast address of {span.subnet}"
    return f"{address} lies outside {'; '.join(map(str, sets))}"
