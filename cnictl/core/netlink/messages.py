"""A netlink socket and the attributes of its messages: importing a library would take longer than the pod's start.

Sources: linux/netlink.h, linux/socket.h.
"""

from errno import EAGAIN, EMSGSIZE, ENOBUFS, EPROTONOSUPPORT
from posix import strerror

try:
    import _socket as socket
    from _struct import Struct
except ImportError:
    import socket  # type: ignore[no-redef]
    from struct import Struct

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLM_F_DUMP_INTR = 0x10
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400
NLMSG_ERROR, NLMSG_DONE = 2, 3
NESTED = 0x8000
AF_UNSPEC, AF_INET, AF_INET6, AF_NETLINK = 0, 2, 10, 16
NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12
SOL_NETLINK, NETLINK_CAP_ACK, NETLINK_EXT_ACK = 270, 10, 11

_HEADER = Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ATTR = Struct("=HH")
_U32 = Struct("=I")
_S32 = Struct("=i")
_RECEIVE = (
    1 << 15
)  # the most that the kernel sends in one read of a dump; a buffer above 128 KiB would need a separate mapping
_LARGEST = (
    1 << 20
)  # bytes of the longest message that is read: a link with many virtual functions has more than _RECEIVE

_MOST_MESSAGES, _MOST_BYTES = 64, 1 << 15
"""The most messages and bytes per datagram. The kernel answers each refused message with up to 1 KiB, and the socket's
buffer holds about 200 KiB."""
_FEW = 8
"""Messages whose answers fit into any socket's buffer, however small net.core.rmem_default is."""
_ROOM = 1 << 20
"""Bytes to request for the socket's buffer if there are more messages than `_FEW`."""
_TRIES = 8
"""The most times that a listing is read if something changes during each. The last one is used anyway."""
_SOL_SOCKET, _DONT_WAIT = 1, 0x40
_SO_SNDBUF, _SO_RCVBUF, _SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 7, 8, 32, 33


class NetlinkError(OSError):
    """The kernel refused a message: errno, the kernel's message if any (extended ack), and the place in the batch."""

    def __init__(self, number: int, message: str, position: int) -> None:
        super().__init__(number, message or strerror(number))
        self.position = position


def attr(kind: int, payload: bytes) -> bytes:
    """Return an attribute, padded to 4 bytes."""
    return _ATTR.pack(len(payload) + 4, kind) + payload + b"\0" * (-len(payload) % 4)


def text_attr(kind: int, value: str) -> bytes:
    """Return an attribute with a NUL-terminated string."""
    return attr(kind, value.encode("utf-8", "surrogateescape") + b"\0")


