"""Check a node's addresses and names before anything is changed. Wrong ones are usage errors.

Each message names the value and suggests a correction. `core.cidr` checks the syntax of each address; this module
checks the addresses against each other.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import replace

from cnictl.core.cidr import AddressError, Cidr, format_address, parse_cidr, parse_pod_cidr
from cnictl.core.conf.network import LOG_LEVELS
from cnictl.core.errors import UsageProblem
from cnictl.core.masquerade.backends import BACKENDS
from cnictl.core.untrusted_text import NETWORK_NAME_MAX
from cnictl.node.spec import swapped
from cnictl.node.spec.node_spec import NodeSpec, is_ipv6
from cnictl.node.spec.peers import FAMILIES, check_link_name, check_peers, host_address, is_link_local
from cnictl.node.spec.suggestions import meant_network

MTU_MIN, MTU_MAX = 68, 65535
"""The smallest and the largest MTU in bytes (RFC 791: every link can carry 68)."""

MTU_MIN_IPV6 = 1280
"""The smallest MTU for IPv6 in bytes (RFC 8200, section 5)."""

_NO_PODS = tuple(
    (parse_cidr(text), kind)
    for text, kind in (
        ("127.0.0.0/8", "loopback"), ("169.254.0.0/16", "link-local"), ("224.0.0.0/4", "multicast"),
        ("::1/128", "loopback"), ("fe80::/10", "link-local"), ("ff00::/8", "multicast"),
        ("::ffff:0:0/96", "IPv4-mapped"),
    )
)  # fmt: skip
"""Addresses that the kernel does not route between links, or that are not addresses of hosts."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\Z")


def check(spec: NodeSpec) -> NodeSpec:
    """Return `spec` with its addresses in canonical form. Raises UsageProblem for the first wrong value."""
    try:
        return _check(spec)
    except AddressError as error:
        raise UsageProblem(str(error)) from None


def _check(spec: NodeSpec) -> NodeSpec:
    for text in (*spec.networks, *spec.subnets):
        if swapped.is_name(text):
            subject = "network" if text in spec.networks else "subnet"
            raise UsageProblem(
                f"{subject} {text!r} is a name, not a CIDR such as 10.244.0.0/20; a network's name goes with --name"
            )
    networks = _one_per_family([parse_cidr(text, "network") for text in spec.networks], "network")
    subnets = _one_per_family([parse_pod_cidr(text, "subnet") for text in spec.subnets], "subnet")
    for network in networks.values():
        if network.prefix == 0:
            subnet = subnets.get(network.bits, network)
            near = min(subnet.prefix, 16 if network.bits == 32 else 48) or 16
            raise UsageProblem(
                f"network {network} contains every address, so nothing would be masqueraded; "
                f"name a network that contains all nodes' pod CIDRs, such as {Cidr(subnet.packed, near).network}"
            )
    _check_matching(subnets, networks)
    peers = check_peers(spec.peers, tuple(subnets.values()), tuple(networks.values()))
    check_link_name(spec.bridge, "bridge")
    if spec.uplink:
        check_link_name(spec.uplink, "uplink")
        if spec.uplink == spec.bridge:
            raise UsageProblem(f"uplink {spec.uplink!r} is the bridge itself; it has to be the link to the other nodes")
    check_network_name(spec.name)
    if spec.mtu and not MTU_MIN <= spec.mtu <= MTU_MAX:
        raise UsageProblem(
            f"mtu {spec.mtu} is not within {MTU_MIN} to {MTU_MAX} bytes (0: the smallest over the links to other hosts)"
        )
    if 128 in subnets and 0 < spec.mtu < MTU_MIN_IPV6:
        raise UsageProblem(
            f"mtu {spec.mtu} is too small for IPv6, which the kernel turns off below {MTU_MIN_IPV6} bytes"
        )
    if spec.backend not in BACKENDS:
        raise UsageProblem(f"backend {spec.backend!r} is neither {' nor '.join(BACKENDS)}")
    if spec.log_level and spec.log_level not in LOG_LEVELS:
        raise UsageProblem(f"log_level {spec.log_level!r} is not one of {', '.join(LOG_LEVELS)}")
    if spec.log_file and (not spec.log_file.startswith("/") or "\0" in spec.log_file):
        raise UsageProblem(f"log_file {spec.log_file!r} is not an absolute path")
    bin_dirs, conf_dirs = _folders(spec.bin_dirs, "bin_dir"), _folders(spec.conf_dirs, "conf_dir")
    if spec.plugin_version and not re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z.+_-]*", spec.plugin_version):
        raise UsageProblem(f"plugin version {spec.plugin_version!r} is not a version such as 0.1.0")
    return replace(
        spec,
        subnets=tuple(map(str, subnets.values())),
        networks=tuple(map(str, networks.values())),
        peers=peers,
        bin_dirs=bin_dirs,
        conf_dirs=conf_dirs,
        externals=_check_externals(spec.externals, subnets),
    )


