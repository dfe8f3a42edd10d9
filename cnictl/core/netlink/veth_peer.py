"""Find the other end of a veth, using only the host's end and the kernel's id for the other namespace.

A pod can choose what its own namespace shows, even an interface's index, but not what the kernel says about the host's
link.
"""

from posix import close

from cnictl.core.errors import CniError
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.messages import Netlink, NetlinkError, attr, attributes
from cnictl.core.netlink.rtnetlink import IFADDR, Link
from cnictl.core.netns import Netns

try:
    from _struct import Struct
except ImportError:
    from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_RTM_GETNSID, _NETNSA_NSID, _NETNSA_FD = 90, 1, 3  # linux/rtnetlink.h, linux/net_namespace.h
_IFLA_TARGET_NETNSID, _IFA_TARGET_NETNSID = 46, 10
_SOL_NETLINK, _NETLINK_GET_STRICT_CHK = 270, 12
_S32 = Struct("=i")


class OtherEnds(Netlink):
    """A socket with strict checking, whose dumps can be of another namespace. Raises OSError before Linux 4.20."""

    def __init__(self) -> None:
        super().__init__()
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)

    def addresses(self, link: Link, namespace: bytes) -> set[bytes]:
        """Return the packed addresses of the link's other end, in the namespace with that id; none if it is gone."""
        request = IFADDR.pack(0, 0, 0, 0, 0) + attr(_IFA_TARGET_NETNSID, namespace)
        try:
            answers = self.dump(rtnetlink.RTM_GETADDR, request)
        except NetlinkError:
            return set()
        packed_addresses: set[bytes] = set()
        for answer in answers:
            if IFADDR.unpack_from(answer)[4] == link.peer:
                parts = attributes(answer, 8)
                packed_addresses.add(parts.get(rtnetlink.IFA_LOCAL) or parts.get(rtnetlink.IFA_ADDRESS, b""))
        return packed_addresses


def addresses_behind(links: "Sequence[Link]") -> list[set[bytes]]:
    """Return the packed addresses of each veth's other end; none before Linux 4.20, which can't list them."""
    if not links:
        return []
    try:
        netlink = OtherEnds()
    except OSError:
        return [set() for _ in links]
    with netlink:
        return [netlink.addresses(link, link.peer_namespace) if link.peer_namespace else set() for link in links]


def veth_ports(netlink: Netlink, bridge: Link) -> dict[int, tuple[Link, bytes]]:
    """Return the bridge's veth ports by index, each with the id of its other end's namespace (empty: this one)."""
    links = rtnetlink.all_links(netlink)
    return {
        link.index: (link, link.peer_namespace) for link in links if link.master == bridge.index and link.kind == "veth"
    }


def namespace_id(netlink: Netlink, descriptor: int) -> bytes:
    """Return this namespace's id for an open one, packed as in IFLA_LINK_NETNSID; empty if it has none."""
    request = b"\0\0\0\0" + rtnetlink.u32_attr(_NETNSA_FD, descriptor)
    try:
        answer = netlink.dump(_RTM_GETNSID, request, flags=0)[0]
    except NetlinkError:
        return b""
    packed = attributes(answer, 4).get(_NETNSA_NSID, b"")
    return packed if len(packed) == _S32.size and _S32.unpack(packed)[0] >= 0 else b""


def end_of(netlink: Netlink, link: Link) -> Link | None:
    """Return the other end of a veth that is in another namespace; None if the kernel can't show it."""
    if not link.peer_namespace:
        return None
    request = rtnetlink.ifinfo(link.peer) + attr(_IFLA_TARGET_NETNSID, link.peer_namespace)
    try:
        return Link(netlink.dump(rtnetlink.RTM_GETLINK, request, flags=0)[0])
    except NetlinkError:
        return None


def leads_into(netlink: Netlink, link: Link, path: str, ifname: str, identity: tuple[int, int] | None = None) -> bool:
    """Return whether a veth's other end is the interface `ifname` in the network namespace at `path`.

    `identity`: the device and inode that the namespace must have. False if `path` is missing or is the caller's
    namespace.
    """
    try:
        netns = Netns(path)
    except CniError:
        return False
    try:
        if netns.ours or (identity is not None and (netns.device, netns.inode) != identity):
            return False
        # the id comes first: the index is meaningful only in the right namespace
        if not link.peer_namespace or namespace_id(netlink, netns.descriptor) != link.peer_namespace:
            return False
    finally:
        close(netns.descriptor)
    end = end_of(netlink, link)
    return end is not None and (end.name, end.kind, end.peer) == (ifname, "veth", link.index)
