"""What a veth's other end has, asked from this end: the kernel answers for a namespace by the number it has here."""

from struct import Struct

from cnictl.core import rtnetlink
from cnictl.core.netlink import Netlink, NetlinkError, attr, attributes
from cnictl.core.rtnetlink import Link

_IFLA_LINK_NETNSID, _IFA_TARGET_NETNSID = 37, 10
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_SOL_NETLINK, _NETLINK_GET_STRICT_CHK = 270, 12
_IFADDR = Struct("=BBBBi")


class OtherEnds(Netlink):
    """A socket whose dumps heed every attribute of the request, another namespace's id among them.

    Raises OSError before Linux 4.20, which can't.
    """

    def __init__(self) -> None:
        super().__init__()
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)

    def addresses(self, link: Link, namespace: bytes) -> set[bytes]:
        """The packed addresses of the link's other end, in the namespace that `ports` named; none if it vanished."""
        request = _IFADDR.pack(0, 0, 0, 0, 0) + attr(_IFA_TARGET_NETNSID, namespace)
        try:
            answers = self.dump(rtnetlink.RTM_GETADDR, request)
        except NetlinkError:
            return set()
        found: set[bytes] = set()
        for answer in answers:
            if _IFADDR.unpack_from(answer)[4] == link.peer:
                found |= set(attributes(answer, 8).values())
        return found

    def own_addresses(self, link: Link, namespace: bytes) -> set[bytes]:
        """The packed addresses that the other end itself has, without broadcast addresses and what else is told."""
        request = _IFADDR.pack(0, 0, 0, 0, 0) + attr(_IFA_TARGET_NETNSID, namespace)
        try:
            answers = self.dump(rtnetlink.RTM_GETADDR, request)
        except NetlinkError:
            return set()
        told = [attributes(answer, 8) for answer in answers if _IFADDR.unpack_from(answer)[4] == link.peer]
        return {one.get(_IFA_LOCAL) or one.get(_IFA_ADDRESS, b"") for one in told} - {b""}


def veth_ports(netlink: Netlink, bridge: Link) -> dict[int, tuple[Link, bytes]]:
    """The bridge's ports that are veths, by index, and the id of the other end's namespace; empty: it is here."""
    found = {}
    for payload in netlink.dump(rtnetlink.RTM_GETLINK, rtnetlink.ifinfo()):
        link = Link(payload)
        if link.master == bridge.index and link.kind == "veth":
            found[link.index] = (link, attributes(payload, 16).get(_IFLA_LINK_NETNSID, b""))
    return found
