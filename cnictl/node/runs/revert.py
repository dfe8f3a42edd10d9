"""Where an undo takes one thing, given what is there now: what somebody changed since is told apart and left. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from cnictl.node.spine import Merging, Parted, Resource, Updating
from cnictl.node.state.journal import Run, State


@dataclass
class Trace:
    """What a run did to one thing."""

    resource: str
    before: State | None
    """Ahead of the run."""
    after: State | None
    """What it made of it last."""
    known: list[State | None]
    """Every state it was in by the run's doing."""
    half_made: bool
    """Whether the run may have left it between two of these."""
    repair: bool = False
    """Whether the run only brought it back to what the node was set up to be."""


def traces(run: Run) -> list[Trace]:
    """What a run did to each thing that it changed, in the order it began them."""
    found: dict[str, Trace] = {}
    for entry in run.entries:
        trace = found.setdefault(entry.resource, Trace(entry.resource, entry.before, None, [], False, True))
        trace.repair = trace.repair and entry.repair
        trace.after = entry.after
        trace.known += [entry.before, entry.after]
        trace.half_made = entry.resource in run.half_made
    return list(found.values())


def add_repairs(found: list[Trace], later: Iterable[Run]) -> None:
    """Add the states that `later` runs, oldest first, brought things back to: by repairs they are this run's still.

    Not where another run moved the thing in between: what was repaired then is that run's.
    """
    waiting = {trace.resource: trace for trace in found}
    for run in later:
        for entry in run.entries:
            trace = waiting.get(entry.resource)
            if trace is None:
                continue
            if entry.repair or (run.is_repair and not run.marks_repairs):
                trace.known.append(entry.after)
            else:
                del waiting[entry.resource]


def way_back(resource: Resource, trace: Trace, now: State | None) -> tuple[State | None, list[str]]:
    """The state to go to from `now`, and in words what has to stay as it is."""
    if isinstance(resource, Updating):
        trace = _updated(resource, trace)
    if now == trace.before:
        return now, []
    if now in trace.known or trace.half_made:
        return trace.before, []
    if now is None:
        return None, ["it is gone by now"]
    if isinstance(resource, Merging):
        return resource.take_back(now, trace.before, trace.after)
    parted = isinstance(resource, Parted)
    if not parted and (trace.before is None or trace.after is None):
        return now, ["it was changed since"]
    target, changed = _without(now, trace.before or {}, trace.after or {})
    if changed and not parted:
        return now, [f"{', '.join(changed)} was changed since"]
    # nothing but empty parts: the thing itself is gone
    return target if any(target.values()) else None, [f"{part} was changed since" for part in changed]


def _updated(resource: Updating, trace: Trace) -> Trace:
    before, after, *known = (state and resource.updated(state) for state in (trace.before, trace.after, *trace.known))
    return replace(trace, before=before, after=after, known=known)


def _without(now: State, before: State, after: State) -> tuple[State, list[str]]:
    """`now` without what led from `before` to `after`, key by key; and the keys that something else was done to."""
    target, changed = dict(now), list[str]()
    for key in dict.fromkeys([*before, *after]):
        old, new, found = before.get(key), after.get(key), now.get(key)
        if old == new or found == old:
            continue
        if found == new:
            _put(target, key, old)
        elif isinstance(found, dict) and _all(dict, old, new):
            inner, inside = _without(found, old or {}, new or {})
            _put(target, key, inner)
            changed += inside
        elif isinstance(found, list) and _all(list, old, new):
            kept = [one for one in found if one not in (new or []) or one in (old or [])]
            target[key] = kept + [one for one in old or [] if one not in (new or []) and one not in kept]
        else:
            changed.append(key)
    return target, changed


def _put(target: State, key: str, value: Any) -> None:
    if value is None:
        target.pop(key, None)
    else:
        target[key] = value


def _all(kind: type, *values: Any) -> bool:
    return all(value is None or isinstance(value, kind) for value in values)
