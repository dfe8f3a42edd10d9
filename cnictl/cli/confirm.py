"""`cnictl confirm`: keep what a run with --confirm-within made."""

from typing import Annotated

import typer

from cnictl.cli.output import Format, OutputOption, print_json, say
from cnictl.cli.steps import NoWaitOption, Terminal, require_root
from cnictl.node.runs import confirm as runs_confirm
from cnictl.node.runs import confirm_guard, engine
from cnictl.node.runs.engine import Options
from cnictl.node.state import pending


def confirm(
    status: Annotated[bool, typer.Option("--status", help="Only say what waits, and how long yet.")] = False,
    no_wait: NoWaitOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Keep what the last run with --confirm-within made. Without this, it is undone by itself when its time is up.

    Over a connection that the run may cut off, that is the way back in: whoever can't type this any more gets the
    network back as it was. The terminal, the session and the process that began it may be gone by then, and a reboot
    within the time undoes as well. Exit status 1 if nothing waits, or if it is too late.

    \b
    cnictl apply --confirm-within 60
    cnictl confirm
    cnictl confirm --status
    """
    require_root("confirm", "ends the waiting for an undo")
    if status:
        _show(output)
        return
    with engine.alone(Options(no_wait=no_wait), Terminal(output), resume=False):
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
        say("nothing waits to be confirmed")
    else:
        say(f"run {waiting.run} ({waiting.command}) is taken back in {max(0.0, waiting.left()):.0f} s: cnictl confirm")
    if waiting is None:
        raise typer.Exit(1)
