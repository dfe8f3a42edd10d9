"""Ask DNS servers from inside a network namespace. Sources: RFC 1035 (sections 3.2.2, 4.1), RFC 3596 (AAAA)."""

import os
import socket
import struct
import time
from dataclasses import dataclass

from cnictl.core.cidr import format_address
from cnictl.node.spec.node_spec import is_ipv6
from cnictl.probe.netns_thread import inside

A, NS, CNAME, AAAA = 1, 2, 5, 28
NO_SUCH_NAME = 3
RCODES = {1: "format error", 2: "server failure", 3: "no such name", 4: "not implemented", 5: "refused"}
_PORT, _IN = 53, 1
_HEADER = struct.Struct("!HHHHHH")
_RECURSION, _RESPONSE, _TRUNCATED = 0x0100, 0x8000, 0x0200
_MOST_LABELS = 128
_LARGEST = 1 << 16


@dataclass(frozen=True)
class DnsAnswer:
    """A DNS server's answer to one question."""

    rcode: int
    addresses: tuple[str, ...] = ()
    truncated: bool = False
    seconds: float = 0.0

    @property
    def words(self) -> str:
        """The answer in words."""
        if self.addresses:
            return ", ".join(self.addresses)
        return RCODES.get(self.rcode, f"error {self.rcode}") if self.rcode else "no address"


def query(name: str, kind: int, ident: int) -> bytes:
    """Return the message that asks for the records of a kind. Raises ValueError if `name` can't be a DNS name."""
    labels = name.strip(".").encode("idna" if not name.isascii() else "ascii").split(b".") if name.strip(".") else []
    if any(not 0 < len(label) < 64 for label in labels) or sum(len(label) + 1 for label in labels) > 254:
        raise ValueError(f"{name!r} is not a DNS name")
    encoded = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return _HEADER.pack(ident, _RECURSION, 1, 0, 0, 0) + encoded + struct.pack("!HH", kind, _IN)


def read_answer(message: bytes, ident: int, kind: int) -> DnsAnswer | None:
    """Return a server's answer to the question of that identifier; None if the message is something else."""
    try:
        number, flags, questions, answers, _, _ = _HEADER.unpack_from(message)
        if number != ident or not flags & _RESPONSE:
            return None
        offset = _HEADER.size
        for _ in range(questions):
            offset = _after_name(message, offset) + 4
        addresses = []
        for _ in range(answers):
            offset = _after_name(message, offset)
            its_kind, its_class, _, length = struct.unpack_from("!HHIH", message, offset)
            data = message[offset + 10 : offset + 10 + length]
            if (its_kind, its_class) == (kind, _IN) and len(data) == {A: 4, AAAA: 16}.get(kind):
                addresses.append(format_address(data))
            offset += 10 + length
    except (struct.error, IndexError):
        return None
    return DnsAnswer(flags & 15, tuple(addresses), bool(flags & _TRUNCATED))


def _after_name(message: bytes, offset: int) -> int:
    """Return the offset after a name. A name may end with a pointer to an earlier name. Raises IndexError."""
    for _ in range(_MOST_LABELS):
        length = message[offset]
        if length & 0xC0:
            return offset + 2
        offset += length + 1
        if not length:
            return offset
    raise IndexError("a name without end")


def ask(netns: str, server: str, name: str, kind: int, timeout: float) -> DnsAnswer | None:
    """Ask a server from the namespace at path `netns` (empty: our own) for the records of a name.

    `kind` is A, AAAA or NS; only addresses are read from the answer. Return None if no answer came within `timeout`
    seconds. A truncated answer is requested again over TCP. Raises OSError if the kernel refuses to send or the
    server's host refuses the question.
    """
    start = time.monotonic()
    ident = int.from_bytes(os.urandom(2), "big")
    question = query(name, kind, ident)
    with inside(netns, lambda: _socket(server, socket.SOCK_DGRAM)) as asking:
        asking.connect((server, _PORT))
        asking.send(question)
        answer = None
        while answer is None and (left := start + timeout - time.monotonic()) > 0:
            asking.settimeout(left)
            try:
                answer = read_answer(asking.recv(_LARGEST), ident, kind)
            except TimeoutError:
                return None
    if answer is not None and answer.truncated:
        answer = _ask_again(netns, server, question, ident, kind, timeout) or answer
    if answer is None:
        return None
    return DnsAnswer(answer.rcode, answer.addresses, answer.truncated, time.monotonic() - start)


def _ask_again(netns: str, server: str, question: bytes, ident: int, kind: int, timeout: float) -> DnsAnswer | None:
    """Ask over TCP; return None if that fails (RFC 1035, section 4.2.2)."""
    with inside(netns, lambda: _socket(server, socket.SOCK_STREAM)) as asking:
        asking.settimeout(timeout)
        try:
            asking.connect((server, _PORT))
            asking.sendall(len(question).to_bytes(2, "big") + question)
            message = b""
            while len(message) < 2 or len(message) < 2 + int.from_bytes(message[:2], "big"):
                piece = asking.recv(_LARGEST)
                if not piece:
                    return None
                message += piece
        except OSError:
            return None
    return read_answer(message[2:], ident, kind)


def _socket(server: str, kind: int) -> socket.socket:
    return socket.socket(socket.AF_INET6 if is_ipv6(server) else socket.AF_INET, kind)
