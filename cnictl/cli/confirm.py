"""`cnictl confirm`: keep the changes of a run with --confirm-within."""

from __future__ import annotations  # a type would execute the module that the loader postpones

from typing import Annotated

import typer

from cnictl.cli.options import NoWaitOption
from cnictl.cli.output import Format, OutputOption, print_json, say
from cnictl.cli.root import require_root
from cnictl.cli.steps import Terminal
from cnictl.node.runs import confirm as runs_confirm
from cnictl.node.runs import confirm_guard, engine
from cnictl.node.state import pending


def confirm(
    status: Annotated[
        bool, typer.Option("--status", help="Only show which run waits, and for how many seconds.")
    ] = False,
    no_wait: NoWaitOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Keep the changes of the last run with --confirm-within. Without `confirm`, they are undone after that time.

    Use it for changes over SSH: if the run cuts off your connection, you can't confirm, and the network returns to what
    it was. The undo needs neither your terminal nor your session, and a reboot within the time undoes the run, too.
    Exit status 1 if no run waits, or if its time is up.

    \b
    cnictl apply --confirm-within 60
    cnictl confirm
    cnictl confirm --status
    """
    require_root("confirm", "stops the undo")
    if status:
        _show(output)
        return
    with engine.locked_run(engine.Options(no_wait=no_wait), Terminal(output), resume=False):
        kept = runs_confirm.confirm()
    confirm_guard.stop_timer()
    if output is Format.JSON:
        print_json({"confirmed": kept.run, "command": kept.command})
    else:
        say(f"run {kept.run} ({kept.command}) is confirmed and stays")


def _show(output: Format) -> None:
    waiting = pending.read()
    if output is Format.JSON:
        print_json(
            {"waiting": waiting.run, "command": waiting.command, "seconds_left": round(waiting.left(), 1)}
            if waiting
            else {"waiting": None, "command": None, "seconds_left": None}
        )
    elif waiting is None:
        say("no run waits to be confirmed")
    else:
        seconds = max(0.0, waiting.left())
        say(f"run {waiting.run} ({waiting.command}) is undone in {seconds:.0f} s, unless you run: cnictl confirm")
    if waiting is None:
        raise typer.Exit(1)
