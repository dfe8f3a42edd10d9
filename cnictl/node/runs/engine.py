"""Run a command that changes this node: lock the node, finish runs that were cut off, plan, ask, carry out, report.

Nothing here prints: an `Operator` shows messages and asks questions.
"""

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from cnictl.core.errors import Problem
from cnictl.node import spine
from cnictl.node.resources import inventory
from cnictl.node.runs import confirm_guard, converge, edits, history, live_pods, reset
from cnictl.node.runs.history import Undo
from cnictl.node.runs.live_pods import AttachedPod
from cnictl.node.runs.reset import Reset
from cnictl.node.spec import addressing
from cnictl.node.spec.node_spec import NodeSpec, as_data
from cnictl.node.spine import Change, OnStep, Plan
from cnictl.node.state import journal, original_state, pending, run_lock
from cnictl.node.state.journal import DONE, UNDONE, Journal, Run
from cnictl.node.state.run_lock import RUN_LOCK_WAIT

_BRIDGE_KINDS = ("bridge", "address", "netfilter")
"""Kinds of resources that `bridge down` removes."""


@dataclass(frozen=True)
class Options:
    """The options that all commands which change the node have."""

    dry_run: bool = False
    """Change nothing."""
    force: bool = False
    """Continue although live pods lose their network."""
    no_wait: bool = False
    """Fail immediately if another command holds the node."""
    confirm_within: int | None = None
    """Seconds after which the run is undone, unless it is confirmed."""

    @property
    def patience(self) -> float:
        """Seconds to wait for another command to end."""
        return 0.0 if self.no_wait else RUN_LOCK_WAIT


@dataclass
class Report:
    """What a run was planned to do and what it has done."""

    plan: Plan
    outcomes: dict[str, str] = field(default_factory=dict)
    """The outcome by resource: changed, failed or undone; none for a step that was not reached."""
    error: str = ""
    """Why the run failed."""
    spec: NodeSpec | None = None
    """The node's spec after the run."""
    confirm_within: int = 0
    """Seconds within which the run has to be confirmed."""
    run: int = 0
    """The run's number; 0 if it changed nothing."""

    def follow(self, tell: Callable[[str], None]) -> OnStep:
        """Return a function that records the outcome of each step, and passes the next step to `tell`."""
        ahead = {change.resource: change.summary for change in self.plan.changes}
        count = len(ahead)

        def tell_next() -> None:
            if ahead:
                tell(f"{count - len(ahead) + 1} of {count}: {next(iter(ahead.values()))}")

        def note(change: Change, outcome: str) -> None:
            self.outcomes[change.resource] = outcome
            if outcome == UNDONE:
                tell(f"reverted: {change.summary}")
                return
            ahead.pop(change.resource, None)
            tell_next()

        tell_next()
        return note

    def rows(self) -> list[dict[str, Any]]:
        """Return each step as JSON values."""
        rows: list[dict[str, Any]] = []
        for step in self.plan.steps:
            outcome, details = "not known" if step.unknown else "unchanged", {}
            if change := step.change:
                outcome = self.outcomes.get(change.resource, "not reached")
                details = {"before": change.before, "after": change.after, "command": change.command}
            rows.append({"resource": step.resource.id, "outcome": outcome, "summary": step.summary, **details})
        return rows


class Operator(Protocol):
    """The person or program that runs a command."""

    def say(self, message: str) -> None:
        """Show a message."""

    def working(self, step: str) -> AbstractContextManager[Callable[[str], None]]:
        """Show the present step in this context; yield a function that shows the next one."""

    def can_ask(self) -> bool:
        """Return whether there is a person to approve a change before it is made."""

    def approve(self, lines: Iterable[str], question: str) -> None:
        """Show the changes and ask; raise the exception that ends the command if the answer is no."""

    def preview(self, plan: Plan, pods: Sequence[AttachedPod], refusal: str = "") -> None:
        """Show what a run would change, and which pods' attachments it would delete; `refusal`: why it is refused."""

    def report(self, done: Report) -> None:
        """Show what a run has done. If the run fails, this is called before its error is raised."""


