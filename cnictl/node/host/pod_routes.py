"""Find out where the kernel sends pods' packets: to peers, to outside hosts, and back to the pods.

A `RouteQuestion` describes a packet as the kernel routes it: source, incoming link and mark. A `Diversion` is a packet
that takes a wrong route, with the policy rule or the more specific route that diverts it.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from cnictl.core import sysctl
from cnictl.core.cidr import Cidr, format_address, parse_address, parse_cidr
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import Link, Netlink
from cnictl.node import hint
from cnictl.node.hint import NONE, Hint
from cnictl.node.host import host_links, policy_rules, route_lookup
from cnictl.node.host.policy_rules import Rule, table_name
from cnictl.node.host.route_lookup import (
    LEARNED_PROTOCOL,
    LOCAL_TABLE,
    MAIN_TABLE,
    PROTOCOL,
    REFUSING,
    Packet,
    RouteResult,
)
from cnictl.node.spec.node_spec import NodeSpec, Peer, by_family, is_ipv6, of_family
from cnictl.node.spec.peers import is_link_local

OUTSIDE = ("1.1.1.1", "2606:4700:4700::1111")
"""Addresses outside the cluster, used if the node file names none."""
MARKS = (0, 0x4000, 0x2000)
"""The marks of pods' packets: none, and those by which kube-proxy and portmap have packets masqueraded."""

_IFLA_VRF_TABLE = 1

TO_PODS, TO_NODE, FROM_PODS, OWN, TO_OUTSIDE, FROM_OUTSIDE = (
    "to-pods", "to-node", "from-pods", "own", "to-outside", "from-outside",
)  # fmt: skip


@dataclass(frozen=True)
class RouteQuestion:
    """A packet, and where it should go."""

    kind: str
    """The kind of packet, one of the constants above."""
    packet: Packet
    dev: str = ""
    """The link on which it should leave; empty for any link."""
    gateway: str = ""
    peer: Peer | None = None


@dataclass(frozen=True)
class Diversion:
    """Packets of pods that do not go where they should."""

    question: RouteQuestion
    route: RouteResult
    rule: Rule | None
    """The policy rule that diverts them; None if it is not known or if it is the main table's own rule."""
    selector: str
    """The selector of a policy rule that makes the kernel look in the main table first: `to 10.244.0.0/20`."""
    hint: Hint = NONE
    """What to do if such a rule does not help."""

    @property
    def certain(self) -> bool:
        """Whether the packets are certainly lost. Packets to outside hosts may use another table on purpose."""
        return (
            self.question.kind != TO_OUTSIDE or bool(self.route.errno) or self.route.kind in REFUSING or self.route.dead
        )

    @property
    def packets(self) -> str:
        """The packets in words."""
        mark = f" with the mark {self.question.packet.mark:#x}" if self.question.packet.mark else ""
        return _WHO[self.question.kind].format(self._whom) + mark

    @property
    def fate(self) -> str:
        """Where they go instead, in words."""
        refusing = self.rule.action if self.rule is not None and self.rule.action in REFUSING else self.route.kind
        if refusing in REFUSING:
            return f"are refused ({REFUSING[refusing]})"
        if self.route.errno:
            return f"go nowhere ({self.route})"
        return f"go to {self.route}" + (", which has no carrier" if self.route.dead else "")

    @property
    def by(self) -> str:
        """The rule or route that decides it, in words."""
        if self.rule is not None:
            return f"by the rule `{self.rule}`"
        if self.route.protocol == LEARNED_PROTOCOL and self.route.kind in REFUSING:
            return "because no node has this pod CIDR"
        if self.route.destination:
            table = f" of table {table_name(self.route.table)}" if self.route.table not in (0, MAIN_TABLE) else ""
            return f"by the route {self.route.destination}{table}"
        return "because no route leads there"

    @property
    def words(self) -> str:
        """Packets, fate and cause in one sentence."""
        return f"{self.packets} {self.fate}, {self.by}"

    @property
    def short(self) -> str:
        """A short form for a table's cell."""
        where = self.fate.removeprefix("go ").removeprefix("are ")
        by = f"rule {self.rule.priority}" if self.rule is not None else f"route {self.route.destination or 'missing'}"
        return f"{_SHORT[self.question.kind]}: {where} by {by}"

    @property
    def _whom(self) -> str:
        peer = self.question.peer
        if peer is None:
            return self.question.packet.source if self.question.kind == FROM_OUTSIDE else self.question.packet.target
        if self.question.kind == TO_NODE:
            return peer.via
        narrow = self.question.kind == TO_PODS and self.question.packet.target != pod_of(peer.pod_cidr)
        return f"{peer.pod_cidr} ({self.question.packet.target})" if narrow else peer.pod_cidr


