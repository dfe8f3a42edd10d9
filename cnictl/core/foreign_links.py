"""Find host veths that another plugin made, mainly the reference bridge, by what the kernel shows about them.

When cnictl takes over such a plugin's network in place, the running pods have a lease that host-local made, but no
record that names their link.
"""

from cnictl.core import attachments
from cnictl.core.cidr import parse_address
from cnictl.core.netlink import rtnetlink, veth_peer
from cnictl.core.netlink.rtnetlink import OWNER_MARK, Link, Netlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class ForeignLinks:
    """Host veths that have neither a record nor our alias, and the addresses behind them. They are listed only once.

    The other end has to be in another namespace: a pair with both ends on the host belongs to no pod.
    """

    def __init__(self, netlink: Netlink) -> None:
        self._netlink = netlink
        self._links: list[Link] | None = None
        self._behind: list[tuple[Link, set[bytes]]] | None = None

    def having(self, addresses: "Iterable[str]", bridge: int = 0) -> list[Link]:
        """Return the links with any of these addresses behind them; only that bridge's ports, if one is given."""
        wanted = {parse_address(address) for address in addresses}
        if not wanted:
            return []
        links = [link for link, present in self._all() if wanted & present]
        return _unrecorded(link for link in links if bridge in (0, link.master))

    def into(self, netns: str, ifname: str, bridge: int = 0) -> Link | None:
        """Return the link whose other end is proven to be the interface `ifname` in the namespace at a path, or None.

        Only a port of the bridge with that index, if given.
        """
        if not netns:
            return None
        links = [link for link in self._candidates() if bridge in (0, link.master)]
        matches = (link for link in links if veth_peer.leads_into(self._netlink, link, netns, ifname))
        return next(iter(_unrecorded(matches)), None)

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
    """Return the veths that lead into another namespace and don't have our alias."""
    return [
        link
        for link in rtnetlink.all_links(netlink)
        if link.kind == "veth" and link.peer_namespace and not link.alias.startswith(OWNER_MARK)
    ]


def _unrecorded(links: "Iterable[Link]") -> list[Link]:
    """Return those links that no record names: one of our links may have lost its alias.

    The links have to be listed before the records, because an ADD writes its record before it makes its link.
    """
    listed = list(links)
    recorded = attachments.host_veths() if listed else set()
    return [link for link in listed if link.name not in recorded]