@contextlib.contextmanager
def locked_run(options: Options, operator: Operator, resume: bool = True) -> Iterator[bool]:
    """Lock the node for one run, and yield whether the previous run was cut off.

    With `resume`, an undo that was cut off is finished first. After any other run that was cut off, the block must
    establish the whole node. A dry run locks nothing. Raises Problem if another command holds the node for too long.
    """
    if options.dry_run:
        yield False
        return
    with run_lock.exclusive(options.patience, operator.say):
        if not resume:
            yield False
            return
        lines, cut_off = history.resume()
        for line in lines:
            operator.say(line)
        yield bool(cut_off)
        for run in cut_off:
            if journal.read(run.number):
                journal.append(run.number, {"end": journal.FINISHED})


def edit_node(
    command: str,
    edit: Callable[[NodeSpec], NodeSpec],
    only: Collection[str],
    options: Options,
    operator: Operator,
    start: NodeSpec | None = None,
    question: str = "",
    reapplies: bool = False,
) -> None:
    """Change this node's spec, and establish the kinds of resources in `only`.

    `start` is the spec to edit, by default that of this node. After a run that was cut off, every kind is established.
    `question` is asked after the changes are shown. `reapplies`: nothing is edited. Raises Problem, UsageProblem.
    """

    def edited() -> NodeSpec:
        return addressing.check(edit(start or converge.current_spec()))

    shown = None
    if question and not options.dry_run and operator.can_ask():
        goes_on = any(not run.undoes for run in journal.unfinished())
        shown = converge.plan(edited(), () if goes_on else only).whole
        if shown.changes:
            operator.approve((change.summary for change in shown.changes), question)
    with locked_run(options, operator) as was_cut_off:
        spec = edited()
        edits.check_links(spec)
        pods = pods_in_the_way(command, converge.specs_in_place(), spec, options)
        if options.dry_run:
            preview(command, converge.plan(spec, only, reapplies).whole, pods, options, operator)
            return
        only = () if was_cut_off else only
        if shown is not None:
            refuse_unshown(shown, converge.plan(spec, only, reapplies).whole)
        establish(command, spec, only, options, operator, pods, reapplies=reapplies)


def establish(
    command: str,
    spec: NodeSpec,
    only: Collection[str],
    options: Options,
    operator: Operator,
    pods: Sequence[AttachedPod] = (),
    ignored: Collection[str] = (),
    reapplies: bool = False,
) -> None:
    """Make the host match `spec`, and report the run. The caller holds the node. Raises Problem.

    `pods` are detached first. `ignored`: preflight checks whose findings were accepted. `reapplies`: the node file is
    applied unedited.
    """
    node_change = converge.plan(spec, only, reapplies)
    if not node_change.whole.changes:
        operator.report(Report(node_change.whole, spec=spec))
        node_change.whole.refuse_unknown()
        return
    record = converge.journal_of(node_change, command, ignored)

    def work(on_step: OnStep) -> Plan:
        further = converge.establish(node_change, on_step, record)
        return spine.joined(node_change.whole, Plan(further.changed))

    _carry_out(Report(node_change.whole, spec=spec), work, record, options, operator, pods, reapplies)


