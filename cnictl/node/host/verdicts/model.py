"""Model a packet filter's rule set, and what it does to packets of which only some properties are known.

The model is the same for nftables (`verdicts.nft`), iptables (`verdicts.iptables`) and every hook; a hook is only a
name here. Packets are described by the properties that they share, so a match holds for all, some or none of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property, lru_cache
from typing import Literal

from cnictl.core.cidr import AddressError, Cidr, parse_interface

Verdict = Literal["accept", "drop", "return", "jump", "goto", "continue"]


class Truth(IntEnum):
    """For how many of the described packets a match holds."""

    NEVER = 0
    SOMETIMES = 1
    ALWAYS = 2


@dataclass(frozen=True)
class Packets:
    """Packets that share these properties. None and "" mean that a property can have any value."""

    family: str
    """`ip` or `ip6`, as nftables names them."""
    incoming: str | None = None
    """The link on which they come in."""
    outgoing: str | None = None
    """The link on which they leave."""
    source: str = ""
    """The CIDR of their source addresses."""
    target: str = ""
    """The CIDR of their destination addresses."""
    states: frozenset[str] = frozenset({"new"})
    """Their possible connection tracking states: `new`, `established`, `related`."""
    translated: bool | None = None
    """Whether their connection has a DNAT binding."""
    bridge: str = ""
    """The bridge that forwards them, in nftables' bridge family."""
    protocol: str = ""
    """Their transport protocol: `tcp`, `udp`."""
    source_type: str = ""
    """The route type of their source addresses: `local` for this host's own addresses, `unicast` for others."""
    target_type: str = ""
    """The route type of their destination addresses."""


@dataclass(frozen=True)
class Match:
    """A condition of a rule: a property of the packet has one of some values."""

    about: str
    """A property of `Packets` (`state` for `states`); empty for a property that `Packets` does not describe."""
    values: tuple[str, ...] = ()
    negated: bool = False
    listed: bool = False
    """Whether the values are written as a set or a map."""

    def holds(self, packets: Packets) -> Truth:
        """Return for how many of these packets the match holds."""
        truth = _truth(self, packets)
        if self.negated:
            return Truth(Truth.ALWAYS - truth)
        if self.listed and self.about in ("source", "target"):
            # a set means particular addresses, even if one of its elements contains the pod network
            return min(truth, Truth.SOMETIMES)
        return truth


def _truth(match: Match, packets: Packets) -> Truth:
    """Return for how many of these packets the property has one of the match's values."""
    values = match.values
    match match.about:
        case "incoming":
            return _link(values, packets.incoming)
        case "outgoing":
            return _link(values, packets.outgoing)
        case "bridge":
            return _link(values, packets.bridge or None)
        case "source":
            return _address(values, packets.source, packets.family)
        case "target":
            return _address(values, packets.target, packets.family)
        case "state":
            return _state(set(values), packets)
        case "translated":
            return _known(packets.translated)
        case "protocol":
            return _known(packets.protocol in values) if packets.protocol else Truth.SOMETIMES
        case "family":
            return _known(packets.family in values)
        case "source_type":
            return _known(packets.source_type in values) if packets.source_type else Truth.SOMETIMES
        case "target_type":
            return _known(packets.target_type in values) if packets.target_type else Truth.SOMETIMES
    return Truth.SOMETIMES


def _link(names: tuple[str, ...], link: str | None) -> Truth:
    if "*" in names:
        return Truth.ALWAYS
    if link is None:
        # the kernel forwards nothing from or to the loopback link
        return Truth.SOMETIMES if any(name != "lo" for name in names) else Truth.NEVER
    return Truth.ALWAYS if any(_is_named(name, link) for name in names) else Truth.NEVER


def _is_named(pattern: str, link: str) -> bool:
    return link.startswith(pattern[:-1]) if pattern.endswith("*") else link == pattern


@lru_cache(maxsize=1 << 16)
def _address(values: tuple[str, ...], known: str, family: str) -> Truth:
    """Return how many addresses of the CIDR `known` lie in one of `values`."""
    packets_network = network(known or ("::/0" if family == "ip6" else "0.0.0.0/0"))
    truth = Truth.NEVER
    for text in values:
        value = network(text)
        if value is None:
            truth = max(truth, Truth.SOMETIMES)
        elif packets_network is not None:
            if value.covers(packets_network):
                return Truth.ALWAYS
            if value.overlaps(packets_network):
                truth = Truth.SOMETIMES
    return truth


@lru_cache(maxsize=4096)
def network(text: str) -> Cidr | None:
    """Return a CIDR or address as a network; None if the text is neither."""
    try:
        return parse_interface(text if "/" in text else f"{text}/{128 if ':' in text else 32}").network
    except AddressError:
        return None


def _state(wanted: set[str], packets: Packets) -> Truth:
    if packets.states <= wanted:
        return Truth.ALWAYS
    if "dnat" in wanted and packets.translated is not False:
        return Truth.ALWAYS if packets.translated else Truth.SOMETIMES
    return Truth.SOMETIMES if packets.states & wanted else Truth.NEVER


def _known(value: bool | None) -> Truth:
    return Truth.SOMETIMES if value is None else Truth.ALWAYS if value else Truth.NEVER


UNKNOWN = Match("")
"""A match on a property that `Packets` does not describe: a port, a mark, a rate, a set that programs fill."""


@dataclass(frozen=True)
class Branch:
    """One way through a rule: if every match holds, this verdict applies."""

    matches: tuple[Match, ...]
    verdict: Verdict
    to: str = ""
    """The target chain of a jump or goto."""

    def holds(self, packets: Packets) -> Truth:
        """Return for how many of these packets every match holds."""
        return min((match.holds(packets) for match in self.matches), default=Truth.ALWAYS)


