"""`cnictl history` and `cnictl undo`: show what runs changed on this host, and undo one."""

from __future__ import annotations  # a type would execute the module that the loader postpones

from typing import Annotated, Any

import typer

from cnictl.cli import asking, differences
from cnictl.cli.asking import YesOption
from cnictl.cli.options import DryRunOption, ExitCodeOption, NoWaitOption
from cnictl.cli.output import (
    Format,
    ListOption,
    OutputOption,
    print_items,
    print_json,
    print_list,
    print_table,
    refuse_list_format,
    say,
)
from cnictl.cli.root import require_root
from cnictl.cli.steps import Terminal, options_of
from cnictl.core import untrusted_text
from cnictl.core.counted import first_of
from cnictl.node.runs import engine
from cnictl.node.runs import history as past
from cnictl.node.state import journal
from cnictl.views import run_history

_LONGEST = 240
"""The most characters of a command line in the list. `-o wide` and `history RUN` show all of a longer one."""


def history(
    run: Annotated[
        int | None, typer.Argument(metavar="[RUN]", help="Show the changes of the run with this number.")
    ] = None,
    limit: Annotated[int, typer.Option(metavar="COUNT", help="How many runs to list.")] = 20,
    output: ListOption = Format.TABLE,
) -> None:
    """List the runs that changed this host with their arguments, latest first, or show each change of one run.

    A run either changes the node or repairs it. Repairs are made by `watch`, by `doctor --fix`, and by `apply` if the
    node file is unchanged.

    Each change is recorded before it is made, so a run that a power failure cut off is listed too: `cnictl apply`
    finishes it, `cnictl undo` undoes it. `reset-node` deletes the history.

    \b
    cnictl history
    cnictl history 7
    cnictl history -o json | jq '.items[] | select(.outcome != "done")'
    """
    if run is not None:
        refuse_list_format(output, "history RUN")
    require_root("history", "reads /var/lib/cnictl/journal")
    if run is None:
        _list(past.runs()[:limit], output)
    else:
        _show(past.find(run), output)


def _list(runs: list[journal.Run], output: Format) -> None:
    rows = [run_history.summary(run) for run in runs]
    if output is Format.JSON:
        print_items(rows)
        return
    if not rows:
        say("no run has changed this host since it was set up or reset")
        return
    keys = ("run", "time", "kind", "outcome", "changes")
    cells = [
        (*(str(row[key]) for key in keys), run_history.command_line(run), row["user"] or "root")
        for row, run in zip(rows, runs, strict=True)
    ]
    if output is not Format.WIDE:
        cells = [(*cell[:5], untrusted_text.cut(cell[5], _LONGEST), cell[6]) for cell in cells]
    print_list(output, (*keys, "command", "user"), cells, (str(row["run"]) for row in rows), more=1)


def _show(run: journal.Run, output: Format) -> None:
    row = run_history.summary(run)
    if output is Format.JSON:
        changes = run_history.changes(run)
        print_json({**row, "changes": changes})
        return
    keys = {"words": "command"}  # as the list of runs calls it
    names = ("run", "time", "words", "user", "kind", "outcome")
    print_table(("", ""), [(keys.get(name, name), str(row[name])) for name in names])
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
            metavar="[RUN]", help="The run's number in `cnictl history`. Default: the last run that is not a repair."
        ),
    ] = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    exit_code: ExitCodeOption = False,
    no_wait: NoWaitOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Undo a run: restore everything that it changed, node.toml included, and nothing else.

    undo leaves what somebody changed after the run, and what live pods now need. It names each of these, and then
    ends with exit status 1. It never touches other programs' rules, routes and addresses. A second undo of the same run
    changes nothing. An interrupted run, and an undo, can be undone too.

    Without a number, undo takes the last run that is not a repair; faults that this run also repaired stay repaired.
    Undoing a repair brings its fault back. undo first shows the run and its changes; at a terminal it asks.

    \b
    cnictl undo --dry-run
    cnictl undo
    cnictl undo 7
    """
    options = options_of(dry_run, exit_code, no_wait=no_wait)
    require_root("undo", "changes the host's network")
    shown = past.plan_undo(engine.run_to_undo(run))
    _announce(shown, run is None)
    terminal = Terminal(output, exit_code, yes, _nothing_left(shown))
    if dry_run:
        _say_consequences(shown)
        terminal.json_extra = _about(shown)
        terminal.preview(shown.plan)
        return
    if shown.plan.changes:
        say("to undo it:")
        asking.show(change.summary for change in shown.plan.changes)
    asked = terminal.can_ask() and bool(shown.plan.changes)
    if asked:
        _say_consequences(shown)
        asking.confirm(f"Undo {'only a part of ' if shown.later else ''}run {shown.run.number}?")
    terminal.json_extra = {"left": list(shown.left)}
    todo, done = engine.undo_run(shown, run, asked, options, terminal, lambda other: _announce(other, run is None))
    if todo.in_effect is not None:
        say(
            "/etc/cnictl/node.toml still contains what this run made: unless you edit it, `cnictl apply` makes it again"
        )
    terminal = Terminal(output, nothing=f"{_nothing_left(todo)}; {past.next_to_undo()}")
    terminal.json_extra = _about(todo)
    terminal.report(done)
    _say_consequences(todo)
    if todo.left:
        raise typer.Exit(1)


def _about(todo: past.Undo) -> dict[str, Any]:
    """Return what the JSON document of an undo has in addition to its steps."""
    return {
        "undone_run": todo.run.number,
        "undone": run_history.summary(todo.run),
        "stays": list(todo.kept),
        "left": list(todo.left),
    }


def _announce(todo: past.Undo, is_default: bool) -> None:
    """Say which run is undone, and which changes of it stay."""
    row = run_history.summary(todo.run)
    say(f"undoes run {row['run']}: {row['words']} ({row['time']}, by {row['user'] or 'root'})")
    if is_default and (repairs := past.passed_over(todo.run)):
        named = [f"{repair.number} ({repair.command})" for repair in repairs]
        say(f"repairs since then stay: {first_of(named, 5)}")
    if todo.run.is_repair:
        say(
            f"run {row['run']} only repaired this node: without it the fault returns, until `cnictl apply`, "
            "`cnictl watch` or the next boot repairs it again"
        )
    for note in todo.kept:
        say(f"stays: {note}")
    words, what_to_do = past.in_the_way(todo)
    if words:
        say(f"{words}\n  hint: {what_to_do}")


def _nothing_left(todo: past.Undo) -> str:
    return f"run {todo.run.number} ({todo.run.command}): nothing of it is left to undo"


def _say_consequences(todo: past.Undo) -> None:
    for line in past.consequences(todo):
        say(line)
