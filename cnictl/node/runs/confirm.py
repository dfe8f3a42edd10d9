"""`--confirm-within`: a run that is taken back by itself unless it is confirmed in time, whatever becomes of whom.

What waits is on disk (/var/lib/cnictl/confirm.json) from before the run's first change. The deadline is counted on
CLOCK_BOOTTIME, which no one sets and which runs on in suspend, and holds for the boot that it names: in another one
it is past. Whoever looks past it undoes: the two guards (`cnictl.node.runs.confirm_guard`), a systemd timer where
systemd runs, the next `cnictl` of root's, `cnictl watch`, and at boot the unit's `cnictl apply`.
"""

import json
import os
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

from cnictl.core import durable, liveness
from cnictl.core.errors import Problem
from cnictl.core.paths import NODE_FILE, STATE_DIR
from cnictl.node.state import journal
from cnictl.node.state.run_lock import exclusive, is_held

RECORD = f"{STATE_DIR}/confirm.json"

_NOT_CONFIRMED = ", not confirmed"

_TRIES = 5
"""How often an undo is tried that fails in part: what held a lock then may have let go of it since."""


@dataclass(frozen=True)
class Pending:
    """A run that waits to be confirmed."""

    run: int
    command: str
    seconds: float
    deadline: float
    """On CLOCK_BOOTTIME, in seconds; 0 while the run is still at work."""
    boot_id: str
    tries: int = 0

    def left(self) -> float:
        """Seconds until it is undone; 0 or below: it is due."""
        if self.boot_id != liveness.boot_id():
            return 0.0
        return self.deadline - now() if self.deadline else self.seconds


@dataclass(frozen=True)
class Undone:
    """A run that was not confirmed, and what became of it."""

    run: int
    why: str
    by: int
    """The undo's own run; 0 where nothing was left to take back."""
    left: tuple[str, ...]

    def __str__(self) -> str:
        how = f"taken back by run {self.by}" if self.by else "nothing of it was there to take back"
        return f"run {self.run} was not confirmed ({self.why}): {how}"


def now() -> float:
    """Seconds since boot, suspend included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def pending() -> Pending | None:
    """What waits to be confirmed; None if nothing does. Raises Problem if the record is damaged."""
    try:
        return Pending(**json.loads(durable.contents(RECORD)))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise Problem(
            f"{RECORD} is damaged: {error}",
            "`cnictl history` shows the runs, and `cnictl undo` takes one back; then remove the file",
        ) from None


def arm(command: str, seconds: float) -> None:
    """Note that the run about to begin has to be confirmed. The caller holds `exclusive`."""
    _write(Pending(journal.next_number(), command, seconds, 0.0, liveness.boot_id()))


def start_clock() -> Pending:
    """Let the time run: the run has ended well. The caller holds `exclusive`."""
    waiting = pending()
    if waiting is None:
        raise Problem(f"{RECORD} is gone", "the run is not guarded; `cnictl undo` takes it back")
    waiting = replace(waiting, deadline=now() + waiting.seconds)
    _write(waiting)
    return waiting


def disarm() -> None:
    """Forget it: nothing waits any more. The caller holds `exclusive`."""
    if os.path.lexists(RECORD):
        os.unlink(RECORD)
        _sync()


def confirm() -> Pending:
    """Keep what the pending run made. The caller holds `exclusive`. Raises Problem if nothing waits, or too late."""
    waiting = pending()
    if waiting is None:
        raise Problem("nothing waits to be confirmed", _mend_of_late())
    if waiting.left() <= 0 or not waiting.deadline:  # or it died at work
        undone = settle()
        raise Problem(f"too late: {undone}", "cnictl history")
    journal.append(waiting.run, {"confirmed": time.time()})
    disarm()
    return waiting


def _mend_of_late() -> str:
    run = journal.last()
    taken = journal.read(run.undoes) if run is not None and run.undoes else None
    if run is None or taken is None:
        return ""
    return f"run {taken.number} ({taken.command}) was taken back by run {run.number}; cnictl history {run.number}"


def took_back_the_node() -> bool:
    """Whether this host is no node any more because its set-up was not confirmed, in this boot or the one before."""
    run = journal.last()
    return run is not None and run.command.endswith(_NOT_CONFIRMED) and not os.path.lexists(NODE_FILE)


def is_due(at_work: bool = True) -> bool:
    """Whether a run waits past its time; without `at_work` also one that never came to its end."""
    waiting = pending()
    if waiting is None:
        return False
    return waiting.left() <= 0 or (not at_work and not waiting.deadline)


def undo_if_due(wait: float = 30.0) -> Undone | None:
    """Take the pending run back if its time is up, or if it died at work; takes `exclusive` itself. Raises Problem.

    For whoever comes by: the next command, `cnictl watch`. Costs one failed open(2) where nothing waits.
    """
    if pending() is None or not is_due(at_work=is_held()):
        return None
    with exclusive(wait=wait, on_wait=lambda _: None):
        return settle()


def settle() -> Undone | None:
    """Take the pending run back if its time is up, or if it died at work. The caller holds `exclusive`.

    Raises Problem where some of it could not be done; it is tried again then, a few times.
    """
    if not is_due(at_work=False):
        return None
    from cnictl.node.runs import history, sweep

    waiting = pending()
    assert waiting is not None
    run = journal.read(waiting.run)
    try:
        if run is None or run.taken_back:  # it was cut off before its first change, or taken back by hand
            sweep.sweep_cut_off()
            by, left = run.taken_back if run else 0, tuple[str, ...]()
        else:
            undo = history.plan_undo(run, whole=True)
            done = history.carry_out(undo, f"undo {run.number}{_NOT_CONFIRMED}", lambda *_: None)
            by, left = done.number if done else 0, undo.left
    except (Problem, OSError):
        if waiting.tries + 1 < _TRIES:
            _write(replace(waiting, tries=waiting.tries + 1))
        else:
            disarm()
        raise
    disarm()
    return Undone(waiting.run, _why(waiting), by, left)


def _why(waiting: Pending) -> str:
    if waiting.boot_id != liveness.boot_id():
        return "this host was booted anew"
    return f"within {waiting.seconds:g} s" if waiting.deadline else "it was cut off at work"


def _write(waiting: Pending) -> None:
    durable.make_folder(STATE_DIR)
    data: dict[str, Any] = asdict(waiting)
    durable.replace(RECORD, json.dumps(data).encode() + b"\n", 0o600)


def _sync() -> None:
    descriptor = os.open(STATE_DIR, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