_WHO = {
    TO_PODS: "packets from pods here to pods of {}",
    TO_NODE: "packets from pods here to node {}",
    FROM_PODS: "packets from pods of {} to pods here",
    OWN: "packets from this host to its own pod {}",
    TO_OUTSIDE: "packets from pods here to outside hosts ({})",
    FROM_OUTSIDE: "replies from outside hosts ({}) to pods here",
}
_APPLY = hint.command("cnictl apply")
_SHORT = {TO_PODS: "diverted", TO_NODE: "its node diverted", FROM_PODS: "no way back"}


def hint_for(diversions: Sequence[Diversion]) -> Hint:
    """Return the hint that stops these packets from being diverted.

    It adds a policy rule before the diverting rule, which stays in effect for other packets.
    """
    commands: dict[str, None] = {}
    ruled = [diversion for diversion in diversions if diversion.rule is not None]
    selectors = list(dict.fromkeys(diversion.selector for diversion in ruled))
    source_only = {selector for selector in selectors if selector.startswith("from ") and " to " not in selector}
    for diversion in ruled:
        selector = diversion.selector
        if any(selector.startswith(f"{wider} to ") for wider in source_only):
            continue
        rule, family = diversion.rule, "-6 " if is_ipv6(diversion.question.packet.target) else ""
        if rule is not None:
            commands[f"ip {family}rule add {selector} lookup main priority {max(rule.priority - 1, 0)}"] = None
    if commands:
        return hint.command(
            "; ".join(commands), "add it to this host's network configuration too, or the next boot loses it"
        )
    return next((diversion.hint for diversion in diversions if diversion.hint), _APPLY)


def causes(diversions: Iterable[Diversion]) -> list[list[Diversion]]:
    """Return diversions in groups that the same rule or route diverts."""
    groups: dict[tuple[str, bool], list[Diversion]] = {}
    for diversion in diversions:
        groups.setdefault((diversion.by, is_ipv6(diversion.question.packet.target)), []).append(diversion)
    return list(groups.values())


def fault_json(words: str, what_to_do: Hint) -> dict[str, Any]:
    """Return a fault of the routes as JSON values."""
    return {"cause": words, "hint": hint.as_json(what_to_do)}


@dataclass
class RouteFindings:
    """The results of one reading of a node's routes."""

    diversions: list[Diversion] = field(default_factory=list)
    unforwarded: tuple[str, ...] = ()
    """Kernel settings that are 0. The kernel does not forward packets from those links and reports "no route"."""

    def as_json(self) -> list[dict[str, Any]]:
        """Return the certain faults as JSON values: cause and hint."""
        faults = []
        for group in causes(diversion for diversion in self.diversions if diversion.certain):
            faults += [fault_json(diversion.words, hint_for(group)) for diversion in group]
        for name in self.unforwarded:
            words = f"{name} is 0: this node forwards no packets of pods there"
            faults.append(fault_json(words, switch_on(name)))
        return faults

    def of(self, peer: Peer) -> list[Diversion]:
        """Return the diversions that cut off a peer's pods."""
        return self._by_peer.get(peer, [])

    @cached_property
    def _by_peer(self) -> dict[Peer | None, list[Diversion]]:
        diversions_by_peer: dict[Peer | None, list[Diversion]] = {}
        for diversion in self.diversions:
            diversions_by_peer.setdefault(diversion.question.peer, []).append(diversion)
        return diversions_by_peer


def observe(spec: NodeSpec) -> RouteFindings:
    """Ask the kernel about every kind of packet of the node's pods."""
    return _RouteReading(spec).findings()


def judge(spec: NodeSpec, questions: Sequence[RouteQuestion]) -> list[Diversion]:
    """Ask the kernel about these packets."""
    return _RouteReading(spec).judge(questions).diversions


def predicted(spec: NodeSpec) -> list[Diversion]:
    """Return the diversions that policy rules will cause on a host that is not set up as `spec` yet.

    This uses only the model of the rules; the kernel is not asked.
    """
    return _RouteReading(spec).predicted()