def u32_attr(kind: int, value: int) -> bytes:
    """Return an attribute with a 32-bit unsigned number in host order."""
    return attr(kind, _U32.pack(value))


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """Return the attributes from `offset` on by their type, nested flag cleared; the last one of a repeated type."""
    attribute_by_type = {}
    end = len(data)
    while offset + 4 <= end:
        length, kind = _ATTR.unpack_from(data, offset)
        if length < 4:
            break
        attribute_by_type[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return attribute_by_type


def repeated(data: bytes, wanted: int, offset: int = 0) -> list[bytes]:
    """Return every attribute of one type from `offset` on, whether or not it has the nested flag."""
    payloads = []
    while offset + 4 <= len(data):
        length, kind = _ATTR.unpack_from(data, offset)
        if length < 4:
            break
        if kind & 0x3FFF == wanted:
            payloads.append(data[offset + 4 : offset + length])
        offset += (length + 3) & ~3
    return payloads


class Netlink:
    """A netlink socket of the network namespace that the calling thread is in when it is created.

    Raises NetlinkError if the kernel lacks the protocol.
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
        self._room = _RECEIVE
        """Bytes to read in one call."""
        self._interrupted = self._cut = False
        """Whether something changed during the last listing, and whether a message of it did not fit."""

    def __enter__(self) -> "Netlink":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def call(self, *messages: tuple[int, int, bytes]) -> None:
        """Send `(type, flags, payload)` messages, which the kernel executes in order.

        Raises NetlinkError for the first refused one; the kernel still tries those after it.
        """
        for refused in self.refusals(*messages):
            raise refused

    def refusals(self, *messages: tuple[int, int, bytes]) -> list[NetlinkError]:
        """Send messages as `call` does, but return the refusals in order instead of raising them.

        Many messages are sent as several datagrams, each answered before the next: the answers to all of them would not
        fit into the socket's buffer.
        """
        if len(messages) > _FEW:
            self._make_room()
        refused: list[NetlinkError] = []
        out: list[bytes] = []
        size = sent = 0
        for kind, flags, payload in messages:
            length = 16 + len(payload)
            if out and (len(out) == _MOST_MESSAGES or size + length > _MOST_BYTES):
                refused += self._send(out, sent)
                sent += len(out)
                out, size = [], 0
            self._sequence += 1
            out.append(_HEADER.pack(length, kind, flags | NLM_F_REQUEST | NLM_F_ACK, self._sequence, 0) + payload)
            size += length
        if out:
            refused += self._send(out, sent)
        return refused

    def _send(self, out: list[bytes], sent: int) -> list[NetlinkError]:
        """Send messages as one datagram and return the refusals; `sent`: the number of messages sent before.

        The kernel has queued all answers when `send` returns. If they did not fit, the queued ones are read, and the
        first message without an answer counts as refused, since its outcome is unknown.
        """
        self._socket.send(b"".join(out))
        first = self._sequence - len(out) + 1
        waiting, wait_flags = len(out), 0
        refused: list[NetlinkError] = []
        answered = set()
        while waiting:
            try:
                answers = self._receive(wait_flags)
            except OSError as error:
                if error.errno == ENOBUFS:
                    wait_flags = _DONT_WAIT
                    continue
                if error.errno != EAGAIN or not wait_flags:
                    raise
                lost = next(place for place in range(len(out)) if place not in answered)
                refused.append(
                    NetlinkError(
                        ENOBUFS, "the socket's buffer overflowed and lost responses from the kernel", sent + lost
                    )
                )
                return sorted(refused, key=lambda refusal: refusal.position)
            for kind, sequence, flags, payload in answers:
                if kind == NLMSG_ERROR and sequence >= first:
                    waiting -= 1
                    answered.add(sequence - first)
                    number = -_S32.unpack_from(payload)[0]
                    if number:
                        refused.append(NetlinkError(number, _words(payload, flags), sent + sequence - first))
        return refused

    def dump(self, kind: int, payload: bytes, flags: int = NLM_F_DUMP) -> list[bytes]:
        """Return the payloads of the answers to one request. Raises NetlinkError.

        If something changed during a listing, entries that existed all the time may be missing, so it is repeated.
        """
        for _ in range(_TRIES):
            self._interrupted = self._cut = False
            answers = self._answers(kind, payload, flags)
            if self._cut:
                if self._room >= _LARGEST:
                    raise NetlinkError(EMSGSIZE, "a response from the kernel is too long", 0)
                self._room <<= 2
            elif not self._interrupted:
                break
        return answers

    def _answers(self, kind: int, payload: bytes, flags: int) -> list[bytes]:
        self._sequence += 1
        request = _HEADER.pack(16 + len(payload), kind, flags | NLM_F_REQUEST, self._sequence, 0) + payload
        self._socket.send(request)
        answers: list[bytes] = []
        while True:
            for answer, sequence, header_flags, body in self._receive():
                if sequence != self._sequence:
                    continue
                if header_flags & NLM_F_DUMP_INTR:
                    self._interrupted = True
                if answer == NLMSG_DONE:
                    number = -_S32.unpack_from(body)[0] if len(body) >= 4 else 0
                    if number > 0:
                        raise NetlinkError(number, "", 0)
                    return answers
                if answer == NLMSG_ERROR:
                    number = -_S32.unpack_from(body)[0]
                    raise NetlinkError(number, _words(body, header_flags), 0)
                answers.append(body)
                if flags & NLM_F_DUMP == 0:
                    return answers

    def _make_room(self, size: int = _ROOM, sending: bool = False) -> None:
        """Enlarge the socket's buffer to `size` bytes, or as far as the host allows."""
        forced, plain = (_SO_SNDBUFFORCE, _SO_SNDBUF) if sending else (_SO_RCVBUFFORCE, _SO_RCVBUF)
        try:
            self._socket.setsockopt(_SOL_SOCKET, forced, size)
        except OSError:  # not permitted in a user namespace
            self._socket.setsockopt(_SOL_SOCKET, plain, size)

    def _receive(self, flags: int = 0) -> list[tuple[int, int, int, bytes]]:
        data = self._socket.recv(self._room, flags)
        messages = []
        offset = 0
        while offset + 16 <= len(data):
            length, kind, header_flags, sequence, _ = _HEADER.unpack_from(data, offset)
            if length < 16:
                break
            if offset + length > len(data):
                self._cut = True
            messages.append((kind, sequence, header_flags, data[offset + 16 : offset + length]))
            offset += (length + 3) & ~3
        return messages


def _words(payload: bytes, flags: int) -> str:
    """Return the kernel's message in an acknowledgement, if any (NLM_F_ACK_TLVS 0x200; NLMSGERR_ATTR_MSG 1)."""
    if not flags & 0x200 or len(payload) < 20:
        return ""
    length = 20 if flags & 0x100 else 4 + _U32.unpack_from(payload, 4)[0]  # NLM_F_CAPPED 0x100
    return attributes(payload, length).get(1, b"").rstrip(b"\0").decode("utf-8", "replace")
