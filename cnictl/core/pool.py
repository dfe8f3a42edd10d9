"""Which addresses of a pod CIDR pods may get, and the map that finds a free one at the same cost however full it is.

The map is a cache, one bit an address, kept outside the lease store (host-local would trip over it there). It says
which modification time of the store it knows; a store that someone else changed has another, and is read anew.
"""

from posix import O_CLOEXEC, O_CREAT, O_RDWR, close, ftruncate, pread, pwrite
from posix import open as open_descriptor

from cnictl.core.cidr import Cidr
from cnictl.core.durable import contents, make_folder

try:
    from _struct import Struct
except ImportError:
    from struct import Struct

_HEADER = Struct(">4sBBqQ16s16s")  # magic, family bytes, claimed, store's mtime in ns, bits, first, gateway
_MAGIC = b"cnx1"
_LARGEST_MAP = 1 << 24
"""Bits: a /8 of IPv4 in 2 MiB. What lies above in a larger subnet is not handed out."""


class Pool:
    """The addresses `start` to `end` of a subnet, but for the gateway."""

    __slots__ = ("end", "gateway", "start", "subnet")

    def __init__(self, subnet: Cidr, start: int = 0, end: int = 0, gateway: bytes = b"") -> None:
        self.subnet = subnet
        self.gateway = gateway or subnet.nth(1)
        self.start = start or subnet.first + 1
        # IPv4's last address is the broadcast; IPv6 has none
        self.end = min(end or subnet.last - (1 if subnet.bits == 32 else 0), self.start + _LARGEST_MAP - 1)

    @property
    def size(self) -> int:
        """How many addresses pods can have."""
        taken = self.start <= int.from_bytes(self.gateway, "big") <= self.end
        return self.end - self.start + 1 - (1 if taken else 0)

    def holds(self, packed: bytes) -> bool:
        """Whether a pod may have this address."""
        value = int.from_bytes(packed, "big")
        same_family = len(packed) == len(self.gateway)
        return same_family and packed != self.gateway and self.start <= value <= self.end

    def offset(self, packed: bytes) -> int:
        """Place of an address in the pool, from 0; -1 for one outside."""
        value = int.from_bytes(packed, "big")
        inside = len(packed) == len(self.gateway) and self.start <= value <= self.end
        return value - self.start if inside else -1

    def nth(self, offset: int) -> bytes:
        """The address at that place."""
        return (self.start + offset).to_bytes(len(self.gateway), "big")


