"""Delete the tracked connections of an address's previous owner: their NAT bindings would apply to its next owner.

Sources: linux/netfilter/nfnetlink_conntrack.h, net/netfilter/nf_conntrack_netlink.c.
"""

from cnictl.core import sysctl
from cnictl.core.netlink.messages import (
    AF_INET,
    AF_INET6,
    NESTED,
    NETLINK_NETFILTER,
    Netlink,
    NetlinkError,
    attr,
    attributes,
    u32_attr,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK; IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_DELETE
TUPLE_ORIG, TUPLE_REPLY, _ZONE, _FILTER = 1, 2, 18, 25
TUPLE_IP = 1
_FILTER_ORIG_FLAGS, _FILTER_REPLY_FLAGS = 1, 2
_BY_SOURCE = 1  # CTA_FILTER_FLAG(CTA_IP_SRC)
V4_SOURCE, V6_SOURCE = 1, 3  # CTA_IP_V4_SRC, CTA_IP_V6_SRC
HEAD = {family: bytes((family, 0, 0, 0)) for family in (AF_INET, AF_INET6)}  # nfgenmsg


def forget(packed: "Iterable[bytes]") -> None:
    """Delete the host's tracked connections from or to these addresses.

    An address behind a Service or a host port appears as the source of the reply, not as the destination of the
    request. If the kernel refuses, the connections stay until they time out.
    """
    if sysctl.read("net/netfilter/nf_conntrack_count") in ("", "0"):
        return
    try:
        netlink = Netlink(NETLINK_NETFILTER)
    except NetlinkError:
        return
    with netlink:
        for address in packed:
            if len(address) == 16 or not _delete_by_source(netlink, address):
                _pick_and_delete(netlink, address)


def _delete_by_source(netlink: Netlink, address: bytes) -> bool:
    """Have the kernel select the connections itself; return False if it can't, before Linux 6.8.

    This is not used for IPv6: there the kernel's filter selects what does not match (seen on Linux 6.18), and the host
    would lose every other connection. Before 6.8 a tuple in a deletion identifies one connection, and an incomplete
    tuple is refused.
    """
    source = attr(TUPLE_IP | NESTED, attr(V4_SOURCE, address))
    for kind, flags in ((TUPLE_ORIG, (_BY_SOURCE, 0)), (TUPLE_REPLY, (0, _BY_SOURCE))):
        filters = u32_attr(_FILTER_ORIG_FLAGS, flags[0]) + u32_attr(_FILTER_REPLY_FLAGS, flags[1])
        wanted = attr(kind | NESTED, source) + attr(_FILTER | NESTED, filters)
        if netlink.refusals((_DELETE, 0, HEAD[AF_INET] + wanted)):
            return False
    return True


def _pick_and_delete(netlink: Netlink, address: bytes) -> None:
    family, source = (AF_INET, V4_SOURCE) if len(address) == 4 else (AF_INET6, V6_SOURCE)
    try:
        known = netlink.dump(GET, HEAD[family])
    except NetlinkError:
        return
    for entry in known:
        if address not in entry:
            continue
        parts = attributes(entry, 4)
        sources = (
            attributes(attributes(parts.get(kind, b"")).get(TUPLE_IP, b"")).get(source)
            for kind in (TUPLE_ORIG, TUPLE_REPLY)
        )
        if address in sources:
            zone = attr(_ZONE, parts[_ZONE]) if _ZONE in parts else b""
            netlink.refusals((_DELETE, 0, HEAD[family] + attr(TUPLE_ORIG | NESTED, parts[TUPLE_ORIG]) + zone))
