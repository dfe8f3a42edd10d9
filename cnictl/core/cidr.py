"""Parse and format addresses and CIDRs. The parser is strict: what it accepts means the same to the kernel.

Addresses are bytes in network order, 4 or 16 of them: the length gives the family.
"""

try:
    from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton
except ImportError:  # the private module may be missing in another interpreter; the public one costs 7 ms more
    from socket import AF_INET, AF_INET6, inet_ntop, inet_pton


_SHOWN = 60
"""The most characters of an offending value that a message repeats."""
_LONGEST_NUMBER = 3
"""The most digits of an octet or a prefix length. Python refuses to read a number of thousands of digits."""


MAPPED = b"\0" * 10 + b"\xff\xff"
"""First bytes of an IPv4-mapped IPv6 address, `::ffff:` in text."""


class AddressError(ValueError):
    """A text is not an address or CIDR; the message quotes it and says what was probably meant."""


def parse_address(text: str, subject: str = "address") -> bytes:
    """Return `text` as 4 (IPv4) or 16 (IPv6) bytes. Raises AddressError naming `subject` and the malformed part."""
    try:
        return inet_pton(AF_INET6 if ":" in text else AF_INET, text)
    except (OSError, ValueError, UnicodeEncodeError, TypeError):
        raise AddressError(f"{subject} {show(text)}{_fault(text)}") from None


def is_address(text: object) -> bool:
    """Return whether `text` is an address, as the name of a lease's file is."""
    try:
        return isinstance(text, str) and bool(parse_address(text))
    except AddressError:
        return False


def unmapped(packed: bytes) -> bytes:
    """Return the IPv4 address of an IPv4-mapped one (RFC 4291, section 2.5.5.2), any other address unchanged."""
    return packed[12:] if packed.startswith(MAPPED) else packed


def format_address(packed: bytes) -> str:
    """Return the canonical text of an address (RFC 5952 for IPv6), which is also the name of its lease's file."""
    if len(packed) == 4:
        return inet_ntop(AF_INET, packed)
    text = inet_ntop(AF_INET6, packed)
    if "." in text and not text.startswith("::ffff:"):  # libc writes an address in ::/96 with a dotted part
        return f"::{int.from_bytes(packed[12:14], 'big'):x}:{int.from_bytes(packed[14:], 'big'):x}"
    return text


def _fault(text: str) -> str:
    """Return what is wrong with an address, as the rest of a sentence that begins with the address."""
    if not isinstance(text, str) or not text:
        return " is empty, expected an address such as 10.244.0.1"
    if ":" in text:
        return " is not an IPv6 address"
    octets = text.split(".")
    if len(octets) != 4:
        from cnictl.core.counted import counted  # an ordinary call does not need it

        return f" has {counted(len(octets), 'part')}, an IPv4 address has 4 octets"
    for octet in octets:
        if not (octet.isascii() and octet.isdigit()):
            return f": octet {show(octet)} is not a number"
        significant = octet.lstrip("0") or "0"
        if len(significant) > _LONGEST_NUMBER or int(significant) > 255:
            return f": octet {octet[:_SHOWN]} is over 255"
        if len(octet) > 1 and octet[0] == "0":
            return f": octet {octet[:_SHOWN]} has a leading zero, write {significant}"
    return " is not an IPv4 address"


def show(value: object) -> str:
    """Return a value as messages show it: quoted, and shortened if it is long."""
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else shown[: _SHOWN - 1] + "…"


