"""Turn on a node's forwarding; loaded by the first ADD on a node whose bridge is a gateway.

Sources: Documentation/networking/ip-sysctl.rst, net/ipv6/route.c (rt6_purge_dflt_routers).
"""

from cnictl.core import advertisements, sysctl
from cnictl.core.errors import KERNEL_REFUSED, CniError
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.messages import Netlink


def open_forwarding(host: Netlink, family: int, switched: list[tuple[str, str]]) -> None:
    """Turn on a family's forwarding; add each changed kernel setting and its old value to `switched`, in order.

    A host that forwards IPv6 ignores router advertisements and loses the default routes learned from them. So its links
    are set to accept them anyway (accept_ra 2), whether they have such a route yet or not. Raises CniError 103 if a
    setting can't be changed.
    """
    for name in _uplinks(host) if family == 16 else ():
        path = f"net/ipv6/conf/{name}/accept_ra"
        if sysctl.read(path) == "1":
            _set(path, "2")
            switched.append((path, "1"))
    _set(sysctl.FORWARDING[family], "1")
    switched.append((sysctl.FORWARDING[family], "0"))


def _set(path: str, value: str) -> None:
    if not sysctl.put(path, value):
        shown = path.replace("/", ".")
        raise CniError(
            KERNEL_REFUSED, f"isGateway: {shown} is not {value} and can't be set", f"sysctl -w {path}={value}"
        )


def _uplinks(host: Netlink) -> list[str]:
    """Return the links that must keep accepting router advertisements."""
    return advertisements.to_keep(
        rtnetlink.all_links(host), advertisements.learned(host), lambda name: sysctl.read(advertisements.switch(name))
    )
