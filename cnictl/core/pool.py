"""Which addresses pods may get: ranges of subnets, and sets of them that one address is taken from.

Names and defaults are those of host-local (cni.dev, plugins/current/ipam/host-local).
"""

from cnictl.core.cidr import Cidr, format_address, unmapped
from cnictl.core.errors import ADDRESS_CONFLICT, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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


class RangeSet:
    """Ranges of one family that one of an attachment's addresses is taken from."""

    __slots__ = ("ranges",)

    def __init__(self, ranges: "Sequence[Range]") -> None:
        self.ranges = tuple(ranges)

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
        before = 0
        for one in self.ranges:
            if len(packed) == len(one.subnet.packed) and 0 <= value - one.start < one.places:
                return before + value - one.start
            before += one.places
        return -1

    def nth(self, offset: int) -> bytes:
        """The address at that place. Raises LookupError past the end."""
        for one in self.ranges:
            if offset < one.places:
                return (one.start + offset).to_bytes(len(one.subnet.packed), "big")
            offset -= one.places
        raise LookupError(offset)

    def __str__(self) -> str:
        return ", ".join(str(one) for one in self.ranges)


def distribute(sets: "Sequence[RangeSet]", wanted: "Iterable[bytes]") -> list[bytes]:
    """For each set the address that is asked for, empty where none is: as host-local does, the first that lies in it.

    Raises CniError 101 naming those that no set has, or that are a second one in theirs.
    """
    left = list(dict.fromkeys(map(unmapped, wanted)))
    chosen = []
    for one in sets:
        mine = next((packed for packed in left if one.holds(packed)), b"")
        if mine:
            left.remove(mine)
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
