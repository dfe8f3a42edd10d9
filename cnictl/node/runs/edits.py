"""Turn a command's options into a node's new spec, and decide which kinds of resources to change. No run has begun."""

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from cnictl.core.counted import counted
from cnictl.core.errors import Problem, UsageProblem
from cnictl.node import preflight
from cnictl.node.host import firewall, host_links, reading
from cnictl.node.preflight import PreflightFinding
from cnictl.node.resources import inventory
from cnictl.node.resources.bridge import Bridge
from cnictl.node.resources.cni_conf import CniConf
from cnictl.node.runs import converge
from cnictl.node.spec import addressing, named_peers, peers
from cnictl.node.spec.named_peers import NamedPeers
from cnictl.node.spec.node_spec import NodeSpec, Peer, is_ipv6

PEER_KINDS = ("route", "forward", "firewalld")
"""The kinds that a peer changes: the route to its pods, and the accept rules for its packets."""

_BRIDGE_KINDS: tuple[str, ...] = ("file", "sysctl", "bridge", "address", "netfilter", "forward")


@dataclass(frozen=True)
class SetUp:
    """The options of `init-node`."""

    values: Mapping[str, Any]
    """The fields of the spec that options give."""
    peers: tuple[Peer, ...]
    prune: bool
    """Whether peers that are not named are dropped."""
    replace: bool
    """Whether a peer that is named with another address gets that address."""

    def spec(self) -> tuple[NodeSpec, NamedPeers]:
        """Return the new spec, and what becomes of the node's peers. Raises UsageProblem."""
        known = converge.known_spec()
        if known is None:
            if not (self.values.get("subnets") and self.values.get("networks")):
                raise UsageProblem(
                    "this host is not set up as a node yet: init-node needs --subnet and --network, or --from"
                )
            kind = "nft" if firewall.has_command("nft") or not firewall.has_command("iptables") else "iptables"
            known = NodeSpec(self.values["subnets"], self.values["networks"], backend=kind)
        chosen = named_peers.combine(known.peers, self.peers, self.prune, self.replace)
        return addressing.check(dataclasses.replace(known, **self.values, peers=chosen.peers)), chosen

    def notes(self, spec: NodeSpec, chosen: NamedPeers) -> list[str]:
        """Return in words what the options leave out, and what that means for the present node."""
        specs = converge.specs_in_place()
        notes = []
        if specs and converge.lost_its_file():
            notes.append(
                "/etc/cnictl/node.toml is missing: options that you leave out keep the values cnictl last applied"
            )
        gone = [subnet for subnet in (specs[-1].subnets if specs else ()) if subnet not in spec.subnets]
        notes += [f"drops this node's pod CIDR {subnet}, which --subnet does not name" for subnet in gone]
        notes += chosen.in_words()
        if chosen.kept and self.peers:
            kept = ", ".join(peer.pod_cidr for peer in chosen.kept)
            notes.append(f"keeps {kept}, which no --peer names; --prune drops them")
        return notes


def refuse_findings(findings: Collection[PreflightFinding]) -> None:
    """Raise Problem if a preflight finding is an error and not ignored."""
    errors = [finding.name for finding in findings if finding.severity == "error" and not finding.ignored]
    if errors:
        count = f"{counted(len(errors), 'preflight check')} failed"
        names = [name for name in dict.fromkeys(errors) if name in preflight.IGNORABLE]
        accepted = f"if you accept that: {' '.join(f'--ignore {name}' for name in names)}" if names else ""
        raise Problem(f"{count}, nothing was changed", accepted)


@dataclass(frozen=True)
class BridgeUp:
    """The options of `bridge up`; an empty one changes nothing."""

    subnets: tuple[str, ...]
    networks: tuple[str, ...]
    bridge: str
    mtu: int | None

    def start(self) -> NodeSpec:
        """Return the spec to edit. Raises UsageProblem."""
        known = converge.known_spec()
        if known is None and not (self.subnets and self.networks):
            raise UsageProblem("this host is not set up as a node yet: bridge up needs --subnet and --network")
        return known or NodeSpec(self.subnets, self.networks, nat=False)

    def edit(self, spec: NodeSpec) -> NodeSpec:
        """Return `spec` with the options' values. Raises UsageProblem."""
        return addressing.check(
            dataclasses.replace(
                spec,
                subnets=addressing.changed_families(spec.subnets, self.subnets),
                networks=addressing.changed_families(spec.networks, self.networks),
                bridge=self.bridge or spec.bridge,
                mtu=spec.mtu if self.mtu is None else self.mtu,
            )
        )

    def kinds(self) -> tuple[str, ...]:
        """Return the kinds of resources that it changes."""
        known = converge.known_spec()
        wanted = self.edit(self.start())
        kinds = _BRIDGE_KINDS
        if CniConf(wanted).observe() is not None:
            kinds += (inventory.CONF_KIND,)
        if known is not None and (wanted.subnets, wanted.bridge) != (known.subnets, known.bridge):
            kinds += ("masquerade",)
        return kinds


