"""List a node's resources in the order in which they are made. The CNI conf comes after everything that pods need."""

import contextlib
from collections.abc import Sequence
from dataclasses import replace

from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import Netlink
from cnictl.node.resources.boot_unit import BootUnit, systemd_runs
from cnictl.node.resources.bridge import OWNER_MARK, Address, Bridge
from cnictl.node.resources.bridge_netfilter import BridgeNetfilter
from cnictl.node.resources.cluster_file import ClusterFile
from cnictl.node.resources.cni_conf import CniConf
from cnictl.node.resources.firewalld import Firewalld
from cnictl.node.resources.forward import IPTABLES, IptablesForward
from cnictl.node.resources.forward_nft import NftForward
from cnictl.node.resources.learned_routes import LearnedRoutes
from cnictl.node.resources.link_ipv6 import BridgeIpv6, RouterAdvertisements
from cnictl.node.resources.masquerade import Masquerade
from cnictl.node.resources.network_manager import UnmanagedDevices
from cnictl.node.resources.networkd import networkd_files
from cnictl.node.resources.plugin import Plugin
from cnictl.node.resources.ports import Ports
from cnictl.node.resources.program import ProgramCopy
from cnictl.node.resources.route import PeerRoute, RouteTable
from cnictl.node.resources.sysctl import Forwarding
from cnictl.node.resources.textfile import NodeFile, SysctlFile
from cnictl.node.spec.node_spec import NodeSpec, is_ipv6
from cnictl.node.spine import MayBeUnwritable, Resource
from cnictl.node.state import original_state

CONF_KIND, PLUGIN_KIND = "cni-conf", "plugin"


def kind(resource: Resource) -> str:
    """Return a resource's kind: `bridge` of `bridge/cni0`."""
    return resource.id.partition("/")[0]


def resources(spec: NodeSpec, earlier: Sequence[NodeSpec] = (), raises_mtu: bool = False) -> list[Resource]:
    """Return all resources of `spec`, the node file first. `earlier` specs may have left something in their place.

    `raises_mtu`: whether the pods' MTU may be raised.
    """
    known, table = tuple(earlier), RouteTable()
    return [
        NodeFile(),
        ClusterFile(),
        *_sysctls(spec),
        SysctlFile(),
        UnmanagedDevices(),
        *networkd_files(spec),
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
        LearnedRoutes(spec),
        Plugin(spec),
        ProgramCopy(systemd_runs()),
        BootUnit(spec),
        CniConf(spec),
    ]


def skipped(spec: NodeSpec, earlier: Sequence[NodeSpec] = ()) -> list[str]:
    """Return the files that can't be written on this host, although the node works without them for now."""
    paths: dict[str, None] = {}
    for resource in resources(spec, earlier):
        if isinstance(resource, MayBeUnwritable):
            with contextlib.suppress(OSError):  # it can't be read: its step in a plan reports that
                paths |= dict.fromkeys(resource.unwritable_paths(spec))
    return list(paths)


def not_kept(spec: NodeSpec) -> str:
    """Return a note on the files that can't be written, so that a boot may lose their settings; empty without any."""
    paths = skipped(spec)
    if not paths:
        return ""
    return (
        f"these files can't be written on this host: {', '.join(paths)}; the node works without them until a reboot "
        "or a restart of the programs that read them: add them to this host's image"
    )


def _sysctls(spec: NodeSpec) -> list[Resource]:
    """Return the settings that turn on forwarding for the families of `spec`, router advertisements first."""
    settings: list[Resource] = [] if all(map(is_ipv6, spec.subnets)) else [Forwarding()]
    return settings + ([RouterAdvertisements(), Forwarding(True)] if any(map(is_ipv6, spec.subnets)) else [])


def _bridge_ipv6(spec: NodeSpec) -> list[Resource]:
    return [BridgeIpv6(spec)] if any(map(is_ipv6, spec.subnets)) else []


def _unwanted_sysctls(spec: NodeSpec | None) -> list[Resource]:
    """Return the settings that an earlier spec may have made for a family that `spec` lacks."""
    every: list[Resource] = [Forwarding(ipv6=True), RouterAdvertisements(), Forwarding()]
    if spec is None:
        return every
    wanted = [resource.id for resource in (*_sysctls(spec), *_bridge_ipv6(spec))]
    return [resource for resource in (BridgeIpv6(spec), *every) if resource.id not in wanted]


def remnants(spec: NodeSpec | None, earlier: Sequence[NodeSpec]) -> list[Resource]:
    """Return what earlier specs made under names that `spec` no longer has, in the order of their removal."""
    table = RouteTable()
    left: list[Resource] = [PeerRoute(pod_cidr, table) for pod_cidr in table.without_peer(spec)]
    left += [resource for resource in _unwanted_sysctls(spec) if original_state.recall(resource.id) is not None]
    names = {spec.name} if spec is not None else set()
    bridges = {spec.bridge} if spec is not None else set()
    for old in earlier:
        if old.name not in names:
            names.add(old.name)
            left.append(Masquerade(old, tuple(earlier)))
        if old.bridge not in bridges:
            bridges.add(old.bridge)
            left += [BridgeNetfilter(old), Address(old, tuple(earlier)), BridgeIpv6(old), Bridge(old)]
    return left


def remnants_without_spec(specs: Sequence[NodeSpec], networks: Sequence[str]) -> list[Resource]:
    """Return what the plugin made for `networks` without a spec, such as by a hand-written conf. A reset removes it."""
    names, bridges = {spec.name for spec in specs}, {spec.bridge for spec in specs}
    unknown: list[Resource] = [Masquerade(replace(specs[-1], name=name)) for name in networks if name not in names]
    with Netlink() as netlink:
        links = rtnetlink.all_links(netlink)
    ours = [link for link in links if link.kind == "bridge" and link.alias.startswith(OWNER_MARK)]
    unknown += [Bridge(replace(specs[-1], bridge=link.name)) for link in ours if link.name not in bridges]
    return unknown
