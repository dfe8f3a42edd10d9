"""The few rtnetlink messages of a pod's start, as bytes: what a netlink library costs to import is a pod's start.

Sources: linux/netlink.h, linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h, net/core/rtnetlink.c.
"""

import errno
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

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_GETROUTE = 24, 26

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER = 1, 3, 4, 5, 10
IFLA_LINKINFO, IFLA_IFALIAS, IFLA_NET_NS_FD = 18, 20, 28
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
IFLA_OPERSTATE = 16
IFLA_BR_NF_CALL_IPTABLES = 36
IFLA_BRPORT_MODE = 4
VETH_INFO_PEER = 1
NESTED = 0x8000

IFF_UP = 0x1
AF_UNSPEC, AF_INET, AF_INET6, AF_NETLINK = 0, 2, 10, 16
NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12
SOL_NETLINK, NETLINK_CAP_ACK, NETLINK_EXT_ACK = 270, 10, 11
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST = 1, 2, 4
RTA_DST, RTA_OIF, RTA_GATEWAY = 1, 4, 5
RT_TABLE_MAIN, RTPROT_BOOT, RT_SCOPE_UNIVERSE, RTN_UNICAST = 254, 3, 0, 1

_HEADER = Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ATTR = Struct("=HH")
_IFINFO = Struct("=BBHiII")  # ifinfomsg: family, pad, device type, index, flags, change mask
_IFADDR = Struct("=BBBBi")  # ifaddrmsg: family, prefix, flags, scope, index
_RTMSG = Struct("=BBBBBBBBI")  # rtmsg: family, dst len, src len, tos, table, protocol, scope, type, flags
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


class Netlink:
    """A netlink socket of the network namespace the calling thread is in when it is made."""

    def __init__(self, protocol: int = NETLINK_ROUTE) -> None:
        self._socket = socket.socket(AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
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
        first = self._sequence + 1
        out = []
        for kind, flags, payload in messages:
            self._sequence += 1
            out.append(
                _HEADER.pack(16 + len(payload), kind, flags | NLM_F_REQUEST | NLM_F_ACK, self._sequence, 0) + payload
            )
        self._socket.send(b"".join(out))
        waiting = len(out)
        refused: NetlinkError | None = None
        while waiting:
            for kind, sequence, flags, payload in self._receive():
                if kind == NLMSG_ERROR and sequence >= first:
                    waiting -= 1
                    number = -_S32.unpack_from(payload)[0]
                    if number and refused is None:
                        refused = NetlinkError(number, _words(payload, flags), sequence - first)
        if refused is not None:
            raise refused

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


class Link:
    """A network device as the kernel describes it."""

    __slots__ = (
        "alias",
        "flags",
        "index",
        "kind",
        "mac",
        "master",
        "mtu",
        "name",
        "operstate",
        "peer",
    )

    def __init__(self, payload: bytes) -> None:
        _, _, _, self.index, self.flags, _ = _IFINFO.unpack_from(payload)
        found = attributes(payload, 16)
        info = attributes(found.get(IFLA_LINKINFO, b""))
        self.name = found.get(IFLA_IFNAME, b"").rstrip(b"\0").decode("utf-8", "surrogateescape")
        self.kind = info.get(IFLA_INFO_KIND, b"").rstrip(b"\0").decode()
        self.mac = format_mac(found.get(IFLA_ADDRESS, b""))
        self.mtu = _U32.unpack(found.get(IFLA_MTU, b"\0\0\0\0"))[0]
        self.master = _U32.unpack(found.get(IFLA_MASTER, b"\0\0\0\0"))[0]
        self.operstate = found.get(IFLA_OPERSTATE, b"\0")[0]
        self.peer = _U32.unpack(found.get(IFLA_LINK, b"\0\0\0\0"))[0]
        """Index of a veth's other end, in that end's namespace."""
        self.alias = found.get(IFLA_IFALIAS, b"").rstrip(b"\0").decode("utf-8", "replace")

    @property
    def up(self) -> bool:
        """Administratively up."""
        return bool(self.flags & IFF_UP)


def format_mac(raw: bytes) -> str:
    """`02:00:00:00:00:01`."""
    return ":".join(f"{octet:02x}" for octet in raw)


def parse_mac(text: str) -> bytes:
    """Six bytes of a unicast MAC. Raises ValueError."""
    raw = bytes.fromhex(text.replace(":", "")) if text.count(":") == 5 else b""
    if len(raw) != 6 or raw[0] & 1 or raw == bytes(6):
        raise ValueError(f"{text!r} is not a unicast MAC address such as 02:00:00:00:00:01")
    return raw


def get_link(netlink: Netlink, name: str) -> Link | None:
    """The link of that name, or None."""
    try:
        return Link(netlink.dump(RTM_GETLINK, ifinfo() + text_attr(IFLA_IFNAME, name), flags=0)[0])
    except NetlinkError as error:
        if error.errno == errno.ENODEV:
            return None
        raise


def all_links(netlink: Netlink) -> list[Link]:
    """Every link of the namespace."""
    return [Link(payload) for payload in netlink.dump(RTM_GETLINK, ifinfo())]


def delete_link(netlink: Netlink, name: str) -> bool:
    """Delete the link (a veth's other end goes with it); False if there was none. Raises NetlinkError."""
    try:
        netlink.call((RTM_DELLINK, 0, ifinfo() + text_attr(IFLA_IFNAME, name)))
    except NetlinkError as error:
        if error.errno == errno.ENODEV:
            return False
        raise
    return True


def addresses(netlink: Netlink, index: int, family: int = AF_UNSPEC) -> list[tuple[bytes, int]]:
    """`(packed address, prefix length)` of every address on the link with that index."""
    found = []
    for payload in netlink.dump(RTM_GETADDR, _IFADDR.pack(family, 0, 0, 0, 0)):
        _, prefix, _, _, owner = _IFADDR.unpack_from(payload)
        if owner == index:
            parts = attributes(payload, 8)
            packed = parts.get(IFA_LOCAL) or parts.get(IFA_ADDRESS)
            if packed:
                found.append((packed, prefix))
    return found


def routes(netlink: Netlink, family: int) -> list[tuple[bytes | None, int, bytes | None, int]]:
    """Unicast routes of the main table as `(destination or None for the default, prefix, gateway, link index)`."""
    found = []
    for payload in netlink.dump(RTM_GETROUTE, _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)):
        _, prefix, _, _, table, _, _, kind, _ = _RTMSG.unpack_from(payload)
        if table == RT_TABLE_MAIN and kind == RTN_UNICAST:
            parts = attributes(payload, 12)
            index = _U32.unpack(parts.get(RTA_OIF, b"\0\0\0\0"))[0]
            found.append((parts.get(RTA_DST), prefix, parts.get(RTA_GATEWAY), index))
    return found