def masquerade_kinds() -> tuple[str, ...]:
    """Return the kinds that a change of masquerade affects: the rules, and the conf if there is one."""
    conf = CniConf(converge.current_spec()).observe()
    return ("masquerade", inventory.CONF_KIND) if conf is not None else ("masquerade",)


@dataclass(frozen=True)
class AddPeers:
    """The arguments of `route add-peer`."""

    peers: tuple[Peer, ...]
    replace: bool
    """Whether a known peer with another address gets the new one."""

    def edit(self, spec: NodeSpec) -> NodeSpec:
        """Return `spec` with the peers. Raises UsageProblem."""
        return dataclasses.replace(spec, peers=self._combined(spec).peers)

    @reading.cached_pass()
    def preview(self) -> tuple[list[str], tuple[str, ...]]:
        """Return in words what becomes of the present peers, and the kinds of resources that it changes.

        The host is asked about the named peers alone. Raises UsageProblem if a peer does not fit the node; Problem if
        one can't be reached without a gateway, or if pods' IPv6 needs a larger MTU.
        """
        spec = converge.current_spec()
        combined = self._combined(spec)
        wanted = addressing.check(dataclasses.replace(spec, peers=combined.peers))
        named = {peer.pod_cidr for peer in self.peers}
        alone = dataclasses.replace(
            wanted, peers=tuple(peer for peer in wanted.peers if peer.pod_cidr in named), learned=()
        )
        _refuse_gateways(alone)
        kinds = (*PEER_KINDS, "bridge") if _lowers_mtu(alone) else PEER_KINDS
        return combined.in_words(), kinds

    def _combined(self, spec: NodeSpec) -> NamedPeers:
        return named_peers.combine(spec.peers, self.peers, False, self.replace)


def _refuse_gateways(spec: NodeSpec) -> None:
    """Raise Problem if a peer of `spec` can't be reached without a gateway."""
    for peer, reached in host_links.reach_peers(host_links.peer_links(spec)).items():
        if reached is not None and reached.gateway and not peer.dev:
            raise Problem(
                f"{peer.via} is not on the same network segment, but reached through {reached.gateway}: "
                "plain routes can't carry pods' packets there",
                f"give both nodes addresses in one subnet, or name the link to it: {peer.pod_cidr}={peer.via}%LINK",
            )


def without_peers(spec: NodeSpec, pod_cidrs: Collection[str]) -> NodeSpec:
    """Return `spec` without the peers of these pod CIDRs. Raises UsageProblem if there is no such peer."""
    known = [peer.pod_cidr for peer in spec.peers]
    for pod_cidr in pod_cidrs:
        if pod_cidr not in known:
            named = ", ".join(known) or "none"
            raise UsageProblem(f"peer {pod_cidr} is not one of this node's peers; they are: {named}")
    return dataclasses.replace(spec, peers=tuple(peer for peer in spec.peers if peer.pod_cidr not in pod_cidrs))


def check_links(spec: NodeSpec) -> None:
    """Raise UsageProblem if the spec names this host as a peer, or a link that does not exist."""
    peers.check_not_ours(spec.peers, host_links.own_interfaces())
    host_links.check_links(spec)


def _lowers_mtu(spec: NodeSpec) -> bool:
    """Return whether a peer of `spec` needs a smaller pod MTU than the bridge has now."""
    limit = host_links.smallest_mtu(spec)
    if spec.mtu or limit.peer is None:
        return False
    least = addressing.MTU_MIN_IPV6
    if limit.mtu < least and any(map(is_ipv6, spec.subnets)):
        raise Problem(
            f"peer {limit.peer.via} is reached over {limit.link} with an MTU of {limit.mtu}, and pods' IPv6 needs "
            f"at least {least} bytes",
            f"ip link set {limit.link} mtu {least}, or name another link to it: "
            f"{limit.peer.pod_cidr}={limit.peer.via}%LINK",
        )
    bridge = Bridge(spec).observe()
    return bridge is not None and bridge["up"] and bridge["mtu"] > limit.mtu