class Cidr:
    """An address with its prefix length in bits: a subnet, or an interface's address in its subnet."""

    __slots__ = ("packed", "prefix")

    def __init__(self, packed: bytes, prefix: int) -> None:
        self.packed = packed
        self.prefix = prefix

    @property
    def bits(self) -> int:
        """Bits in an address of this family: 32 or 128."""
        return len(self.packed) * 8

    @property
    def value(self) -> int:
        """The address as a number."""
        return int.from_bytes(self.packed, "big")

    @property
    def first(self) -> int:
        """The lowest address of the subnet, as a number: IPv4's network address."""
        size = len(self.packed) * 8 - self.prefix
        return int.from_bytes(self.packed, "big") >> size << size

    @property
    def last(self) -> int:
        """The highest address of the subnet, as a number: IPv4's broadcast address."""
        return self.first | ((1 << (self.bits - self.prefix)) - 1)

    @property
    def network(self) -> "Cidr":
        """The subnet, with the host bits cleared."""
        return Cidr(self.nth(0), self.prefix)

    @property
    def address(self) -> str:
        """The address as text, without the prefix length."""
        return format_address(self.packed)

    def nth(self, offset: int) -> bytes:
        """Return the address `offset` places above the subnet's lowest."""
        return (self.first + offset).to_bytes(len(self.packed), "big")

    def holds(self, packed: bytes) -> bool:
        """Return whether an address lies in this subnet."""
        return len(packed) == len(self.packed) and self._same(packed, self.prefix)

    def covers(self, other: "Cidr") -> bool:
        """Return whether every address of `other` lies in this subnet."""
        return other.prefix >= self.prefix and self.holds(other.packed)

    def overlaps(self, other: "Cidr") -> bool:
        """Return whether the two subnets share an address."""
        prefix = min(self.prefix, other.prefix)
        return len(other.packed) == len(self.packed) and self._same(other.packed, prefix)

    def _same(self, packed: bytes, prefix: int) -> bool:
        """Return whether an address of the same family begins with the same `prefix` bits."""
        different = int.from_bytes(self.packed, "big") ^ int.from_bytes(packed, "big")
        return not different >> (len(packed) * 8 - prefix)

    def __str__(self) -> str:
        return f"{self.address}/{self.prefix}"

    def __repr__(self) -> str:
        return f"Cidr({self})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cidr) and (self.packed, self.prefix) == (other.packed, other.prefix)

    def __hash__(self) -> int:
        return hash((self.packed, self.prefix))


def parse_interface(text: str, subject: str = "address") -> Cidr:
    """Parse `ADDRESS/PREFIX`; the address may be any in its subnet. Raises AddressError."""
    if not isinstance(text, str) or not text:
        raise AddressError(f"{subject} {show(text)} is empty, expected a CIDR such as 10.244.0.0/24")
    address, slash, length = text.partition("/")
    packed = parse_address(address, subject)
    bits = len(packed) * 8
    if not slash:
        raise AddressError(
            f"{subject} {show(text)} has no prefix length; did you mean {address}/{24 if bits == 32 else 64}?"
        )
    numeral = length.isascii() and length.isdigit() and len(length) <= _LONGEST_NUMBER
    if not numeral or int(length) > bits or (length[0] == "0" and length != "0"):
        raise AddressError(f"{subject} {show(text)}: prefix length {show(length)} is not a number from 0 to {bits}")
    return Cidr(packed, int(length))


def parse_cidr(text: str, subject: str = "subnet") -> Cidr:
    """Parse a subnet, whose host bits must be clear. Raises AddressError naming the subnet that was probably meant."""
    cidr = parse_interface(text, subject)
    if cidr.value != cidr.first:
        raise AddressError(f"{subject} {show(text)} has host bits set; did you mean {cidr.network}?")
    return cidr


def parse_pod_cidr(text: str, subject: str = "subnet") -> Cidr:
    """Parse a subnet that has room for a gateway and a pod: at most a /30 or /126. Raises AddressError."""
    cidr = parse_cidr(text, subject)
    if cidr.bits - cidr.prefix < 2:
        raise AddressError(
            f"{subject} {show(text)}: a /{cidr.prefix} has no room for a gateway and a pod, "
            f"the longest usable prefix is /{cidr.bits - 2}"
        )
    return cidr