class PoolMap:
    """The map of one store, used under the store's lock."""

    def __init__(self, path: str, create: bool = True) -> None:
        """Without `create` a map that is missing stays so: whoever only frees an address needs none."""
        self._path = path
        self._create = create
        self._descriptor = -1
        self._bits = b""
        self._first = 0
        self._size = 0
        self._family = 4
        self._gateway = bytes(16)
        self.store_mtime = -1
        """Modification time (ns) of the store the map is true for; -1: of none."""
        self.claimed = False
        """Whether every lease of that store has an attachment record."""

    def __enter__(self) -> "PoolMap":
        try:
            create = O_CREAT if self._create else 0
            self._descriptor = open_descriptor(self._path, O_RDWR | O_CLOEXEC | create, 0o600)
        except FileNotFoundError:
            if not self._create:
                return self
            make_folder(self._path.rpartition("/")[0])
            self._descriptor = open_descriptor(self._path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        self._parse(pread(self._descriptor, _HEADER.size + _LARGEST_MAP // 8, 0))
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            close(self._descriptor)

    def _parse(self, raw: bytes) -> None:
        """Take over what the file says; nothing of one that is torn."""
        if len(raw) >= _HEADER.size:
            magic, family, claimed, mtime, bits, first, gateway = _HEADER.unpack_from(raw)
            if magic == _MAGIC and family in (4, 16) and len(raw) == _HEADER.size + (bits + 7) // 8:
                self._bits = raw[_HEADER.size :]
                self._family, self._first = family, int.from_bytes(first, "big")
                self._size, self._gateway = bits, gateway
                self.store_mtime, self.claimed = mtime, bool(claimed)

    @property
    def pool(self) -> Pool | None:
        """The addresses the map is of; None where there is no map yet."""
        if not self._bits:
            return None
        gateway = self._gateway[-self._family :]
        return Pool(Cidr(gateway, 8 * self._family), self._first, self._first + self._size - 1, gateway)

    def covers(self, pool: Pool) -> bool:
        """Whether the map is of this pool."""
        return bool(self._bits) and (self._first, self._size, self._family, self._gateway) == (
            pool.start,
            pool.end - pool.start + 1,
            len(pool.gateway),
            pool.gateway.rjust(16, b"\0"),
        )

    def forget(self) -> None:
        """Drop the map: what follows with `settle` says only which store has its leases claimed."""
        self._bits, self._size = b"", 0
        ftruncate(self._descriptor, 0)

    def rebuild(self, pool: Pool, leased: list[bytes], claimed: bool) -> None:
        """Make the map anew from the addresses that hold a lease. Not true for any store until `settle`."""
        self._size = pool.end - pool.start + 1
        bits = bytearray((self._size + 7) // 8)
        for spare in range(self._size, len(bits) * 8):
            bits[spare >> 3] |= 1 << (spare & 7)
        for packed in [*leased, pool.gateway]:
            offset = pool.offset(packed)
            if offset >= 0:
                bits[offset >> 3] |= 1 << (offset & 7)
        self._bits = bytes(bits)
        self._first, self._family, self._gateway = (
            pool.start,
            len(pool.gateway),
            pool.gateway.rjust(16, b"\0"),
        )
        self.store_mtime, self.claimed = -1, claimed
        ftruncate(self._descriptor, 0)
        pwrite(self._descriptor, self._header() + self._bits, 0)

    def next_free(self, start: int) -> int:
        """Place of the first free address from `start` on, wrapping round; -1 if all are taken."""
        first = start >> 3
        byte = self._bits[first] | ((1 << (start & 7)) - 1) if first < len(self._bits) else 0xFF
        if byte != 0xFF:
            return first * 8 + _lowest_clear_bit(byte)
        for begin, end in ((first + 1, len(self._bits)), (0, first + 1)):
            window = self._bits[begin:end]
            rest = window.lstrip(b"\xff")
            if rest:
                return (begin + len(window) - len(rest)) * 8 + _lowest_clear_bit(rest[0])
        return -1

    def free(self, packed: bytes) -> bool:
        """Whether the map says that nobody holds this address. Of one outside it says nothing."""
        offset = int.from_bytes(packed, "big") - self._first
        if not self._bits or len(packed) != self._family or not 0 <= offset < self._size:
            return False
        return not self._bits[offset >> 3] & 1 << (offset & 7)

    def mark(self, packed: bytes, taken: bool) -> None:
        """Note that an address was leased or released. One outside the map is left out."""
        offset = int.from_bytes(packed, "big") - self._first
        if not self._bits or len(packed) != self._family or not 0 <= offset < self._size:
            return
        place, bit = offset >> 3, 1 << (offset & 7)
        byte = self._bits[place] | bit if taken else self._bits[place] & ~bit
        self._bits = self._bits[:place] + bytes((byte,)) + self._bits[place + 1 :]
        pwrite(self._descriptor, bytes((byte,)), _HEADER.size + place)

    def settle(self, store_mtime: int, claimed: bool) -> None:
        """Declare the map true for the store as of that modification time. A crash before leaves it untrue: safe."""
        self.store_mtime, self.claimed = store_mtime, claimed
        pwrite(self._descriptor, self._header(), 0)

    def _header(self) -> bytes:
        first = self._first.to_bytes(16, "big")
        return _HEADER.pack(_MAGIC, self._family, self.claimed, self.store_mtime, self._size, first, self._gateway)


def mapped(path: str) -> Pool | None:
    """The pool that the map file at `path` is of, for one who only looks; None if there is no map."""
    try:
        raw = contents(path)
    except FileNotFoundError:
        return None
    known = PoolMap(path)
    known._parse(raw)
    return known.pool


def _lowest_clear_bit(byte: int) -> int:
    return (~byte & (byte + 1)).bit_length() - 1