def take_bridge_down(options: Options, operator: Operator) -> None:
    """Remove the pods' bridge; the node's spec stays. Raises Problem."""
    spec = converge.current_spec()
    made = inventory.resources(spec, converge.specs_in_place())
    removed = [resource for resource in reversed(made) if inventory.kind(resource) in _BRIDGE_KINDS]

    def present() -> tuple[list[AttachedPod], Plan]:
        return pods_in_the_way("bridge down", [spec], None, options), spine.plan_removal(removed)

    shown = None
    if not options.dry_run and operator.can_ask():
        shown = present()
        if shown[1].changes:
            lines = [f"delete the attachment of {pod}" for pod in shown[0]]
            operator.approve([*lines, *(change.summary for change in shown[1].changes)], f"Take {spec.bridge} down?")
    with locked_run(options, operator):
        pods, todo = present()
        if shown is not None:
            refuse_unshown(shown[1], todo, shown[0], pods)
        if options.dry_run:
            preview("bridge down", todo, pods, options, operator)
            return
        todo.refuse_unknown()
        record = Journal("bridge down", {"spec": as_data(spec)})

        def work(on_step: OnStep) -> Plan:
            removal = spine.plan_removal(removed)  # plan again: pods' ports have been removed
            spine.apply(removal, on_step, record)
            record.end(DONE)
            return removal

        _carry_out(Report(todo, spec=spec), work, record, options, operator, pods)


def undo_run(
    shown: Undo,
    number: int | None,
    approved: bool,
    options: Options,
    operator: Operator,
    announce: Callable[[Undo], None],
) -> tuple[Undo, Report]:
    """Undo the run that was `shown`, and return the undo with its report. Raises Problem.

    Without `number` it undoes the latest run that can be undone, and calls `announce` if that is not the one shown.
    `approved`: the operator approved what was shown, so nothing else may be done.
    """
    with locked_run(options, operator, resume=False):
        chosen = run_to_undo(number)
        is_another = chosen.number != shown.run.number
        if is_another and approved:
            raise Problem(
                f"run {chosen.number} ({chosen.command}) has been made since; nothing was changed", "cnictl history"
            )
        waiting = pending.read()
        if waiting is not None and waiting.run != chosen.number:
            raise Problem(
                f"run {waiting.run} ({waiting.command}) waits to be confirmed",
                f"first cnictl confirm, or cnictl undo {waiting.run}",
            )
        todo = history.plan_undo(chosen)
        if is_another:
            announce(todo)
        if approved:
            refuse_unshown(shown.plan, todo.plan)
        report = Report(todo.plan)
        with _reported(report, operator), operator.working("inspecting this host") as tell:
            history.carry_out(todo, f"undo {chosen.number}", report.follow(tell))
        if waiting is not None:
            pending.disarm()
            confirm_guard.stop_timer()
    return todo, report


def refuse_reset(todo: Reset, options: Options, operator: Operator) -> None:
    """Raise Problem, and report it, if a reset can't be done."""
    with _reported(Report(todo.whole), operator):
        reset.refuse(todo, options.force)


def reset_node(
    shown: Reset | None, options: Options, operator: Operator, on_pod: Callable[[AttachedPod], None]
) -> tuple[Reset, Report]:
    """Reset this host; `on_pod` is called for each attachment that is deleted. Raises Problem.

    `shown` is what the operator approved, so nothing else may be done; None if nobody was asked.
    """

    def check(now: Reset) -> None:
        if shown is not None:
            refuse_unshown(shown.whole, now.whole, shown.pods, now.pods)

    with locked_run(options, operator):
        report = Report(reset.plan().whole)
        with _reported(report, operator), operator.working("inspecting this host") as tell:
            done = reset.carry_out(options.force, report.follow(tell), on_pod, check)
        report.plan = done.whole
    return done, report


def run_to_undo(number: int | None) -> Run:
    """Return the run of that number, or the latest one that can be undone. Raises Problem if there is none."""
    return history.find(number) if number is not None else history.latest_to_undo()


def pods_in_the_way(
    command: str, before: Sequence[NodeSpec], after: NodeSpec | None, options: Options
) -> list[AttachedPod]:
    """Return the pods that would lose their network if this host became `after`.

    Raises Problem unless the run is forced, or is a dry run, which `preview` refuses.
    """
    pods = live_pods.cut_off(before, after)
    if not options.force and not options.dry_run:
        live_pods.refuse(pods, f"cnictl {command}")
    return pods


