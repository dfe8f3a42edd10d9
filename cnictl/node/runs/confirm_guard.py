"""Undo an unconfirmed run when its time is up, in a process that does not depend on the run's terminal and session.

The process is forked, not executed: its code is in memory, so it works even if the environment that cnictl was started
from is removed. The run's deadline is on disk. If the guard is killed, another process undoes the run
(`cnictl.node.runs.confirm`).
"""

import os
import select
import signal
import sys
import syslog
import time
from typing import NoReturn

from cnictl.core.errors import Problem
from cnictl.core.process import run, shared
from cnictl.node.plugin import program
from cnictl.node.resources import boot_unit
from cnictl.node.runs import confirm
from cnictl.node.state import pending
from cnictl.node.state.run_lock import Held, exclusive

NAME = "cnictl-guard"
"""What `ps -o comm` shows."""

_LOOK = 0.5
"""Seconds between two checks of the record and the clock."""

_START = 10.0
"""Seconds that the guard may take to start."""

_TIMER = "cnictl-confirm"


def start() -> None:
    """Start the guard, after `pending.arm`, and return when it runs. Raises Problem if it doesn't.

    The caller holds `exclusive` and has a single thread.
    """
    import pyroute2  # noqa: F401 - before the fork, so that all that the undo needs is in memory; slow to load

    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _become_guard(writer)
    os.close(writer)
    try:
        os.waitpid(child, 0)
        runs = select.select([reader], [], [], _START)[0] and os.read(reader, 1)
    finally:
        os.close(reader)
    if not runs:
        raise Problem("no guard could be started, so nothing would undo the run", "run it without --confirm-within")


def start_timer(seconds: float) -> None:
    """Set a systemd timer that undoes the run when its time is up, even if the guard was killed.

    There is none without systemd. The timer starts root's copy of cnictl, as the units do, so there is none either if
    that copy is missing or others can change it.
    """
    if boot_unit.systemd_runs() and program.is_sound():
        stop_timer()
        when = f"--on-active={seconds + 2 * _LOOK:g}"
        run(
            ["systemd-run", "--quiet", "--collect", f"--unit={_TIMER}", when, "--timer-property=AccuracySec=100ms",
             program.COMMAND, "confirm", "--status"],
            check=False,
        )  # fmt: skip


def stop_timer() -> None:
    """Remove that timer."""
    if boot_unit.systemd_runs():
        run(["systemctl", "--quiet", "stop", f"{_TIMER}.timer"], check=False)


def _become_guard(ready: int) -> NoReturn:
    """In the child: leave the parent's session, report that the guard runs, and check until no run waits."""
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        _detach(ready)
        waiting = pending.read()
        sys.argv[1:] = ["undo", str(waiting.run)] if waiting else []  # history and waiting commands show this name
        os.write(ready, b"1")
        os.close(ready)
        while not _is_over():
            time.sleep(_LOOK)
    finally:
        os._exit(1)


def _detach(kept: int) -> None:
    """Let go of the parent's terminal, working folder and descriptors; one of these is its lock."""
    for ignored in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(ignored, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a shutdown ends the guard; the deadline is on disk
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(null, standard)
    shared.clear()
    os.closerange(3, kept)
    os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))
    with open("/proc/self/comm", "w", encoding="ascii") as name:
        name.write(NAME)


def _is_over() -> bool:
    """Undo the run if it is due; return whether no run waits now."""
    try:
        waiting = pending.read()
        if waiting is None:
            return True
        if not waiting.is_due(at_work=False):
            return False
        with exclusive(wait=0):
            undone = confirm.settle()
    except Held:
        return False  # the run itself or another command holds the node: try again
    except (Problem, OSError) as error:
        syslog.syslog(syslog.LOG_ERR, f"cnictl: the unconfirmed run can't be undone: {error}")
        return False
    if undone is not None:
        for line in (str(undone), *undone.left):
            syslog.syslog(syslog.LOG_WARNING, f"cnictl: {line}")
    return pending.read() is None
