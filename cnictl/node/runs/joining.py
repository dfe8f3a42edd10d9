"""Set a node up from a source of peers: `init-node --from FILE` or `--from kubernetes`."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cnictl.core.counted import counted
from cnictl.core.errors import UsageProblem
from cnictl.core.paths import CLUSTER_FILE
from cnictl.node.host import host_links, pod_routes, route_lookup
from cnictl.node.reach import cluster_file, kubernetes_access, learning, sources
from cnictl.node.reach.accept import REFUSED
from cnictl.node.reach.source import Announcement, Fixed, Snapshot, Source
from cnictl.node.resources.cluster_file import ClusterFile
from cnictl.node.spec.node_spec import FILE, KUBERNETES, NodeSpec, Peer, Reach, is_ipv6
from cnictl.node.spec.peers import place
from cnictl.node.state import learned_peers
from cnictl.node.state.learned_peers import Learned

_SHOWN = 5
"""The most refused nodes that a message names."""


@dataclass(frozen=True)
class NodeInSource:
    """This node as a source of peers describes it: its pod CIDRs, and the cluster's networks."""

    reach: Reach
    source: Source
    subnets: tuple[str, ...]
    networks: tuple[str, ...]

    def values(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return fields of the spec: those that options give, and the source's for the others. Raises UsageProblem."""
        named = given.get("subnets")
        if named and set(named) != set(self.subnets):
            raise UsageProblem(
                f"--subnet is {', '.join(named)}, but {self.source.title} gives this node {', '.join(self.subnets)}",
                "leave --subnet out, or change it there",
            )
        if not (given.get("networks") or self.networks):
            raise UsageProblem(
                f"{self.source.title} does not name the pod network of all nodes",
                "name it with --network, such as --network 10.244.0.0/16",
            )
        return {"networks": self.networks, **given, "subnets": self.subnets, "reach": self.reach}


def ask(named: str, node: str, unclaimed: str, known: NodeSpec | None) -> NodeInSource:
    """Ask the source that `--from` names about this node. Raises UsageProblem, SourceLost.

    `named`: `kubernetes`, or a cluster file's path. `node`: this node's name in the source, empty for the default.
    `known`: the present spec.
    """
    kept = unclaimed or (known.reach.unclaimed if known is not None else "")
    if named == KUBERNETES:
        current = known.reach if known is not None and known.reach.source == KUBERNETES else Reach(KUBERNETES)
        name = node or current.node or kubernetes_access.own_name()
        return _of_kubernetes(replace(current, node=name, unclaimed=kept), known.networks if known is not None else ())
    return _of_file(named, Reach(FILE, node, unclaimed=kept))


def _of_file(path: str, reach: Reach) -> NodeInSource:
    path = os.path.abspath(path)
    contents = cluster_file.read(path)
    text = cluster_file.text_of(contents, path)
    cluster = cluster_file.parse(text, path)
    if reach.node:
        own = next((node for node in cluster.nodes if node.name == reach.node), None)
        if own is None:
            raise UsageProblem(f"{path} has no node named {reach.node!r}")
    else:
        own = cluster_file.find_self(cluster, host_links.own_addresses())
    if not own.pod_cidrs:
        raise UsageProblem(
            f"{path}: node {own.name} has no pod CIDR yet",
            "on the machine where you keep the file, `cnictl cluster apply` assigns one; or write pod_cidr there",
        )
    if os.path.realpath(path) != os.path.realpath(CLUSTER_FILE):
        ClusterFile.offered = text
    return NodeInSource(reach, _as_source(cluster, contents), own.pod_cidrs, cluster.networks)


def _of_kubernetes(reach: Reach, known_networks: tuple[str, ...]) -> NodeInSource:
    source = sources.open_source(NodeSpec((), (), reach=reach), setting_up=True)
    snapshot = source.list()
    own = next((node for node in snapshot.nodes if node.name == reach.node), None)
    if own is None:
        names = ", ".join(sorted(node.name for node in snapshot.nodes)[:5]) or "none"
        raise UsageProblem(
            f"{source.title} has no Node named {reach.node!r}; the Nodes are: {names}",
            "start kubelet, which registers the Node, or give its name with --node",
        )
    if not own.pod_cidrs:
        raise UsageProblem(
            f"Node {own.name} has no podCIDR",
            "kube-controller-manager gives it one with --allocate-node-cidrs (kubeadm: networking.podSubnet)",
        )
    return NodeInSource(reach, source, own.pod_cidrs, snapshot.networks or known_networks)


@dataclass(frozen=True)
class Joined:
    """A spec with the learned peers, and what became of the static ones."""

    spec: NodeSpec
    record: Learned | None = None
    """The record of the source's list; None if the node has no source."""
    dropped: tuple[Peer, ...] = ()
    """Static peers to drop, because the source announces the same peers."""
    overriding: tuple[Peer, ...] = ()
    """Static peers that stay and take precedence over the source's."""

    def notes(self) -> list[str]:
        """Return in words what becomes of static peers, and which nodes are refused."""
        if self.record is None:
            return []
        source = self.record.source
        notes = [f"drops peer {peer.pod_cidr} from node.toml: {source} has it too" for peer in self.dropped]
        notes += [
            f"keeps peer {peer.pod_cidr} through {place(peer)}, which overrides {source}" for peer in self.overriding
        ]
        refused = [node for node in self.record.nodes if node["state"] == REFUSED]
        notes += [f"refuses node {node['name']} {node['pod_cidr']}: {node['why']}" for node in refused[:_SHOWN]]
        notes += [f"refuses {len(refused) - _SHOWN} more: cnictl node list"] if len(refused) > _SHOWN else []
        return notes + ([f"warning: {source}: {self.record.trouble}"] if self.record.trouble else [])


def join(spec: NodeSpec, asked: NodeInSource | None) -> Joined:
    """Return `spec` with the peers from its source; the record of them is not written yet.

    If the source was named on the command line (`asked`), static peers that it announces too are dropped.
    """
    if not spec.reach.source:
        return Joined(replace(spec, learned=()))
    if asked is None:
        return Joined(*learning.ask(spec, keep=False))
    _, record = learning.learn(replace(spec, peers=()), asked.source, keep=False, accept_empty=True)
    announced = {(peer.pod_cidr, peer.via) for peer in record.peers}
    dropped = tuple(peer for peer in spec.peers if (peer.pod_cidr, peer.via) in announced and not peer.dev)
    kept = tuple(peer for peer in spec.peers if peer not in dropped)
    learned, record = learning.learn(replace(spec, peers=kept), asked.source, keep=False, accept_empty=True)
    return Joined(learned, record, dropped, kept)


@contextlib.contextmanager
def saved(joined: Joined) -> Iterator[None]:
    """Save the record for the run in this context; restore the previous one if the run fails. Raises OSError."""
    previous = learned_peers.load()
    _save(joined.record)
    try:
        yield
    except BaseException:
        _save(previous)
        raise


def _save(record: Learned | None) -> None:
    if record is None:
        learned_peers.forget()
    else:
        learned_peers.save(record)


def of_text(spec: NodeSpec, text: str) -> NodeSpec:
    """Return `spec` with the peers of a cluster file's text. Raises UsageProblem."""
    return learning.learn(spec, _as_source(cluster_file.parse(text), text.encode()), keep=False, accept_empty=True)[0]


def _as_source(cluster: cluster_file.Cluster, contents: bytes) -> Source:
    """Return a source with the content of a cluster file that is about to be copied to this node."""
    nodes = tuple(Announcement(node.name, node.pod_cidrs, node.addresses) for node in cluster.nodes)
    return Fixed(f"file {CLUSTER_FILE}", Snapshot(nodes, cluster_file.version_of(contents), cluster.networks))


def what_next(spec: NodeSpec, record: Learned | None) -> str:
    """Return in words what the other nodes need now."""
    if record is None:
        peers = [f"{subnet}={_own_address(spec, subnet)}" for subnet in spec.subnets]
        return "\n".join(_on_others(spec.networks, peers))
    known = f"{counted(len(spec.learned), 'peer')} learned from {record.source}"
    if spec.reach.source == KUBERNETES:
        return f"{known}; other nodes learn of this one through cnictl watch; without it, run cnictl apply on each"
    return f"{known}; other nodes need the same file: cnictl cluster apply, or cnictl init-node --from FILE there"


def _on_others(networks: Sequence[str], peers: Sequence[str]) -> Iterator[str]:
    """Yield the commands that make this node a peer of another one: of a node, and of a host that is not one yet."""
    yield f"next, on each other node: cnictl route add-peer {' '.join(peers)}"
    subnets = ",".join("POD_CIDR6" if is_ipv6(network) else "POD_CIDR" for network in networks)
    named = " ".join(f"--peer {peer}" for peer in peers)
    yield f"on a new node: cnictl init-node --subnet {subnets} --network {','.join(networks)} {named}"


def _own_address(spec: NodeSpec, subnet: str) -> str:
    """Return the address by which peers reach this node; a placeholder if it is not known."""
    near = next((peer.via for peer in spec.known_peers if is_ipv6(peer.via) == is_ipv6(subnet)), "")
    outside = next(address for address in pod_routes.OUTSIDE if is_ipv6(address) == is_ipv6(subnet))
    return route_lookup.source_to(near or outside) or "ADDRESS"
