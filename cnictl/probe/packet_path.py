"""Reconstruct a packet's path through this host: arrivals, routes, hooks with their rules, neighbours. Pure.

The decisions come from the kernel's trace. Our own chains at each hook, before and after all others, show that the
packet reached the hook, and with which addresses.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cnictl.node.host.policy_rules import table_name
from cnictl.node.host.route_lookup import LOCAL, Packet, RouteResult
from cnictl.node.spec.node_spec import is_ipv6
from cnictl.probe.trace import TABLE, base_chain, table_text
from cnictl.probe.trace_events import DROP, POLICY, RULE, Event, TracedPacket

REQUEST, REPLY = "request", "reply"
ARRIVES, ROUTE, NEIGHBOUR, LEAVES, DELIVERED, LOST = "arrives", "route", "neighbour", "leaves", "delivered", "lost"
CONNECTION, BRIDGE, ANSWER, NOTE = "connection", "bridge", "answer", "note"
_FIRST, _AFTER_CONNTRACK, _LAST = -350, -150, 350
_REQUESTS = ("requests", "sent")
_OF_IP = (ARRIVES, ROUTE, NEIGHBOUR, LEAVES)
"""Places that a packet does not pass if it stays on a bridge."""


@dataclass(frozen=True)
class Step:
    """One thing that happened to a packet."""

    packet: str
    """REQUEST or REPLY."""
    place: str
    """A hook's name, or ARRIVES, ROUTE, NEIGHBOUR, LEAVES, DELIVERED, LOST, CONNECTION, BRIDGE, ANSWER, NOTE."""
    what: str
    drops: bool = False
    """Whether the packet ends here."""

    def as_json(self) -> dict[str, str | bool]:
        """Return the step as `-o json` prints it."""
        return {"packet": self.packet, "place": self.place, "what": self.what, "drops": self.drops}


@dataclass(frozen=True)
class Sources:
    """The sources for the parts of a step that are missing in the trace."""

    hooks: Mapping[tuple[str, str, str], str]
    """The hook of each base chain, by family, table and chain."""
    rule: Callable[[str, str, str, int], str]
    """The text of a rule by family, table, chain and handle."""
    route: Callable[[Packet], RouteResult]
    neighbour: Callable[[str, str], str]
    """The state of an address on a link, in words."""
    unforwarded: Callable[[str, bool], str]
    """Why this host does not forward packets that arrive on a link, for IPv6 or IPv4; empty if it does."""


def tables(source: str, destination: str, protocol: str, port: int) -> tuple[str, str]:
    """Return the tables that trace a request from `source` to `destination` and its reply, for `trace.traced`.

    Only the first packet of each side of a TCP connection is traced. A reply is recognized by its tracked connection,
    whatever addresses NAT has given it.
    """
    ip, icmp = ("ip6", "icmpv6") if is_ipv6(source) else ("ip", "icmp")
    there, back = f"{ip} saddr {source} {ip} daddr {destination}", f"{ip} saddr {destination} {ip} daddr {source}"
    if protocol == "icmp":
        request, reply, kind = f"{there} {icmp} type echo-request", f"{back} {icmp} type echo-reply", ""
    else:
        kind = " tcp flags & (syn | rst) != 0" if protocol == "tcp" else ""
        request, reply = f"{there} {protocol} dport {port}{kind}", f"{back} {protocol} sport {port}{kind}"
    tracked = f"ct direction reply ct original {ip} saddr {source} ct original {ip} daddr {destination}"
    tracked += f" meta l4proto {'ipv6-icmp' if icmp == 'icmpv6' and protocol == 'icmp' else protocol}{kind}"
    mark = " meta nftrace set 1"
    first = base_chain("requests", "prerouting", _FIRST, [request + mark])
    first += base_chain("replies", "prerouting", _FIRST, [reply + mark])
    last = [base_chain(f"last_{hook}", hook, _LAST) for hook in ("prerouting", "input", "forward", "postrouting")]
    return (
        table_text(
            "inet",
            first
            + base_chain("sent", "output", _FIRST, [request + mark])
            + base_chain("tracked", "prerouting", _AFTER_CONNTRACK, [tracked + mark])
            + base_chain("answered", "output", _AFTER_CONNTRACK, [tracked + mark])
            + "".join(last),
        ),
        table_text("bridge", first + last[2] + last[3]),
    )


@dataclass
class _Packet:
    """What is known about one of the two packets so far."""

    name: str
    seen: TracedPacket = field(default_factory=TracedPacket)
    mark: int = 0
    hook: str = ""
    gateway: str = ""
    marked: set[str] = field(default_factory=set)
    """The families whose first tracing chain the packet has passed."""
    ended: bool = False
    bridged: bool = False
    """Whether the bridge forwarded the packet from port to port. Then br_netfilter called its IP hooks."""


def steps(events: Iterable[Event], sources: Sources) -> list[Step]:
    """Return the steps of a request and its reply. The rule that drops a packet is its last step."""
    path: list[Step] = []
    packets = {name: _Packet(name) for name in (REQUEST, REPLY)}
    packet = packets[REQUEST]
    for event in events:
        if event.table == TABLE and event.kind == RULE:
            packet = packets[REQUEST if event.chain in _REQUESTS else REPLY]
        _update(packet, event)
        if event.table == TABLE:
            path += _own(packet, event, sources)
        elif not packet.ended:
            path += _decided(packet, event, sources)
    for packet in packets.values():
        if packet.bridged:
            path = [step for step in path if step.packet != packet.name or step.place not in _OF_IP]
        if packet.marked and not packet.ended:
            path.append(_vanished(packet, sources))
    return sorted(path, key=lambda step: step.packet != REQUEST)


