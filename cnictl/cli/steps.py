"""How a plan and a run are shown: what would be typed by hand, and a table of what was done."""

import contextlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Self

import typer

from cnictl.cli import asking, differences
from cnictl.cli.differences import compact as compact
from cnictl.cli.output import Format, print_json, print_table, say, working
from cnictl.core.errors import Problem, UsageProblem
from cnictl.node import spine
from cnictl.node.host import host_links
from cnictl.node.runs import confirm_guard, converge, history, live_pods
from cnictl.node.runs.live_pods import AttachedPod
from cnictl.node.spec import addressing, peers
from cnictl.node.spec.node_spec import NodeSpec
from cnictl.node.spine import Change, OnStep, Plan
from cnictl.node.state import journal, original_state, pending, run_lock
from cnictl.node.state.journal import UNDONE, Journal
from cnictl.node.state.run_lock import RUN_LOCK_WAIT
from cnictl.views import network_views

DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Change nothing: show each difference and the command for it by hand.")
]
ExitCodeOption = Annotated[
    bool, typer.Option("--exit-code", help="With --dry-run: exit status 0 if nothing would change, 1 if anything.")
]
NoWaitOption = Annotated[
    bool, typer.Option("--no-wait", help="Fail at once if another cnictl command is changing this node.")
]
ConfirmOption = Annotated[
    int | None,
    typer.Option(
        "--confirm-within",
        metavar="SECONDS",
        min=1,
        max=86400,
        help="Take everything back by itself after so many seconds, unless `cnictl confirm` comes before.",
    ),
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Go on although live pods lose their network; their attachments are deleted.")
]


class Steps:
    """A run's steps and their outcomes, in order."""

    def __init__(self) -> None:
        self._outcomes: dict[str, str] = {}

    @property
    def reached(self) -> bool:
        """Whether any step was begun: a run that was refused has nothing to show."""
        return bool(self._outcomes)

    def note(self, change: Change, outcome: str) -> None:
        """Take a step's outcome; the spine calls it."""
        self._outcomes[change.resource] = outcome

    def following(self, plan: Plan, tell: Callable[[str], None]) -> OnStep:
        """`note` for a run of `plan` that also tells the step that is at work."""
        ahead = list(plan.changes)
        count = len(ahead)

        def tell_next() -> None:
            if ahead:
                tell(f"{count - len(ahead) + 1} of {count}: {ahead[0].summary}")

        def note(change: Change, outcome: str) -> None:
            self.note(change, outcome)
            if outcome == "undone":
                tell(f"taken back: {change.summary}")
                return
            ahead[:] = [one for one in ahead if one.resource != change.resource]
            tell_next()

        tell_next()
        return note

    def rows(self, plan: Plan) -> list[dict[str, Any]]:
        """Each step as JSON values."""
        found = []
        for step in plan.steps:
            change = step.change
            outcome = "already so" if change is None else self._outcomes.get(change.resource, "not reached")
            if step.unknown:
                outcome = "not known"
            row: dict[str, Any] = {"resource": step.resource.id, "outcome": outcome, "summary": step.summary}
            if change is not None:
                row |= {"before": change.before, "after": change.after, "command": change.command}
            found.append(row)
        return found


def require_root(command: str, why: str) -> None:
    """Raise Problem unless this process is root (in its user namespace)."""
    if os.geteuid() != 0:
        raise Problem(f"cnictl {command} needs root: it {why}", f"sudo cnictl {command}")


_NOTHING = "nothing to change: the node is as it should be"


def show_run(plan: Plan, steps: Steps, output: Format, nothing: str = _NOTHING, **more: Any) -> None:
    """The table of a run, or its JSON; `nothing` is said where there was nothing to do."""
    rows = steps.rows(plan)
    refused = "error" in more and not steps.reached
    changed = sum(row["outcome"] == "changed" for row in rows)
    if output is Format.JSON:
        print_json({"changed": changed, "steps": rows, **more})
        return
    if rows and not refused:
        print_table(("step", "outcome"), [(row["summary"], row["outcome"]) for row in rows])
    if not plan.changes and not plan.unknown:
        say(nothing)


