"""Choose the hint for a node that lacks a peer or the route to a peer's pods, by where its peers come from.

Without a source, `cnictl route add-peer` adds a static peer. With a source, a static peer would override the source's
entry. So the hint is `cnictl apply` if the source lists the node, else to correct the source.
"""

from functools import cached_property
from typing import Any

from cnictl.node import hint
from cnictl.node.hint import Hint
from cnictl.node.reach import learning
from cnictl.node.reach.accept import CONFLICT, PENDING, REFUSED, ROUTED, SELF
from cnictl.node.spec.node_spec import FILE, NodeSpec, Peer
from cnictl.node.state import learned_peers
from cnictl.node.state.learned_peers import Learned

_OPERATORS = "the cluster file is on the operator's machine"
_KUBERNETES = "Kubernetes registers its nodes itself"


class PeerHints:
    """The hints for one node. The source is asked once, and only if a hint depends on what it says now."""

    def __init__(self, spec: NodeSpec) -> None:
        self._spec = spec

    @property
    def source(self) -> str:
        """The source of peers in words; empty without one."""
        return self._kept.source or self._spec.reach.source if self._spec.reach.source else ""

    def route_here(self, peer: Peer) -> Hint:
        """Return the hint that gives this node the route to a peer that it lacks or knows at another address."""
        if not self._spec.reach.source:
            moved = any(known.pod_cidr == peer.pod_cidr for known in self._spec.known_peers)
            return hint.command(f"cnictl route add-peer {peer.pod_cidr} {peer.via}{' --replace' if moved else ''}")
        spec, record = self._asked
        if any((known.pod_cidr, known.via) == (peer.pod_cidr, peer.via) for known in spec.known_peers):
            return hint.command("cnictl apply")
        if record.trouble:
            return hint.advice(
                f"make the source answer again, then: cnictl apply; {record.source}: {record.trouble}",
                because="the source is not on this host, or its content is the operator's",
            )
        return self._by_entry(record, peer) or self._register(peer.via, peer.via)

    def unknown_node(self, address: str) -> Hint:
        """Return the hint that adds a route to a pod whose node is not known."""
        if not self._spec.reach.source:
            return hint.advice(
                f"cnictl route add-peer CIDR ADDRESS, with the pod CIDR of {address} and its node's address",
                because="the pod's node is not known here",
            )
        return self._register(f"the node of {address}", "that node")

    def route_back(self, peer: Peer, subnet: str, own: str, more: str = "") -> Hint:
        """Return the hint that gives a peer the route to this node's pod CIDR through this node's address."""
        listed = any(node["address"] == peer.via for node in self._kept.nodes)
        if not self._spec.reach.source or (peer in self._spec.peers and not listed):
            return hint.command(f"cnictl route add-peer {subnet} {own}", more, on=peer.via)
        if not any(node["state"] == SELF for node in self._kept.nodes):
            return self._register("this node", "this node", more)
        behind = "or, if its copy of the cluster file is older: cnictl cluster apply"
        also = "; ".join(filter(None, [behind if self._spec.reach.source == FILE else "", more]))
        return hint.command("cnictl apply", also, on=peer.via)

    def refused_entry(self, peer: Peer) -> tuple[str, Hint]:
        """Return the message that a peer's new entry is refused and its old address stays, and the hint; else empty."""
        for node in self._kept.nodes:
            is_kept = node["state"] == ROUTED and node["why"] and not node["static"]
            if is_kept and (node["pod_cidr"], node["address"]) == (peer.pod_cidr, peer.via):
                words = (
                    f"{node['name']} ({peer.pod_cidr}) is still routed to {peer.via}, {node['why']}; if it has moved, "
                    "packets to its pods are lost"
                )
                text = f"correct {node['name']} in the source ({self.source})"
                return words, hint.advice(text, because="the source is the operator's")
        return "", hint.NONE

    def missing_pod_cidr(self, peer: Peer) -> Hint:
        """Return the hint for a peer that answers, but does not have its pod CIDR."""
        if peer in self._spec.peers or not self._spec.reach.source:
            drop = f"here: cnictl route del-peer {peer.pod_cidr}"
        else:
            names = [str(node["name"]) for node in self._kept.nodes if node["pod_cidr"] == peer.pod_cidr]
            name = next(iter(names), peer.via)
            drop = (
                f"set it up again with cnictl cluster apply, or take it out with cnictl cluster remove {name}"
                if self._spec.reach.source == FILE
                else f"set it up again there with cnictl init-node --from kubernetes, or: kubectl delete node {name}"
            )
        return hint.advice(
            f"on {peer.via}: run cnictl status to see whether the node was reset or has another subnet; {drop}",
            because="only the operator knows whether that node will have these pods again",
        )

    def other_cidr(self, peer: Peer) -> str:
        """Return in words what to do here if a peer now has another pod CIDR."""
        if not self._spec.reach.source or peer in self._spec.peers:
            return f"run here: cnictl route del-peer {peer.pod_cidr}, and add-peer with the new one"
        return f"correct its entry in the source of peers ({self.source})"

    def no_peers(self, without_source: str) -> str:
        """Return in words why there is no peer; `without_source` is the text for a node without a source."""
        if not self._spec.reach.source:
            return without_source
        return f"no peer: {self.source} lists no other node that can be used (cnictl node list)"

    @cached_property
    def _kept(self) -> Learned:
        """Return the list of nodes that this node uses; an empty one if it is another source's."""
        kept = learned_peers.load() if self._spec.reach.source else None
        return kept if kept is not None and kept.reach == learned_peers.identity(self._spec.reach) else Learned()

    @cached_property
    def _asked(self) -> tuple[NodeSpec, Learned]:
        """Ask the source now. Return the spec with its peers, and the list."""
        return learning.ask(self._spec, keep=False)

    def _by_entry(self, record: Learned, peer: Peer) -> Hint | None:
        """Return the hint for a node that the source lists, but not as `peer`; None if it does not list it."""
        entries = [node for node in record.nodes if node["pod_cidr"] == peer.pod_cidr]
        entries += [node for node in record.nodes if node["address"] == peer.via and node not in entries]
        entry: dict[str, Any] = next(iter(entries), {})
        where = f"{entry.get('name')} in {record.source}"
        if entry.get("static") and entry["address"] == peer.via:
            return hint.command(
                f"cnictl route del-peer {peer.pod_cidr} --yes; cnictl apply", f"node.toml overrides {where}"
            )
        if entry.get("state") in (REFUSED, CONFLICT, PENDING):
            words = f"correct {where}, whose entry has no effect here ({entry['why']}); then: {self._again}"
        elif entry.get("state") in (ROUTED, SELF):
            words = (
                f"correct {where}, which has {entry['pod_cidr']} at {entry['address']}, or set that node up again; "
                f"then: {self._again}"
            )
        else:
            return None
        return hint.advice(words, because="only the operator knows which of the two is right")

    def _register(self, whom: str, where: str, more: str = "") -> Hint:
        """Return the hint for a node that the source does not list."""
        also = f"; {more}" if more else ""
        if self._spec.reach.source == FILE:
            return hint.advice(
                f"on the operator's machine: add {whom} to the cluster file if it is missing there, then: "
                f"cnictl cluster apply{also}",
                because=_OPERATORS,
            )
        return hint.advice(
            f"register {whom} in Kubernetes, by starting kubelet on {where}, and check that its Node has a pod CIDR: "
            f"kubectl get nodes -o custom-columns=NAME:.metadata.name,CIDR:.spec.podCIDR; then: cnictl apply{also}",
            because=_KUBERNETES,
        )

    @property
    def _again(self) -> str:
        return "cnictl cluster apply" if self._spec.reach.source == FILE else "cnictl apply"
