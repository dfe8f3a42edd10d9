"""Which addresses pods may get: ranges of subnets, and sets of them that one address is taken from.

Names and defaults are those of host-local (cni.dev, plugins/current/ipam/host-local).
"""

from cnictl.core.cidr import Cidr, format_address, unmapped
from cnictl.core.errors import ADDRESS_CONFLICT, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_FEW = 8
"""Ranges that are looked through one by one: more are searched by halves."""
LARGEST_RANGE = 1 << 24
"""Addresses: a /8 of IPv4. What lies above in a larger range is only given to who asks for it by name."""


class Range:
    """The addresses `start` to `end` of a subnet, but for the gateway."""

    __slots__ = ("end", "gateway", "places", "start", "subnet")

    def __init__(self, subnet: Cidr, start: int = 0, end: int = 0, gateway: bytes = b"") -> None:
        self.subnet = subnet
        self.gateway = gateway or subnet.nth(1)
        self.start = start or subnet.first + 1
        # IPv4's last address is the broadcast; IPv6 has none
        self.end = end or subnet.last - (1 if subnet.bits == 32 else 0)
        self.places = max(0, min(self.end - self.start + 1, LARGEST_RANGE))
        """How many addresses are handed out in turn, the gateway's place included."""

    @property
    def size(self) -> int:
        """How many addresses pods can have."""
        taken = self.start <= int.from_bytes(self.gateway, "big") < self.start + self.places
        return self.places - (1 if taken else 0)

    def holds(self, packed: bytes) -> bool:
        """Whether a pod may have this address."""
        same_family = len(packed) == len(self.subnet.packed)
        return same_family and packed != self.gateway and self.start <= int.from_bytes(packed, "big") <= self.end

    def overlaps(self, other: "Range") -> bool:
        """Whether the two share an address."""
        return self.subnet.bits == other.subnet.bits and self.start <= other.end and other.start <= self.end

    def __str__(self) -> str:
        """The subnet, or first and last address of a part of it."""
        whole = Range(self.subnet)
        if (self.start, self.end) == (whole.start, whole.end):
            return str(self.subnet)
        family = len(self.subnet.packed)
        first, last = (format_address(edge.to_bytes(family, "big")) for edge in (self.start, self.end))
        return f"{first}-{last}"


def first_overlap(ranges: "Iterable[Range]") -> tuple[Range, Range] | None:
    """Return two ranges that share an address, the one that is listed first ahead, or None.

    Looked for in the order of their first addresses, so that each is compared with one other.
    """
    furthest: tuple[int, Range] | None = None
    for number, one in sorted(enumerate(ranges), key=_first_address):
        if furthest is not None and one.overlaps(furthest[1]):
            earlier, later = sorted((furthest, (number, one)), key=_number)
            return earlier[1], later[1]
        if furthest is None or one.subnet.bits != furthest[1].subnet.bits or one.end > furthest[1].end:
            furthest = (number, one)
    return None


def _first_address(numbered: tuple[int, Range]) -> tuple[int, int]:
    return numbered[1].subnet.bits, numbered[1].start


def _number(numbered: tuple[int, Range]) -> int:
    return numbered[0]