class _RouteReading:
    """One reading of a host's rules and routes."""

    def __init__(self, spec: NodeSpec) -> None:
        self._spec = spec

    @cached_property
    def _links(self) -> dict[str, Link]:
        with Netlink() as netlink:
            return {link.name: link for link in rtnetlink.all_links(netlink)}

    @cached_property
    def _peer_links(self) -> dict[Peer, str]:
        return host_links.peer_links(self._spec)

    @cached_property
    def _rules(self) -> list[Rule]:
        return policy_rules.rules()

    @cached_property
    def _routes(self) -> list[tuple[Cidr, RouteResult]]:
        return route_lookup.routes()

    @cached_property
    def _tables(self) -> dict[int, list[tuple[Cidr, RouteResult]]]:
        routes_by_table: dict[int, list[tuple[Cidr, RouteResult]]] = {}
        for destination, route in self._routes:
            routes_by_table.setdefault(route.table, []).append((destination, route))
        return routes_by_table

    def findings(self) -> RouteFindings:
        """Ask about every kind of packet."""
        bridge = self._links.get(self._spec.bridge)
        nodes = by_family(self._spec)
        if bridge is None or not bridge.up:  # then the kernel answers only about this host's own packets
            return self.judge([question for node in nodes for question in self._from_here(node)])
        return self.judge([question for node in nodes for question in self._questions(node)])

    def judge(self, questions: Sequence[RouteQuestion]) -> RouteFindings:
        """Ask about these packets; return the diversions."""
        unforwarded: dict[str, None] = {}
        diversions = []
        for question, route in zip(
            questions, route_lookup.look_up_all([question.packet for question in questions]), strict=True
        ):
            if _is_right(question, route):
                continue
            switch = switched_off(question.packet) if route.errno else ""
            if switch:
                unforwarded[switch] = None
            elif question.kind != TO_OUTSIDE or self._is_diverted(question, route):
                diversion = self._diversion(question, route)
                if not (route.spoofed and diversion.rule is None and question.kind in (FROM_PODS, FROM_OUTSIDE)):
                    diversions.append(diversion)  # else the reverse path filter refuses it, which another check reports
        return RouteFindings(list(_distinct(diversions)), tuple(unforwarded))

    def _questions(self, node: NodeSpec) -> Iterator[RouteQuestion]:
        marks = [mark for mark in MARKS if not mark or any(rule.mask & mark for rule in self._rules)]
        for mark in marks:
            yield from self._with_mark(node, mark)

    def _with_mark(self, node: NodeSpec, mark: int) -> Iterator[RouteQuestion]:
        pod, bridge = pod_of(node.subnet), node.bridge
        if not mark:
            for address in (pod, *self._more_specific.get(node.subnet, [])):
                yield RouteQuestion(OWN, Packet(address), bridge)
        for peer in node.known_peers:
            link = self._peer_links[peer]
            if not link or link not in self._links:
                continue
            for target in (pod_of(peer.pod_cidr), *self._more_specific.get(peer.pod_cidr, [])):
                yield RouteQuestion(TO_PODS, Packet(target, pod, bridge, mark=mark), link, peer.via, peer)
            if not is_link_local(parse_address(peer.via)) and is_ipv6(peer.via) == is_ipv6(pod):
                yield RouteQuestion(TO_NODE, Packet(peer.via, pod, bridge, mark=mark), link, "", peer)
            if not mark:
                yield RouteQuestion(FROM_PODS, Packet(pod, pod_of(peer.pod_cidr), link), bridge, "", peer)
        outside = of_family((*node.externals, *OUTSIDE), node.subnet)
        yield RouteQuestion(TO_OUTSIDE, Packet(outside, pod, bridge, mark=mark))
        uplink = self._spec.uplink or host_links.default_link(node)
        if not mark and uplink in self._links and uplink != bridge:
            yield RouteQuestion(FROM_OUTSIDE, Packet(pod, outside, uplink), bridge)

    def _from_here(self, node: NodeSpec) -> Iterator[RouteQuestion]:
        for peer in node.known_peers:
            link = self._peer_links[peer]
            if link in self._links:
                yield RouteQuestion(TO_PODS, Packet(pod_of(peer.pod_cidr)), link, peer.via, peer)

    @cached_property
    def _more_specific(self) -> dict[str, list[str]]:
        """For each pod CIDR, an address in each more specific route inside it, in any table.

        Each route is looked up by the prefixes that contain it, so that the time does not grow with routes times peers.
        """
        known = (*self._spec.subnets, *(peer.pod_cidr for peer in self._spec.known_peers))
        by_prefix = {parse_cidr(pod_cidr): pod_cidr for pod_cidr in known}
        lengths = sorted({cidr.prefix for cidr in by_prefix})
        addresses_by_cidr: dict[str, dict[str, None]] = {}
        for destination, route in self._routes:
            if route.table == LOCAL_TABLE:
                continue
            for length in lengths:
                if length >= destination.prefix:
                    break
                holder = by_prefix.get(Cidr(destination.packed, length).network)
                if holder:
                    addresses_by_cidr.setdefault(holder, {})[format_address(destination.packed)] = None
        return {pod_cidr: list(addresses) for pod_cidr, addresses in addresses_by_cidr.items()}

    def _is_diverted(self, question: RouteQuestion, route: RouteResult) -> bool:
        """Return whether pods' packets are diverted: they take another table, or only this host has a route out."""
        if route.errno or route.kind in REFUSING:
            own = route_lookup.look_up(Packet(question.packet.target))
            return own.kind == route_lookup.UNICAST and not own.errno
        return True

    def _diversion(self, question: RouteQuestion, route: RouteResult) -> Diversion:
        """Return the diversion with the rule or route that causes it."""
        rule, decided = policy_rules.decide(self._rules, self._tables, question.packet, self._vrf_table)
        refused = route.errno != 0 and rule is not None and (decided is None or decided.kind in REFUSING)
        if refused:
            route = decided or route
        elif rule is None or decided is None or decided.table != route.table:
            # the rule matches by port, by link group or by something unknown here: take the first rule of that table
            fitting = [
                candidate
                for candidate in self._rules
                if candidate.ipv6 == is_ipv6(route.destination) and candidate.table == route.table
            ]
            rule = fitting[0] if route.table and fitting else None
        if rule is not None and rule.action == policy_rules.TO_TABLE and route.table in (0, MAIN_TABLE, LOCAL_TABLE):
            rule = None
        return Diversion(question, route, rule, self._selector(question), self._hint(question, route, rule))

    def _vrf_table(self, name: str) -> int:
        """Return the table of a link's VRF, IFLA_VRF_TABLE of its master; 0 without a VRF."""
        link = self._links.get(name)
        for vrf in self._links.values():
            if link is not None and vrf.kind == "vrf" and vrf.index in (link.index, link.master):
                return int.from_bytes(vrf.settings.get(_IFLA_VRF_TABLE, b""), sys.byteorder)
        return 0

    def _hint(self, question: RouteQuestion, route: RouteResult, rule: Rule | None) -> Hint:
        """Return the hint for a diversion that no policy rule causes."""
        if rule is not None:
            return NONE
        peer = question.peer
        cidr = (
            peer.pod_cidr
            if peer is not None and question.kind == TO_PODS
            else _holding(self._spec.subnets, question.packet.target)
        )
        foreign = route.protocol != PROTOCOL and bool(route.destination) and (not route.errno or route.kind in REFUSING)
        if foreign and "/" in cidr and parse_cidr(cidr).covers(parse_cidr(route.destination)):
            return hint.advice(
                f"give the node of {cidr} another pod CIDR, or remove the route {_in_words(route)} from the "
                "configuration that adds it",
                because="the route belongs to another program or the operator, and its purpose is not known here",
            )
        if question.kind in (TO_OUTSIDE, FROM_OUTSIDE):
            target = question.packet.target
            return hint.advice(
                f"add a route to {target} to this host: ip {'-6 ' if is_ipv6(target) else ''}route",
                because="the host's own network configuration sets its routes to outside hosts",
            )
        return _APPLY

    def _selector(self, question: RouteQuestion) -> str:
        """Return the narrowest selector of packets to look up in the main table first."""
        if question.kind == TO_OUTSIDE:
            return f"from {_holding(self._spec.subnets, question.packet.source)}"
        if question.kind == TO_NODE:
            subnet = _holding(self._spec.subnets, question.packet.source)
            route = policy_rules.longest(self._tables.get(MAIN_TABLE, ()), parse_address(question.packet.target))
            return f"from {subnet} to {route[0] if route and route[0].prefix else question.packet.target}"
        return f"to {_holding(self._spec.networks, question.packet.target)}"

    def predicted(self) -> list[Diversion]:
        """Return the diversions that the rules will cause."""
        diversions = []
        for node in by_family(self._spec):
            for peer in node.known_peers:
                pod = pod_of(node.subnet)
                for target in (pod_of(peer.pod_cidr), *self._more_specific.get(peer.pod_cidr, [])):
                    there = RouteQuestion(TO_PODS, Packet(target, pod, node.bridge), "", peer.via, peer)
                    diversions += self._predicted(there, peer.pod_cidr)
                link = self._peer_links[peer]
                back = RouteQuestion(FROM_PODS, Packet(pod, pod_of(peer.pod_cidr), link or "?"), node.bridge, "", peer)
                diversions += self._predicted(back, node.subnet)
        return list(_distinct(diversions))

    def _predicted(self, question: RouteQuestion, cidr: str) -> list[Diversion]:
        planned = (
            parse_cidr(cidr),
            RouteResult(((question.dev, question.gateway),), table=MAIN_TABLE, destination=cidr),
        )
        main = [entry for entry in self._tables.get(MAIN_TABLE, []) if str(entry[0]) != cidr]
        tables = {**self._tables, MAIN_TABLE: [*main, planned]}
        rule, route = policy_rules.decide(self._rules, tables, question.packet, self._vrf_table)
        if rule is None or rule.l3mdev or route is planned[1] or (route is not None and route.table == MAIN_TABLE):
            return []
        return [Diversion(question, route or RouteResult(kind=rule.action), rule, self._selector(question))]


