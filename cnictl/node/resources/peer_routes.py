"""Report the state of the route to each peer's pods: the routing table's entry, and where packets really go."""

from collections.abc import Collection
from dataclasses import dataclass

from cnictl.node.host import host_links, pod_routes
from cnictl.node.host.route_lookup import RouteResult
from cnictl.node.resources.route import LEARNED, OURS, RouteTable
from cnictl.node.spec.node_spec import NodeSpec, Peer, is_ipv6

ON_LINK = "on the link"
"""`PeerRouteState.link` of a peer that this node reaches without a gateway."""


@dataclass(frozen=True)
class PeerRouteState:
    """One peer's route, or a route of ours that belongs to no peer."""

    peer: Peer | None
    pod_cidr: str
    via: str
    dev: str
    state: str
    """The state in words: `ok`, `missing`, `stale`, …"""
    works: bool = False
    """Whether the route exists and pods' packets take it."""
    link: str = ""
    """Whether the peer is on the link or behind a gateway, in words."""
    on_link: bool = False
    diversions: tuple[pod_routes.Diversion, ...] = ()
    """The packets that are diverted."""


def states(spec: NodeSpec, findings: pod_routes.RouteFindings | None = None) -> list[PeerRouteState]:
    """Return the state of each peer's route, then the routes of ours that belong to no peer. Raises OSError."""
    table, findings, names = RouteTable(), findings or pod_routes.observe(spec), host_links.link_names()
    reached = host_links.reach_peers({peer: table.link_to(peer, spec) for peer in spec.known_peers})
    stale_routes = [(pod_cidr, table.to(pod_cidr)[0]) for pod_cidr in table.without_peer(spec)]
    stale = [PeerRouteState(None, pod_cidr, route["via"], route["dev"], "stale") for pod_cidr, route in stale_routes]
    return [_state(peer, reached[peer], spec, table, findings, names) for peer in spec.known_peers] + stale


def reached_peers(spec: NodeSpec, findings: pod_routes.RouteFindings | None = None) -> list[Peer]:
    """Return the peers on a link of this node whose route works. Raises OSError."""
    return [state.peer for state in states(spec, findings) if state.peer is not None and state.works and state.on_link]


def _state(
    peer: Peer,
    reached: RouteResult | None,
    spec: NodeSpec,
    table: RouteTable,
    findings: pod_routes.RouteFindings,
    names: Collection[str],
) -> PeerRouteState:
    dev, present = table.link_to(peer, spec), table.to(peer.pod_cidr)
    same = [route for route in present if (route["via"], route["dev"]) == (peer.via, dev)]
    diversions = findings.of(peer)
    off = [name for name in findings.unforwarded if ("ipv6" in name) == is_ipv6(peer.pod_cidr)]
    works = bool(same) and not diversions and not off
    if works:
        state = (
            "ok" if any(route["owner"] in (OURS, LEARNED) for route in same) else f"ok: adopted ({same[0]['owner']})"
        )
    elif same:
        state = diversions[0].short if diversions else f"not forwarded: {off[0]} is 0"
    elif not present:
        state = "missing"
    elif present[0]["owner"] in (OURS, LEARNED):
        state = f"differs: through {present[0]['via']} on {present[0]['dev']}"
    else:
        state = f"foreign: {present[0]['owner']} through {present[0]['via'] or 'the link'} on {present[0]['dev']}"
    on_link = reached is not None and not reached.gateway
    link = ON_LINK if on_link else "no route to it"
    if peer.dev and peer.dev not in names:
        link = f"there is no link {peer.dev}"
    elif reached is not None and reached.gateway:
        link = f"not on the same network segment, reached through {reached.gateway}"
    return PeerRouteState(peer, peer.pod_cidr, peer.via, dev, state, works, link, on_link, tuple(diversions))
