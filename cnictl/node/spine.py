"""Plan, apply, verify and undo changes: desired state → observe → diff → apply → verify → undo.

Every command that changes the host uses it.
"""

import itertools
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast, runtime_checkable

from cnictl.core.errors import Problem
from cnictl.node.host import reading
from cnictl.node.spec.node_spec import NodeSpec
from cnictl.node.state.journal import DONE, FAILED, UNDONE, Entry, Journal
from cnictl.node.state.run_lock import exclusive as exclusive

State = dict[str, Any]
"""The present or desired state of a resource: JSON values only, so that it can be shown, compared and journalled."""


@dataclass(frozen=True)
class Change:
    """One difference as data: it is shown, journalled, made, and undone with before and after swapped."""

    resource: str
    before: State | None
    after: State | None
    summary: str
    """`add address 10.244.0.1/24 to cni0`"""
    command: str
    """The manual command, such as `ip address add 10.244.0.1/24 dev cni0`; one line for each command."""
    repair: bool = False
    """Whether it restores what the node was already set up to be."""


class Resource(Protocol):
    """One thing on the host that cnictl is responsible for."""

    @property
    def id(self) -> str:
        """The name in plans, journals and tables: `bridge/cni0`, `route/10.244.1.0/24`."""

    def observe(self) -> State | None:
        """Return the present state; None if the thing does not exist."""

    def desired(self, spec: NodeSpec) -> State | None:
        """Return the desired state; None to have the thing removed."""

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:
        """Return the summary and the manual command for the change from `before` to `after`."""

    def carry_out(self, change: Change) -> None:
        """Make the change. Raises Problem."""


@runtime_checkable
class KeepsOriginal(Protocol):
    """A resource that may exist before cnictl's first run, and whose original state is recorded."""

    def remember(self) -> None:
        """Record the present state as the original one unless one is recorded; called before the first change."""


@runtime_checkable
class RestoredByReset(Protocol):
    """A resource that may have existed before cnictl, and is restored when cnictl leaves the host."""

    def state_after_reset(self) -> State | None:
        """Return the state to leave behind; None to remove the thing."""


@runtime_checkable
class HasParts(Protocol):
    """A resource of several parts, such as files: an undo reverts the parts that nobody has changed since."""

    has_parts: bool
    """Always True: only such a class has the attribute."""


@runtime_checkable
class MergeableUndo(Protocol):
    """A resource that can revert a run's change even if somebody has changed it again since."""

    def revert(self, now: State, before: State | None, after: State | None) -> tuple[State | None, list[str]]:
        """Return `now` with the change from `before` to `after` reverted, and messages about what has to stay."""


@runtime_checkable
class FollowsSource(Protocol):
    """A resource whose state a source outside this node decides. An undo applies the source's present state."""

    def state_from_source(self) -> State | None:
        """Return the state that an undo has to apply."""


@runtime_checkable
class MayBeUnwritable(Protocol):
    """A resource that a node needs only after the next boot or restart. It is skipped if it can't be written."""

    def unwritable_paths(self, spec: NodeSpec) -> list[str]:
        """Return the paths that `spec` needs and that can't be written on this host."""


@runtime_checkable
class MayBeNeeded(Protocol):
    """A resource that other things on the host may need after cnictl made it."""

    def needed_by(self) -> str:
        """Return the message that says what needs it; empty if nothing does."""


class Batch(Protocol):
    """A group of resources of one kind whose changes are carried out together."""

    def carry_out(self, changes: Sequence[Change]) -> dict[str, Problem]:
        """Make as many of the changes as possible; return the failures by resource."""


@runtime_checkable
class Batched(Protocol):
    """A resource whose changes are carried out together with those of its neighbours in the plan."""

    @property
    def batch(self) -> Batch:
        """The batch, which is the same object for all resources that belong together."""


@dataclass(frozen=True)
class Step:
    """One resource in a plan, with its change."""

    resource: Resource
    state: State | None
    """The observed state."""
    summary: str
    change: Change | None
    unknown: str = ""
    """Why the present or the desired state can't be read; empty if both can."""
    hint: str = ""
    """The hint for `unknown`."""


