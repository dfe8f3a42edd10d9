"""Where the kernel sends pods' packets: to peers, to the outside, and back to the pods.

Each question is a packet as a pod's is when it is routed, with its source, the link that it comes in by and its mark.
What goes elsewhere is a `Stray`, with the policy rule or the more specific route that takes it away.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from cnictl.core import sysctl
from cnictl.core.cidr import Cidr, format_address, parse_address, parse_cidr
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import Link, Netlink
from cnictl.node import hint
from cnictl.node.hint import NONE, Hint
from cnictl.node.host import host_links, policy_rules, route_lookup
from cnictl.node.host.policy_rules import Rule, table_name
from cnictl.node.host.route_lookup import LOCAL_TABLE, MAIN_TABLE, PROTOCOL, REFUSING, Packet, Way
from cnictl.node.spec.node_spec import NodeSpec, Peer, by_family, is_ipv6, of_family
from cnictl.node.spec.peers import is_link_local

OUTSIDE = ("1.1.1.1", "2606:4700:4700::1111")
"""Addresses outside to ask about where the node file names none."""
MARKS = (0, 0x4000, 0x2000)
"""Marks that pods' packets have when they are routed: none, kube-proxy's and portmap's for what they masquerade."""

_IFLA_VRF_TABLE = 1

TO_PODS, TO_NODE, FROM_PODS, OWN, TO_OUTSIDE, FROM_OUTSIDE = (
    "to-pods", "to-node", "from-pods", "own", "to-outside", "from-outside",
)  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """A packet, and where it should go."""

    what: str
    """One of the kinds above."""
    packet: Packet
    dev: str = ""
    """Empty: any link."""
    gateway: str = ""
    peer: Peer | None = None


@dataclass(frozen=True)
class Stray:
    """Packets of pods that don't go where they should."""

    asked: Asked
    way: Way
    rule: Rule | None
    """The rule that sends them there; None where it is not known, or is the main table's own."""
    selector: str
    """Of a rule that has the main table asked first: `to 10.244.0.0/20`."""
    hint: Hint = NONE
    """What to do where no such rule helps."""

    @property
    def certain(self) -> bool:
        """Whether they are lost for sure: what goes outside by another table may be meant to, and arrive."""
        return self.asked.what != TO_OUTSIDE or bool(self.way.errno) or self.way.kind in REFUSING or self.way.dead

    @property
    def packets(self) -> str:
        """Which packets."""
        mark = f" with the mark {self.asked.packet.mark:#x}" if self.asked.packet.mark else ""
        return _WHO[self.asked.what].format(self._whom) + mark

    @property
    def fate(self) -> str:
        """Where they go."""
        refusing = self.rule.action if self.rule is not None and self.rule.action in REFUSING else self.way.kind
        if refusing in REFUSING:
            return f"are refused ({REFUSING[refusing]})"
        if self.way.errno:
            return f"go nowhere ({self.way})"
        return f"go to {self.way}" + (", which has no carrier" if self.way.dead else "")

    @property
    def by(self) -> str:
        """What decides so."""
        if self.rule is not None:
            return f"by the rule `{self.rule}`"
        if self.way.destination:
            table = f" of table {table_name(self.way.table)}" if self.way.table not in (0, MAIN_TABLE) else ""
            return f"by the route {self.way.destination}{table}"
        return "for no route leads there"

    @property
    def words(self) -> str:
        """All of it."""
        return f"{self.packets} {self.fate}, {self.by}"

    @property
    def short(self) -> str:
        """It in a table's cell."""
        where = self.fate.removeprefix("go ").removeprefix("are ")
        by = f"rule {self.rule.priority}" if self.rule is not None else f"route {self.way.destination or 'missing'}"
        return f"{_SHORT[self.asked.what]}: {where} by {by}"

    @property
    def _whom(self) -> str:
        peer = self.asked.peer
        if peer is None:
            return self.asked.packet.source if self.asked.what == FROM_OUTSIDE else self.asked.packet.target
        if self.asked.what == TO_NODE:
            return peer.via
        narrow = self.asked.what == TO_PODS and self.asked.packet.target != pod_of(peer.pod_cidr)
        return f"{peer.pod_cidr} ({self.asked.packet.target})" if narrow else peer.pod_cidr


