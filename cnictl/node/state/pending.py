"""Keep the record of a run that waits to be confirmed (`--confirm-within`), /var/lib/cnictl/confirm.json.

The record is written before the run's first change. The deadline is a time of CLOCK_BOOTTIME, which can't be set and
continues in suspend. It is valid for the boot that the record names; in any other boot it has passed.
"""

import json
import os
import time
from dataclasses import asdict, dataclass, replace

from cnictl.core import durable, liveness
from cnictl.core.errors import Problem
from cnictl.core.paths import CONFIRM_FILE, STATE_DIR
from cnictl.node.state import journal


@dataclass(frozen=True)
class Pending:
    """A run that waits to be confirmed."""

    run: int
    command: str
    seconds: float
    deadline: float
    """In seconds of CLOCK_BOOTTIME; 0 while the run is still under way."""
    boot_id: str
    tries: int = 0
    """The number of times that its undo failed."""

    def left(self) -> float:
        """Return the seconds until it is undone; 0 or less if it is due."""
        if self.boot_id != liveness.boot_id():
            return 0.0
        return self.deadline - _now() if self.deadline else self.seconds

    def is_due(self, at_work: bool) -> bool:
        """Return whether its time is up. Without `at_work`, a run that did not reach its end is due too."""
        return self.left() <= 0 or not (at_work or self.deadline)


def read() -> Pending | None:
    """Return the run that waits to be confirmed; None if none does. Raises Problem if the record is damaged."""
    try:
        return Pending(**json.loads(durable.contents(CONFIRM_FILE)))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise Problem(
            f"{CONFIRM_FILE} is damaged: {error}",
            "`cnictl history` shows the runs, and `cnictl undo` undoes one; then remove the file",
        ) from None


def arm(command: str, seconds: float) -> None:
    """Record that the run that begins now has to be confirmed. The caller holds `exclusive`."""
    write(Pending(journal.next_number(), command, seconds, 0.0, liveness.boot_id()))


def start_clock() -> Pending:
    """Start the countdown: the run has ended. The caller holds `exclusive`. Raises Problem if the record is gone."""
    waiting = read()
    if waiting is None:
        raise Problem(f"{CONFIRM_FILE} is gone", "the run stays; `cnictl undo` undoes it")
    waiting = replace(waiting, deadline=_now() + waiting.seconds)
    write(waiting)
    return waiting


def disarm() -> None:
    """Remove the record: no run waits now. The caller holds `exclusive`."""
    if os.path.lexists(CONFIRM_FILE):
        os.unlink(CONFIRM_FILE)
        _sync()


def write(waiting: Pending) -> None:
    """Replace the record. The caller holds `exclusive`."""
    durable.make_folder(STATE_DIR)
    durable.replace(CONFIRM_FILE, json.dumps(asdict(waiting)).encode() + b"\n", 0o600)


def _now() -> float:
    """Return the seconds since boot, suspend included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _sync() -> None:
    descriptor = os.open(STATE_DIR, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