@dataclass(frozen=True)
class Plan:
    """Every resource with its difference, in the order in which changes are made."""

    steps: tuple[Step, ...]

    @property
    def changes(self) -> tuple[Change, ...]:
        """The differences."""
        return tuple(step.change for step in self.steps if step.change is not None)

    @property
    def changed(self) -> tuple[Step, ...]:
        """The steps that have a difference."""
        return tuple(step for step in self.steps if step.change is not None)

    @property
    def unknown(self) -> tuple[Step, ...]:
        """The steps whose resource can't be read."""
        return tuple(step for step in self.steps if step.unknown)

    def refuse_unknown(self) -> None:
        """Raise Problem if a resource can't be read."""
        if self.unknown:
            words = dict.fromkeys(f"{step.resource.id} can't be read: {step.unknown}" for step in self.unknown)
            raise Problem("; ".join(words), self.unknown[0].hint)


CHANGED = "changed"
OnStep = Callable[[Change, str], None]
"""Called after each step with its outcome: `CHANGED`, or the journal's `FAILED` or `UNDONE`."""

_STOPPING = (signal.SIGINT, signal.SIGTERM)
_FAILURES = (Problem, OSError)


def plan(resources: Sequence[Resource], spec: NodeSpec) -> Plan:
    """Return every difference between the host and `spec`, in the order of `resources`. Changes nothing."""
    return Plan(tuple(step for resource in resources for step in _compared(resource, partial(resource.desired, spec))))


def plan_removal(resources: Sequence[Resource]) -> Plan:
    """Return the changes that restore the host as it was before cnictl, in the order given. Changes nothing."""
    steps = [step for resource in resources for step in _compared(resource, partial(state_after_reset, resource))]
    return Plan(tuple(step for step in steps if step.change is not None or step.unknown))


def state_after_reset(resource: Resource) -> State | None:
    """Return the state that a reset leaves a resource in."""
    return resource.state_after_reset() if isinstance(resource, RestoredByReset) else None


def remember(todo: Plan) -> None:
    """Record the original state of everything in the plan, even of what only a later run may change."""
    remembering = {kind for kind in {type(step.resource) for step in todo.steps} if issubclass(kind, KeepsOriginal)}
    for step in todo.steps:
        if type(step.resource) in remembering and not step.unknown:
            cast(KeepsOriginal, step.resource).remember()


def joined(*plans: Plan) -> Plan:
    """Return several plans as one, in this order."""
    return Plan(tuple(step for part in plans for step in part.steps))


def _compared(resource: Resource, wanted: Callable[[], State | None]) -> list[Step]:
    """Compare a resource with its desired state. If it can't be read, the step reports that."""
    try:
        return list(_compare(resource, wanted()))
    except _FAILURES as error:
        reason = _reason(error)
        return [Step(resource, None, f"read {resource.id}", None, reason.message, reason.hint)]


def _compare(resource: Resource, after: State | None) -> Iterator[Step]:
    before = resource.observe()
    if before == after:
        if after is not None:
            summary, _ = resource.describe(None, after)
            yield Step(resource, before, summary, None)
        return
    summary, command = resource.describe(before, after)
    yield Step(resource, before, summary, Change(resource.id, before, after, summary, command))


Done = list[tuple[Resource, Change]]
"""The changes that a run has made so far, in order."""


def apply(todo: Plan, on_step: OnStep, journal: Journal, done: Done | None = None) -> Done:
    """Make the plan's changes, then check that the host is as planned.

    Each change is journalled before it is made. On a failure all changes of this run are undone, last first, including
    those in `done` from an earlier part of it, and the failure is raised as Problem. The caller holds `exclusive`.
    """
    done = [] if done is None else done
    try:
        for group in _groups(todo):
            for problem in _carry_out(group, done, on_step, journal):
                raise problem
        _verify(done)
    except BaseException as failure:
        left = undo(done, on_step, journal)
        if isinstance(failure, Problem) and left:
            raise Problem(f"{failure.message}; undoing failed too: {'; '.join(left)}", failure.hint) from None
        raise
    return done


def repair(todo: Plan, on_step: OnStep, journal: Journal) -> None:
    """Make as many of the plan's changes as possible, for repairs and undos: a failure does not stop the others.

    For example, at boot a peer whose link is late must not keep the node from getting its bridge. Closes the journal;
    raises Problem that names every failure. The caller holds `exclusive`.
    """
    done: Done = []
    problems: list[Problem] = []
    for group in _groups(todo):
        problems += _carry_out(group, done, on_step, journal, keep_parts=False)
    for check in (todo.refuse_unknown, partial(_verify, done)):
        try:
            check()
        except Problem as problem:
            problems.append(problem)
    journal.end(FAILED if problems else DONE)
    if problems:
        raise Problem("; ".join(problem.message for problem in problems), problems[0].hint)