_WHO = {
    TO_PODS: "packets from pods here to pods of {}",
    TO_NODE: "packets from pods here to node {}",
    FROM_PODS: "packets from pods of {} to pods here",
    OWN: "packets from this host to its own pod {}",
    TO_OUTSIDE: "packets from pods here to the outside ({})",
    FROM_OUTSIDE: "answers from the outside ({}) to pods here",
}
_APPLY = hint.command("cnictl apply")
_SHORT = {TO_PODS: "diverted", TO_NODE: "its node diverted", FROM_PODS: "no way back"}


def hint_for(strays: Sequence[Stray]) -> Hint:
    """Return what brings these packets back.

    A rule of ours ahead of the one that takes them away: what that rule is for goes on.
    """
    commands: dict[str, None] = {}
    ruled = [stray for stray in strays if stray.rule is not None]
    selectors = list(dict.fromkeys(stray.selector for stray in ruled))
    everything = {one for one in selectors if one.startswith("from ") and " to " not in one}
    for stray in ruled:
        selector = stray.selector
        if any(selector.startswith(f"{one} to ") for one in everything):
            continue
        rule, family = stray.rule, "-6 " if is_ipv6(stray.asked.packet.target) else ""
        if rule is not None:
            commands[f"ip {family}rule add {selector} lookup main priority {max(rule.priority - 1, 0)}"] = None
    if commands:
        return hint.command("; ".join(commands), "also in this host's network set-up: a boot loses it")
    return next((stray.hint for stray in strays if stray.hint), _APPLY)


def causes(strays: Iterable[Stray]) -> list[list[Stray]]:
    """Return strays in groups that the same rule or route takes away."""
    found: dict[tuple[str, bool], list[Stray]] = {}
    for stray in strays:
        found.setdefault((stray.by, is_ipv6(stray.asked.packet.target)), []).append(stray)
    return list(found.values())


@dataclass
class Looked:
    """What looking at a node's routes came to."""

    strays: list[Stray] = field(default_factory=list)
    unforwarded: tuple[str, ...] = ()
    """Settings that are 0: what comes in by those links is not forwarded, and the kernel says that it has no route."""

    def told(self) -> list[dict[str, str]]:
        """Return what is wrong for sure, as JSON values: cause and hint."""
        found = []
        for group in causes(stray for stray in self.strays if stray.certain):
            found += [{"cause": stray.words, "mend": hint_for(group)} for stray in group]
        for name in self.unforwarded:
            found.append({"cause": f"{name} is 0: no packet of pods is forwarded there", "mend": switch_on(name)})
        return found

    def of(self, peer: Peer) -> list[Stray]:
        """The strays that cut a peer's pods off."""
        return [stray for stray in self.strays if stray.asked.peer == peer]


def look(spec: NodeSpec) -> Looked:
    """Ask the kernel about every kind of packet of the node's pods."""
    return _Look(spec).found()


def judge(spec: NodeSpec, asked: Sequence[Asked]) -> list[Stray]:
    """Ask the kernel about these packets."""
    return _Look(spec).judge(asked).strays


def predicted(spec: NodeSpec) -> list[Stray]:
    """Return what policy rules would take away on a host that is not set up as `spec` yet: by their model alone."""
    return _Look(spec).predicted()