def _folders(paths: Iterable[str], subject: str) -> tuple[str, ...]:
    """Return the folders, normalized and each once. Raises UsageProblem for one that is not an absolute path."""
    for path in paths:
        if not path.startswith("/") or "\0" in path or os.path.normpath(path) == "/":
            raise UsageProblem(f"{subject} {path!r} is not a folder's absolute path, such as /opt/cni/bin")
    return tuple(dict.fromkeys(os.path.normpath(path) for path in paths))


def _one_per_family(cidrs: Iterable[Cidr], subject: str) -> dict[int, Cidr]:
    """Return the CIDRs by the bits of their family, in the order given. Raises UsageProblem for two of one family."""
    cidr_by_bits: dict[int, Cidr] = {}
    for cidr in cidrs:
        for block, kind in _NO_PODS:
            if cidr.prefix and cidr.overlaps(block):  # a later check has a better message for prefix length 0
                within = "" if block.covers(cidr) else f"it contains {block}, and "
                raise UsageProblem(f"{subject} {cidr}: {within}pods can't have {kind} addresses")
        other = cidr_by_bits.setdefault(cidr.bits, cidr)
        if other is not cidr:
            raise UsageProblem(
                f"{subject} {other} and {cidr} are both {FAMILIES[cidr.bits]}: at most one of each family"
            )
    return cidr_by_bits


def _check_matching(subnets: dict[int, Cidr], networks: dict[int, Cidr]) -> None:
    """Refuse a subnet outside the network of its family, and a subnet or network that lacks the other."""
    for bits, subnet in subnets.items():
        if bits not in networks:
            wide = Cidr(subnet.packed, min(subnet.prefix, 16 if bits == 32 else 48)).network
            raise UsageProblem(
                f"subnet {subnet} is {FAMILIES[bits]}, and there is no {FAMILIES[bits]} network for it: "
                f"add --network {wide}, or the network of all nodes' {FAMILIES[bits]} pod CIDRs"
            )
    for bits, network in networks.items():
        if bits not in subnets:
            own = Cidr(network.packed, max(network.prefix, 24 if bits == 32 else 64))
            raise UsageProblem(
                f"network {network} is {FAMILIES[bits]}, and there is no {FAMILIES[bits]} subnet in it: "
                f"add --subnet {own}, or this node's {FAMILIES[bits]} pod CIDR"
            )
        if not network.covers(subnets[bits]):
            subnet = subnets[bits]
            raise UsageProblem(
                f"subnet {subnet} lies outside the pod network {network}{_meant_subnet(subnet, network)}"
            )


def _check_externals(texts: tuple[str, ...], subnets: dict[int, Cidr]) -> tuple[str, ...]:
    address_by_bits: dict[int, str] = {}
    for text in texts:
        packed = host_address(text, "external")
        if is_link_local(packed):
            raise UsageProblem(f"external {text} is link-local, so it is not an address outside the cluster")
        bits = len(packed) * 8
        if bits not in subnets:
            raise UsageProblem(f"external {text} is {FAMILIES[bits]}, but this node's pods have no such address")
        if bits in address_by_bits:
            raise UsageProblem(f"external {address_by_bits[bits]} and {text} are both {FAMILIES[bits]}")
        address_by_bits[bits] = format_address(packed)
    return tuple(address_by_bits.values())


def parse_externals(texts: Iterable[str], networks: Iterable[str]) -> tuple[str, ...]:
    """Return addresses outside a cluster with these pod networks, in canonical form. Raises UsageProblem."""
    try:
        cidrs = [parse_cidr(network) for network in networks]
        return _check_externals(parse_list(texts), {cidr.bits: cidr for cidr in cidrs})
    except AddressError as error:
        raise UsageProblem(str(error)) from None


def parse_list(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the values of an option that may be repeated or hold several values separated by commas."""
    return tuple(part.strip() for text in texts for part in text.split(","))


def changed_families(now: tuple[str, ...], new: tuple[str, ...]) -> tuple[str, ...]:
    """Merge two lists by address family: values in `new` win, and families that are only in `now` stay."""
    kept = [next((value for value in new if is_ipv6(value) == is_ipv6(old)), old) for old in now]
    return (*kept, *(value for value in new if value not in kept))


def check_network_name(name: str) -> None:
    """Refuse what the CNI specification (1.1.0, section 1, `name`) or the plugin refuses: it names a folder."""
    if swapped.is_cidr(name):
        raise UsageProblem(f"name {name!r} is a CIDR, not a network name", f"--network {name} names the pod network")
    if not _NAME.match(name):
        raise UsageProblem(
            f"name {name!r} is not a network name: use letters, digits, '_', '.', '-', first a letter or a digit"
        )
    if len(name) > NETWORK_NAME_MAX:
        raise UsageProblem(
            f"name {name[:20]!r}… has {len(name)} characters; a network's name has at most {NETWORK_NAME_MAX}"
        )


def _meant_subnet(subnet: Cidr, network: Cidr) -> str:
    """Return the likeliest correction of a subnet outside its network, in words."""
    if subnet.covers(network):
        return f"; did you mean --subnet {network} --network {subnet}?"
    return meant_network(subnet, network)
