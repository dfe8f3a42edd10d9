"""The spine: desired state → observe → diff → apply → verify → undo. Every command is a view of it."""

import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

from cnictl.core.errors import Problem
from cnictl.node.spec.node_spec import NodeSpec
from cnictl.node.state.journal import DONE, FAILED, UNDONE, Journal
from cnictl.node.state.run_lock import exclusive as exclusive

State = dict[str, Any]
"""What a resource is or should be: JSON values only, so that it is shown, compared and journalled as it is."""


@dataclass(frozen=True)
class Change:
    """One difference, as data: it is shown, journalled, carried out, and undone with before and after swapped."""

    resource: str
    before: State | None
    after: State | None
    summary: str
    """`add address 10.244.0.1/24 to cni0`"""
    command: str
    """`ip address add 10.244.0.1/24 dev cni0`: the manual command of the step, on several lines if it takes several."""
    repair: bool = False
    """Whether it brings back what the node was already set up to be, rather than moving the node."""


class Resource(Protocol):
    """One thing on the host that cnictl is responsible for."""

    @property
    def id(self) -> str:
        """`bridge/cni0`, `route/10.244.1.0/24`: what it is called in plans, journals and tables."""

    def observe(self) -> State | None:
        """What is there now; None if nothing."""

    def desired(self, spec: NodeSpec) -> State | None:
        """What should be there; None to have it removed."""

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:
        """The summary and the manual command of going from `before` to `after`."""

    def carry_out(self, change: Change) -> None:
        """Make `change.after` true. Raises Problem."""


@runtime_checkable
class Remembering(Protocol):
    """A resource that cnictl may find on the host rather than make."""

    def remember(self) -> None:
        """Keep what is there now as its former state, unless one is kept already; called before the first change."""


@runtime_checkable
class Restored(Protocol):
    """A resource of which something may stay when cnictl leaves the host: what was there before."""

    def former(self) -> State | None:
        """What the host should be left with; None for nothing."""


@runtime_checkable
class Parted(Protocol):
    """A resource that is several things under one name, such as files: an undo takes back those that are as left."""

    parted: bool
    """True."""


@runtime_checkable
class Merging(Protocol):
    """A resource that knows best how to take a change back where somebody has changed it again since."""

    def take_back(self, now: State, before: State | None, after: State | None) -> tuple[State | None, list[str]]:
        """`now` without what led from `before` to `after`, and in words what of that has to stay."""


@runtime_checkable
class Updating(Protocol):
    """A resource whose states have another form in an earlier release's journal."""

    def updated(self, state: State) -> State:
        """Return a state from a journal in this release's form."""


@runtime_checkable
class Skipping(Protocol):
    """A resource that a node works without until the next boot or restart: it is left out where it can't be written."""

    def skipped(self, spec: NodeSpec) -> list[str]:
        """Paths that `spec` asks for and that can't be written on this host."""


@runtime_checkable
class Carrying(Protocol):
    """A resource that others may come to stand on."""

    def carries(self) -> str:
        """What stands on it, in words; empty where nothing does."""


@dataclass(frozen=True)
class Step:
    """One resource in a plan: its change, or None where it is already so."""

    resource: Resource
    state: State | None
    """As observed."""
    summary: str
    change: Change | None
    unknown: str = ""
    """Why it can't be told what is there or should be; empty where it can."""
    hint: str = ""
    """What to do about that."""


@dataclass(frozen=True)
class Plan:
    """Every resource in the order it is worked through, and where it differs."""

    steps: tuple[Step, ...]

    @property
    def changes(self) -> tuple[Change, ...]:
        """The differences alone."""
        return tuple(step.change for step in self.steps if step.change is not None)

    @property
    def changed(self) -> "tuple[Step, ...]":
        """The steps that have a difference."""
        return tuple(step for step in self.steps if step.change is not None)

    @property
    def unknown(self) -> tuple[Step, ...]:
        """The steps of which nothing is known: what is wrong there, and what to change, can't be told."""
        return tuple(step for step in self.steps if step.unknown)

    def refuse_unknown(self) -> None:
        """Raise Problem if anything can't be looked at."""
        if self.unknown:
            words = dict.fromkeys(f"{step.resource.id} can't be looked at: {step.unknown}" for step in self.unknown)
            raise Problem("; ".join(words), self.unknown[0].hint)


CHANGED = "changed"
OnStep = Callable[[Change, str], None]
"""Called after each step with its outcome: `CHANGED`, or the journal's `FAILED` or `UNDONE`."""

_STOPPING = (signal.SIGINT, signal.SIGTERM)
_FAILURES = (Problem, OSError)


def plan(resources: Sequence[Resource], spec: NodeSpec) -> Plan:
    """Every difference between the host and what `spec` wants of `resources`, in their order; nothing is touched."""
    return Plan(tuple(step for resource in resources for step in _looked_at(resource, partial(resource.desired, spec))))


