"""Decide which state an undo restores for a resource. What somebody has changed since the run stays. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from cnictl.node.spine import FollowsSource, HasParts, MergeableUndo, Resource
from cnictl.node.state.journal import Run, State


@dataclass
class Trace:
    """What a run did to one thing."""

    resource: str
    before: State | None
    """The state before the run."""
    after: State | None
    """The last state that the run gave it."""
    known: list[State | None]
    """Every state that the run found or gave it."""
    half_made: bool
    """Whether the run may have left the resource between two of these states."""
    repair: bool = False
    """Whether the run only restored what the node was set up to be."""


def traces(run: Run) -> list[Trace]:
    """Return what a run did to each thing that it changed, in the order in which it began them."""
    by_resource: dict[str, Trace] = {}
    for entry in run.entries:
        trace = by_resource.setdefault(entry.resource, Trace(entry.resource, entry.before, None, [], False, True))
        trace.repair = trace.repair and entry.repair
        trace.after = entry.after
        trace.known += [entry.before, entry.after]
        trace.half_made = entry.resource in run.half_made
    return list(by_resource.values())


def add_repairs(changed: list[Trace], later: Iterable[Run]) -> None:
    """Add the states that repairs of `later` runs (oldest first) gave the things: they count as this run's states.

    Once another run has changed a thing, later repairs of it don't count: they restored that other run's state.
    """
    waiting = {trace.resource: trace for trace in changed}
    for run in later:
        for entry in run.entries:
            trace = waiting.get(entry.resource)
            if trace is None:
                continue
            if entry.repair:
                trace.known.append(entry.after)
            else:
                del waiting[entry.resource]


def reverted(resource: Resource, trace: Trace, now: State | None) -> tuple[State | None, list[str]]:
    """Return the state to restore, and a message for each part that can't be reverted.

    `now`: the present state.
    """
    if isinstance(resource, FollowsSource):
        return resource.state_from_source(), []
    if now == trace.before:
        return now, []
    if now in trace.known or trace.half_made:
        return trace.before, []
    if now is None:
        return None, ["it has been removed since the run"]
    if isinstance(resource, MergeableUndo):
        return resource.revert(now, trace.before, trace.after)
    has_parts = isinstance(resource, HasParts)
    if not has_parts and (trace.before is None or trace.after is None):
        return now, ["it has been changed since the run"]
    target, changed = _without(now, trace.before or {}, trace.after or {})
    if changed and not has_parts:
        return now, [f"{', '.join(changed)} {'has' if len(changed) == 1 else 'have'} been changed since the run"]
    # with only empty parts left, the thing itself is gone
    return target if any(target.values()) else None, [f"{part} has been changed since the run" for part in changed]


def _without(now: State, before: State, after: State) -> tuple[State, list[str]]:
    """Return `now` with the changes from `before` to `after` reverted key by key, and the keys that changed since."""
    target, changed = dict(now), list[str]()
    for key in dict.fromkeys([*before, *after]):
        old, new, present = before.get(key), after.get(key), now.get(key)
        if old == new or present == old:
            continue
        if present == new:
            target[key] = old
        elif isinstance(present, dict) and isinstance(old or {}, dict) and isinstance(new or {}, dict):
            target[key], inside = _without(present, old or {}, new or {})
            changed += inside
        elif isinstance(present, list) and isinstance(old or [], list) and isinstance(new or [], list):
            kept = [item for item in present if item not in (new or []) or item in (old or [])]
            target[key] = kept + [item for item in old or [] if item not in (new or []) and item not in kept]
        else:
            changed.append(key)
    return {key: value for key, value in target.items() if value is not None}, changed
