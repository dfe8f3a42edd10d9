"""What must hold among a node's addresses and names before anything is touched: wrong ones are usage errors.

Each message names the value and what was probably meant. The syntax of one address is `core.cidr`'s; what holds
between several is set arithmetic, netaddr's.
"""

import re
from dataclasses import replace

from netaddr import IPAddress, IPNetwork, IPSet, cidr_merge, spanning_cidr

from cnictl.core.cidr import (
    AddressError,
    Cidr,
    format_address,
    parse_address,
    parse_cidr,
    parse_interface,
    parse_pod_cidr,
)
from cnictl.core.conf import NAME_MAX
from cnictl.core.errors import UsageProblem
from cnictl.core.masquerade import BACKENDS
from cnictl.node.spec import NodeSpec, Peer

LINK_NAME_MAX = 15
"""Characters (linux/if.h, IFNAMSIZ 16 with the NUL)."""

MTU_MIN, MTU_MAX = 68, 65535
"""Bytes (RFC 791: every link carries 68)."""

_CLASS_E = IPAddress("240.0.0.0")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\Z")


def check(spec: NodeSpec) -> NodeSpec:
    """`spec` with its addresses in canonical form. Raises UsageProblem for the first value that can't be right."""
    try:
        return _check(spec)
    except AddressError as error:
        raise UsageProblem(str(error)) from None


def _check(spec: NodeSpec) -> NodeSpec:
    network = _ipv4(parse_cidr(spec.network, "network"), "network")
    subnet = _ipv4(parse_pod_cidr(spec.subnet, "subnet"), "subnet")
    if network.prefix == 0:
        raise UsageProblem(
            f"network {network} is every address there is, so nothing would ever be masqueraded; "
            f"name what all nodes' pod CIDRs lie in, such as {Cidr(subnet.packed, min(subnet.prefix, 16)).network}"
        )
    if not network.covers(subnet):
        raise UsageProblem(f"subnet {subnet} lies outside the network {network}{_meant_subnet(subnet, network)}")
    peers = _check_peers(spec.peers, subnet, network)
    check_link_name(spec.bridge, "bridge")
    if spec.uplink:
        check_link_name(spec.uplink, "uplink")
        if spec.uplink == spec.bridge:
            raise UsageProblem(f"uplink {spec.uplink!r} is the bridge itself; it has to be the link to the other nodes")
    check_network_name(spec.name)
    if spec.mtu and not MTU_MIN <= spec.mtu <= MTU_MAX:
        raise UsageProblem(f"mtu {spec.mtu} is not within {MTU_MIN} to {MTU_MAX} bytes (0 means the uplink's)")
    if spec.backend not in BACKENDS:
        raise UsageProblem(f"backend {spec.backend!r} is neither {' nor '.join(BACKENDS)}")
    external = format_address(_ipv4_address(spec.external, "external")) if spec.external else ""
    return replace(spec, subnet=str(subnet), network=str(network), peers=peers, external=external)


def _check_peers(peers: tuple[Peer, ...], subnet: Cidr, network: Cidr) -> tuple[Peer, ...]:
    checked: list[Peer] = []
    for peer in map(check_peer, peers):
        cidr = parse_cidr(peer.pod_cidr)
        if cidr == subnet:
            raise UsageProblem(f"peer {cidr} is this node's own subnet; each node needs a pod CIDR of its own")
        if cidr.overlaps(subnet):
            raise UsageProblem(f"peer {cidr} overlaps this node's subnet {subnet}{_meant_free(cidr, subnet, network)}")
        if not network.covers(cidr):
            raise UsageProblem(f"peer {cidr} lies outside the network {network}{_meant_network(cidr, network)}")
        for other in checked:
            if other.pod_cidr == str(cidr):
                raise UsageProblem(f"peer {cidr} is given twice, through {other.via} and {peer.via}")
            if IPNetwork(other.pod_cidr) in IPNetwork(str(cidr)) or IPNetwork(str(cidr)) in IPNetwork(other.pod_cidr):
                raise UsageProblem(f"peer {cidr} overlaps peer {other.pod_cidr}, which is through {other.via}")
        for pods, whose in ((subnet, "this node's pod CIDR"), (network, "the pod network")):
            if pods.holds(parse_address(peer.via)):
                raise UsageProblem(
                    f"peer {cidr}: its address {peer.via} lies in {whose} {pods}; give the node's own address"
                )
        checked.append(peer)
    return tuple(checked)


def check_not_ours(peers: tuple[Peer, ...], own: dict[str, str]) -> None:
    """Refuse a peer at an address that this host has, or that no host on its links can have. Raises UsageProblem.

    `own` maps this host's ADDRESS/PREFIX to links.
    """
    for peer in peers:
        via = parse_address(peer.via)
        for interface, link in own.items():
            fault = _no_neighbour(via, parse_interface(interface))
            if fault:
                raise UsageProblem(
                    f"peer {peer.pod_cidr}: {peer.via} is {fault} (on {link}); give the address of the other node"
                )