def ifinfo(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    """An ifinfomsg: which link (0: by an IFLA_IFNAME that follows), and which flags to set."""
    return _IFINFO.pack(AF_UNSPEC, 0, 0, index, flags, change)


def set_up(index: int) -> tuple[int, int, bytes]:
    """The message that brings a link up."""
    return RTM_NEWLINK, 0, ifinfo(index, IFF_UP, IFF_UP)


def add_address(index: int, packed: bytes, prefix: int) -> tuple[int, int, bytes]:
    """The message that gives a link an address; an IPv4 one with its subnet's broadcast (/31 and /32 have none)."""
    family = AF_INET if len(packed) == 4 else AF_INET6
    body = _IFADDR.pack(family, prefix, 0, 0, index) + attr(IFA_LOCAL, packed) + attr(IFA_ADDRESS, packed)
    if len(packed) == 4 and prefix < 31:
        broadcast = int.from_bytes(packed, "big") | ((1 << (32 - prefix)) - 1)
        body += attr(IFA_BROADCAST, broadcast.to_bytes(4, "big"))
    return RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, body


def add_route(index: int, destination: bytes | None, prefix: int, gateway: bytes) -> tuple[int, int, bytes]:
    """The message that adds a route through `gateway` on a link; no destination means the default route."""
    family = AF_INET if len(gateway) == 4 else AF_INET6
    body = _RTMSG.pack(
        family,
        prefix if destination else 0,
        0,
        0,
        RT_TABLE_MAIN,
        RTPROT_BOOT,
        RT_SCOPE_UNIVERSE,
        RTN_UNICAST,
        0,
    )
    if destination:
        body += attr(RTA_DST, destination)
    body += attr(RTA_GATEWAY, gateway) + u32_attr(RTA_OIF, index)
    return RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, body


def add_veth_pair(
    host_name: str,
    host_mac: bytes,
    bridge_index: int,
    peer_name: str,
    peer_mac: bytes,
    peer_netns: int,
    mtu: int,
) -> tuple[int, int, bytes]:
    """The message that makes a veth pair: host end up and on the bridge, its peer already in the pod's namespace.

    `peer_netns` is an open descriptor; `mtu` in bytes. The peer can't be up here: the kernel answers ENOTCONN.
    """
    peer = (
        ifinfo()
        + text_attr(IFLA_IFNAME, peer_name)
        + attr(IFLA_ADDRESS, peer_mac)
        + u32_attr(IFLA_MTU, mtu)
        + u32_attr(IFLA_NET_NS_FD, peer_netns)
    )
    body = (
        ifinfo(0, IFF_UP, IFF_UP)
        + text_attr(IFLA_IFNAME, host_name)
        + attr(IFLA_ADDRESS, host_mac)
        + u32_attr(IFLA_MTU, mtu)
        + u32_attr(IFLA_MASTER, bridge_index)
        + attr(
            IFLA_LINKINFO | NESTED,
            text_attr(IFLA_INFO_KIND, "veth") + attr(IFLA_INFO_DATA | NESTED, attr(VETH_INFO_PEER | NESTED, peer)),
        )
    )
    return RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body


def set_alias(name: str, alias: str) -> tuple[int, int, bytes]:
    """The message that labels a link: a label in the message that makes one is ignored (rtnl_create_link)."""
    # without the closing NUL, that would count among the 255 bytes it may have
    label = attr(IFLA_IFALIAS, alias.encode("utf-8", "surrogateescape"))
    return RTM_NEWLINK, 0, ifinfo() + text_attr(IFLA_IFNAME, name) + label


def set_hairpin(name: str) -> tuple[int, int, bytes]:
    """The message that lets a bridge port send frames back out of itself (IFLA_BRPORT_MODE)."""
    info = text_attr(IFLA_INFO_SLAVE_KIND, "bridge") + attr(
        IFLA_INFO_SLAVE_DATA | NESTED, attr(IFLA_BRPORT_MODE, b"\1")
    )
    return RTM_NEWLINK, 0, ifinfo() + text_attr(IFLA_IFNAME, name) + attr(IFLA_LINKINFO | NESTED, info)
