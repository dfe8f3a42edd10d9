"""The link of an attachment: its veth pair, what the pod's end is given, and the moment from which both ends send."""

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
"""Seconds to wait for links to send: normally well under a millisecond."""


class NameTaken(Exception):
    """A link that is not of this attachment has the name that was chosen for its host veth."""


def make_pair(host: Netlink, conf: NetConf, bridge: BridgeMade, record: Record, netns: Netns) -> bytes:
    """Make the veth pair, the host's end a port of the bridge as the conf wants it; returns that end's MAC.

    Raises NameTaken, CniError 102 if the pod has such an interface, 103 if the kernel refuses.
    """
    name, host_mac = record.host_veth, rtnetlink.random_mac()
    pair = (name, host_mac, bridge.index, record.ifname, rtnetlink.parse_mac(record.mac), netns.descriptor)
    for error in host.refusals(rtnetlink.add_veth_pair(*pair, conf.mtu or bridge.mtu)):
        if error.errno == errno.EEXIST:
            if rtnetlink.get_link(host, name) is not None:
                raise NameTaken(name)
            raise CniError(
                INTERFACE_EXISTS,
                f"CNI_IFNAME {record.ifname!r}: the container has an interface of that name already",
                "the runtime has to choose another name or DEL the interface first",
            )
        raise CniError(KERNEL_REFUSED, f"veth pair for {record.ifname}: {error.strerror}")
    # not in one batch with the above: the kernel would go on, and change the link of another that has the name
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
    """Bring the pod's end up with its addresses and routes; returns the routes that were made.

    Called in the pod's namespace. A route that the pod has already, through another of its interfaces, gets a higher
    metric: each attachment has its own, and takes its own away. Raises CniError 101 if an IPv6 address is in use
    (`enabledad`), 2 without IPv6, 103 if the kernel refuses.
    """
    ifname = record.ifname
    link = _pod_link(pod, ifname)
    six = next((address for address in addresses if address.bits == 128), None)
    quiet(ifname, conf)
    if conf.container_down:
        return []
    if six is not None:
        from cnictl.core import ipv6

        ipv6.prepare_pod(ifname, str(six), conf.dad)
    pod.call(rtnetlink.set_up(link.index, notify=True))
    give = [rtnetlink.add_address(link.index, one.packed, one.prefix, conf.dad) for one in addresses]
    lead = [_route_message(link.index, route) for route in routes]
    if six is not None and conf.dad:
        await_up(host, record.host_veth, time.monotonic() + ACTIVATION_WAIT)  # or nobody hears the question
        _made(pod, link, pod.refusals(*give), addresses, ())
        ipv6.settle(pod, link.index, ifname)
        return _made(pod, link, pod.refusals(*lead), (), routes)
    return _made(pod, link, pod.refusals(*give, *lead), addresses, routes)


def quiet(ifname: str, conf: NetConf) -> None:
    """Have an interface in the pod that is still down take no addresses and routes from a router, once it is up.

    Only where its addresses are ours: in layer 2, and with dhcp, a router on the link may be the one to give them.
    Without `enabledad` its IPv6 addresses, the link-local one among them, are usable at once.
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
    """Return the routes as they were made, of messages for the addresses and after them the routes.

    Raises CniError for what the kernel `refused`, unless it has such a route already.
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
            what = f"route to {routes[place].destination}{through}"
        else:
            what = f"address {addresses[error.position]}"
        raise CniError(KERNEL_REFUSED, f"{link.name}: {what}: {error.strerror}")
    return [route for route in made if route is not None]


def activate(
    host: Netlink,
    pod: Netlink,
    bridge: BridgeMade,
    record: Record,
    addresses: "Sequence[Cidr]",
    gateways: "Sequence[Cidr]",
) -> Link:
    """Return once both ends and the bridge send, and the pod's addresses are announced; the bridge as it is then.

    A link that has only just got its carrier drops all it is to send until the kernel's link-watch activates it; with
    the host veth the bridge port begins to forward, and only with its first port does a bridge get a carrier. To ask
    for a link makes link-watch see to it at once (Linux 6.10, rtnl_getlink); before, it is done within a second.
    What the kernel announces when the link comes up is lost with the rest. It does so again when the link gets a MAC,
    its own (sysctls arp_notify, ndisc_notify). `addresses`: the pod's; `gateways`: the bridge's own among theirs.
    Raises CniError 103 if an end doesn't come up.
    """
    deadline = time.monotonic() + ACTIVATION_WAIT
    end = None
    for netlink, name in ((host, record.host_veth), (pod, record.ifname)):
        end = await_up(netlink, name, deadline)
        if end is None or end.operstate != rtnetlink.OPERSTATE_UP:
            raise CniError(KERNEL_REFUSED, f"{name} isn't up {ACTIVATION_WAIT:g} s after it was set up")
    link = await_up(host, bridge.name, deadline)  # in vain where STP has its ports listen first
    if link is None:
        raise CniError(KERNEL_REFUSED, f"bridge {bridge.name}: removed by another process while it was in use")
    six = [one.packed for one in addresses if one.bits == 128]
    if six and end is not None:
        from cnictl.core import ipv6

        ipv6.settle(pod, end.index, record.ifname)
        ipv6.await_local(pod, six)
        ipv6.await_local(host, [one.packed for one in gateways if one.bits == 128])
    pod.call(rtnetlink.set_mac(record.ifname, rtnetlink.parse_mac(record.mac)))
    return link


def await_up(netlink: Netlink, name: str, deadline: float) -> Link | None:
    """The link once it is up, or at the deadline."""
    while True:
        link = rtnetlink.get_link(netlink, name)
        if link is None or link.operstate == rtnetlink.OPERSTATE_UP or time.monotonic() > deadline:
            return link
        time.sleep(0.0002)