def show_plan(plan: Plan, output: Format, exit_code: bool = False, **more: Any) -> None:
    """What a run would change, with the commands that do the same by hand; exit status 1 if asked for and any."""
    steps = Steps()
    for change in plan.changes:
        steps.note(change, "would change")
    if output is Format.JSON:
        print_json({"would_change": len(plan.changes), "steps": steps.rows(plan), **more})
    else:
        differences.show(plan.steps)
        for pod in more.get("pods_cut_off", ()):
            say(f"would delete the attachment of {pod}")
        if not plan.changes and not plan.unknown:
            say("nothing would change: the node is as it should be")
    plan.refuse_unknown()
    if exit_code and plan.changes:
        raise typer.Exit(1)


@dataclass(frozen=True)
class How:
    """How a command is to go about its run: what the options say that all of them share."""

    dry_run: bool = False
    exit_code: bool = False
    force: bool = False
    no_wait: bool = False
    confirm_within: int | None = None
    yes: bool = False

    def check(self) -> Self:
        """Raises UsageProblem for options that exclude each other."""
        if self.exit_code and not self.dry_run:
            raise UsageProblem("--exit-code goes with --dry-run: a run's own exit status says whether it failed")
        return self


def patience(no_wait: bool) -> float:
    """Seconds to wait for another command to end."""
    return 0.0 if no_wait else RUN_LOCK_WAIT


@contextlib.contextmanager
def alone(how: How, resume: bool = True) -> Iterator[bool]:
    """Hold the node for one run, and see first to what a run before it left; gives whether one was cut off.

    With `resume`, an undo that was cut off is finished. Of any other run this says that it goes on from there:
    whatever is within has to make the whole node so then. Raises Problem if another command holds it for too long, or
    at all with --no-wait.
    """
    with run_lock.exclusive(patience(how.no_wait), say):
        if not resume:
            yield False
            return
        told, cut_off = history.resume()
        for line in told:
            say(line)
        yield bool(cut_off)
        for run in cut_off:
            if journal.read(run.number):
                journal.append(run.number, {"end": journal.FINISHED})


def edit_node(
    command: str,
    edit: Callable[[NodeSpec], NodeSpec],
    only: Collection[str],
    how: How,
    output: Format,
    start: NodeSpec | None = None,
    question: str = "",
    reapplies: bool = False,
) -> None:
    """Change this node's spec, and make just those kinds of resources so.

    `start` is the spec to edit; by default that of this node. After a run that was cut off, every kind is seen to.
    `question` is asked at a terminal once it is shown what is about to change. `reapplies`: nothing is edited.
    """
    how.check()
    shown = None
    if question and not how.dry_run and asking.asks(how.yes):
        shown = _shown_first(addressing.check(edit(start or converge.current_spec())), only)
        if shown.changes:
            asking.confirm(question)
    with contextlib.nullcontext(False) if how.dry_run else alone(how) as was_cut_off:
        spec = addressing.check(edit(start or converge.current_spec()))
        peers.check_not_ours(spec.peers, host_links.own_interfaces())
        host_links.check_links(spec)
        pods = pods_in_the_way(command, spec, how.force)
        if how.dry_run:
            cut = [str(pod) for pod in pods]
            show_plan(converge.plan(spec, only, reapplies).whole, output, how.exit_code, pods_cut_off=cut)
            return
        only = () if was_cut_off else only
        if shown is not None:
            asking.refuse_unshown(shown, converge.plan(spec, only, reapplies).whole)
        run(command, spec, only, output, pods, how.confirm_within, reapplies=reapplies)


def _shown_first(spec: NodeSpec, only: Collection[str]) -> Plan:
    """Show what a run would change, and return it."""
    goes_on = any(not run.undoes for run in journal.unfinished())
    todo = converge.plan(spec, () if goes_on else only).whole
    asking.show(change.summary for change in todo.changes)
    return todo


