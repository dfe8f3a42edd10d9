"""Make an attachment's veth pair, configure the pod's end, and wait until both ends can send."""

import errno
import time

from cnictl.core import sysctl
from cnictl.core.attachments import Record
from cnictl.core.bridge import BridgeMade
from cnictl.core.cidr import Cidr, format_address
from cnictl.core.conf.netconf import NetConf
from cnictl.core.conf.routes import Route
from cnictl.core.errors import INTERFACE_EXISTS, KERNEL_REFUSED, CniError
from cnictl.core.host_veth import alias
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import AF_INET, AF_INET6, Link, Netlink, NetlinkError
from cnictl.core.netns import Netns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

ACTIVATION_WAIT = 2.0
"""Seconds to wait until links can send; normally it takes well under a millisecond."""


class NameTaken(Exception):
    """Another link has taken the name that was chosen for the host veth."""


def make_pair(host: Netlink, conf: NetConf, bridge: BridgeMade, record: Record, netns: Netns) -> bytes:
    """Make the veth pair, with the host's end as a port of the bridge; return the MAC of the host's end.

    Raises NameTaken, CniError 102 if the pod already has the interface, 103 if the kernel refuses.
    """
    name, host_mac = record.host_veth, rtnetlink.random_mac()
    pair = (name, host_mac, bridge.index, record.ifname, rtnetlink.parse_mac(record.mac), netns.descriptor)
    for error in host.refusals(rtnetlink.add_veth_pair(*pair, conf.mtu or bridge.mtu)):
        if error.errno == errno.EEXIST:
            if rtnetlink.get_link(host, name) is not None:
                raise NameTaken(name)
            raise CniError(
                INTERFACE_EXISTS,
                f"CNI_IFNAME {record.ifname!r}: the container already has an interface of that name",
                "the runtime must choose another name or DEL the interface first",
            )
        raise CniError(KERNEL_REFUSED, f"veth pair for {record.ifname}: {error.strerror}")
    # not in one batch with the pair: after a refusal the kernel would go on and change another link with the name
    messages = [rtnetlink.set_alias(name, alias(record))]
    if conf.hairpin or conf.isolated:
        messages.append(rtnetlink.set_port(name, conf.hairpin, conf.isolated))
    for error in host.refusals(*messages):
        step = ("alias of the host veth", "hairpinMode or portIsolation of the host veth")[error.position]
        raise CniError(KERNEL_REFUSED, f"{step} for {record.ifname}: {error.strerror}")
    return host_mac


def configure(
    host: Netlink,
    pod: Netlink,
    conf: NetConf,
    record: Record,
    addresses: "Sequence[Cidr]",
    routes: "Sequence[Route]",
) -> list[Route]:
    """Bring the pod's end up with its addresses and routes; return the routes that were made.

    Called in the pod's namespace. If the pod already has a route through another interface, this one gets a higher
    metric, so that each attachment adds and removes its own. Raises CniError 101 if an IPv6 address is in use
    (`enabledad`), 2 without IPv6, 103 if the kernel refuses.
    """
    ifname = record.ifname
    link = _pod_link(pod, ifname)
    six = next((address for address in addresses if address.bits == 128), None)
    ignore_routers(ifname, conf)
    if conf.container_down:
        return []
    if six is not None:
        from cnictl.core import ipv6

        ipv6.prepare_pod(ifname, str(six), conf.dad)
    pod.call(rtnetlink.set_up(link.index, notify=True))
    address_messages = [rtnetlink.add_address(link.index, cidr.packed, cidr.prefix, conf.dad) for cidr in addresses]
    route_messages = [_route_message(link.index, route) for route in routes]
    if six is not None and conf.dad:
        await_up(host, record.host_veth, time.monotonic() + ACTIVATION_WAIT)  # else the probes are lost
        _made(pod, link, pod.refusals(*address_messages), addresses, ())
        ipv6.settle(pod, link.index, ifname)
        return _made(pod, link, pod.refusals(*route_messages), (), routes)
    return _made(pod, link, pod.refusals(*address_messages, *route_messages), addresses, routes)


def ignore_routers(ifname: str, conf: NetConf) -> None:
    """Keep a pod's interface, which is still down, from accepting addresses and routes from a router.

    This applies only if the addresses are leased here: on a layer-2 network, and with dhcp, they may come from a
    router. Without `enabledad`, IPv6 addresses skip duplicate address detection, so that the link-local one is usable
    immediately too.
    """
    if conf.served:
        sysctl.put(f"net/ipv6/conf/{ifname}/accept_ra", "0")
    sysctl.put(f"net/ipv6/conf/{ifname}/accept_dad", "1" if conf.dad else "0")


