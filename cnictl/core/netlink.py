"""A netlink socket and the attributes of its messages, as bytes: what a library costs to import is a pod's start.

Sources: linux/netlink.h, linux/socket.h.
"""

from errno import EPROTONOSUPPORT
from posix import strerror

try:
    import _socket as socket
    from _struct import Struct
except ImportError:
    import socket  # type: ignore[no-redef]
    from struct import Struct

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLM_F_EXCL, NLM_F_CREATE = 0x200, 0x400
NLMSG_ERROR, NLMSG_DONE = 2, 3
NESTED = 0x8000
AF_UNSPEC, AF_INET, AF_INET6, AF_NETLINK = 0, 2, 10, 16
NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12
SOL_NETLINK, NETLINK_CAP_ACK, NETLINK_EXT_ACK = 270, 10, 11

_HEADER = Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ATTR = Struct("=HH")
_U32 = Struct("=I")
_S32 = Struct("=i")
_RECEIVE = 1 << 15  # what the kernel fills at most at once in a dump; above 128 KiB each buffer is a mapping of its own


class NetlinkError(OSError):
    """The kernel refused a message: errno, its own words (extended ack) where it gave any, which of a batch."""

    def __init__(self, number: int, said: str, position: int) -> None:
        super().__init__(number, said or strerror(number))
        self.position = position


def attr(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to 4 bytes."""
    return _ATTR.pack(len(payload) + 4, kind) + payload + b"\0" * (-len(payload) % 4)


def text_attr(kind: int, value: str) -> bytes:
    """A NUL-terminated string attribute."""
    return attr(kind, value.encode("utf-8", "surrogateescape") + b"\0")


def u32_attr(kind: int, value: int) -> bytes:
    """A 32-bit unsigned attribute in host order."""
    return attr(kind, _U32.pack(value))


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """The attributes from `offset` on, nested flag cleared; of one that is repeated, the last."""
    found = {}
    end = len(data)
    while offset + 4 <= end:
        length, kind = _ATTR.unpack_from(data, offset)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def repeated(data: bytes, wanted: int, offset: int = 0) -> list[bytes]:
    """Every attribute of one kind from `offset` on, nested flag aside."""
    found = []
    while offset + 4 <= len(data):
        length, kind = _ATTR.unpack_from(data, offset)
        if length < 4:
            break
        if kind & 0x3FFF == wanted:
            found.append(data[offset + 4 : offset + length])
        offset += (length + 3) & ~3
    return found


class Netlink:
    """A netlink socket of the network namespace the calling thread is in when it is made.

    Raises NetlinkError on a kernel that has no such protocol.
    """

    def __init__(self, protocol: int = NETLINK_ROUTE) -> None:
        try:
            self._socket = socket.socket(AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        except OSError as error:
            if error.errno != EPROTONOSUPPORT:
                raise
            raise NetlinkError(EPROTONOSUPPORT, "", 0) from None
        self._socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        self._sequence = 0

    def __enter__(self) -> "Netlink":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the socket back; the object is of no use afterwards."""
        self._socket.close()

    def call(self, *messages: tuple[int, int, bytes]) -> None:
        """Send `(type, flags, payload)` messages in one datagram; the kernel works through all of them in order.

        Raises NetlinkError for the first that was refused; those after it were still carried out where they could.
        """
        for refused in self.refusals(*messages):
            raise refused

    def refusals(self, *messages: tuple[int, int, bytes]) -> list[NetlinkError]:
        """As `call`, but returns what was refused, in order, and raises nothing of it."""
        if not messages:
            return []
        first = self._sequence + 1
        out = []
        for kind, flags, payload in messages:
            self._sequence += 1
            out.append(
                _HEADER.pack(16 + len(payload), kind, flags | NLM_F_REQUEST | NLM_F_ACK, self._sequence, 0) + payload
            )
        self._socket.send(b"".join(out))
        waiting = len(out)
        refused: list[NetlinkError] = []
        while waiting:
            for kind, sequence, flags, payload in self._receive():
                if kind == NLMSG_ERROR and sequence >= first:
                    waiting -= 1
                    number = -_S32.unpack_from(payload)[0]
                    if number:
                        refused.append(NetlinkError(number, _words(payload, flags), sequence - first))
        return refused

    def dump(self, kind: int, payload: bytes, flags: int = NLM_F_DUMP) -> list[bytes]:
        """The payloads that answer one request. Raises NetlinkError."""
        self._sequence += 1
        request = _HEADER.pack(16 + len(payload), kind, flags | NLM_F_REQUEST, self._sequence, 0) + payload
        self._socket.send(request)
        answers: list[bytes] = []
        while True:
            for answer, sequence, header_flags, body in self._receive():
                if sequence != self._sequence:
                    continue
                if answer == NLMSG_DONE:
                    return answers
                if answer == NLMSG_ERROR:
                    number = -_S32.unpack_from(body)[0]
                    raise NetlinkError(number, _words(body, header_flags), 0)
                answers.append(body)
                if flags & NLM_F_DUMP == 0:
                    return answers

    def _receive(self) -> list[tuple[int, int, int, bytes]]:
        data = self._socket.recv(_RECEIVE)
        found = []
        offset = 0
        while offset + 16 <= len(data):
            length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
            if length < 16:
                break
            found.append((kind, sequence, flags, data[offset + 16 : offset + length]))
            offset += (length + 3) & ~3
        return found


def _words(payload: bytes, flags: int) -> str:
    """The kernel's message in an acknowledgement, if it sent one (NLM_F_ACK_TLVS 0x200; NLMSGERR_ATTR_MSG 1)."""
    if not flags & 0x200 or len(payload) < 20:
        return ""
    length = 20 if flags & 0x100 else 4 + _U32.unpack_from(payload, 4)[0]  # NLM_F_CAPPED 0x100
    return attributes(payload, length).get(1, b"").rstrip(b"\0").decode("utf-8", "replace")
