"""Decide where accept rules for pods' packets belong in a rule set, and whether existing accept rules are well placed.

These are pure functions. A base chain drops pods' packets if a whole flow that pods need meets a drop in it: a rule or
the policy. The accept rule belongs immediately before that drop, and so after every rule that drops particular packets.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from cnictl.node.host.verdicts.model import Chain, Event, Place, Rule, Ruleset, drops, walk
from cnictl.node.host.verdicts.pods import COVERS, KINDS, Traffic

OurKinds = Mapping[str, Collection[str]]
"""The kinds of packets that our rules accept, by the rule's name in the model."""
Flows = Sequence[Mapping[str, Traffic]]
"""The traffic of each address family in a base chain."""
Drop = tuple[str, str]
"""A chain, and the text of the dropping rule or policy."""


AHEAD, BEHIND = "ahead", "behind"


class Misplaced(NamedTuple):
    """Why one of our rules is in the wrong place."""

    side: str
    """`AHEAD` of a drop of particular packets, or `BEHIND` the drop that the rule is for."""
    drop: str
    """The dropping rule or policy, and its chain."""

    def __str__(self) -> str:
        """Return it in words."""
        return f"{'ahead of' if self.side == AHEAD else self.side} {self.drop}"


@dataclass(frozen=True)
class Need:
    """A missing accept rule: packets of this kind are dropped."""

    kind: str
    path: tuple[Place, ...]
    """The places on the way to the drop where an accept rule is possible."""
    drop: Drop

    @property
    def place(self) -> Place:
        """The place for the accept rule: the last possible one."""
        return self.path[-1]


@dataclass(frozen=True)
class Survey:
    """What base chains do to pods' packets, and how cnictl's rules in them are placed."""

    needs: tuple[Need, ...]
    """The missing accept rules, after the misplaced ones are removed."""
    misplaced: Mapping[Place, Misplaced]
    """Our rules in the wrong place."""
    dropped_now: tuple[Need, ...]
    """The accept rules that are missing now: these packets are dropped."""
    passed_over: tuple[Drop, ...]
    """The drops that existing or missing accept rules precede."""


def survey(
    ruleset: Ruleset,
    bases: Sequence[Chain],
    flows: Callable[[Chain], Flows],
    kinds: OurKinds,
    valid: Collection[str] | None = None,
) -> Survey:
    """Judge base chains. `needs` ignores our rules that are not in `valid`; None means that all are valid."""
    flows_by_base = {base.name: flows(base) for base in bases}
    judges = [_ChainJudge(ruleset, base, flows_by_base[base.name], kinds) for base in bases]
    misplaced: dict[Place, Misplaced] = {}
    for judge in judges:
        misplaced |= judge.misplaced()
    settled = _without(
        ruleset, lambda place, rule: place in misplaced or (valid is not None and rule.ours not in valid)
    )
    later = judges
    if settled is not ruleset:
        later = [_ChainJudge(settled, settled.chains[base.name], flows_by_base[base.name], kinds) for base in bases]
    return Survey(
        tuple(need for judge in later for need in judge.needs()),
        misplaced,
        tuple(need for judge in judges for need in judge.needs()),
        tuple(dict.fromkeys(drop for judge in judges for drop in judge.passed_over())),
    )


