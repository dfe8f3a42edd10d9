"""Links that another plugin made for pods, the reference bridge above all, found by what the kernel shows of them.

Its network was taken over in place: such a pod has a lease of host-local's, and no record that names its link.
"""

from cnictl.core import attachments
from cnictl.core.cidr import parse_address
from cnictl.core.netlink import rtnetlink, veth_peer
from cnictl.core.netlink.rtnetlink import OWNER_MARK, Link, Netlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class ForeignLinks:
    """Host veths that no record and no mark of ours names, and the addresses behind them: looked at once, when asked.

    The other end has to be in another namespace: a veth whose two ends are the host's is no pod's.
    """

    def __init__(self, netlink: Netlink) -> None:
        self._netlink = netlink
        self._links: list[Link] | None = None
        self._behind: list[tuple[Link, set[bytes]]] | None = None

    def having(self, addresses: "Iterable[str]", bridge: int = 0) -> list[Link]:
        """The links behind which any of these addresses is; of one bridge's ports, where its index is given."""
        wanted = {parse_address(address) for address in addresses}
        if not wanted:
            return []
        links = [link for link, present in self._all() if wanted & present]
        return _unrecorded(link for link in links if bridge in (0, link.master))

    def into(self, netns: str, ifname: str, bridge: int = 0) -> Link | None:
        """The link whose other end is proven to be the interface `ifname` in the namespace at a path, or None.

        Only a port of the bridge, where its index is given.
        """
        if not netns:
            return None
        links = [link for link in self._candidates() if bridge in (0, link.master)]
        found = (link for link in links if veth_peer.leads_into(self._netlink, link, netns, ifname))
        return next(iter(_unrecorded(found)), None)

    def _all(self) -> list[tuple[Link, set[bytes]]]:
        if self._behind is None:
            links = self._candidates()
            self._behind = list(zip(links, veth_peer.addresses_behind(links), strict=True))
        return self._behind

    def _candidates(self) -> list[Link]:
        if self._links is None:
            self._links = _candidates(self._netlink)
        return self._links


def _candidates(netlink: Netlink) -> list[Link]:
    """Veths that lead into another namespace, and that have no mark of ours."""
    return [
        link
        for link in rtnetlink.all_links(netlink)
        if link.kind == "veth" and link.peer_namespace and not link.alias.startswith(OWNER_MARK)
    ]


def _unrecorded(links: "Iterable[Link]") -> list[Link]:
    """Those of them that no record names: our mark on a link may be lost.

    The links were looked at first: an ADD in flight writes its record before it makes its link.
    """
    listed = list(links)
    recorded = attachments.host_veths() if listed else set()
    return [link for link in listed if link.name not in recorded]
