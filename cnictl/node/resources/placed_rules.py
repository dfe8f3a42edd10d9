"""Represent cnictl's rules in other programs' chains in a state.

A well-placed rule is represented by its text, a misplaced one by an object that also names the drop and whether the
rule is ahead of it or behind it.
"""

from collections.abc import Iterable, Iterator

from cnictl.node.host.verdicts.places import AHEAD, Misplaced
from cnictl.node.spine import State

StoredRule = str | dict[str, str]


def stored(text: str, misplaced: Misplaced | None = None) -> StoredRule:
    """Return a rule in the form of a state."""
    return text if misplaced is None else {"rule": text, "misplaced": misplaced.side, "drop": misplaced.drop}


def read(rule: StoredRule) -> tuple[str, Misplaced | None]:
    """Return the text of a rule in a state, and how it is misplaced, or None."""
    return (rule, None) if isinstance(rule, str) else (rule["rule"], Misplaced(rule["misplaced"], rule["drop"]))


def in_order(rules: Iterable[StoredRule]) -> list[StoredRule]:
    """Return a chain's rules in the order of a state."""
    return sorted(rules, key=lambda rule: (read(rule)[0], str(read(rule)[1])))


def reasons(rules: Iterable[StoredRule]) -> Iterator[str]:
    """Yield for each misplaced rule how it is misplaced, in words."""
    for rule in rules:
        if (misplaced := read(rule)[1]) is not None:
            yield str(misplaced)


def any_ahead(state: State) -> bool:
    """Return whether a rule in a state of `forward/…` comes before another program's drop of particular packets."""
    chains = state.get("jumps", state).values()
    placed = [read(rule)[1] for rules in chains if isinstance(rules, list) for rule in rules]
    return any(misplaced is not None and misplaced.side == AHEAD for misplaced in placed)
