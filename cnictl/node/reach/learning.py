"""Ask the source of peers for the cluster's nodes, judge them, and keep the result as the last good list."""

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from cnictl.core import untrusted_text
from cnictl.core.cidr import parse_address
from cnictl.core.errors import Problem, UsageProblem
from cnictl.node.host import host_links, reading, route_lookup
from cnictl.node.host.route_lookup import MAIN_TABLE, Packet, RouteResult
from cnictl.node.reach import accept, sources
from cnictl.node.reach.accept import ABSENT, Host, JudgedNode
from cnictl.node.reach.source import Snapshot, Source, SourceLost
from cnictl.node.spec.node_spec import NodeSpec
from cnictl.node.spec.peers import is_link_local
from cnictl.node.state import learned_peers
from cnictl.node.state.learned_peers import Learned, fitting

_LONGEST = 1000
"""Characters of a conflict in words: the plugin's STATUS reads them."""


def learn(spec: NodeSpec, source: Source, keep: bool = True, accept_empty: bool = False) -> tuple[NodeSpec, Learned]:
    """Ask the source once; return `spec` with the learned peers, and the record of them.

    If the source is lost or its answer is not plausible, the known peers stay, and the record says since when they are
    stale. With `keep`, the record is written.
    """
    try:
        snapshot = source.list()
    except (SourceLost, UsageProblem) as lost:
        record = lost_by(spec, source.title, lost)
    else:
        record = record_of(spec, source, snapshot, accept_empty)
    if keep:
        learned_peers.save(record)
    return fitting(spec, record), record


def record_of(spec: NodeSpec, source: Source, snapshot: Snapshot, accept_empty: bool = False) -> Learned:
    """Return the record that follows the present one after a snapshot."""
    old = _known(spec)
    routed = () if accept_empty else old.nodes  # the operator says that the source is right
    known = [(node["name"], node["pod_cidr"], node["address"]) for node in routed if node["state"] == accept.ROUTED]
    judged = accept.judge(snapshot, spec, observe_host(spec, snapshot, known), known)
    gone = len({peer.pod_cidr for peer in old.peers} - {peer.pod_cidr for peer in judged.peers})
    # a source without this node and most others has lost its data, or belongs to another cluster
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
    """Return what was learned from the source that `spec` names."""
    old, reach = learned_peers.load(), learned_peers.identity(spec.reach)
    return old if old is not None and old.reach == reach else Learned(reach=reach, name=spec.name)


def lost_by(spec: NodeSpec, title: str, error: Exception) -> Learned:
    """Return the record marked as stale by an error, with the error's own hint."""
    return stale(spec, title, str(error), _todo(error))


def stale(spec: NodeSpec, title: str, why: str, todo: str = "") -> Learned:
    """Return the record marked as stale. `title` names a source that has never answered."""
    known = _known(spec)
    return replace(
        known,
        source=known.source or title,
        stale_since=known.stale_since or time.time(),
        trouble=untrusted_text.line("; ".join(filter(None, (why, todo)))),
        todo=untrusted_text.line(todo),
    )


def in_words(error: Exception) -> str:
    """Return in words why a source is lost and what to do about it, for output that has no separate hint."""
    return "; ".join(filter(None, (str(error), _todo(error))))


def _todo(error: Exception) -> str:
    return error.hint if isinstance(error, Problem) else ""


def absence(learned: Learned) -> str:
    """Return in words that the source's last list lacks this node; empty if it has it."""
    return next((str(node["why"]) for node in learned.nodes if node["state"] == ABSENT), "")


def _as_json(node: JudgedNode, since: float) -> dict[str, Any]:
    data = dict(vars(node))
    return {**data, "static": data.pop("is_static"), "since": since}


@reading.cached_pass()
def observe_host(spec: NodeSpec, snapshot: Snapshot, known: Iterable[accept.Entry] = ()) -> Host:
    """Return the properties of this host that decide about the announced and the known addresses."""
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
    answers = route_lookup.look_up_all([Packet(address) for address in addresses], entries=False)
    return Host(
        own={interface.partition("/")[0]: link for interface, link in own.items()},
        gateways=frozenset(host_links.default_gateways()),
        connected=tuple(connected),
        off_link={
            address: why
            for address, route in zip(addresses, answers, strict=True)
            if (why := _off_link(address, route))
        },
    )


def _off_link(address: str, route: RouteResult) -> str:
    if route.errno or not route.dev:
        return f"this node has no route to {address}"
    if route.gateway:
        return (
            f"{address} is behind gateway {route.gateway}, not on a network segment of this host: "
            "plain routes can't carry pods' packets"
        )
    return ""


def ask(spec: NodeSpec, keep: bool = True, accept_empty: bool = False) -> tuple[NodeSpec, Learned]:
    """Ask the source that the spec names, as `learn` does. A source whose client or credential is missing is lost."""
    try:
        source = sources.open_source(spec)
    except UsageProblem as problem:
        record = lost_by(spec, spec.reach.source, problem)
        if keep:
            learned_peers.save(record)
        return fitting(spec, record), record
    try:
        return learn(spec, source, keep, accept_empty)
    finally:
        source.close()


def refreshed(spec: NodeSpec, keep: bool = True, accept_empty: bool = False) -> NodeSpec:
    """Return `spec` with the peers that its source announces now; unchanged without a source."""
    if spec.reach.source:
        return ask(spec, keep, accept_empty)[0]
    if keep:
        learned_peers.forget()
    return spec