class _Look:
    """One look at a host's rules and routes; each is read once."""

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
    def _routes(self) -> list[tuple[Cidr, Way]]:
        return route_lookup.routes()

    @cached_property
    def _tables(self) -> dict[int, list[tuple[Cidr, Way]]]:
        found: dict[int, list[tuple[Cidr, Way]]] = {}
        for destination, route in self._routes:
            found.setdefault(route.table, []).append((destination, route))
        return found

    def found(self) -> Looked:
        """Ask about every kind of packet."""
        bridge = self._links.get(self._spec.bridge)
        nodes = by_family(self._spec)
        if bridge is None or not bridge.up:  # a packet of a pod's can't be asked about, but one of this host's
            alone = [self._from_here(node) for node in nodes]
            return self.judge([one for asked in alone for one in asked])
        return self.judge([one for node in nodes for one in self._questions(node)])

    def judge(self, asked: Sequence[Asked]) -> Looked:
        """Ask about these packets; return those that go wrong."""
        unforwarded: dict[str, None] = {}
        strays = []
        for one, way in zip(asked, route_lookup.ways([one.packet for one in asked]), strict=True):
            if _is_right(one, way):
                continue
            switch = switched_off(one.packet) if way.errno else ""
            if switch:
                unforwarded[switch] = None
            elif one.what != TO_OUTSIDE or self._is_diverted(one, way):
                stray = self._stray(one, way)
                if not (way.spoofed and stray.rule is None and one.what in (FROM_PODS, FROM_OUTSIDE)):
                    strays.append(stray)  # else the reverse path filter refuses it, which is another check's
        return Looked(list(_distinct(strays)), tuple(unforwarded))

    def _questions(self, node: NodeSpec) -> Iterator[Asked]:
        marks = [mark for mark in MARKS if not mark or any(rule.mask & mark for rule in self._rules)]
        for mark in marks:
            yield from self._with_mark(node, mark)

    def _with_mark(self, node: NodeSpec, mark: int) -> Iterator[Asked]:
        pod, bridge = pod_of(node.subnet), node.bridge
        if not mark:
            for address in (pod, *self._more_specific.get(node.subnet, [])):
                yield Asked(OWN, Packet(address), bridge)
        for peer in node.peers:
            link = self._peer_links[peer]
            if not link or link not in self._links:
                continue
            for target in (pod_of(peer.pod_cidr), *self._more_specific.get(peer.pod_cidr, [])):
                yield Asked(TO_PODS, Packet(target, pod, bridge, mark=mark), link, peer.via, peer)
            if not is_link_local(parse_address(peer.via)) and is_ipv6(peer.via) == is_ipv6(pod):
                yield Asked(TO_NODE, Packet(peer.via, pod, bridge, mark=mark), link, "", peer)
            if not mark:
                yield Asked(FROM_PODS, Packet(pod, pod_of(peer.pod_cidr), link), bridge, "", peer)
        outside = of_family((*node.externals, *OUTSIDE), node.subnet)
        yield Asked(TO_OUTSIDE, Packet(outside, pod, bridge, mark=mark))
        uplink = self._spec.uplink or host_links.default_link(node)
        if not mark and uplink in self._links and uplink != bridge:
            yield Asked(FROM_OUTSIDE, Packet(pod, outside, uplink), bridge)

    def _from_here(self, node: NodeSpec) -> Iterator[Asked]:
        for peer in node.peers:
            link = self._peer_links[peer]
            if link in self._links:
                yield Asked(TO_PODS, Packet(pod_of(peer.pod_cidr)), link, peer.via, peer)

    @cached_property
    def _more_specific(self) -> dict[str, list[str]]:
        """By pod CIDR an address of each more specific route in it, in whichever table.

        Each route is looked up by its containing prefixes, so that many of both stay cheap.
        """
        known = (*self._spec.subnets, *(peer.pod_cidr for peer in self._spec.peers))
        by_prefix = {parse_cidr(pod_cidr): pod_cidr for pod_cidr in known}
        lengths = sorted({cidr.prefix for cidr in by_prefix})
        found: dict[str, dict[str, None]] = {}
        for destination, route in self._routes:
            if route.table == LOCAL_TABLE:
                continue
            for length in lengths:
                if length >= destination.prefix:
                    break
                holder = by_prefix.get(Cidr(destination.packed, length).network)
                if holder:
                    found.setdefault(holder, {})[format_address(destination.packed)] = None
        return {pod_cidr: list(addresses) for pod_cidr, addresses in found.items()}

    def _is_diverted(self, one: Asked, way: Way) -> bool:
        """Whether pods have no way outside though this host has one, or another than the main table's."""
        if way.errno or way.kind in REFUSING:
            own = route_lookup.way(Packet(one.packet.target))
            return own.kind == route_lookup.UNICAST and not own.errno
        return True

    def _stray(self, one: Asked, way: Way) -> Stray:
        """Name the cause."""
        rule, route = policy_rules.decide(self._rules, self._tables, one.packet, self._vrf_table)
        refused = way.errno != 0 and rule is not None and (route is None or route.kind in REFUSING)
        if refused:
            way = route or way
        elif rule is None or route is None or route.table != way.table:
            # by a port, a group of links, or what this release does not know: the first rule of that table
            fitting = [one for one in self._rules if one.ipv6 == is_ipv6(way.destination) and one.table == way.table]
            rule = fitting[0] if way.table and fitting else None
        if rule is not None and rule.action == policy_rules.TO_TABLE and way.table in (0, MAIN_TABLE, LOCAL_TABLE):
            rule = None
        return Stray(one, way, rule, self._selector(one), self._hint(one, way, rule))

    def _vrf_table(self, name: str) -> int:
        """The table of the VRF that a link is in: IFLA_VRF_TABLE of its master; 0 without."""
        link = self._links.get(name)
        for vrf in self._links.values():
            if link is not None and vrf.kind == "vrf" and vrf.index in (link.index, link.master):
                return int.from_bytes(vrf.settings.get(_IFLA_VRF_TABLE, b""), sys.byteorder)
        return 0

    def _hint(self, one: Asked, way: Way, rule: Rule | None) -> Hint:
        """What to do where no rule is in the way."""
        if rule is not None:
            return NONE
        peer = one.peer
        cidr = (
            peer.pod_cidr
            if peer is not None and one.what == TO_PODS
            else _holding(self._spec.subnets, one.packet.target)
        )
        foreign = way.protocol != PROTOCOL and bool(way.destination) and (not way.errno or way.kind in REFUSING)
        if foreign and "/" in cidr and parse_cidr(cidr).covers(parse_cidr(way.destination)):
            return hint.advice(
                f"give the node of {cidr} another pod CIDR, or take the route {_in_words(way)} out of the set-up that "
                "it comes from",
                because="the route is another program's or the operator's, and what goes through it is not known here",
            )
        if one.what in (TO_OUTSIDE, FROM_OUTSIDE):
            return hint.advice(
                f"give this host a route to {one.packet.target}: ip {'-6 ' if is_ipv6(one.packet.target) else ''}route",
                because="the host's routes to the outside are its own network set-up's to give",
            )
        return _APPLY

    def _selector(self, one: Asked) -> str:
        """What to look up in the main table first: as little as keeps pods' packets."""
        if one.what == TO_OUTSIDE:
            return f"from {_holding(self._spec.subnets, one.packet.source)}"
        if one.what == TO_NODE:
            subnet = _holding(self._spec.subnets, one.packet.source)
            route = policy_rules.longest(self._tables.get(MAIN_TABLE, ()), parse_address(one.packet.target))
            return f"from {subnet} to {route[0] if route and route[0].prefix else one.packet.target}"
        return f"to {_holding(self._spec.networks, one.packet.target)}"

    def predicted(self) -> list[Stray]:
        """Return what the rules alone would take away."""
        found = []
        for node in by_family(self._spec):
            for peer in node.peers:
                pod = pod_of(node.subnet)
                for target in (pod_of(peer.pod_cidr), *self._more_specific.get(peer.pod_cidr, [])):
                    one = Asked(TO_PODS, Packet(target, pod, node.bridge), "", peer.via, peer)
                    found += self._predicted(one, peer.pod_cidr)
                link = self._peer_links[peer]
                back = Asked(FROM_PODS, Packet(pod, pod_of(peer.pod_cidr), link or "?"), node.bridge, "", peer)
                found += self._predicted(back, node.subnet)
        return list(_distinct(found))

    def _predicted(self, one: Asked, cidr: str) -> list[Stray]:
        planned = (parse_cidr(cidr), Way(((one.dev, one.gateway),), table=MAIN_TABLE, destination=cidr))
        main = [entry for entry in self._tables.get(MAIN_TABLE, []) if str(entry[0]) != cidr]
        tables = {**self._tables, MAIN_TABLE: [*main, planned]}
        rule, route = policy_rules.decide(self._rules, tables, one.packet, self._vrf_table)
        if rule is None or rule.l3mdev or route is planned[1] or (route is not None and route.table == MAIN_TABLE):
            return []
        return [Stray(one, route or Way(kind=rule.action), rule, self._selector(one))]


