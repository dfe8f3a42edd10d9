"""Ask the source for the cluster's nodes, judge them, and keep the result as the last good list."""

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from cnictl.core import outside
from cnictl.core.cidr import parse_address
from cnictl.core.errors import UsageProblem
from cnictl.node.host import host_links, reading, route_lookup
from cnictl.node.host.route_lookup import MAIN_TABLE, Packet, Way
from cnictl.node.reach import accept, sources
from cnictl.node.reach.accept import Host, Judged
from cnictl.node.reach.source import Snapshot, Source, SourceLost
from cnictl.node.spec.node_spec import NodeSpec
from cnictl.node.spec.peers import is_link_local
from cnictl.node.state import learned_peers
from cnictl.node.state.learned_peers import Learned, fitting

_LONGEST = 1000
"""Characters of a conflict in words: the plugin's STATUS reads them."""


def learn(spec: NodeSpec, source: Source, keep: bool = True, accept_empty: bool = False) -> tuple[NodeSpec, Learned]:
    """Ask the source once, and return `spec` with what it gave, and the record.

    A source that is lost, or an answer that can't be believed, leaves the peers that were known: the record says since
    when it is stale. `keep`: the record is written.
    """
    try:
        snapshot = source.list()
    except (SourceLost, UsageProblem) as lost:
        record = stale(spec, source.title, lost.message)
    else:
        record = taken(spec, source, snapshot, accept_empty)
    if keep:
        learned_peers.save(record)
    return fitting(spec, record), record


def taken(spec: NodeSpec, source: Source, snapshot: Snapshot, accept_empty: bool = False) -> Learned:
    """Return the record that a snapshot makes of the present one."""
    old = _known(spec)
    routed = () if accept_empty else old.nodes  # the operator's word: the source is right
    known = [(node["name"], node["pod_cidr"], node["address"]) for node in routed if node["state"] == accept.ROUTED]
    judged = accept.judge(snapshot, spec, look(spec, snapshot, known), known)
    gone = len({peer.pod_cidr for peer in old.peers} - {peer.pod_cidr for peer in judged.peers})
    # a source that forgot this node and most others lost its data, or is another cluster's
    if not accept_empty and not judged.is_listed and gone > len(old.peers) // 2:
        why = (
            f"it lists {len(snapshot.nodes)} nodes, but not this one, and {gone} of {len(old.peers)} known peers are "
            "missing; their routes are kept (`cnictl apply --accept-empty` removes them)"
        )
        return stale(spec, source.title, why)
    now = time.time()
    since = {(node["name"], node["pod_cidr"], node["state"]): node["since"] for node in old.nodes}
    nodes = tuple(_as_json(node, since.get((node.name, node.pod_cidr, node.state), now)) for node in judged.nodes)
    return Learned(
        source=source.title,
        reach=learned_peers.identity(spec.reach),
        name=spec.name,
        version=snapshot.version[:200],
        read_at=now,
        conflict=judged.conflict[:_LONGEST],
        nodes=nodes,
        networks=snapshot.networks,
        peers=judged.peers,
    )


def _known(spec: NodeSpec) -> Learned:
    """Return what was learned from this very source."""
    old, reach = learned_peers.load(), learned_peers.identity(spec.reach)
    return old if old is not None and old.reach == reach else Learned(reach=reach, name=spec.name)


def stale(spec: NodeSpec, title: str, why: str) -> Learned:
    """Return what is known of the node's source, marked as stale. `title` is for a source that never answered."""
    known = _known(spec)
    return replace(
        known,
        source=known.source or title,
        stale_since=known.stale_since or time.time(),
        trouble=outside.line(why[:500]),
    )


def _as_json(node: Judged, since: float) -> dict[str, Any]:
    return {**vars(node), "since": since}


@reading.once()
def look(spec: NodeSpec, snapshot: Snapshot, known: Iterable[accept.Entry] = ()) -> Host:
    """Return what decides about the announced addresses on this host."""
    own = host_links.own_interfaces()
    announced = dict.fromkeys([*accept.addresses_of(snapshot), *(address for _, _, address in known)])
    addresses = [address for address in announced if not is_link_local(parse_address(address))]
    routes = route_lookup.others_routes()
    main = [(destination, route) for destination, route in routes if route.table == MAIN_TABLE]
    connected = {
        destination
        for destination, route in main
        if destination.prefix and route.hops and not route.gateway and route.dev != spec.bridge
    }
    ways = route_lookup.ways([Packet(address) for address in addresses], entries=False)
    return Host(
        own={interface.partition("/")[0]: link for interface, link in own.items()},
        gateways=frozenset(host_links.default_gateways()),
        connected=tuple(connected),
        off_link={
            address: why for address, way in zip(addresses, ways, strict=True) if (why := _off_link(address, way))
        },
    )


def _off_link(address: str, way: Way) -> str:
    if way.errno or not way.dev:
        return f"this node has no route to {address}"
    if way.gateway:
        return f"{address} is on no link of this node, but behind {way.gateway}: plain routes can't carry pods' packets"
    return ""


def ask(spec: NodeSpec, keep: bool = True, accept_empty: bool = False) -> tuple[NodeSpec, Learned]:
    """Ask the source that the spec names, as `learn` does. Where its client or credential is missing, it is lost."""
    try:
        source = sources.opened(spec)
    except UsageProblem as problem:
        record = stale(spec, spec.reach.source, problem.message)
        if keep:
            learned_peers.save(record)
        return fitting(spec, record), record
    try:
        return learn(spec, source, keep, accept_empty)
    finally:
        source.close()


def refreshed(spec: NodeSpec, keep: bool = True, accept_empty: bool = False) -> NodeSpec:
    """Return `spec` with what its source says now; without a source, as it is."""
    if spec.reach.source:
        return ask(spec, keep, accept_empty)[0]
    if keep:
        learned_peers.forget()
    return spec