def pod_of(pod_cidr: str) -> str:
    """Return the first address of a pod CIDR that a pod may have."""
    return format_address(parse_cidr(pod_cidr).nth(2))


def _is_right(question: RouteQuestion, route: RouteResult) -> bool:
    if question.kind == TO_OUTSIDE:
        return (
            route.kind == route_lookup.UNICAST
            and not route.errno
            and not route.dead
            and route.table in (0, MAIN_TABLE, route_lookup.DEFAULT_TABLE)
        )
    if (
        question.kind == TO_NODE
        and not route.dead
        and route.kind == route_lookup.UNICAST
        and route.table in (0, MAIN_TABLE)
    ):
        return not route.errno  # another check reports a peer behind a gateway
    if question.kind in (OWN, FROM_PODS, FROM_OUTSIDE):
        return route.goes(question.dev, "")  # a bridge without pods has no carrier
    return route.goes(question.dev, question.gateway) and not route.dead


def switched_off(packet: Packet) -> str:
    """Return the kernel setting that stops the forwarding of a packet from a link; empty if none does."""
    if not packet.iif:
        return ""
    if is_ipv6(packet.target):
        return "net.ipv6.conf.all.forwarding" if sysctl.read(sysctl.FORWARDING[16]) == "0" else ""
    if sysctl.read(sysctl.FORWARDING[4]) == "0":
        return "net.ipv4.ip_forward"
    own = f"net.ipv4.conf.{packet.iif}.forwarding"
    return own if sysctl.read(f"net/ipv4/conf/{packet.iif}/forwarding") == "0" else ""