def pod_of(pod_cidr: str) -> str:
    """Return the first address of a pod CIDR that a pod may have."""
    return format_address(parse_cidr(pod_cidr).nth(2))


def _is_right(one: Asked, way: Way) -> bool:
    if one.what == TO_OUTSIDE:
        return (
            way.kind == route_lookup.UNICAST
            and not way.errno
            and not way.dead
            and way.table in (0, MAIN_TABLE, route_lookup.DEFAULT_TABLE)
        )
    if one.what == TO_NODE and not way.dead and way.kind == route_lookup.UNICAST and way.table in (0, MAIN_TABLE):
        return not way.errno  # a peer behind a gateway is another check's
    if one.what in (OWN, FROM_PODS, FROM_OUTSIDE):
        return way.goes(one.dev, "")  # a bridge without pods has no carrier
    return way.goes(one.dev, one.gateway) and not way.dead


def switched_off(packet: Packet) -> str:
    """Return the sysctl that keeps a packet that came in by a link from being forwarded; empty where none does."""
    if not packet.iif:
        return ""
    if is_ipv6(packet.target):
        return "net.ipv6.conf.all.forwarding" if sysctl.read(sysctl.FORWARDING[16]) == "0" else ""
    if sysctl.read(sysctl.FORWARDING[4]) == "0":
        return "net.ipv4.ip_forward"
    own = f"net.ipv4.conf.{packet.iif}.forwarding"
    return own if sysctl.read(f"net/ipv4/conf/{packet.iif}/forwarding") == "0" else ""