def _no_neighbour(address: bytes, interface: Cidr) -> str:
    """What an address is, seen from an interface of this host, if it can't be another host's; else empty."""
    if address == interface.packed:
        return "this host's own address"
    if interface.bits != 32 or interface.prefix > 30:  # RFC 3021: a /31 has two hosts and nothing else
        return ""
    if address == interface.nth(0):
        return f"the network address of {interface.network}"
    if interface.holds(address) and int.from_bytes(address, "big") == interface.last:
        return f"the broadcast address of {interface.network}"
    return ""


def check_peer(peer: Peer) -> Peer:
    """One peer by itself, in canonical form. Raises UsageProblem."""
    try:
        cidr = _ipv4(parse_pod_cidr(peer.pod_cidr, "peer"), "peer")
        via = format_address(_ipv4_address(peer.via, f"address of peer {cidr}"))
    except AddressError as error:
        raise UsageProblem(str(error)) from None
    if peer.dev:
        check_link_name(peer.dev, f"device of peer {cidr}")
    return Peer(str(cidr), via, peer.dev)


def parse_pods(text: str) -> str:
    """A peer's pod CIDR in canonical form. Raises UsageProblem."""
    try:
        return str(_ipv4(parse_pod_cidr(text, "peer"), "peer"))
    except AddressError as error:
        raise UsageProblem(str(error)) from None


def parse_peer(text: str) -> Peer:
    """`CIDR=ADDRESS` or `CIDR=ADDRESS%LINK`, as `--peer` takes it. Raises UsageProblem."""
    pod_cidr, equals, rest = text.partition("=")
    via, _, dev = rest.partition("%")
    if not equals or not pod_cidr or not via:
        raise UsageProblem(
            f"peer {text!r} is not CIDR=ADDRESS, such as 10.244.1.0/24=10.0.10.51 "
            "(the other node's pod CIDR and its own address)"
        )
    return Peer(pod_cidr, via, dev)


def check_link_name(name: str, what: str) -> None:
    """Refuse what the kernel would refuse as a link's name (net/core/dev.c, dev_valid_name)."""
    if not name or name in (".", "..") or any(letter in "/:" or letter.isspace() for letter in name):
        raise UsageProblem(f"{what} {name!r} is no link name: not empty, no '/', ':' or space")
    if len(name.encode()) > LINK_NAME_MAX:
        raise UsageProblem(
            f"{what} {name!r} has {len(name.encode())} characters, a link's name has at most {LINK_NAME_MAX}: "
            f"{name[:LINK_NAME_MAX]!r}?"
        )
    if not name.isascii() or '"' in name or "\\" in name or "%" in name:
        raise UsageProblem(f"{what} {name!r} is no name that firewall rules can match: use letters, digits, '-', '_'")


def check_network_name(name: str) -> None:
    """Refuse what the CNI specification (1.1.0, section 1, `name`) or the plugin refuses: it names a folder."""
    if not _NAME.match(name):
        raise UsageProblem(
            f"name {name!r} is no network name: a letter or digit first, then letters, digits, '_', '.', '-'"
        )
    if len(name) > NAME_MAX:
        raise UsageProblem(f"name {name[:20]!r}… has {len(name)} characters, a network's name has at most {NAME_MAX}")


def _ipv4(cidr: Cidr, what: str) -> Cidr:
    if cidr.bits != 32:
        raise UsageProblem(f"{what} {cidr}: is IPv6; the nodes' pod networks are IPv4")
    return cidr


def _ipv4_address(text: str, what: str) -> bytes:
    if "/" in text:
        raise UsageProblem(f"{what} {text!r}: has a prefix length, probably meant {text.partition('/')[0]}")
    packed = parse_address(text, what)
    if len(packed) != 4:
        raise UsageProblem(f"{what} {text!r}: is IPv6; the nodes' pod networks are IPv4")
    address = IPAddress(text)
    if address.is_multicast() or address.is_loopback() or address >= _CLASS_E or int(address) == 0:
        raise UsageProblem(f"{what} {text!r}: is no address that a host can have")
    return packed


def _meant_subnet(subnet: Cidr, network: Cidr) -> str:
    """Swapped arguments, a network that is too narrow, or a subnet mistyped: the likeliest of them."""
    if subnet.covers(network):
        return f", probably meant --subnet {network} --network {subnet}"
    spanning = spanning_cidr([IPNetwork(str(subnet)), IPNetwork(str(network))])
    if spanning.prefixlen >= 8:
        return f"; a network that holds both is {spanning}"
    return ""


def _meant_network(cidr: Cidr, network: Cidr) -> str:
    spanning = spanning_cidr([IPNetwork(str(cidr)), IPNetwork(str(network))])
    return f"; a network that holds both is {spanning}" if spanning.prefixlen >= 8 else ""


def _meant_free(cidr: Cidr, subnet: Cidr, network: Cidr) -> str:
    """The first subnet of that size in the network that this node's does not touch."""
    free = IPSet([IPNetwork(str(network))]) - IPSet([IPNetwork(str(subnet))])
    for block in cidr_merge(free.iter_cidrs()):
        if block.prefixlen <= cidr.prefix:
            return f"; the first /{cidr.prefix} of {network} beside it is {block.network}/{cidr.prefix}"
    return ""
