"""Where accepts for pods' packets belong in a rule set, and whether those that are there stand well. Pure.

A base chain drops pods' packets if all of a flow that pods are promised meets a drop in it, by a rule or the policy.
The accept belongs right in front of that drop: behind every rule that drops particular packets.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from cnictl.node.host.verdicts.model import Chain, Event, Place, Rule, Ruleset, drops, walk
from cnictl.node.host.verdicts.pods import COVERS, KINDS, Traffic

OurKinds = Mapping[str, Collection[str]]
"""The kinds of packets that a rule of ours accepts, by what it is called in the model."""
Flows = Sequence[Mapping[str, Traffic]]
"""The traffic of each address family that a base chain sees."""
Drop = tuple[str, str]
"""A chain, and the text of a rule in it or of its policy."""


@dataclass(frozen=True)
class Need:
    """An accept that is missing: packets of this kind are dropped."""

    kind: str
    path: tuple[Place, ...]
    """The way to the drop, as far as an accept may stand on it."""
    drop: Drop

    @property
    def place(self) -> Place:
        """Where the accept belongs: as late as it can."""
        return self.path[-1]


@dataclass(frozen=True)
class Survey:
    """What base chains do to pods' packets, and what cnictl's rules in them are good for."""

    needs: tuple[Need, ...]
    """Accepts that are missing, once the misplaced ones are taken out."""
    misplaced: Mapping[Place, str]
    """Rules of ours that stand where they should not, and why: `ahead of …`, `behind …`."""
    suffering: tuple[Need, ...]
    """Accepts that are missing as it stands: these packets are dropped now."""
    passed_over: tuple[Drop, ...]
    """The drops that accepts come ahead of, at the places where they stand or are missing."""


def survey(
    ruleset: Ruleset,
    bases: Sequence[Chain],
    flows: Callable[[Chain], Flows],
    kinds: OurKinds,
    valid: Collection[str] | None = None,
) -> Survey:
    """Judge base chains. Rules of ours that are not in `valid` (None: all are) are as good as gone in `needs`."""
    looks = [_Look(ruleset, base, flows(base), kinds) for base in bases]
    misplaced: dict[Place, str] = {}
    for look in looks:
        misplaced |= look.misplaced()
    settled = _without(
        ruleset, lambda place, rule: place in misplaced or (valid is not None and rule.ours not in valid)
    )
    later = [_Look(settled, settled.chains[base.name], flows(base), kinds) for base in bases]
    return Survey(
        tuple(need for look in later for need in look.needs()),
        misplaced,
        tuple(need for look in looks for need in look.needs()),
        tuple(dict.fromkeys(drop for look in looks for drop in look.passed_over())),
    )


class _Look:
    """One base chain."""

    def __init__(self, ruleset: Ruleset, base: Chain, flows: Flows, kinds: OurKinds) -> None:
        self._ruleset, self._base, self._kinds = ruleset, base, kinds
        self._walks = [
            (kind, traffic[kind], [walk(ruleset, base.name, flow, whole=True) for flow in traffic[kind].flows])
            for traffic in flows
            for kind in KINDS
            if kind in traffic
        ]

    def _first(self, walks: Sequence[list[Event]]) -> Event | None:
        """The first drop that takes the whole of one of these flows."""
        dropped = [event for events in walks for event in [_whole_drop(events)] if event is not None]
        return min(dropped, key=_order, default=None)

    def needs(self) -> list[Need]:
        """The accepts that are missing."""
        found: dict[tuple[str, str], Need] = {}
        for kind, _, walks in self._walks:
            enough = {name for name, accepted in self._kinds.items() if any(kind in COVERS[it] for it in accepted)}
            for events in walks:
                dropped = _whole_drop(events)
                if dropped is None:
                    continue
                before = events[: events.index(dropped)]
                if any(event.kind == "ours" and event.certain and event.text in enough for event in before):
                    continue
                need = Need(kind, self._anchored(dropped.path), (dropped.place.chain, dropped.text))
                known = found.get((kind, need.place.chain))
                if known is None or need.place.index < known.place.index:
                    found[kind, need.place.chain] = need
        every = list(found.values())
        return [need for need in every if not any(_is_enough(other, need) for other in every)]

    def _anchored(self, path: tuple[Place, ...]) -> tuple[Place, ...]:
        """The way to a drop without chains that other hooks lead to too: an accept in those would count there.

        And without chains that no rule can be put into.
        """
        others = {
            name
            for chain in self._ruleset.chains.values()
            if chain.hook and chain.hook != self._base.hook
            for name in self._ruleset.reachable(chain.name)
        } | {chain.name for chain in self._ruleset.chains.values() if chain.sealed}
        shared = next((depth for depth, place in enumerate(path) if place.chain in others), len(path))
        return path[: max(shared, 1)]

    def misplaced(self) -> dict[Place, str]:
        """Rules of ours that come ahead of drops of particular packets, or behind the drop that they are for."""
        found: dict[Place, str] = {}
        for kind, traffic, walks in self._walks:
            first = self._first(walks)
            events = walk(self._ruleset, self._base.name, traffic.every)
            for at, event in enumerate(events):
                if event.kind == "ours" and kind in self._kinds.get(event.text, ()):
                    passed = next(drops(events[at:]), None)
                    if passed is not None and (first is None or _order(passed) < _order(first)):
                        found.setdefault(event.place, f"ahead of {passed.text} in {passed.place.chain}")
        for need in self.needs():
            chain = self._ruleset.chains[need.place.chain]
            for index, rule in enumerate(chain.rules):
                if rule.ours and index >= need.place.index and need.kind in self._kinds.get(rule.ours, ()):
                    found.setdefault(Place(chain.name, index), f"behind {need.drop[1]} in {need.drop[0]}")
        return found

    def passed_over(self) -> list[Drop]:
        """The drops that accepts come ahead of, where they stand or are missing."""
        found: list[Drop] = []
        for kind, traffic, walks in self._walks:
            first = self._first(walks)
            events = walk(self._ruleset, self._base.name, traffic.every)
            ours = [at for at, event in enumerate(events) if event.kind == "ours"
                    and kind in self._kinds.get(event.text, ())]  # fmt: skip
            for at, event in enumerate(events):
                if event.kind == "drop" and (
                    (first is not None and _order(event) >= _order(first)) or any(own < at for own in ours)
                ):
                    found.append((event.place.chain, event.text))
                    if event.certain:
                        break
        return found


def _whole_drop(events: list[Event]) -> Event | None:
    """The first drop that all of a flow meets."""
    return next((event for event in drops(events) if event.certain), None)


def _order(event: Event) -> list[int]:
    """When packets come by: the indexes along the path, the base chain's first."""
    return [place.index for place in event.path]


