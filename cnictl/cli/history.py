"""`cnictl history` and `cnictl undo`: what runs changed on this host, and taking one back."""

import shlex
import time
from typing import Annotated, Any

import typer

from cnictl.cli import asking, differences
from cnictl.cli.asking import YesOption
from cnictl.cli.output import Format, OutputOption, print_json, print_table, say, working
from cnictl.cli.steps import (
    DryRunOption,
    ExitCodeOption,
    How,
    NoWaitOption,
    Steps,
    alone,
    require_root,
    show_plan,
    show_run,
)
from cnictl.core.errors import Problem
from cnictl.node.resources.inventory import CONF_KIND, kind
from cnictl.node.runs import confirm_guard, revert
from cnictl.node.runs import history as past
from cnictl.node.runs.history import Undo
from cnictl.node.state import pending, run_lock
from cnictl.node.state.journal import Run


def history(
    run: Annotated[int | None, typer.Argument(metavar="[RUN]", help="A run's number: show its changes.")] = None,
    limit: Annotated[int, typer.Option(help="How many runs to list, latest first.")] = 20,
    output: OutputOption = Format.TABLE,
) -> None:
    """List the runs that changed this host, latest first; of one run, show each change, and how it is typed by hand.

    A repair brought back what was missing of the node, and changed nothing of what it should be: by `watch`,
    `doctor --fix`, or an `apply` that met drift, as at boot.

    Every change was noted before it was made, so that a run cut off by a power failure is here too: `cnictl apply`
    goes on from where it was, `cnictl undo` takes it back. A reset forgets the runs with all else.

    \b
    cnictl history
    cnictl history 7
    cnictl history -o json | jq '.runs[] | select(.outcome != "done")'
    """
    require_root("history", "reads /var/lib/cnictl/journal")
    if run is None:
        _list(past.runs()[:limit], output)
    else:
        _show(past.find(run), output)


def _list(runs: list[Run], output: Format) -> None:
    rows = [_row(run) for run in runs]
    if output is Format.JSON:
        print_json({"runs": rows})
        return
    if not rows:
        say("no run has changed this host since it has been set up, or reset")
        return
    columns = ("run", "time", "command", "kind", "outcome", "changes")
    print_table(columns, [tuple(str(row[column]) for column in columns) for row in rows])


def _row(run: Run) -> dict[str, Any]:
    return {
        "run": run.number,
        "time": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run.time)),
        "command": run.command,
        "kind": "repair" if run.is_repair else "undo" if run.undoes else "change",
        "repair": run.is_repair,
        "outcome": _outcome(run),
        "changes": len(revert.traces(run)),
        "words": shlex.join(["cnictl", *run.argv]),
        "user": run.user,
        "undoes": run.undoes or None,
        "taken_back_by": run.taken_back or None,
        "left": run.left,
        "ignored": run.ignored,
    }


def _outcome(run: Run) -> str:
    waiting = pending.read()
    if waiting is not None and waiting.run == run.number and run.end:
        return f"to be confirmed: {max(0.0, waiting.left()):.0f} s left"
    return past.outcome(run, at_work=run_lock.is_held())


def _show(run: Run, output: Format) -> None:
    row = _row(run)
    if output is Format.JSON:
        changes = [
            {"resource": one.resource, "summary": one.summary, "before": one.before, "after": one.after,
             "command": one.command, "repair": one.repair or run.is_repair}
            for one in run.entries
        ]  # fmt: skip
        print_json({**row, "changes": changes})
        return
    print_table(("", ""), [(key, str(row[key])) for key in ("run", "time", "words", "user", "kind", "outcome")])
    if run.ignored:
        say(f"ignored preflight checks: {', '.join(run.ignored)}")
    lines = []
    for one in run.entries:
        lines.append(("~", f"{'repair: ' if one.repair or run.is_repair else ''}{one.summary}"))
        lines += differences.of_change(one.before, one.after, one.command)
    differences.write(lines)
    for note in run.left:
        say(f"left: {note}")