@dataclass(frozen=True)
class Rule:
    """A rule: one branch, or several if it uses a verdict map."""

    text: str
    """The rule as its program prints it, for people."""
    branches: tuple[Branch, ...]
    ours: str = ""
    """cnictl's name for one of its own rules. Such a rule has no verdict in the model; only its place matters."""
    handle: int = 0
    """The rule's handle in nftables."""


@dataclass(frozen=True)
class Chain:
    """A chain. If it has a hook, it is a base chain that the kernel itself calls."""

    name: str
    """Its full name: `inet filter forward`, or FORWARD of an iptables table."""
    rules: tuple[Rule, ...] = ()
    hook: str = ""
    policy: str = "accept"
    sealed: bool = False
    """Whether the program that lists the chain can't add a rule to it."""

    @cached_property
    def numbered(self) -> tuple[tuple[int, Rule], ...]:
        """The rules with their indices."""
        return tuple(enumerate(self.rules))

    @cached_property
    def decisive_rules(self) -> tuple[tuple[int, Rule], ...]:
        """The rules that may apply to all packets of a kind: our own rules, and rules without an unknown match."""
        return tuple(
            (index, rule)
            for index, rule in self.numbered
            if rule.ours or any(all(match.about for match in branch.matches) for branch in rule.branches)
        )


@dataclass(frozen=True)
class Ruleset:
    """Chains by name."""

    chains: dict[str, Chain]

    @cached_property
    def boundaries(self) -> dict[int, list[int]]:
        """Sorted boundaries of the CIDRs in rules (first address, last address + 1), by address length in bits."""
        boundaries: dict[int, set[int]] = {32: set(), 128: set()}
        for chain in self.chains.values():
            for match in (match for rule in chain.rules for branch in rule.branches for match in branch.matches):
                for cidr in map(network, match.values) if match.about in ("source", "target") else ():
                    if cidr is not None:
                        boundaries[cidr.bits] |= {cidr.first, cidr.last + 1}
        return {bits: sorted(numbers) for bits, numbers in boundaries.items()}

    def reachable(self, name: str) -> set[str]:
        """Return the names of a chain and of all chains that it leads to."""
        names, waiting = {name}, [name]
        while waiting:
            chain = self.chains.get(waiting.pop())
            for branch in (branch for rule in chain.rules for branch in rule.branches) if chain is not None else ():
                if branch.to and branch.to not in names:
                    names.add(branch.to)
                    waiting.append(branch.to)
        return names


@dataclass(frozen=True, order=True)
class Place:
    """A position in a chain: before the rule with this index, or at the end of the chain."""

    chain: str
    index: int


@dataclass(frozen=True)
class Event:
    """A verdict or a rule of ours that packets meet in a base chain."""

    kind: Literal["accept", "drop", "ours"]
    path: tuple[Place, ...]
    """The rules that lead there, from the base chain's rule to the last."""
    certain: bool
    """Whether all of the packets meet it."""
    text: str
    """The rule, or the policy."""

    @property
    def place(self) -> Place:
        """The event's own place, the last of the path."""
        return self.path[-1]


@dataclass
class _Walk:
    """One passage of packets through a base chain. A drop does not end it, so that later rules are seen too."""

    ruleset: Ruleset
    packets: Packets
    whole: bool
    """Whether to collect only what all of the packets meet."""
    events: list[Event] = field(default_factory=list)
    harmless: set[str] = field(default_factory=set)
    """Chains that do nothing to these packets."""

    def through(self, name: str, path: tuple[Place, ...], certain: bool) -> bool:
        """Visit a chain; return whether no packet comes back from it."""
        chain = self.ruleset.chains.get(name)
        if chain is None or name in self.harmless:
            return False
        seen = len(self.events)
        ended = self._rules(chain, path, certain)
        if len(self.events) == seen and not ended:
            self.harmless.add(name)
        return ended

    def _rules(self, chain: Chain, path: tuple[Place, ...], certain: bool) -> bool:
        for index, rule in chain.decisive_rules if self.whole else chain.numbered:
            here = (*path, Place(chain.name, index))
            if rule.ours:
                self.events.append(Event("ours", here, certain, rule.ours))
                continue
            for branch in rule.branches:
                truth = branch.holds(self.packets)
                if truth is Truth.NEVER or (self.whole and truth is Truth.SOMETIMES):
                    continue
                whole = truth is Truth.ALWAYS
                if branch.verdict in ("accept", "drop"):
                    self.events.append(Event(_VERDICT_EVENTS[branch.verdict], here, certain and whole, rule.text))
                    if whole and branch.verdict == "accept":
                        return True
                elif branch.verdict == "return" and whole:
                    return False
                elif branch.verdict in ("jump", "goto") and not any(place.chain == branch.to for place in here):
                    ended = self.through(branch.to, here, certain and whole)
                    if whole and (ended or branch.verdict == "goto"):
                        return ended
        return False


_VERDICT_EVENTS: dict[str, Literal["accept", "drop"]] = {"accept": "accept", "drop": "drop"}


def walk(ruleset: Ruleset, base: str, packets: Packets, whole: bool = False) -> list[Event]:
    """Return what these packets meet in a base chain, in order; with `whole`, only what all of them meet.

    Rules after a drop are included.
    """
    passage = _Walk(ruleset, packets, whole)
    chain = ruleset.chains[base]
    if not passage.through(base, (), True) and chain.policy == "drop":
        end = Place(base, len(chain.rules))
        passage.events.append(Event("drop", (end,), True, POLICY))
    return passage.events


POLICY = "policy drop"
"""The text of the event for a base chain's policy."""


def drops(events: list[Event]) -> Iterator[Event]:
    """Return the drops among events."""
    return (event for event in events if event.kind == "drop")
