"""Which resources make up a node, in the order they are made: the CNI conf comes when all that pods need is there."""

from collections.abc import Sequence
from dataclasses import replace

from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import Netlink
from cnictl.node.resources.boot_unit import BootUnit, systemd_runs
from cnictl.node.resources.bridge import OWNER_MARK, Address, Bridge
from cnictl.node.resources.bridge_netfilter import BridgeNetfilter
from cnictl.node.resources.cni_conf import CniConf
from cnictl.node.resources.firewalld import Firewalld
from cnictl.node.resources.forward import IPTABLES, IptablesForward
from cnictl.node.resources.forward_nft import NftForward
from cnictl.node.resources.link_ipv6 import BridgeIpv6, RouterAdvertisements
from cnictl.node.resources.masquerade import Masquerade
from cnictl.node.resources.network_manager import UnmanagedDevices
from cnictl.node.resources.networkd import ForeignRoutes, UnmanagedLinks, kept_addresses
from cnictl.node.resources.plugin import Plugin
from cnictl.node.resources.ports import Ports
from cnictl.node.resources.program import ProgramCopy
from cnictl.node.resources.route import PeerRoute, RouteTable
from cnictl.node.resources.sysctl import Forwarding
from cnictl.node.resources.textfile import NodeFile, SysctlFile
from cnictl.node.spec.node_spec import NodeSpec, is_ipv6
from cnictl.node.spine import Resource, Skipping
from cnictl.node.state import original_state

CONF_KIND, PLUGIN_KIND = "cni-conf", "plugin"


def kind(resource: Resource) -> str:
    """`bridge` of `bridge/cni0`."""
    return resource.id.partition("/")[0]


def resources(spec: NodeSpec, earlier: Sequence[NodeSpec] = (), raises_mtu: bool = False) -> list[Resource]:
    """Everything that `spec` asks for, the node file first. `earlier` specs may have left something in its place.

    `raises_mtu`: whether the pods' MTU may grow again.
    """
    known, table = tuple(earlier), RouteTable()
    return [
        NodeFile(),
        *_sysctls(spec),
        SysctlFile(),
        UnmanagedDevices(),
        ForeignRoutes(),
        UnmanagedLinks(),
        *kept_addresses(spec),
        Bridge(spec, raises_mtu),
        *_bridge_ipv6(spec),
        Address(spec, known),
        BridgeNetfilter(spec),
        Ports(spec),
        Masquerade(spec, known),
        *(IptablesForward(family, spec, legacy) for family, legacy in IPTABLES),
        NftForward(spec),
        Firewalld(spec, known),
        *(PeerRoute(peer.pod_cidr, table) for peer in spec.peers),
        Plugin(spec),
        ProgramCopy(systemd_runs()),
        BootUnit(spec),
        CniConf(spec),
    ]


def skipped(spec: NodeSpec, earlier: Sequence[NodeSpec] = ()) -> list[str]:
    """Paths that `spec` asks for, that can't be written on this host, and that the node works without for now."""
    found = [path for one in resources(spec, earlier) if isinstance(one, Skipping) for path in one.skipped(spec)]
    return list(dict.fromkeys(found))


def not_kept(spec: NodeSpec, earlier: Sequence[NodeSpec] = ()) -> str:
    """What this host can't keep for the next boot, in words; empty where it keeps all."""
    paths = skipped(spec, earlier)
    if not paths:
        return ""
    return (
        f"can't be written here, so the node does without: {', '.join(paths)}; "
        "a reboot or a restart of what reads them may undo what they say: have this host's own image bring them"
    )


def _sysctls(spec: NodeSpec) -> list[Resource]:
    """What lets the host forward the families of `spec`; advertisements are seen to before forwarding drops them."""
    found: list[Resource] = []
    if not all(map(is_ipv6, spec.subnets)):
        found.append(Forwarding())
    if any(map(is_ipv6, spec.subnets)):
        found += [RouterAdvertisements(), Forwarding(ipv6=True)]
    return found


def _bridge_ipv6(spec: NodeSpec) -> list[Resource]:
    return [BridgeIpv6(spec)] if any(map(is_ipv6, spec.subnets)) else []


def _unwanted_sysctls(spec: NodeSpec | None) -> list[Resource]:
    """What an earlier spec may have set for a family that `spec` lacks."""
    every: list[Resource] = [Forwarding(ipv6=True), RouterAdvertisements(), Forwarding()]
    if spec is None:
        return every
    wanted = [one.id for one in (*_sysctls(spec), *_bridge_ipv6(spec))]
    return [one for one in (BridgeIpv6(spec), *every) if one.id not in wanted]


def left_over(spec: NodeSpec | None, earlier: Sequence[NodeSpec]) -> list[Resource]:
    """What earlier specs made under names that `spec` no longer has, in the order it is removed."""
    table = RouteTable()
    left: list[Resource] = [PeerRoute(pod_cidr, table) for pod_cidr in table.orphans(spec)]
    left += [one for one in _unwanted_sysctls(spec) if original_state.recall(one.id) is not None]
    names = {spec.name} if spec is not None else set()
    bridges = {spec.bridge} if spec is not None else set()
    for one in earlier:
        if one.name not in names:
            names.add(one.name)
            left.append(Masquerade(one, tuple(earlier)))
        if one.bridge not in bridges:
            bridges.add(one.bridge)
            left += [BridgeNetfilter(one), Address(one, tuple(earlier)), BridgeIpv6(one), Bridge(one)]
    return left


def strays(specs: Sequence[NodeSpec], networks: Sequence[str]) -> list[Resource]:
    """What the plugin made for `networks` that no spec is of: a conf written by hand, say. A reset takes it along."""
    names, bridges = {spec.name for spec in specs}, {spec.bridge for spec in specs}
    found: list[Resource] = [Masquerade(replace(specs[-1], name=name)) for name in networks if name not in names]
    with Netlink() as netlink:
        links = rtnetlink.all_links(netlink)
    ours = [link for link in links if link.kind == "bridge" and link.alias.startswith(OWNER_MARK)]
    found += [Bridge(replace(specs[-1], bridge=link.name)) for link in ours if link.name not in bridges]
    return found