def plan_removal(resources: Sequence[Resource]) -> Plan:
    """What it takes to leave the host as it was before cnictl, in the order given; nothing is touched."""
    steps = [step for resource in resources for step in _looked_at(resource, partial(former_state, resource))]
    return Plan(tuple(step for step in steps if step.change is not None or step.unknown))


def former_state(resource: Resource) -> State | None:
    """What a reset leaves of a resource."""
    return resource.former() if isinstance(resource, Restored) else None


def remember(todo: Plan) -> None:
    """Keep the former state of everything in the plan, also of what is already so: it may be changed one day."""
    for step in todo.steps:
        if isinstance(step.resource, Remembering) and not step.unknown:
            step.resource.remember()


def joined(*plans: Plan) -> Plan:
    """Several plans as one, worked through in this order."""
    return Plan(tuple(step for part in plans for step in part.steps))


def _looked_at(resource: Resource, wanted: Callable[[], State | None]) -> list[Step]:
    """Compare a resource with what is wanted. One that can't be looked at is a step of its own, and costs no other."""
    try:
        return list(_compare(resource, wanted()))
    except _FAILURES as error:
        reason = _reason(error)
        return [Step(resource, None, f"look at {resource.id}", None, reason.message, reason.hint)]


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
"""What a run has made so far, in its order."""


def apply(todo: Plan, on_step: OnStep, journal: Journal, done: Done | None = None) -> Done:
    """Carry the plan's changes out, then look whether the host is as planned.

    Each change is journalled before it is made. On a failure this run's changes, those in `done` from an earlier
    part of it included, are undone, last first, and the failure is raised as Problem. The caller holds `exclusive`.
    """
    done = [] if done is None else done
    try:
        for step in todo.steps:
            if step.change is not None:
                _begin(journal, step.change)
                _carry_out(step.resource, step.change, done, on_step, journal)
                on_step(step.change, CHANGED)
        _verify(done)
    except BaseException as failure:
        left = undo(done, on_step, journal)
        if isinstance(failure, Problem) and left:
            raise Problem(f"{failure.message}; undoing failed too: {'; '.join(left)}", failure.hint) from None
        raise
    return done


def repair(todo: Plan, on_step: OnStep, journal: Journal) -> None:
    """Carry out all of the plan that can be, whatever fails of it: for a node that is to be what it was already.

    At boot one peer whose link is late must not cost the node its bridge. Closes the journal; raises Problem that
    names every failure. The caller holds `exclusive`.
    """
    done: Done = []
    problems: list[Problem] = []
    for step in todo.steps:
        if step.change is None:
            continue
        _begin(journal, step.change)
        try:
            _carry_out(step.resource, step.change, [], on_step, journal)
        except Problem as problem:
            problems.append(problem)
        else:
            done.append((step.resource, step.change))
            on_step(step.change, CHANGED)
    for look in (todo.refuse_unknown, partial(_verify, done)):
        try:
            look()
        except Problem as problem:
            problems.append(problem)
    journal.end(FAILED if problems else DONE)
    if problems:
        raise Problem("; ".join(problem.message for problem in problems), problems[0].hint)


def _begin(journal: Journal, change: Change) -> None:
    journal.begin(change.resource, change.before, change.after, change.command, change.summary, change.repair)


def _carry_out(resource: Resource, change: Change, done: Done, on_step: OnStep, journal: Journal) -> None:
    try:
        resource.carry_out(change)
    except BaseException as error:
        journal.failed(change.resource)
        on_step(change, FAILED)
        if _differs(resource, change.before):
            done.append((resource, change))  # it got part of the way
        if isinstance(error, _FAILURES):
            raise _problem(error, change.summary) from None
        raise
    done.append((resource, change))


def _differs(resource: Resource, state: State | None) -> bool:
    """Whether it is in another state now, as far as that can be seen."""
    try:
        return resource.observe() != state
    except _FAILURES:
        return True


def _problem(error: BaseException, summary: str) -> Problem:
    reason = _reason(error)
    return Problem(f"{summary}: {reason.message}", reason.hint)


def _reason(error: BaseException) -> Problem:
    return error if isinstance(error, Problem) else Problem(str(error))


def _verify(done: Done) -> None:
    for resource, change in done:
        now = resource.observe()
        if now != change.after:
            raise Problem(
                f"{change.summary}: done, but {resource.id} now is {now}, not {change.after}",
                "another program undid it; `nft monitor` and `ip monitor` name who changes what",
            )


def undo(done: Done, on_step: OnStep, journal: Journal) -> list[str]:
    """Take changes back, last first, and close the journal.

    What could not be taken back is returned, in words; the rest is still tried.
    """
    left = []
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)  # a second Ctrl-C must not leave half of it
    try:
        for resource, change in reversed(done):
            summary, command = resource.describe(change.after, change.before)
            back = Change(change.resource, change.after, change.before, summary, command, change.repair)
            _begin(journal, back)
            try:
                resource.carry_out(back)
            except _FAILURES as error:
                journal.failed(back.resource)
                left.append(_problem(error, summary).message)
            else:
                on_step(change, UNDONE)
        journal.end(FAILED if left else UNDONE)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    return left
