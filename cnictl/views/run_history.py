"""Collect what `cnictl history` and `cnictl undo` show of a run."""

import shlex
import time
from typing import Any

from cnictl.node.runs import history, revert
from cnictl.node.state import pending, run_lock
from cnictl.node.state.journal import Run


def summary(run: Run) -> dict[str, Any]:
    """Return a run and its outcome as JSON values, with the number of its changes."""
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
        "undone_by": run.undone_by or None,
        "left": run.left,
        "ignored": run.ignored,
    }


def command_line(run: Run) -> str:
    """Return the command of a run with its arguments, without `cnictl`.

    A run that another command started by itself, such as the undo of an unconfirmed run, names that command too.
    Arguments hold no secrets: credentials are read from files, and no option takes one.
    """
    words = run.command.split()
    if run.argv[: len(words)] == words:
        return shlex.join(run.argv)
    return f"{run.command} (started by cnictl {shlex.join(run.argv)})" if run.argv else run.command


def changes(run: Run) -> list[dict[str, Any]]:
    """Return a run's changes as JSON values, in their order."""
    return [
        {
            "resource": entry.resource,
            "summary": entry.summary,
            "before": entry.before,
            "after": entry.after,
            "command": entry.command,
            "repair": entry.repair or run.is_repair,
        }
        for entry in run.entries
    ]


def _outcome(run: Run) -> str:
    waiting = pending.read()
    if waiting is not None and waiting.run == run.number and run.end:
        return f"to be confirmed: {max(0.0, waiting.left()):.0f} s left"
    return history.outcome(run, is_running=run_lock.is_held())
