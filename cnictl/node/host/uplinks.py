"""List the links of this host that can lead to other hosts, and its bridges. Changes nothing."""

from collections.abc import Iterable

from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import Link, Netlink


def candidates(links: Iterable[Link], bridge: str) -> list[str]:
    """Return the names of the links that can be an uplink; `bridge` is the pods' bridge, empty if it has no name yet.

    Left out are lo, what carries cnictl's alias, the pods' bridge with its ports, and the veths of other bridges, which
    are those of containers.
    """
    known = list(links)
    own = {link.index for link in known if link.name == bridge}
    return [
        link.name
        for link in known
        if link.name != "lo"
        and link.index not in own
        and link.master not in own
        and not link.alias.startswith(rtnetlink.OWNER_MARK)
        and not (link.kind == "veth" and link.master)
    ]


def names(bridge: str) -> list[str]:
    """Return the names of this host's links that can be an uplink."""
    with Netlink() as netlink:
        return candidates(rtnetlink.all_links(netlink), bridge)


def bridges() -> list[str]:
    """Return the names of this host's bridges."""
    with Netlink() as netlink:
        return [link.name for link in rtnetlink.all_links(netlink) if link.kind == "bridge"]
