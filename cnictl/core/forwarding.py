"""Having a node forward where it didn't: loaded by the first ADD on a node whose bridge is to be a gateway.

Sources: Documentation/networking/ip-sysctl.rst, net/ipv6/route.c (rt6_purge_dflt_routers).
"""

from cnictl.core import rtnetlink, sysctl
from cnictl.core.errors import KERNEL_REFUSED, CniError
from cnictl.core.netlink import AF_INET6, Netlink, attributes

try:
    from _struct import Struct
except ImportError:
    from struct import Struct

_RTMSG = Struct("=BBBBBBBBI")  # rtmsg: family, dst len, src len, tos, table, protocol, scope, type, flags
_U32 = Struct("=I")
_RTPROT_RA = 9


def open_forwarding(host: Netlink, family: int, switched: list[tuple[str, str]]) -> None:
    """Turn a family's forwarding on; `switched` notes each switch that was set and its former value, in order.

    A host that forwards IPv6 heeds no router any more, and loses the default routes that it has from one: links that
    have such a route go on heeding them (accept_ra 2). Raises CniError 103 if a switch can't be set.
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
    """Links that a router's advertisement gave a default route."""
    learned = set()
    for payload in host.dump(rtnetlink.RTM_GETROUTE, _RTMSG.pack(AF_INET6, 0, 0, 0, 0, 0, 0, 0, 0)):
        _, prefix, _, _, _, protocol, _, _, _ = _RTMSG.unpack_from(payload)
        index = attributes(payload, 12).get(rtnetlink.RTA_OIF)
        if index and prefix == 0 and protocol == _RTPROT_RA:
            learned.add(_U32.unpack(index)[0])
    return [link.name for link in rtnetlink.all_links(host) if link.index in learned] if learned else []