def switch_on(name: str) -> Hint:
    """Return the command that sets such a sysctl; with slashes where the link's name may hold dots."""
    head, _, rest = name.partition(".conf.")
    link = rest.removesuffix(".forwarding")
    setting = f"{head.replace('.', '/')}/conf/{link}/forwarding" if "." in link else name
    return hint.command(f"sysctl -qw {setting}=1")


def _distinct(strays: Iterable[Stray]) -> Iterator[Stray]:
    """Without those that say the same of the same peer, and without marks where it happens without a mark too."""
    seen = set()
    for stray in strays:
        plain = (stray.asked.what, stray.asked.peer, stray.asked.packet.target)
        if plain not in seen:
            seen.add(plain)
            yield stray


def _holding(cidrs: Sequence[str], address: str) -> str:
    packed = parse_address(address)
    return next((cidr for cidr in cidrs if parse_cidr(cidr).holds(packed)), address)


def _in_words(way: Way) -> str:
    """A route as `ip route` takes it."""
    words = [REFUSING[way.kind]] if way.kind in REFUSING else []
    words += [way.destination, *(["via", way.gateway] if way.gateway else [])]
    words += ["dev", way.dev] if way.dev and way.kind not in REFUSING else []
    words += ["table", table_name(way.table)] if way.table not in (0, MAIN_TABLE) else []
    return " ".join(words + (["metric", str(way.priority)] if way.priority else []))