def _pod_link(pod: Netlink, ifname: str) -> Link:
    link = rtnetlink.get_link(pod, ifname)
    if link is None:
        raise CniError(KERNEL_REFUSED, f"{ifname} vanished from the container while it was set up")
    return link


def _route_message(index: int, route: Route) -> tuple[int, int, bytes]:
    destination = route.destination
    return rtnetlink.add_route(
        index,
        destination.packed if destination.prefix else None,
        destination.prefix,
        route.gateway,
        route.mtu or 0,
        route.advmss or 0,
        route.priority or 0,
        route.table or rtnetlink.RT_TABLE_MAIN,
        route.scope,
        AF_INET if destination.bits == 32 else AF_INET6,
    )


def _made(
    pod: Netlink, link: Link, refused: list[NetlinkError], addresses: "Sequence[Cidr]", routes: "Sequence[Route]"
) -> list[Route]:
    """Return the routes that were made. `refused` are refusals of messages for the addresses and then the routes.

    A route that the pod already has is added with another metric. Any other refusal is raised as CniError.
    """
    made: list[Route | None] = list(routes)
    beside = None
    for error in refused:
        place = error.position - len(addresses)
        if place >= 0 and error.errno == errno.EEXIST:
            if beside is None:
                from .beside import Beside

                beside = Beside(pod, link.index, link.name, lambda route: _route_message(link.index, route))
            made[place] = beside.add(routes[place])
            continue
        if place >= 0:
            through = f" through {format_address(routes[place].gateway)}" if routes[place].gateway else ""
            subject = f"route to {routes[place].destination}{through}"
        else:
            subject = f"address {addresses[error.position]}"
        raise CniError(KERNEL_REFUSED, f"{link.name}: {subject}: {error.strerror}")
    return [route for route in made if route is not None]


def activate(
    host: Netlink,
    pod: Netlink,
    bridge: BridgeMade,
    record: Record,
    addresses: "Sequence[Cidr]",
    gateways: "Sequence[Cidr]",
) -> Link:
    """Wait until both ends and the bridge can send, then announce the pod's addresses; return the bridge's link.

    A link that has just got its carrier drops what it sends until the kernel's link-watch activates it. The bridge port
    starts to forward with the host veth, and a bridge gets a carrier only with its first port. Since Linux 6.10 a
    request for the link makes link-watch run immediately (rtnl_getlink); before, it runs within a second. The kernel's
    announcements, made when the link came up, are lost meanwhile; setting the link's MAC to its present one makes the
    kernel repeat them (sysctls arp_notify, ndisc_notify). `addresses` are the pod's, `gateways` those of its gateways
    that are the bridge's addresses. Raises CniError 103 if an end doesn't come up.
    """
    deadline = time.monotonic() + ACTIVATION_WAIT
    end = None
    for netlink, name in ((host, record.host_veth), (pod, record.ifname)):
        end = await_up(netlink, name, deadline)
        if end is None or end.operstate != rtnetlink.OPERSTATE_UP:
            raise CniError(KERNEL_REFUSED, f"{name} isn't up {ACTIVATION_WAIT:g} s after it was set up")
    link = await_up(host, bridge.name, deadline)  # with STP it may still be listening at the deadline
    if link is None:
        raise CniError(KERNEL_REFUSED, f"bridge {bridge.name}: removed by another process while it was in use")
    six = [address.packed for address in addresses if address.bits == 128]
    if six and end is not None:
        from cnictl.core import ipv6

        ipv6.settle(pod, end.index, record.ifname)
        ipv6.await_local(pod, six)
        ipv6.await_local(host, [gateway.packed for gateway in gateways if gateway.bits == 128])
    pod.call(rtnetlink.set_mac(record.ifname, rtnetlink.parse_mac(record.mac)))
    return link


def await_up(netlink: Netlink, name: str, deadline: float) -> Link | None:
    """Return the link once it is up, or as it is at the deadline."""
    while True:
        link = rtnetlink.get_link(netlink, name)
        if link is None or link.operstate == rtnetlink.OPERSTATE_UP or time.monotonic() > deadline:
            return link
        time.sleep(0.0002)