def undo(
    run: Annotated[
        int | None, typer.Argument(metavar="[RUN]", help="As `cnictl history` numbers it. Default: the last one.")
    ] = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    exit_code: ExitCodeOption = False,
    no_wait: NoWaitOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Take a run back: everything it changed returns to what it was before, node.toml too, and nothing else does.

    Each thing is compared with what the run made of it. What somebody changed since is left, and so is what pods
    stand on by now; each is named, and exit status 1 says that not all is back. Rules, routes and addresses of
    others are never touched: there is no image that is put back. Done twice, the second finds nothing to do. A run
    that was cut off is taken back the same way, and an undo too, by its number.

    Without a number it is an operator's last run, never a repair; what the run repaired besides stays repaired. A
    repair is taken back by its number alone: the fault that it repaired is back then. First it says which run that
    is and what is taken back, and at a terminal it asks.

    \b
    cnictl undo --dry-run
    cnictl undo
    cnictl undo 7
    """
    how = How(dry_run, exit_code, False, no_wait).check()
    require_root("undo", "changes the host's network")
    shown = past.plan_undo(past.find(run) if run is not None else past.latest_to_undo())
    _announce(shown, run is None)
    if dry_run:
        _preview(shown, exit_code, output)
        return
    asking.show(f"takes back: {change.summary}" for change in shown.plan.changes)
    asked = asking.asks(yes) and bool(shown.plan.changes)
    if asked:
        _tell(shown)
        asking.confirm(f"Take run {shown.run.number} back?")
    with alone(how, resume=False):
        chosen = past.find(run) if run is not None else past.latest_to_undo()
        if chosen.number != shown.run.number and asked:
            raise Problem(
                f"run {chosen.number} ({chosen.command}) came meanwhile; nothing was changed", "cnictl history"
            )
        waiting = pending.read()
        if waiting is not None and waiting.run != chosen.number:
            raise Problem(
                f"run {waiting.run} ({waiting.command}) waits to be confirmed",
                f"first cnictl confirm, or cnictl undo {waiting.run}",
            )
        steps, todo = Steps(), past.plan_undo(chosen)
        if chosen.number != shown.run.number:
            _announce(todo, run is None)
        if asked:
            asking.refuse_unshown(shown.plan, todo.plan)
        try:
            with working("looking at this host") as tell:
                past.carry_out(todo, f"undo {chosen.number}", steps.following(todo.plan, tell))
        except Problem as problem:
            show_run(todo.plan, steps, output, error=problem.message, left=list(todo.left))
            raise
        if waiting is not None:
            pending.disarm()
            confirm_guard.stop_timer()
    if todo.in_effect is not None:
        say(
            "/etc/cnictl/node.toml still asks for what this run made: unless you edit it, `cnictl apply` makes it again"
        )
    nothing = f"run {chosen.number} ({chosen.command}): nothing of it is left to take back"
    more = {"undone_run": chosen.number, "undone": _row(todo.run), "stays": list(todo.kept), "left": list(todo.left)}
    show_run(todo.plan, steps, output, nothing=nothing, **more)
    _tell(todo)
    if todo.left:
        raise typer.Exit(1)


def _announce(todo: Undo, chosen_by_itself: bool) -> None:
    """Say which run an undo is about, and what of it is not."""
    row = _row(todo.run)
    say(f"run {row['run']}: {row['words']} ({row['time']}, by {row['user'] or 'root'})")
    if chosen_by_itself and (repairs := past.passed_over(todo.run)):
        named = ", ".join(f"{one.number} ({one.command})" for one in repairs[:5])
        more = f" and {len(repairs) - 5} more" if repairs[5:] else ""
        say(f"repairs since then stay, and are none of an operator's runs: {named}{more}")
    if todo.run.is_repair:
        say(
            f"run {row['run']} only repaired this node: the fault is back without it, until `cnictl apply`, "
            "`cnictl watch` or the next boot repairs it again"
        )
    for note in todo.kept:
        say(f"stays: {note}")


def _preview(todo: Undo, exit_code: bool, output: Format) -> None:
    _tell(todo)
    more = {"undone_run": todo.run.number, "undone": _row(todo.run), "stays": list(todo.kept), "left": list(todo.left)}
    show_plan(todo.plan, output, exit_code, **more)


def _tell(todo: Undo) -> None:
    for note in todo.left:
        say(f"left: {note}")
    conf_goes = any(
        kind(step.resource) == CONF_KIND and step.change is not None and step.change.after is None
        for step in todo.plan.steps
    )
    if conf_goes and todo.left:
        say("runtimes with a CRI end pods only while there is a CNI conf: until one is there, they wait in Terminating")
    if todo.left and todo.spec is None:
        say("what is left belongs to no node file any more: `cnictl reset-node` removes it, once the pods are gone")
