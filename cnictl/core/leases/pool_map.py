"""The map of one lease store: it finds a free address at the same cost however many are leased.

A cache, one bit an address, kept outside the store (host-local would trip over it there). It says which modification
time of the store it knows; a store that someone else changed has another, and is read anew.
Format: docs/dev/formats.md.
"""

from posix import O_CREAT, O_RDWR, close, fstat, ftruncate, pread, pwrite
from posix import open as open_descriptor

from cnictl.core.cidr import Cidr
from cnictl.core.durable import AT_ONCE, ensure_regular, make_folder
from cnictl.core.leases.pool import Range, RangeSet

try:
    from _struct import Struct
except ImportError:
    from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_HEADER = Struct(">4sBxHq")  # magic, claimed, number of ranges, store's mtime in ns
_RANGE = Struct(">BBH16s16s16s16s")  # bytes of an address, prefix, number of its set, subnet, start, end, gateway
_MAGIC = b"cnx2"
_BLOCK = 1 << 14
"""Bytes read at first: header, ranges and the bits of a /16, so that a full one costs no more than an empty one."""
_WINDOW = 1 << 16
"""Bytes of a large map that are searched at a time."""


class PoolMap:
    """The map of one store, used under the store's lock."""

    def __init__(self, path: str, create: bool = True) -> None:
        """Without `create` a map that is missing stays so: whoever only frees an address needs none."""
        self._path = path
        self._create = create
        self._descriptor = -1
        self._head = bytearray()
        self._ranges = b""
        """The ranges as the file has them; empty where the map is of none."""
        self._sets: tuple[RangeSet, ...] = ()
        self._starts: list[int] = []
        """Where each set's bits begin in the file."""
        self.store_mtime = -1
        """Modification time (ns) of the store the map is true for; -1: of none."""
        self.claimed = False
        """Whether every lease of that store has an attachment record."""

    def __enter__(self) -> "PoolMap":
        try:
            create = O_CREAT if self._create else 0
            self._descriptor = open_descriptor(self._path, O_RDWR | AT_ONCE | create, 0o600)
        except FileNotFoundError:
            if not self._create:
                return self
            make_folder(self._path.rpartition("/")[0])
            self._descriptor = open_descriptor(self._path, O_RDWR | O_CREAT | AT_ONCE, 0o600)
        try:
            ensure_regular(self._descriptor, self._path)
            self._parse()
        except OSError:
            close(self._descriptor)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            close(self._descriptor)

    def _parse(self) -> None:
        """Take over what the file says; nothing of one that is torn."""
        self._head = head = bytearray(pread(self._descriptor, _BLOCK, 0))
        if len(head) < _HEADER.size or not head.startswith(_MAGIC):
            return
        _, claimed, count, mtime = _HEADER.unpack_from(head)
        end = _HEADER.size + count * _RANGE.size
        raw = bytes(head[_HEADER.size : end])
        if len(raw) < count * _RANGE.size:
            raw = pread(self._descriptor, count * _RANGE.size, _HEADER.size)
        if len(raw) < count * _RANGE.size:
            return
        try:
            sets = _decode(raw)
        except ValueError:
            return
        starts = _starts(sets)
        size = len(head) if len(head) < _BLOCK else fstat(self._descriptor).st_size
        if size == starts[-1] and starts[0] == end:
            self._ranges, self._sets, self._starts = raw, sets, starts
            self.store_mtime, self.claimed = mtime, bool(claimed)

    @property
    def sets(self) -> tuple[RangeSet, ...]:
        """The addresses the map is of; none where there is no map yet."""
        return self._sets

    def covers(self, sets: "Sequence[RangeSet]") -> bool:
        """Whether the map is of these."""
        return bool(self._ranges) and self._ranges == _encode(sets)

    def forget(self) -> None:
        """Drop the map: what follows with `settle` says only which store has its leases claimed."""
        self._ranges, self._sets, self._starts = b"", (), []
        self._head = bytearray()
        ftruncate(self._descriptor, 0)

    def rebuild(self, sets: "Sequence[RangeSet]", leased: "Iterable[bytes]", claimed: bool) -> None:
        """Make the map anew from the addresses that hold a lease. Not true for any store until `settle`."""
        self._ranges, self._sets = _encode(sets), tuple(sets)
        self._starts = _starts(sets)
        self.store_mtime, self.claimed = -1, claimed
        ftruncate(self._descriptor, 0)
        pwrite(self._descriptor, self._header() + self._ranges, 0)
        ftruncate(self._descriptor, self._starts[-1])
        held = list(leased)
        for number, one in enumerate(sets):
            bits = bytearray(self._starts[number + 1] - self._starts[number])
            for spare in range(one.places, len(bits) * 8):
                bits[spare >> 3] |= 1 << (spare & 7)
            for packed in [*held, *(span.gateway for span in one.ranges)]:
                offset = one.offset(packed)
                if offset >= 0:
                    bits[offset >> 3] |= 1 << (offset & 7)
            pwrite(self._descriptor, bits.rstrip(b"\0"), self._starts[number])  # the rest stays a hole
        self._head = bytearray(pread(self._descriptor, _BLOCK, 0))

    def next_free(self, number: int, start: int) -> int:
        """Place of the first free address of set `number` from `start` on, wrapping round; -1 if all are taken."""
        base, length = self._starts[number], self._starts[number + 1] - self._starts[number]
        first = start >> 3
        if first < length:
            byte = self._read(base + first, 1)[0] | ((1 << (start & 7)) - 1)
            if byte != 0xFF:
                return first * 8 + _lowest_clear_bit(byte)
        for begin, end in ((first + 1, length), (0, min(first + 1, length))):
            while begin < end:
                window = self._read(base + begin, min(_WINDOW, end - begin))
                rest = window.lstrip(b"\xff")
                if rest:
                    return (begin + len(window) - len(rest)) * 8 + _lowest_clear_bit(rest[0])
                begin += len(window)
        return -1

    def free(self, packed: bytes) -> bool:
        """Whether the map says that nobody holds this address. Of one outside it says nothing."""
        place, bit = self._place(packed)
        return place >= 0 and not self._read(place, 1)[0] & bit

    def mark(self, packed: bytes, taken: bool) -> None:
        """Note that an address was leased or released. One outside the map is left out."""
        place, bit = self._place(packed)
        if place < 0:
            return
        byte = self._read(place, 1)[0]
        byte = byte | bit if taken else byte & ~bit
        if place < len(self._head):
            self._head[place] = byte
        pwrite(self._descriptor, bytes((byte,)), place)

    def settle(self, store_mtime: int, claimed: bool) -> None:
        """Declare the map true for the store as of that modification time. A crash before leaves it untrue: safe."""
        self.store_mtime, self.claimed = store_mtime, claimed
        pwrite(self._descriptor, self._header(), 0)

    def _place(self, packed: bytes) -> tuple[int, int]:
        """The byte of the file, and the bit in it, that an address has; -1 for one outside."""
        for start, one in zip(self._starts, self._sets, strict=False):  # the last start is the file's end
            offset = one.offset(packed)
            if offset >= 0:
                return start + (offset >> 3), 1 << (offset & 7)
        return -1, 0

    def _read(self, place: int, length: int) -> bytes:
        if place + length <= len(self._head):
            return bytes(self._head[place : place + length])
        return pread(self._descriptor, length, place)

    def _header(self) -> bytes:
        return _HEADER.pack(_MAGIC, self.claimed, len(self._ranges) // _RANGE.size, self.store_mtime)


def mapped(path: str) -> tuple[RangeSet, ...]:
    """The addresses that the map file at `path` is of, for one who only looks; none if there is no map."""
    with PoolMap(path, create=False) as known:
        return known.sets


def _encode(sets: "Sequence[RangeSet]") -> bytes:
    return b"".join(
        _RANGE.pack(
            len(one.subnet.packed),
            one.subnet.prefix,
            number,
            one.subnet.packed,
            one.start.to_bytes(16, "big"),
            one.end.to_bytes(16, "big"),
            one.gateway,
        )
        for number, ranges in enumerate(sets)
        for one in ranges.ranges
    )


def _decode(raw: bytes) -> tuple[RangeSet, ...]:
    """The sets that `_encode` was given. Raises ValueError for bytes that it can't have made."""
    sets: list[list[Range]] = []
    for place in range(0, len(raw), _RANGE.size):
        family, prefix, number, subnet, start, end, gateway = _RANGE.unpack_from(raw, place)
        if family not in (4, 16) or prefix > family * 8 or not len(sets) - 1 <= number <= len(sets):
            raise ValueError("no pool map")
        if number == len(sets):
            sets.append([])
        edges = int.from_bytes(start, "big"), int.from_bytes(end, "big")
        if not edges[0] <= edges[1] < 1 << family * 8:
            raise ValueError("no pool map")
        sets[number].append(Range(Cidr(subnet[:family], prefix), *edges, gateway[:family]))
    return tuple(RangeSet(ranges) for ranges in sets)


def _starts(sets: "Sequence[RangeSet]") -> list[int]:
    """Where each set's bits begin in the file, and where the last ones end."""
    places = [_HEADER.size + _RANGE.size * sum(len(one.ranges) for one in sets)]
    for one in sets:
        places.append(places[-1] + (one.places + 7) // 8)
    return places


def _lowest_clear_bit(byte: int) -> int:
    return (~byte & (byte + 1)).bit_length() - 1