_Group = list[tuple[Resource, Change]]


def _groups(todo: Plan) -> Iterator[_Group]:
    """Yield the plan's changes in order; neighbours that are carried out together form one group."""
    pairs = [(step.resource, step.change) for step in todo.steps if step.change is not None]
    return _grouped(pairs)


def _grouped(pairs: Iterable[tuple[Resource, Change]]) -> Iterator[_Group]:
    for _, group in itertools.groupby(pairs, lambda pair: id(_batch_of(pair[0]) or pair[0])):
        yield list(group)


def _batch_of(resource: Resource) -> Batch | None:
    return resource.batch if isinstance(resource, Batched) else None


def _carry_out(group: _Group, done: Done, on_step: OnStep, journal: Journal, keep_parts: bool = True) -> list[Problem]:
    """Journal a group's changes, make them, and return the failures; changes that were made are added to `done`.

    `keep_parts`: a failed change that was made in part is added too. An exception that is not a step's failure, such as
    an interruption, is raised.
    """
    journal.begin_all(
        Entry(change.resource, change.before, change.after, change.command, change.summary, change.repair)
        for _, change in group
    )
    failures = _failures(group, done, on_step, journal)
    problems = []
    for resource, change in group:
        failure = failures.get(change.resource)
        if failure is None:
            done.append((resource, change))
            on_step(change, CHANGED)
            continue
        journal.failed(change.resource)
        on_step(change, FAILED)
        if keep_parts and _differs(resource, change.before):
            done.append((resource, change))
        problems.append(_problem(failure, change.summary))
    return problems


def _failures(group: _Group, done: Done, on_step: OnStep, journal: Journal) -> dict[str, Problem | OSError]:
    batch = _batch_of(group[0][0])
    try:
        if batch is not None:
            return dict(batch.carry_out([change for _, change in group]))
        group[0][0].carry_out(group[0][1])
    except _FAILURES as failure:
        return {change.resource: failure for _, change in group}
    except BaseException:
        for resource, change in group:
            journal.failed(change.resource)
            on_step(change, FAILED)
            if _differs(resource, change.before):
                done.append((resource, change))  # it was made in part
        raise
    return {}


def _differs(resource: Resource, state: State | None) -> bool:
    """Return whether the resource's state differs from this one; True if it can't be read."""
    try:
        return resource.observe() != state
    except _FAILURES:
        return True


def _problem(error: BaseException, summary: str) -> Problem:
    reason = _reason(error)
    return Problem(f"{summary}: {reason.message}", reason.hint)


def _reason(error: BaseException) -> Problem:
    if isinstance(error, OSError) and error.strerror:
        return Problem(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
    return error if isinstance(error, Problem) else Problem(str(error))


@reading.cached_pass()
def _verify(done: Done) -> None:
    for resource, change in done:
        now = resource.observe()
        if now != change.after:
            raise Problem(
                f"{change.summary}: done, but {resource.id} is now {now}, not {change.after}",
                "another program undid it; `nft monitor` and `ip monitor` show who changes what",
            )


def undo(done: Done, on_step: OnStep, journal: Journal) -> list[str]:
    """Undo changes, last first, and close the journal. A failure does not stop the rest.

    Returns in words what could not be undone.
    """
    left: list[str] = []
    made = {change.resource: change for _, change in done}

    def tell(back: Change, outcome: str) -> None:
        if outcome == CHANGED:
            on_step(made[back.resource], UNDONE)

    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)  # a second Ctrl-C must not leave half of it
    try:
        # one group after the other: how a change is undone may depend on what was undone before it
        for group in _grouped(_reversed(resource, change) for resource, change in reversed(done)):
            problems = _carry_out(group, [], tell, journal, keep_parts=False)
            left += [problem.message for problem in problems]
        journal.end(FAILED if left else UNDONE)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    return left


def _reversed(resource: Resource, change: Change) -> tuple[Resource, Change]:
    summary, command = resource.describe(change.after, change.before)
    return resource, Change(change.resource, change.after, change.before, summary, command, change.repair)
