"""Read the kernel's trace messages: which rule or policy decided on a packet, and what the packet looked like.

Sources: linux/netfilter/nf_tables.h (nft_trace_attributes), net/netfilter/nf_tables_trace.c. The kernel describes the
packet only in the first message of each hook's chain.
"""

import socket
import struct
from dataclasses import dataclass

from cnictl.core.netlink.rtnetlink import attributes

_TABLE, _CHAIN, _HANDLE, _TYPE, _VERDICT = 1, 2, 3, 4, 5
_NETWORK_HEADER, _TRANSPORT_HEADER, _IIF, _OIF, _MARK, _POLICY = 8, 9, 10, 12, 14, 16
_HEADERS = 20
"""Bytes of the netlink and nfgenmsg headers."""
_FAMILY_AT = 16
_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
POLICY, RETURN, RULE = "policy", "return", "rule"
_TYPES = {1: POLICY, 2: RETURN, 3: RULE}
DROP, ACCEPT = "drop", "accept"
_VERDICTS = {
    0: DROP,
    1: ACCEPT,
    2: "stolen",
    3: "queue",
    -1: "continue",
    -2: "break",
    -3: "jump",
    -4: "goto",
    -5: "return",
}
_VERDICT_CODE, _VERDICT_CHAIN = 1, 2


@dataclass(frozen=True)
class TracedPacket:
    """A packet as a hook sees it."""

    iif: str = ""
    oif: str = ""
    source: str = ""
    destination: str = ""
    port: int = 0
    """The destination port of TCP or UDP."""


@dataclass(frozen=True)
class Event:
    """One decision on a packet."""

    kind: str
    """RULE, POLICY or RETURN."""
    family: str
    table: str
    chain: str
    handle: int = 0
    """The rule's handle; 0 for a policy."""
    verdict: str = ""
    """The decision in nft's words: `accept`, `drop`, `jump`, ..."""
    to: str = ""
    """The chain that a jump or goto leads to."""
    mark: int = 0
    """The packet's mark."""
    seen: TracedPacket | None = None

    @property
    def place(self) -> tuple[str, str, str]:
        """Family, table and chain."""
        return self.family, self.table, self.chain

    @property
    def drops(self) -> bool:
        """Whether the packet ends here."""
        return self.verdict == DROP and self.kind in (RULE, POLICY)


def read_event(message: bytes) -> Event | None:
    """Return a trace message as an event; None if this reader does not know it."""
    try:
        parts = attributes(message, _HEADERS)
        kind, handle = _TYPES[_number(parts, _TYPE)], _number(parts, _HANDLE)
        if kind == RULE and not handle:
            kind = RETURN  # the end of a chain, which some kernels report as a rule
        verdict, to = _verdict(parts)
        return Event(
            kind,
            _FAMILIES.get(message[_FAMILY_AT], "inet"),
            _text(parts, _TABLE),
            _text(parts, _CHAIN),
            handle,
            verdict,
            to,
            _number(parts, _MARK),
            _seen(parts),
        )
    except (KeyError, IndexError, struct.error):
        return None


def _verdict(parts: dict[int, bytes]) -> tuple[str, str]:
    if _POLICY in parts:
        return _VERDICTS.get(_number(parts, _POLICY), ""), ""
    if _VERDICT not in parts:
        return "", ""
    inner = attributes(parts[_VERDICT])
    (code,) = struct.unpack("!i", inner.get(_VERDICT_CODE, b"\xff\xff\xff\xff"))
    return _VERDICTS.get(code, str(code)), _text(inner, _VERDICT_CHAIN)


def _seen(parts: dict[int, bytes]) -> TracedPacket | None:
    """Return the packet if the message describes it."""
    header = parts.get(_NETWORK_HEADER, b"")
    if not header and _IIF not in parts and _OIF not in parts:
        return None
    source, destination = "", ""
    if len(header) >= 20 and header[0] >> 4 == 4:
        source, destination = socket.inet_ntoa(header[12:16]), socket.inet_ntoa(header[16:20])
    elif len(header) >= 40 and header[0] >> 4 == 6:
        source, destination = (socket.inet_ntop(socket.AF_INET6, header[at : at + 16]) for at in (8, 24))
    protocol = header[9:10] if len(source) and header[0] >> 4 == 4 else header[6:7]
    ports = parts.get(_TRANSPORT_HEADER, b"")[2:4] if protocol in (b"\x06", b"\x11") else b""
    return TracedPacket(_link(parts, _IIF), _link(parts, _OIF), source, destination, int.from_bytes(ports, "big"))


def _link(parts: dict[int, bytes], kind: int) -> str:
    index = _number(parts, kind)
    try:
        return socket.if_indextoname(index) if index else ""
    except OSError:
        return f"link {index}"


def _number(parts: dict[int, bytes], kind: int) -> int:
    return int.from_bytes(parts.get(kind, b""), "big")


def _text(parts: dict[int, bytes], kind: int) -> str:
    return parts.get(kind, b"").rstrip(b"\0").decode("utf-8", "replace")