def pods_in_the_way(command: str, spec: NodeSpec | None, force: bool) -> list[AttachedPod]:
    """Pods that would lose their network if this host became `spec`. Raises Problem unless `force`."""
    pods = live_pods.cut_off(converge.specs_in_place(), spec)
    if not force:
        live_pods.refuse(pods, f"cnictl {command}")
    return pods


def detach(pods: Iterable[AttachedPod], journal: Journal) -> None:
    """Delete these pods' attachments, and say so."""
    for pod in live_pods.detach_all(pods, journal):
        say(f"deleted the attachment of {pod}: its runtime has to start it anew")


def run(
    command: str,
    spec: NodeSpec,
    only: Collection[str],
    output: Format,
    pods: Iterable[AttachedPod] = (),
    confirm_within: int | None = None,
    ignored: Collection[str] = (),
    reapplies: bool = False,
    **more: Any,
) -> None:
    """Make the host as `spec` says and show how it went; raises Problem after showing. The caller holds the node.

    `pods` are detached first. With `confirm_within` all of it is undone after so many seconds, unless confirmed.
    `ignored`: preflight checks whose findings were accepted. `reapplies`: the node file is applied as it stands.
    """
    steps, move = Steps(), converge.plan(spec, only, reapplies)
    if not move.whole.changes:
        show_run(move.whole, steps, output, **more)
        move.whole.refuse_unknown()
        return
    refuse_while_unconfirmed(spec, reapplies)
    journal = converge.journal_of(move, command, ignored)
    try:
        with guarded(journal, confirm_within):
            detach(pods, journal)
            with working("looking at this host") as tell:
                further = converge.establish(move, steps.following(move.whole, tell), journal)
    except (Problem, KeyboardInterrupt) as failure:
        error = failure.message if isinstance(failure, Problem) else "interrupted"
        show_run(move.whole, steps, output, error=error, **more)
        raise
    if confirm_within:
        more |= {"run": journal.number, "confirm_within": confirm_within}
    show_run(spine.joined(move.whole, spine.Plan(further.changed)), steps, output, **more)
    tell_larger_pods(spec, move.whole)


def tell_larger_pods(spec: NodeSpec, done: Plan) -> None:
    """Name the pods that a run which lowered the bridge's MTU leaves with a larger one."""
    for change in done.changes:
        if change.resource != f"bridge/{spec.bridge}" or not change.before or not change.after:
            continue
        if change.before["mtu"] > change.after["mtu"]:
            pods = network_views.larger_pods(spec)
            if pods:
                say(
                    f"pods' MTU is {change.after['mtu']} now; restart those that run with a larger one: "
                    f"{', '.join(pods[:10])}{f' and {len(pods) - 10} more' if pods[10:] else ''}"
                )


def refuse_while_unconfirmed(spec: NodeSpec | None, reapplies: bool = False) -> None:
    """Raise Problem while a run waits to be confirmed: taking it back would meet what was made on top of it.

    To mend what drifted from the spec in effect is no new thing.
    """
    waiting = pending.read()
    if waiting is None or (reapplies and original_state.specs()[-1:] == [spec]):
        return
    raise Problem(
        f"run {waiting.run} ({waiting.command}) waits to be confirmed, {max(0.0, waiting.left()):.0f} s more",
        "cnictl confirm keeps it, cnictl undo takes it back; then run this again",
    )


@contextlib.contextmanager
def guarded(journal: Journal, confirm_within: int | None) -> Iterator[None]:
    """Have what is done within undone by itself unless it is confirmed in time; without a time, just do it."""
    if not confirm_within:
        yield
        return

    pending.arm(journal.command, confirm_within)
    try:
        confirm_guard.start()
        yield
    except BaseException:
        if journal.outcome == UNDONE or not journal.number:
            pending.disarm()
        else:  # some of it stands
            _start_clock(confirm_within)
        raise
    _start_clock(confirm_within)


def _start_clock(seconds: int) -> None:
    waiting = pending.start_clock()
    confirm_guard.start_timer(seconds)
    say(f"run {waiting.run} is taken back in {seconds} s, unless you run: cnictl confirm")