def _update(packet: _Packet, event: Event) -> None:
    packet.mark = event.mark
    if event.seen is not None:
        old, new = packet.seen, event.seen
        source, destination = new.source or old.source, new.destination or old.destination
        packet.seen = TracedPacket(new.iif, new.oif, source, destination, new.port or old.port)


def _own(packet: _Packet, event: Event, sources: Sources) -> list[Step]:
    """Return what an event of our own chains shows."""
    seen, chain = packet.seen, event.chain
    between = f"{seen.source} → {seen.destination}"
    if event.kind == RULE and event.family not in packet.marked:
        packet.marked.add(event.family)
        if chain in ("sent", "answered"):
            return [_routed(packet, sources, Packet(seen.destination, seen.source, mark=packet.mark))]
        where = f"on {seen.iif}" if event.family == BRIDGE else f"from {seen.iif}"
        place = BRIDGE if event.family == BRIDGE else ARRIVES
        return [Step(packet.name, place, f"arrives {where}: {between}" if place == BRIDGE else f"{where}: {between}")]
    if event.kind != POLICY or not packet.marked:
        return []
    if event.family == BRIDGE:
        packet.bridged = packet.bridged or chain == "last_forward"
        packet.ended = packet.ended or chain == "last_postrouting"
        return [Step(packet.name, BRIDGE, f"leaves on {seen.oif}")] if chain == "last_postrouting" else []
    if packet.ended:
        return []
    if chain == "last_prerouting":
        return [_routed(packet, sources, Packet(seen.destination, seen.source, seen.iif, mark=packet.mark))]
    if chain == "last_input":
        packet.ended = True
        return [Step(packet.name, DELIVERED, f"to this host: {between}")]
    if chain == "last_postrouting":
        packet.ended = seen.oif != "lo"
        hop = packet.gateway or seen.destination
        neighbour = [Step(packet.name, NEIGHBOUR, f"{hop}: {sources.neighbour(hop, seen.oif)}")]
        return [*(neighbour if seen.oif != "lo" else []), Step(packet.name, LEAVES, f"on {seen.oif}: {between}")]
    return []


def _routed(packet: _Packet, sources: Sources, asked: Packet) -> Step:
    route = sources.route(asked)
    packet.gateway = route.gateway
    unforwarded = sources.unforwarded(asked.iif, is_ipv6(asked.target)) if asked.iif and route.errno else ""
    return Step(packet.name, ROUTE, f"none: {unforwarded}" if unforwarded else route_words(route))


def route_words(route: RouteResult) -> str:
    """Return a route in words: `10.244.1.0/24 dev eth0 via 10.0.10.51, table main`."""
    if route.errno or not route.destination:
        return f"none: {route}"
    if not route.dev or route.kind == LOCAL:
        return f"{route.destination}: {route}"
    return f"{route.destination} dev {route}, table {table_name(route.table)}"


def _decided(packet: _Packet, event: Event, sources: Sources) -> list[Step]:
    """Return the step for a rule or a policy of another program's chain."""
    packet.hook = sources.hooks.get(event.place, packet.hook)
    place = f"{BRIDGE} {packet.hook}" if event.family == BRIDGE else packet.hook
    chain = f"{event.family} {event.table} {event.chain}"
    if event.kind == RULE:
        what = f"{chain}: {sources.rule(*event.place, event.handle)}"
    elif event.kind == POLICY:
        what = f"{chain}: policy {event.verdict}"
    else:
        return []
    packet.ended = event.drops
    if event.drops and event.kind == RULE and DROP not in what:
        what += " (drops it)"
    return [Step(packet.name, place, what, event.drops)]


def _vanished(packet: _Packet, sources: Sources) -> Step:
    """Return why a packet disappeared between hooks: the kernel drops packets that it has no route for."""
    seen = packet.seen
    if packet.marked == {BRIDGE}:
        return Step(packet.name, LOST, "the bridge does not forward it: its port is isolated or down", True)
    route = sources.route(Packet(seen.destination, seen.source, seen.iif, mark=packet.mark))
    why = sources.unforwarded(seen.iif, is_ipv6(seen.destination)) if seen.iif and route.kind != LOCAL else ""
    if not why and route.spoofed:
        why = f"the route back to {seen.source} does not lead to {seen.iif}, or {route}"
    elif not why and (route.errno or not route.dev):
        why = str(route)
    words = why or "the trace does not show why"
    return Step(packet.name, LOST, f"the kernel drops it: {words}", True)


def sent_on_to(events: Iterable[Event]) -> tuple[str, int]:
    """Return a request's address and port after all rules; empty if the trace does not reach that far."""
    end = ("", 0)
    for event in events:
        if event.table == TABLE and event.kind == RULE and event.chain not in _REQUESTS:
            break
        seen = event.seen
        if event.family != BRIDGE and seen is not None and seen.destination:
            end = (seen.destination, seen.port)
    return end


def ordered(before: Sequence[Step], traced: Sequence[Step], after: Sequence[Step]) -> list[Step]:
    """Return all steps, those of the request first. The step that dropped a packet comes last."""
    dropped = next((step for step in traced if step.drops), None)
    rest = [*before, *(step for step in traced if step is not dropped), *after]
    return [*sorted(rest, key=lambda step: step.packet != REQUEST), *([dropped] if dropped is not None else [])]
