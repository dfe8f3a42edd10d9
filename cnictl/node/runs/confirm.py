"""Keep a run that waits to be confirmed, or undo it once its time is up (`--confirm-within`).

Several processes check whether the time is up, and the first one that finds so undoes the run: the guard process
(`cnictl.node.runs.confirm_guard`), a systemd timer where systemd runs, the next `cnictl` that root runs,
`cnictl watch`, and at boot the unit's `cnictl apply`.
"""

import os
import time
from dataclasses import dataclass, replace

from cnictl.core import liveness
from cnictl.core.errors import Problem
from cnictl.core.paths import NODE_FILE
from cnictl.node.runs import history, sweep
from cnictl.node.state import journal, pending
from cnictl.node.state.pending import Pending
from cnictl.node.state.run_lock import exclusive, is_held

_TRIES = 5
"""How often to try an undo that fails in part: a lock may be free later."""


@dataclass(frozen=True)
class Undone:
    """The undo of a run that was not confirmed."""

    run: int
    why: str
    by: int
    """The undo's own run; 0 if nothing was left to revert."""
    left: tuple[str, ...]

    def __str__(self) -> str:
        how = f"undone by run {self.by}" if self.by else "nothing of it was left to revert"
        return f"run {self.run} was not confirmed ({self.why}): {how}"


def confirm() -> Pending:
    """Keep what the pending run made. The caller holds `exclusive`. Raises Problem if none waits, or its time is up."""
    waiting = pending.read()
    if waiting is None:
        run, hint = journal.last(), ""
        if run is not None and run.undoes and (taken := journal.read(run.undoes)) is not None:
            hint = f"run {taken.number} ({taken.command}) was undone by run {run.number}; "
            hint += f"cnictl history {run.number}"
        raise Problem("no run waits to be confirmed", hint)
    if waiting.is_due(at_work=False):
        undone = settle()
        raise Problem(f"too late: {undone}", "cnictl history")
    journal.append(waiting.run, {"confirmed": time.time()})
    pending.disarm()
    return waiting


def undid_set_up() -> bool:
    """Return whether this host is no longer a node because its set-up was not confirmed."""
    run = journal.last()
    return run is not None and run.unconfirmed and not os.path.lexists(NODE_FILE)


def undo_if_due(wait: float = 30.0) -> Undone | None:
    """Undo the pending run if its time is up, or if it was cut off; takes `exclusive` itself. Raises Problem.

    The next command and `cnictl watch` call it. If no run waits, it costs one failed open(2).
    """
    waiting = pending.read()
    if waiting is None or not waiting.is_due(at_work=is_held()):
        return None
    with exclusive(wait=wait, on_wait=lambda _: None):
        return settle()


def settle() -> Undone | None:
    """Undo the pending run if its time is up, or if it was cut off. The caller holds `exclusive`.

    Raises Problem if some of it could not be done; later calls try again, a few times.
    """
    waiting = pending.read()
    if waiting is None or not waiting.is_due(at_work=False):
        return None
    run = journal.read(waiting.run)
    try:
        if run is None or run.undone_by:  # it was cut off before its first change, or an operator undid it
            sweep.sweep_cut_off()
            by, left = run.undone_by if run else 0, tuple[str, ...]()
        else:
            undo = history.plan_undo(run, whole=True)
            command = f"undo {run.number}, not confirmed"
            done = history.carry_out(undo, command, lambda *_: None, unconfirmed=True)
            by, left = done.number if done else 0, undo.left
    except (Problem, OSError):
        if waiting.tries + 1 < _TRIES:
            pending.write(replace(waiting, tries=waiting.tries + 1))
        else:
            pending.disarm()
        raise
    pending.disarm()
    why = f"within {waiting.seconds:g} s" if waiting.deadline else "it was cut off"
    return Undone(waiting.run, why if waiting.boot_id == liveness.boot_id() else "this host was rebooted", by, left)
