"""`cnictl history` and `cnictl undo`: show what runs changed on this host, and undo one."""

from typing import Annotated, Any

import typer

from cnictl.cli import asking, differences
from cnictl.cli.asking import YesOption
from cnictl.cli.options import DryRunOption, ExitCodeOption, NoWaitOption
from cnictl.cli.output import Format, OutputOption, print_items, print_json, print_table, say
from cnictl.cli.steps import Terminal, options_of, require_root
from cnictl.node.runs import engine
from cnictl.node.runs import history as past
from cnictl.node.runs.history import Undo
from cnictl.node.state.journal import Run
from cnictl.views import run_history


def history(
    run: Annotated[
        int | None, typer.Argument(metavar="[RUN]", help="Show the changes of the run with this number.")
    ] = None,
    limit: Annotated[int, typer.Option(metavar="COUNT", help="How many runs to list.")] = 20,
    output: OutputOption = Format.TABLE,
) -> None:
    """List the runs that changed this host, latest first, or show each change of one run with its manual command.

    A run is a change of the node, or a repair: `watch`, `doctor --fix` or an `apply` put back what was missing.

    Each change is noted before it is made, so a run that was cut off by a power failure is listed, too: `cnictl apply`
    finishes it, `cnictl undo` undoes it. `reset-node` deletes the history.

    \b
    cnictl history
    cnictl history 7
    cnictl history -o json | jq '.items[] | select(.outcome != "done")'
    """
    require_root("history", "reads /var/lib/cnictl/journal")
    if run is None:
        _list(past.runs()[:limit], output)
    else:
        _show(past.find(run), output)


def _list(runs: list[Run], output: Format) -> None:
    rows = [run_history.summary(run) for run in runs]
    if output is Format.JSON:
        print_items(rows)
        return
    if not rows:
        say("no run has changed this host since it was set up or reset")
        return
    columns = ("run", "time", "command", "kind", "outcome", "changes")
    print_table(columns, [tuple(str(row[column]) for column in columns) for row in rows])


def _show(run: Run, output: Format) -> None:
    row = run_history.summary(run)
    if output is Format.JSON:
        changes = run_history.changes(run)
        print_json({**row, "changes": changes})
        return
    print_table(("", ""), [(key, str(row[key])) for key in ("run", "time", "words", "user", "kind", "outcome")])
    if run.ignored:
        say(f"ignored preflight checks: {', '.join(run.ignored)}")
    lines = []
    for entry in run.entries:
        lines.append(("~", f"{'repair: ' if entry.repair or run.is_repair else ''}{entry.summary}"))
        lines += differences.of_change(entry.before, entry.after, entry.command)
    differences.write(lines)
    for note in run.left:
        say(f"left: {note}")


def undo(
    run: Annotated[
        int | None,
        typer.Argument(
            metavar="[RUN]", help="The run's number in `cnictl history`. Default: the last run that is no repair."
        ),
    ] = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    exit_code: ExitCodeOption = False,
    no_wait: NoWaitOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Undo a run: everything that it changed returns to what it was before, node.toml too, and nothing else does.

    undo leaves what somebody changed after the run, and what live pods need by now. It names each of these, and exit
    status 1 says that not everything is back. It never touches rules, routes and addresses of others. A second undo of
    the same run changes nothing. A run that was cut off, and an undo, can be undone too.

    Without a number, undo takes the last run that is no repair; what that run repaired besides stays repaired. With the
    number of a repair, the repaired fault returns. undo first shows the run and the changes, and at a terminal it asks.

    \b
    cnictl undo --dry-run
    cnictl undo
    cnictl undo 7
    """
    options = options_of(dry_run, exit_code, no_wait=no_wait)
    require_root("undo", "changes the host's network")
    shown = past.plan_undo(engine.run_to_undo(run))
    _announce(shown, run is None)
    terminal = Terminal(output, exit_code, yes)
    if dry_run:
        _say_consequences(shown)
        terminal.more = _about(shown)
        terminal.preview(shown.plan)
        return
    asking.show(f"takes back: {change.summary}" for change in shown.plan.changes)
    asked = terminal.asks() and bool(shown.plan.changes)
    if asked:
        _say_consequences(shown)
        asking.confirm(f"Take run {shown.run.number} back?")
    terminal.more = {"left": list(shown.left)}
    todo, done = engine.take_back(shown, run, asked, options, terminal, lambda other: _announce(other, run is None))
    if todo.in_effect is not None:
        say(
            "/etc/cnictl/node.toml still asks for what this run made: unless you edit it, `cnictl apply` makes it again"
        )
    terminal = Terminal(
        output, nothing=f"run {todo.run.number} ({todo.run.command}): nothing of it is left to take back"
    )
    terminal.more = _about(todo)
    terminal.report(done)
    _say_consequences(todo)
    if todo.left:
        raise typer.Exit(1)


def _about(todo: Undo) -> dict[str, Any]:
    """Return what the JSON document of an undo holds beside its steps."""
    return {
        "undone_run": todo.run.number,
        "undone": run_history.summary(todo.run),
        "stays": list(todo.kept),
        "left": list(todo.left),
    }


def _announce(todo: Undo, chosen_by_itself: bool) -> None:
    """Say which run is undone, and which changes of it stay."""
    row = run_history.summary(todo.run)
    say(f"run {row['run']}: {row['words']} ({row['time']}, by {row['user'] or 'root'})")
    if chosen_by_itself and (repairs := past.passed_over(todo.run)):
        named = ", ".join(f"{repair.number} ({repair.command})" for repair in repairs[:5])
        more = f" and {len(repairs) - 5} more" if repairs[5:] else ""
        say(f"repairs since then stay, and are none of an operator's runs: {named}{more}")
    if todo.run.is_repair:
        say(
            f"run {row['run']} only repaired this node: the fault is back without it, until `cnictl apply`, "
            "`cnictl watch` or the next boot repairs it again"
        )
    for note in todo.kept:
        say(f"stays: {note}")


def _say_consequences(todo: Undo) -> None:
    for line in past.consequences(todo):
        say(line)
