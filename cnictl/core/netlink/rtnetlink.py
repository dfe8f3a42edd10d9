"""The rtnetlink messages that a pod's start needs: links, addresses and routes.

Sources: linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h, net/core/rtnetlink.c.
"""

import errno
from posix import urandom

from cnictl.core.netlink.messages import AF_INET as AF_INET
from cnictl.core.netlink.messages import AF_INET6 as AF_INET6
from cnictl.core.netlink.messages import AF_NETLINK as AF_NETLINK
from cnictl.core.netlink.messages import AF_UNSPEC as AF_UNSPEC
from cnictl.core.netlink.messages import NESTED as NESTED
from cnictl.core.netlink.messages import NETLINK_NETFILTER as NETLINK_NETFILTER
from cnictl.core.netlink.messages import NLM_F_CREATE as NLM_F_CREATE
from cnictl.core.netlink.messages import NLM_F_DUMP as NLM_F_DUMP
from cnictl.core.netlink.messages import NLM_F_EXCL as NLM_F_EXCL
from cnictl.core.netlink.messages import NLM_F_REPLACE as NLM_F_REPLACE
from cnictl.core.netlink.messages import Netlink as Netlink
from cnictl.core.netlink.messages import NetlinkError as NetlinkError
from cnictl.core.netlink.messages import attr as attr
from cnictl.core.netlink.messages import attributes as attributes
from cnictl.core.netlink.messages import text_attr as text_attr
from cnictl.core.netlink.messages import u32_attr as u32_attr

try:
    from _struct import Struct
except ImportError:
    from struct import Struct

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER = 1, 3, 4, 5, 10
IFLA_LINKINFO, IFLA_IFALIAS, IFLA_NET_NS_FD = 18, 20, 28
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
IFLA_OPERSTATE, IFLA_AF_SPEC, IFLA_LINK_NETNSID = 16, 26, 37
IFLA_BR_VLAN_FILTERING, IFLA_BR_NF_CALL_IPTABLES, IFLA_BR_NF_CALL_IP6TABLES = 7, 36, 37
IFLA_BRPORT_MODE, IFLA_BRPORT_ISOLATED = 4, 33
IFLA_INET_CONF, IPV4_DEVCONF_ARP_NOTIFY = 1, 22
VETH_INFO_PEER = 1

IFF_UP, IFF_PROMISC = 0x1, 0x100
OPERSTATE_UP = 6
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST = 1, 2, 4
IFA_F_NODAD = 0x02
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_METRICS, RTA_TABLE = 1, 4, 5, 6, 8, 15
RTAX_MTU, RTAX_ADVMSS = 2, 8
RT_TABLE_COMPAT, RT_TABLE_MAIN, RTPROT_BOOT, RTN_UNICAST, RTN_UNREACHABLE = 252, 254, 3, 1, 7
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RT_SCOPE_NOWHERE = 0, 253, 255

OWNER_MARK = "cnictl:"
"""The prefix of the alias of each link that cnictl made."""

IFINFO = Struct("=BBHiII")  # ifinfomsg: family, pad, device type, index, flags, change mask
IFADDR = Struct("=BBBBi")  # ifaddrmsg: family, prefix, flags, scope, index
RTMSG = Struct("=BBBBBBBBI")  # rtmsg: family, dst len, src len, tos, table, protocol, scope, type, flags
U32 = Struct("=I")


