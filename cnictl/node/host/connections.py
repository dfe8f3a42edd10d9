"""List the connections that the kernel tracks. The plugin does not need this, so it is not in `core`'s `conntrack`.

Sources: linux/netfilter/nfnetlink_conntrack.h.
"""

from collections.abc import Iterator

from cnictl.core.netlink.conntrack import GET, HEAD, TUPLE_IP, TUPLE_ORIG, TUPLE_REPLY, V4_SOURCE, V6_SOURCE
from cnictl.core.netlink.messages import AF_INET, AF_INET6, NETLINK_NETFILTER, Netlink, attr, attributes

_DESTINATION = 1  # CTA_IP_V4_DST and CTA_IP_V6_DST come one after the source's
_TUPLE_PROTO, _PROTO_NUM, _SOURCE_PORT, _PORT = 2, 1, 2, 3  # CTA_TUPLE_PROTO, CTA_PROTO_NUM, _SRC_PORT, _DST_PORT
_STATUS, _STATUS_MASK, _DST_NAT = 3, 26, 1 << 5  # CTA_STATUS, CTA_STATUS_MASK, IPS_DST_NAT
_SEEN_REPLY, _ASSURED = 1 << 1, 1 << 2  # IPS_SEEN_REPLY, IPS_ASSURED (linux/netfilter/nf_conntrack_common.h)


class Connection:
    """A tracked connection: source, target, and the answering address. With NAT this differs from the target."""

    __slots__ = ("answering", "answering_port", "port", "protocol", "replied_to", "source", "status", "target")

    def __init__(
        self, protocol: int, source: bytes, target: bytes, answering: bytes, port: int = 0, answering_port: int = 0,
        status: int = 0, replied_to: bytes = b"",
    ) -> None:  # fmt: skip
        self.protocol = protocol
        """IPPROTO_*."""
        self.source = source
        self.target = target
        self.answering = answering
        """The address that answers."""
        self.port = port
        """The destination port; 0 for a protocol without ports, such as ICMP."""
        self.answering_port = answering_port
        self.status = status
        """IPS_*."""
        self.replied_to = replied_to
        """The address that answers go to; it differs from the source with NAT."""

    @property
    def answered(self) -> bool:
        """Whether there was an answer; in TCP it may be a refusal."""
        return bool(self.status & _SEEN_REPLY)

    @property
    def assured(self) -> bool:
        """Whether TCP was established, or UDP went on after the first answer."""
        return bool(self.status & _ASSURED)


def connections(sent_on: bool = False) -> Iterator[Connection]:
    """Yield every tracked connection; with `sent_on`, at least those whose destination NAT has changed.

    Since Linux 5.15 the kernel itself selects these: a busy host has hundreds of thousands of connections.
    Raises NetlinkError.
    """
    wanted = b"".join(attr(kind, _DST_NAT.to_bytes(4, "big")) for kind in (_STATUS, _STATUS_MASK)) if sent_on else b""
    with Netlink(NETLINK_NETFILTER) as netlink:
        for family, source in ((AF_INET, V4_SOURCE), (AF_INET6, V6_SOURCE)):
            for entry in netlink.dump(GET, HEAD[family] + wanted):
                parts = attributes(entry, 4)
                original, reply = (attributes(parts.get(kind, b"")) for kind in (TUPLE_ORIG, TUPLE_REPLY))
                addresses = attributes(original.get(TUPLE_IP, b""))
                sent, back = (attributes(way.get(_TUPLE_PROTO, b"")) for way in (original, reply))
                reply_addresses = attributes(reply.get(TUPLE_IP, b""))
                yield Connection(
                    int.from_bytes(sent.get(_PROTO_NUM, b""), "big"),
                    addresses.get(source, b""),
                    addresses.get(source + _DESTINATION, b""),
                    reply_addresses.get(source, b""),
                    int.from_bytes(sent.get(_PORT, b""), "big"),
                    int.from_bytes(back.get(_SOURCE_PORT, b""), "big"),
                    int.from_bytes(parts.get(_STATUS, b""), "big"),
                    reply_addresses.get(source + _DESTINATION, b""),
                )
