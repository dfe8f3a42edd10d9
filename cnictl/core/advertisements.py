"""Router advertisements: which links keep accepting them, and which must not because a pod could send them.

A host that forwards IPv6 accepts advertisements only if accept_ra is 2. If accept_ra is 1, it accepts them only while
it does not forward. Sources: Documentation/networking/ip-sysctl.rst, net/ipv6/route.c (rt6_purge_dflt_routers),
net/ipv6/ndisc.c.
"""

from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.kernel_routes import KernelRoute
from cnictl.core.netlink.messages import AF_INET6, Netlink
from cnictl.core.netlink.rtnetlink import OWNER_MARK, RTMSG, Link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

NEVER, HOSTS_ONLY, ROUTERS_TOO = "0", "1", "2"
"""Values of accept_ra."""

_RTPROT_RA = 9
_IFF_LOOPBACK = 0x8
_POD_NAMES = ("veth", "cali", "lxc", "eni", "azv", "gke")
"""Prefixes of host veths that other network plugins make and don't attach to a bridge."""


def switch(link: str) -> str:
    """Return the kernel setting's path for a link."""
    return f"net/ipv6/conf/{link}/accept_ra"


def wanted(original: str, keeps: bool, forwards: bool) -> str:
    """Return the accept_ra for an adopted bridge with pods whose value was `original` before cnictl used it.

    `keeps`: whether the bridge is an uplink (`is_uplink`); `forwards`: whether the node forwards IPv6.
    """
    if original in ("", NEVER):
        return original
    if not keeps:
        return NEVER
    return ROUTERS_TOO if forwards else original


def learned(netlink: Netlink) -> set[int]:
    """Return the indices of links that have a route learned from a router advertisement."""
    indices: set[int] = set()
    for payload in rtnetlink.dump_routes(netlink, AF_INET6):
        if RTMSG.unpack_from(payload)[5] == _RTPROT_RA:
            indices.update(KernelRoute(payload).links)
    return indices - {0}


def is_pod_port(link: Link) -> bool:
    """Return whether a link is a host veth that cnictl made: its alias names network and pod."""
    return link.alias.startswith(OWNER_MARK) and "/" in link.alias


def is_uplink(bridge: Link, links: "Iterable[Link]", routes: set[int]) -> bool:
    """Return whether a bridge has a route learned from a router, or a port that cnictl did not make."""
    return bridge.index in routes or any(
        link.master == bridge.index and not link.alias.startswith(OWNER_MARK) for link in links
    )


def to_keep(links: "list[Link]", routes: set[int], value: "Callable[[str], str]") -> list[str]:
    """Return the names of links that need accept_ra 2 when IPv6 forwarding is switched on.

    These are links whose accept_ra is 1 now: every link that is not a bridge, bridge port, loopback or pod's veth,
    whether or not it has a route from a router yet; and bridges that have such a route, or that are an uplink and have
    pods of ours. `value` reads accept_ra of a link.
    """
    bridges = {link.index: link for link in links if link.kind == "bridge"}
    with_pods = {link.master for link in links if is_pod_port(link)}
    names = []
    for link in links:
        if link.kind == "bridge":
            keeps = link.index in routes or (
                link.index in with_pods and not link.alias.startswith(OWNER_MARK) and is_uplink(link, links, routes)
            )
        else:
            keeps = link.index in routes or not (
                link.master in bridges or link.flags & _IFF_LOOPBACK or _is_pods_veth(link)
            )
        if keeps and value(link.name) == HOSTS_ONLY:
            names.append(link.name)
    return names


def _is_pods_veth(link: Link) -> bool:
    return link.kind == "veth" and (link.alias.startswith(OWNER_MARK) or link.name.startswith(_POD_NAMES))