class RangeSet:
    """Ranges of one family that one of an attachment's addresses is taken from."""

    __slots__ = ("_order", "ranges")

    def __init__(self, ranges: "Sequence[Range]") -> None:
        self.ranges = tuple(ranges)
        self._order: list[tuple[int, int, Range]] = []
        """Of many ranges: first address, places before it, range; in the order of the addresses."""

    @property
    def size(self) -> int:
        """How many addresses pods can have."""
        return self.places - len({one.gateway for one in self.ranges if self.offset(one.gateway) >= 0})

    @property
    def places(self) -> int:
        """How many addresses are handed out in turn, the gateways' places included."""
        return sum(one.places for one in self.ranges)

    def holds(self, packed: bytes) -> bool:
        """Whether a pod may have this address."""
        if len(self.ranges) > 1 and any(packed == one.gateway for one in self.ranges):
            return False
        return any(one.holds(packed) for one in self.ranges)

    def range_of(self, packed: bytes) -> Range:
        """The range that an address lies in. Raises LookupError for one outside."""
        for one in self.ranges:
            if len(packed) == len(one.subnet.packed) and one.start <= int.from_bytes(packed, "big") <= one.end:
                return one
        raise LookupError(format_address(packed))

    def offset(self, packed: bytes) -> int:
        """Place of an address in the set, from 0; -1 for one that is not handed out in turn."""
        value = int.from_bytes(packed, "big")
        if len(self.ranges) > _FEW:
            return self._offset_among_many(value, len(packed))
        before = 0
        for one in self.ranges:
            if len(packed) == len(one.subnet.packed) and 0 <= value - one.start < one.places:
                return before + value - one.start
            before += one.places
        return -1

    def _offset_among_many(self, value: int, length: int) -> int:
        if not self._order:
            before = 0
            for one in self.ranges:
                self._order.append((one.start, before, one))
                before += one.places
            self._order.sort(key=lambda entry: entry[0])
        low, high = 0, len(self._order)
        while low < high:  # to the first that begins after the address
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self._order[middle][0] <= value else (low, middle)
        if not low:
            return -1
        start, before, one = self._order[low - 1]
        inside = length == len(one.subnet.packed) and value - start < one.places
        return before + value - start if inside else -1

    def nth(self, offset: int) -> bytes:
        """The address at that place. Raises LookupError past the end."""
        for one in self.ranges:
            if offset < one.places:
                return (one.start + offset).to_bytes(len(one.subnet.packed), "big")
            offset -= one.places
        raise LookupError(offset)

    def in_turn(self, last: bytes) -> "Iterator[bytes]":
        """Every address that pods can have, as host-local gives them out: the one after `last` first, then all round.

        From the beginning where `last` is empty or lies outside.
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
        shown = ", ".join(str(one) for one in self.ranges[:_FEW])
        more = len(self.ranges) - _FEW
        return f"{shown} and {more} more" if more > 0 else shown


def distribute(sets: "Sequence[RangeSet]", wanted: "Iterable[bytes]") -> list[bytes]:
    """For each set the address that is asked for, empty where none is: as host-local does, the first that lies in it.

    Raises CniError 101 naming those that no set has, or that are a second one in theirs.
    """
    left = dict.fromkeys(map(unmapped, wanted))
    chosen = []
    for one in sets if len(left) <= len(sets) else ():  # more than that can't all be had
        mine = next((packed for packed in left if one.holds(packed)), b"")
        left.pop(mine, None)
        chosen.append(mine)
    if left:
        shown = ", ".join(format_address(packed) for packed in left)
        raise CniError(
            ADDRESS_CONFLICT,
            f"asked for, but not to be had: {shown}; of each of {'; '.join(map(str, sets))} a pod gets one address",
            "; ".join(unavailable(sets, packed) for packed in left),
        )
    return chosen


def unavailable(sets: "Sequence[RangeSet]", packed: bytes) -> str:
    """Say why a pod can't have an address that it asks for, beginning with the address."""
    address = format_address(packed)
    for ranges in sets:
        if ranges.holds(packed):
            return f"{address} is a second one of {ranges}, of which a pod gets one"
    for one in (one for ranges in sets for one in ranges.ranges):
        if packed == one.gateway:
            return f"{address} is the gateway's"
        if len(packed) == len(one.subnet.packed) and one.subnet.holds(packed):
            if packed == one.subnet.nth(0):
                return f"{address} is the address of the subnet {one.subnet} itself"
            if len(packed) == 4 and int.from_bytes(packed, "big") == one.subnet.last:
                return f"{address} is the broadcast address of {one.subnet}"
    return f"{address} lies outside {'; '.join(map(str, sets))}"
