"""What the host looks like to the node's resources: uplink, addresses, how a peer is reached. Only reads."""

import glob
from dataclasses import dataclass

from cnictl.core import durable, rtnetlink
from cnictl.core.bridge import DEFAULT_MTU
from cnictl.core.cidr import Cidr, parse_address
from cnictl.core.errors import Problem
from cnictl.core.rtnetlink import AF_INET, AF_INET6, Netlink
from cnictl.node.spec import NodeSpec, is_ipv6


@dataclass(frozen=True)
class Reached:
    """How the kernel would send to an address."""

    dev: str
    gateway: str
    """Empty exactly when the address is on the link."""


def uplink(spec: NodeSpec) -> str:
    """The link to the peers: the one named, else that of the default route, else of the first peer; or empty."""
    if spec.uplink:
        return spec.uplink
    with Netlink() as netlink:
        names = {link.index: link.name for link in rtnetlink.all_links(netlink)}
        for subnet in spec.subnets:
            for destination, _, _, index in rtnetlink.routes(netlink, AF_INET6 if is_ipv6(subnet) else AF_INET):
                if destination is None and index in names:
                    return names[index]
    for peer in spec.peers:
        found = reach(peer.via, peer.dev)
        if found is not None and not found.gateway:
            return found.dev
    return ""


def links_to_others(spec: NodeSpec) -> list[str]:
    """The links that packets of pods pass on their way to other hosts: the uplink's, and those to the peers."""
    named = [uplink(spec), *(peer.dev or _link_to(peer.via) for peer in spec.peers)]
    return [name for name in dict.fromkeys(named) if name and name != spec.bridge]


def _link_to(address: str) -> str:
    """The link of the main table's route to an address; empty if there is none."""
    packed = parse_address(address)
    bits = len(packed) * 8
    best, name = -1, ""
    with Netlink() as netlink:
        names = {link.index: link.name for link in rtnetlink.all_links(netlink)}
        for destination, prefix, _, index in rtnetlink.routes(netlink, AF_INET if bits == 32 else AF_INET6):
            covered = Cidr(destination or bytes(len(packed)), prefix).holds(packed)
            if covered and prefix > best and index in names:
                best, name = prefix, names[index]
    return name


def check_links(spec: NodeSpec) -> None:
    """Raise Problem if a link that the spec names is not there."""
    with Netlink() as netlink:
        names = [link.name for link in rtnetlink.all_links(netlink)]
    named = {spec.uplink: "the uplink"} | {peer.dev: f"the link to peer {peer.pod_cidr}" for peer in spec.peers}
    for name, what in named.items():
        if name and name not in names:
            raise Problem(f"there is no link {name}, {what}", f"the links are: {', '.join(names)}")


def mtu(spec: NodeSpec) -> int:
    """MTU of bridge and pods in bytes: the spec's, else the uplink's, else 1500."""
    if spec.mtu:
        return spec.mtu
    name = uplink(spec)
    with Netlink() as netlink:
        link = rtnetlink.get_link(netlink, name) if name else None
    return link.mtu if link is not None else DEFAULT_MTU


def own_addresses() -> dict[str, str]:
    """Every address of this host, and the link that has it."""
    return {interface.partition("/")[0]: link for interface, link in own_interfaces().items()}


def own_interfaces() -> dict[str, str]:
    """Every address of this host as ADDRESS/PREFIX, and the link that has it; IPv6's link-local ones too."""
    found = {}
    with Netlink() as netlink:
        names = {link.index: link.name for link in rtnetlink.all_links(netlink)}
        for index, packed, prefix in rtnetlink.all_addresses(netlink):
            found[str(Cidr(packed, prefix))] = names.get(index, "")
    return found


def reach(address: str, dev: str = "") -> Reached | None:
    """The kernel's route to an address (`ip route get`), over `dev` if one is named; None if it has none."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    with IPRoute() as iproute:
        try:
            over = {"oif": iproute.link_lookup(ifname=dev)[0]} if dev else {}
            found = iproute.route("get", dst=address, **over)[0]
        except (NetlinkError, IndexError):
            return None
        links = iproute.get_links(found.get_attr("RTA_OIF"))
        return Reached(links[0].get_attr("IFLA_IFNAME") if links else "", found.get_attr("RTA_GATEWAY") or "")


def processes() -> set[str]:
    """Names of the processes that run, as /proc/PID/comm has them: at most 15 characters."""
    found = set()
    for path in glob.glob("/proc/[0-9]*/comm"):
        try:
            found.add(durable.contents(path).decode("utf-8", "replace").strip())
        except OSError:
            continue  # it has just ended
    return found