class _ChainJudge:
    """Judges one base chain."""

    def __init__(self, ruleset: Ruleset, base: Chain, flows: Flows, kinds: OurKinds) -> None:
        self._ruleset, self._base, self._kinds = ruleset, base, kinds
        self._walks = [
            (kind, traffic[kind], [walk(ruleset, base.name, flow, whole=True) for flow in traffic[kind].flows])
            for traffic in flows
            for kind in KINDS
            if kind in traffic
        ]

    def _first(self, walks: Sequence[list[Event]]) -> Event | None:
        """Return the first drop that the whole of one of these flows meets."""
        dropped = [event for events in walks for event in [_whole_drop(events)] if event is not None]
        return min(dropped, key=_order, default=None)

    def needs(self) -> list[Need]:
        """Return the missing accept rules."""
        need_by_chain: dict[tuple[str, str], Need] = {}
        for kind, _, walks in self._walks:
            enough = {
                name for name, accepted in self._kinds.items() if any(kind in COVERS[covering] for covering in accepted)
            }
            for events in walks:
                dropped = _whole_drop(events)
                if dropped is None:
                    continue
                before = events[: events.index(dropped)]
                if any(event.kind == "ours" and event.certain and event.text in enough for event in before):
                    continue
                need = Need(kind, self._anchored(dropped.path), (dropped.place.chain, dropped.text))
                other = need_by_chain.get((kind, need.place.chain))
                if other is None or need.place.index < other.place.index:
                    need_by_chain[kind, need.place.chain] = need
        every = list(need_by_chain.values())
        return [need for need in every if not any(_is_enough(other, need) for other in every)]

    def _anchored(self, path: tuple[Place, ...]) -> tuple[Place, ...]:
        """Return the way to a drop, up to the first chain that must not contain an accept rule.

        An accept rule in a chain that other hooks use would apply there too. A sealed chain takes no rules.
        """
        others = {
            name
            for chain in self._ruleset.chains.values()
            if chain.hook and chain.hook != self._base.hook
            for name in self._ruleset.reachable(chain.name)
        } | {chain.name for chain in self._ruleset.chains.values() if chain.sealed}
        shared = next((depth for depth, place in enumerate(path) if place.chain in others), len(path))
        return path[: max(shared, 1)]

    def misplaced(self) -> dict[Place, Misplaced]:
        """Return our rules that come ahead of drops of particular packets, or behind the drop that they are for."""
        reasons: dict[Place, Misplaced] = {}
        for kind, traffic, walks in self._walks:
            first = self._first(walks)
            events = walk(self._ruleset, self._base.name, traffic.every)
            for at, event in enumerate(events):
                if event.kind == "ours" and kind in self._kinds.get(event.text, ()):
                    passed = next(drops(events[at:]), None)
                    if passed is not None and (first is None or _order(passed) < _order(first)):
                        reasons.setdefault(event.place, Misplaced(AHEAD, f"{passed.text} in {passed.place.chain}"))
        for need in self.needs():
            chain = self._ruleset.chains[need.place.chain]
            for index, rule in enumerate(chain.rules):
                if rule.ours and index >= need.place.index and need.kind in self._kinds.get(rule.ours, ()):
                    reason = Misplaced(BEHIND, f"{need.drop[1]} in {need.drop[0]}")
                    reasons.setdefault(Place(chain.name, index), reason)
        return reasons

    def passed_over(self) -> list[Drop]:
        """Return the drops that existing or missing accept rules precede."""
        passed: list[Drop] = []
        for kind, traffic, walks in self._walks:
            first = self._first(walks)
            events = walk(self._ruleset, self._base.name, traffic.every)
            ours = [at for at, event in enumerate(events) if event.kind == "ours"
                    and kind in self._kinds.get(event.text, ())]  # fmt: skip
            for at, event in enumerate(events):
                if event.kind == "drop" and (
                    (first is not None and _order(event) >= _order(first)) or any(own < at for own in ours)
                ):
                    passed.append((event.place.chain, event.text))
                    if event.certain:
                        break
        return passed


def _whole_drop(events: list[Event]) -> Event | None:
    """Return the first drop that all of a flow meets."""
    return next((event for event in drops(events) if event.certain), None)


def _order(event: Event) -> list[int]:
    """Return the order in which packets meet an event: the indices along its path, the base chain's first."""
    return [place.index for place in event.path]


def _is_enough(accept: Need, need: Need) -> bool:
    """Return whether `accept` makes `need` redundant.

    It does if it covers `need`'s kind and is in the same chain, at or before its place.
    """
    covered = accept.kind != need.kind and need.kind in COVERS[accept.kind]
    return covered and accept.place.chain == need.place.chain and accept.place.index <= need.place.index


def place_in(ruleset: Ruleset, chain: str, kind: str, needs: Sequence[Need]) -> Place:
    """Return the last possible place for an accept rule in a chain: on the way to its drop, else the chain's end."""
    for need in sorted(needs, key=lambda need: need.kind != kind):
        if kind in COVERS[need.kind]:
            for place in need.path:
                if place.chain == chain:
                    return place
    rules = ruleset.chains[chain].rules
    index = len(rules)
    while index and any(not branch.matches and branch.verdict == "return" for branch in rules[index - 1].branches):
        index -= 1
    return Place(chain, index)


def without_ours(ruleset: Ruleset) -> Ruleset:
    """Return the rule set without our rules."""
    return _without(ruleset, lambda _, rule: bool(rule.ours))


def _without(ruleset: Ruleset, is_removed: Callable[[Place, Rule], bool]) -> Ruleset:
    """Return the rule set without those of our rules that `is_removed` selects: the same one if there are none."""
    changed = {}
    for name, chain in ruleset.chains.items():
        gone = {index for index, rule in enumerate(chain.rules) if rule.ours and is_removed(Place(name, index), rule)}
        if gone:
            kept = tuple(rule for index, rule in enumerate(chain.rules) if index not in gone)
            changed[name] = replace(chain, rules=kept)
    return Ruleset(ruleset.chains | changed) if changed else ruleset


def with_ours(ruleset: Ruleset, place: Place, name: str) -> Ruleset:
    """Return the rule set with one of our rules at a place."""
    chain = ruleset.chains[place.chain]
    rules = (*chain.rules[: place.index], Rule(name, (), name), *chain.rules[place.index :])
    return Ruleset(ruleset.chains | {place.chain: replace(chain, rules=rules)})