def switch_on(name: str) -> Hint:
    """Return the command that turns on this kernel setting, with slashes if the link's name contains dots."""
    head, _, rest = name.partition(".conf.")
    link = rest.removesuffix(".forwarding")
    setting = f"{head.replace('.', '/')}/conf/{link}/forwarding" if "." in link else name
    return hint.command(f"sysctl -qw {setting}=1")


def _distinct(diversions: Iterable[Diversion]) -> Iterator[Diversion]:
    """Yield diversions without repeats: one per kind, peer and target. The same one with a mark is left out."""
    seen = set()
    for diversion in diversions:
        plain = (diversion.question.kind, diversion.question.peer, diversion.question.packet.target)
        if plain not in seen:
            seen.add(plain)
            yield diversion


def _holding(cidrs: Sequence[str], address: str) -> str:
    packed = parse_address(address)
    return next((cidr for cidr in cidrs if parse_cidr(cidr).holds(packed)), address)


def _in_words(route: RouteResult) -> str:
    """Return a route as arguments of `ip route`."""
    words = [REFUSING[route.kind]] if route.kind in REFUSING else []
    words += [route.destination, *(["via", route.gateway] if route.gateway else [])]
    words += ["dev", route.dev] if route.dev and route.kind not in REFUSING else []
    words += ["table", table_name(route.table)] if route.table not in (0, MAIN_TABLE) else []
    return " ".join(words + (["metric", str(route.priority)] if route.priority else []))