def _is_enough(accept: Need, need: Need) -> bool:
    """Whether one accept makes another needless: of a kind that covers its, in the same chain and no later."""
    covered = accept.kind != need.kind and need.kind in COVERS[accept.kind]
    return covered and accept.place.chain == need.place.chain and accept.place.index <= need.place.index


def place_in(ruleset: Ruleset, chain: str, kind: str, needs: Sequence[Need]) -> Place:
    """The latest place for an accept in a chain: on the way to the drop it is for, else the chain's end."""
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
    """The rule set as others made it."""
    return _without(ruleset, lambda _, rule: bool(rule.ours))


def _without(ruleset: Ruleset, goes: Callable[[Place, Rule], bool]) -> Ruleset:
    return Ruleset(
        {
            name: replace(
                chain,
                rules=tuple(rule for index, rule in enumerate(chain.rules)
                            if not (rule.ours and goes(Place(name, index), rule))),
            )
            for name, chain in ruleset.chains.items()
        }
    )  # fmt: skip


def with_ours(ruleset: Ruleset, place: Place, name: str) -> Ruleset:
    """The rule set with a rule of ours at a place."""
    chain = ruleset.chains[place.chain]
    rules = (*chain.rules[: place.index], Rule(name, (), name), *chain.rules[place.index :])
    return Ruleset(ruleset.chains | {place.chain: replace(chain, rules=rules)})