class Link:
    """A network device as the kernel describes it."""

    __slots__ = (
        "_info",
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
        "peer_namespace",
    )

    def __init__(self, payload: bytes) -> None:
        _, _, _, self.index, self.flags, _ = IFINFO.unpack_from(payload)
        parts = attributes(payload, 16)
        self._info = info = attributes(parts.get(IFLA_LINKINFO, b""))
        self.name = parts.get(IFLA_IFNAME, b"").rstrip(b"\0").decode("utf-8", "surrogateescape")
        self.kind = info.get(IFLA_INFO_KIND, b"").rstrip(b"\0").decode()
        self.mac = format_mac(parts.get(IFLA_ADDRESS, b""))
        self.mtu = U32.unpack(parts.get(IFLA_MTU, b"\0\0\0\0"))[0]
        self.master = U32.unpack(parts.get(IFLA_MASTER, b"\0\0\0\0"))[0]
        self.operstate = parts.get(IFLA_OPERSTATE, b"\0")[0]
        self.peer = U32.unpack(parts.get(IFLA_LINK, b"\0\0\0\0"))[0]
        """Index of a veth's other end, in that end's namespace."""
        self.peer_namespace = parts.get(IFLA_LINK_NETNSID, b"")
        """The id of the other end's namespace in this one, packed; empty if both ends are in this namespace."""
        self.alias = parts.get(IFLA_IFALIAS, b"").rstrip(b"\0").decode("utf-8", "replace")

    @property
    def up(self) -> bool:
        """Whether the link is administratively up."""
        return bool(self.flags & IFF_UP)

    @property
    def settings(self) -> dict[int, bytes]:
        """The attributes of its kind: a bridge's are IFLA_BR_*."""
        return attributes(self._info.get(IFLA_INFO_DATA, b""))

    @property
    def port(self) -> dict[int, bytes]:
        """A bridge port's IFLA_BRPORT_* attributes."""
        return attributes(self._info.get(IFLA_INFO_SLAVE_DATA, b""))


def format_mac(raw: bytes) -> str:
    """Return a MAC as text: `02:00:00:00:00:01`."""
    return ":".join(f"{octet:02x}" for octet in raw)


def random_mac() -> bytes:
    """Return a random MAC: locally administered, unicast (IEEE 802)."""
    raw = urandom(6)
    return bytes((raw[0] & 0xFC | 0x02,)) + raw[1:]


def parse_mac(text: str) -> bytes:
    """Return the six bytes of a unicast MAC. Raises ValueError.

    As in Go's net.ParseMAC, the forms are `02:00:00:00:00:01`, `02-00-00-00-00-01` and `0200.0000.0001`.
    """
    separator, width = (":", 2) if ":" in text else ("-", 2) if "-" in text else (".", 4)
    parts = text.split(separator)
    try:  # fromhex() ignores blanks, which leaves too few bytes
        raw = bytes.fromhex("".join(parts)) if all(len(part) == width for part in parts) else b""
    except ValueError:
        raw = b""
    if len(raw) in (8, 20) and len(text) in (14, 19, 23, 49, 59):
        raise ValueError(f"{text[:40]!r} has {len(raw)} octets, an Ethernet address has 6")
    if len(raw) != 6 or raw[0] & 1 or raw == bytes(6):
        raise ValueError(f"{text[:40]!r} is not a unicast MAC address such as 02:00:00:00:00:01")
    return raw


def get_link(netlink: Netlink, name: str) -> Link | None:
    """Return the link with that name, or None."""
    try:
        return Link(netlink.dump(RTM_GETLINK, ifinfo() + text_attr(IFLA_IFNAME, name), flags=0)[0])
    except NetlinkError as error:
        if error.errno == errno.ENODEV:
            return None
        raise


def all_links(netlink: Netlink) -> list[Link]:
    """Return every link of the namespace."""
    return [Link(payload) for payload in netlink.dump(RTM_GETLINK, ifinfo())]


def delete_link(netlink: Netlink, name: str) -> bool:
    """Delete a link, with a veth's other end; return False if there was none. Raises NetlinkError."""
    try:
        netlink.call((RTM_DELLINK, 0, ifinfo() + text_attr(IFLA_IFNAME, name)))
    except NetlinkError as error:
        if error.errno == errno.ENODEV:
            return False
        raise
    return True


def addresses(netlink: Netlink, index: int, family: int = AF_UNSPEC) -> list[tuple[bytes, int]]:
    """Return packed address and prefix length of every address on a link."""
    return [(packed, prefix) for _, packed, prefix in all_addresses(netlink, family, index)]


def all_addresses(netlink: Netlink, family: int = AF_UNSPEC, index: int = 0) -> list[tuple[int, bytes, int]]:
    """Return link index, packed address and prefix length of every address in the namespace, or on one link."""
    listed = []
    for payload in netlink.dump(RTM_GETADDR, IFADDR.pack(family, 0, 0, 0, 0)):
        _, prefix, _, _, owner = IFADDR.unpack_from(payload)
        if index in (0, owner):
            parts = attributes(payload, 8)
            packed = parts.get(IFA_LOCAL) or parts.get(IFA_ADDRESS)
            if packed:
                listed.append((owner, packed, prefix))
    return listed