def preview(command: str, plan: Plan, pods: Sequence[AttachedPod], options: Options, operator: Operator) -> None:
    """Show what a run would change. Raises Problem afterwards if the run itself would be refused because of `pods`."""
    if not pods or options.force:
        operator.preview(plan, pods)
        return
    refusal = live_pods.refusal(pods, f"cnictl {command}")
    operator.preview(plan, pods, refusal.message)
    raise refusal


def refuse_unshown(
    shown: Plan, now: Plan, pods_shown: Iterable[AttachedPod] = (), pods_now: Iterable[AttachedPod] = ()
) -> None:
    """Raise Problem if there are changes to make, or pods to detach, that the operator was not shown."""
    known = {change.resource: change for change in shown.changes}
    unshown = [change.summary for change in now.changes if known.get(change.resource) != change]
    names_shown = set(map(_name_of, pods_shown))
    unshown += [name for name in map(_name_of, pods_now) if name not in names_shown]
    if unshown:
        raise Problem(
            f"this host changed while cnictl waited for the answer ({'; '.join(unshown)}); nothing was changed",
            "run the command again",
        )


def _name_of(pod: AttachedPod) -> str:
    """Return a text that identifies a pod."""
    return f"{pod.network} {pod.container or pod.lost_port} {pod.ifname} {pod.name}".strip()


def _carry_out(
    report: Report,
    work: Callable[[OnStep], Plan],
    record: Journal,
    options: Options,
    operator: Operator,
    pods: Sequence[AttachedPod],
    reapplies: bool = False,
) -> None:
    """Detach `pods` and do `work`, which returns the plan that it carried out; report the run, even if it fails."""
    _refuse_while_unconfirmed(report.spec, reapplies)
    with _reported(report, operator), _guarded(record, options, operator):
        for pod in live_pods.detach_all(pods, record):
            operator.say(f"deleted the attachment of {pod}: its runtime has to create the pod again")
        with operator.working("inspecting this host") as tell:
            report.plan = work(report.follow(tell))
    report.confirm_within, report.run = options.confirm_within or 0, record.number
    operator.report(report)


@contextlib.contextmanager
def _reported(report: Report, operator: Operator) -> Iterator[None]:
    """If the block fails, report the run and raise the failure again."""
    try:
        yield
    except (Problem, KeyboardInterrupt) as failure:
        report.error = failure.message if isinstance(failure, Problem) else "interrupted"
        operator.report(report)
        raise


def _refuse_while_unconfirmed(spec: NodeSpec | None, reapplies: bool) -> None:
    """Raise Problem while a run waits to be confirmed, because its undo would collide with later changes.

    A repair of drift from the spec in effect is allowed.
    """
    waiting = pending.read()
    if waiting is None or (reapplies and original_state.specs()[-1:] == [spec]):
        return
    raise Problem(
        f"run {waiting.run} ({waiting.command}) waits to be confirmed for {max(0.0, waiting.left()):.0f} s more",
        "cnictl confirm keeps it, cnictl undo undoes it; then run this again",
    )


@contextlib.contextmanager
def _guarded(record: Journal, options: Options, operator: Operator) -> Iterator[None]:
    """Have the block's run undone unless it is confirmed in time; without `confirm_within`, do nothing."""
    seconds = options.confirm_within
    if not seconds:
        yield
        return

    def start_clock() -> None:
        waiting = pending.start_clock()
        confirm_guard.start_timer(seconds)
        operator.say(f"run {waiting.run} is undone in {seconds} s, unless you run: cnictl confirm")

    pending.arm(record.command, seconds)
    try:
        confirm_guard.start()
        yield
    except BaseException:
        if record.outcome == UNDONE or not record.number:
            pending.disarm()
        else:  # some of its changes are still in place
            start_clock()
        raise
    start_clock()
