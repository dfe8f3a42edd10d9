"""Collect what `cnictl node list` shows: every node that the source lists, with its state on this node."""

from typing import Any

from cnictl.node.host import host_links, reading
from cnictl.node.reach.accept import CONFLICT, REFUSED, ROUTED
from cnictl.node.resources import peer_routes
from cnictl.node.spec.node_spec import NodeSpec
from cnictl.node.state import learned_peers
from cnictl.probe import neighbours
from cnictl.views import source_view


@reading.cached_pass()
def listed(spec: NodeSpec) -> dict[str, Any]:
    """Return the source and its state, and a row for each node and address family, as JSON values."""
    learned = learned_peers.load() if spec.reach.source else None
    routes = {state.pod_cidr: state for state in peer_routes.states(spec)}
    rows = [dict(node) for node in learned.nodes] if learned is not None else []
    announced = {row["pod_cidr"] for row in rows}
    rows += [
        {"name": "", "pod_cidr": peer.pod_cidr, "address": peer.via, "state": ROUTED, "why": "", "static": True}
        for peer in spec.peers
        if peer.pod_cidr not in announced
    ]
    links = host_links.peer_links(spec)
    by_address = {peer.via: link for peer, link in links.items() if link}
    answers = neighbours.answering((row["address"], by_address[row["address"]]) for row in rows
                                   if row["address"] in by_address)  # fmt: skip
    for row in rows:
        state = routes.get(row["pod_cidr"])
        row["route"] = state.state if state is not None and row["state"] == ROUTED else ""
        row["dev"] = by_address.get(row["address"], "")
        row["answers"] = answers.get((row["address"], row["dev"]))
        row.setdefault("since", 0.0)
    return {"source": source_view.shown(spec, learned), "items": rows}


def name_of(row: dict[str, Any]) -> str:
    """Return the name of a row's node; a peer of node.toml has none, and is known by its pod CIDR."""
    return str(row["name"] or row["pod_cidr"] or row["address"])


def has_fault(shown: dict[str, Any]) -> bool:
    """Return whether the source can't be asked or contradicts this node, or a node is refused or in conflict."""
    source = shown["source"]
    bad_nodes = any(row["state"] in (REFUSED, CONFLICT) for row in shown["items"])
    return bool(source["trouble"] or source["conflict"]) or bad_nodes