def dump_routes(netlink: Netlink, family: int) -> list[bytes]:
    """Return every route of a family as the kernel sends it: an rtmsg and attributes."""
    return netlink.dump(RTM_GETROUTE, RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))


def ifinfo(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    """Return an ifinfomsg: the link's index (0: an IFLA_IFNAME follows) and the flags to change."""
    return IFINFO.pack(AF_UNSPEC, 0, 0, index, flags, change)


def set_up(index: int, notify: bool = False) -> tuple[int, int, bytes]:
    """Return the message that brings a link up; with `notify` it announces its IPv4 addresses (sysctl arp_notify)."""
    body = ifinfo(index, IFF_UP, IFF_UP)
    if notify:
        conf = attr(IFLA_INET_CONF | NESTED, u32_attr(IPV4_DEVCONF_ARP_NOTIFY, 1))
        body += attr(IFLA_AF_SPEC | NESTED, attr(AF_INET | NESTED, conf))
    return RTM_NEWLINK, 0, body


def set_promiscuous(name: str, on: bool) -> tuple[int, int, bytes]:
    """Return the message that switches a link's promiscuous mode."""
    return RTM_NEWLINK, 0, ifinfo(0, IFF_PROMISC if on else 0, IFF_PROMISC) + text_attr(IFLA_IFNAME, name)


def set_mac(name: str, mac: bytes) -> tuple[int, int, bytes]:
    """Return the message that sets a link's MAC.

    Setting the present MAC again pins that of a bridge, and announces the addresses of a pod.
    """
    return RTM_NEWLINK, 0, ifinfo() + text_attr(IFLA_IFNAME, name) + attr(IFLA_ADDRESS, mac)


def add_address(index: int, packed: bytes, prefix: int, dad: bool = False) -> tuple[int, int, bytes]:
    """Return the message that adds an address; an IPv4 one with its broadcast address (/31 and /32 have none).

    An IPv6 address is usable immediately, unless `dad` asks for duplicate address detection first.
    """
    family = AF_INET if len(packed) == 4 else AF_INET6
    flags = IFA_F_NODAD if family == AF_INET6 and not dad else 0
    body = IFADDR.pack(family, prefix, flags, 0, index) + attr(IFA_LOCAL, packed) + attr(IFA_ADDRESS, packed)
    if len(packed) == 4 and prefix < 31:
        broadcast = int.from_bytes(packed, "big") | ((1 << (32 - prefix)) - 1)
        body += attr(IFA_BROADCAST, broadcast.to_bytes(4, "big"))
    return RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, body


def delete_address(index: int, packed: bytes, prefix: int) -> tuple[int, int, bytes]:
    """Return the message that removes an address."""
    return RTM_DELADDR, 0, add_address(index, packed, prefix)[2]


def add_route(
    index: int,
    destination: bytes | None,
    prefix: int,
    gateway: bytes,
    mtu: int = 0,
    advmss: int = 0,
    priority: int = 0,
    table: int = RT_TABLE_MAIN,
    scope: int | None = None,
    family: int = AF_UNSPEC,
) -> tuple[int, int, bytes]:
    """Return the message that adds a route through a link; without a destination it is the default route.

    Without a gateway the route has link scope; if it has no destination either, `family` is needed. `mtu` is in bytes;
    0 leaves `mtu`, `advmss` and `priority` to the kernel.
    """
    family = family or (AF_INET if len(destination or gateway) == 4 else AF_INET6)
    if scope is None:
        scope = RT_SCOPE_UNIVERSE if gateway or family == AF_INET6 else RT_SCOPE_LINK
    short = table if table < 256 else RT_TABLE_COMPAT
    body = RTMSG.pack(family, prefix if destination else 0, 0, 0, short, RTPROT_BOOT, scope, RTN_UNICAST, 0)
    if destination:
        body += attr(RTA_DST, destination)
    if gateway:
        body += attr(RTA_GATEWAY, gateway)
    body += u32_attr(RTA_OIF, index)
    if table != RT_TABLE_MAIN:
        body += u32_attr(RTA_TABLE, table)
    if priority:
        body += u32_attr(RTA_PRIORITY, priority)
    metrics = (u32_attr(RTAX_MTU, mtu) if mtu else b"") + (u32_attr(RTAX_ADVMSS, advmss) if advmss else b"")
    if metrics:
        body += attr(RTA_METRICS | NESTED, metrics)
    return RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, body


def add_route_via(
    index: int, destination: bytes, prefix: int, gateway: bytes, protocol: int, replace: bool = False
) -> tuple[int, int, bytes]:
    """Return the message that adds or replaces a route through a gateway in the main table.

    `index` 0 has the kernel find the link.
    """
    family = AF_INET if len(destination) == 4 else AF_INET6
    body = RTMSG.pack(family, prefix, 0, 0, RT_TABLE_MAIN, protocol, RT_SCOPE_UNIVERSE, RTN_UNICAST, 0)
    body += attr(RTA_DST, destination) + attr(RTA_GATEWAY, gateway) + (u32_attr(RTA_OIF, index) if index else b"")
    return RTM_NEWROUTE, NLM_F_CREATE | (NLM_F_REPLACE if replace else NLM_F_EXCL), body


def refuse_route(destination: bytes, prefix: int, protocol: int, priority: int) -> tuple[int, int, bytes]:
    """Return the message that adds an unreachable route (RTN_UNREACHABLE) with metric `priority` to the main table."""
    family = AF_INET if len(destination) == 4 else AF_INET6
    body = RTMSG.pack(family, prefix, 0, 0, RT_TABLE_MAIN, protocol, RT_SCOPE_UNIVERSE, RTN_UNREACHABLE, 0)
    body += attr(RTA_DST, destination) + u32_attr(RTA_PRIORITY, priority)
    return RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, body


def delete_route(destination: bytes, prefix: int, protocol: int, priority: int = 0) -> tuple[int, int, bytes]:
    """Return the message that removes a route with this protocol from the main table (`priority` 0: any metric)."""
    family = AF_INET if len(destination) == 4 else AF_INET6
    body = RTMSG.pack(family, prefix, 0, 0, RT_TABLE_MAIN, protocol, RT_SCOPE_NOWHERE, 0, 0)
    body += attr(RTA_DST, destination) + (u32_attr(RTA_PRIORITY, priority) if priority else b"")
    return RTM_DELROUTE, 0, body


def add_veth_pair(
    host_name: str,
    host_mac: bytes,
    bridge_index: int,
    peer_name: str,
    peer_mac: bytes,
    peer_netns: int,
    mtu: int,
) -> tuple[int, int, bytes]:
    """Return the message that creates a veth pair: the host end up and on the bridge, the peer in the pod's namespace.

    `peer_netns` is an open descriptor, or negative for the same namespace; `mtu` is in bytes. The peer can't be created
    up: the kernel answers ENOTCONN.
    """
    peer = ifinfo() + text_attr(IFLA_IFNAME, peer_name) + attr(IFLA_ADDRESS, peer_mac) + u32_attr(IFLA_MTU, mtu)
    if peer_netns >= 0:
        peer += u32_attr(IFLA_NET_NS_FD, peer_netns)
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
    """Return the message that sets a link's alias; the kernel ignores one given at creation (rtnl_create_link)."""
    # without a closing NUL, which would count among its 255 bytes
    label = attr(IFLA_IFALIAS, alias.encode("utf-8", "surrogateescape"))
    return RTM_NEWLINK, 0, ifinfo() + text_attr(IFLA_IFNAME, name) + label


def set_port(name: str, hairpin: bool, isolated: bool) -> tuple[int, int, bytes]:
    """Return the message that sets a bridge port's hairpin mode, and its isolation if wanted."""
    flags = attr(IFLA_BRPORT_MODE, bytes((hairpin,)))
    if isolated:
        flags += attr(IFLA_BRPORT_ISOLATED, b"\1")
    info = text_attr(IFLA_INFO_SLAVE_KIND, "bridge") + attr(IFLA_INFO_SLAVE_DATA | NESTED, flags)
    return RTM_NEWLINK, 0, ifinfo() + text_attr(IFLA_IFNAME, name) + attr(IFLA_LINKINFO | NESTED, info)
