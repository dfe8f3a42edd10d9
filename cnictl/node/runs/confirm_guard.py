"""Two processes that undo an unconfirmed run when its time is up, apart from the terminal and session that began it.

Each holds a pidfd (pidfd_open(2)) of the other and starts a new one when that dies, so that neither a hang-up nor a
`kill -9` of one stops the undo. They are forked, not executed: what they run is in memory, and goes on where the
environment that cnictl was started from goes away. What they wait for is on disk; they only look.
"""

import os
import select
import signal
import sys
import syslog
from typing import NoReturn

from cnictl.core.errors import Problem
from cnictl.core.process import run, shared
from cnictl.node.plugin import program
from cnictl.node.resources import boot_unit
from cnictl.node.runs import confirm
from cnictl.node.state.run_lock import Held, exclusive

NAME = "cnictl-guard"
"""What `ps -o comm` shows."""

_LOOK = 0.5
"""Seconds between two looks at the record and the clock."""

_START = 10.0
"""Seconds for both to stand."""

_TIMER = "cnictl-confirm"


def start() -> None:
    """Start both. Returns when they stand; raises Problem if they don't.

    To be called from a process with one thread that holds `spine.exclusive`; `confirm.arm` comes first.
    """
    import pyroute2  # noqa: F401 - before the fork: all that the undo needs is in memory then

    from cnictl.node.runs import history  # noqa: F401

    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _become_first(writer)
    os.close(writer)
    try:
        os.waitpid(child, 0)
        stands = select.select([reader], [], [], _START)[0] and os.read(reader, 1)
    finally:
        os.close(reader)
    if not stands:
        raise Problem("no guard could be started, so nothing would undo the run", "run it without --confirm-within")


def start_timer(seconds: float) -> None:
    """Where systemd runs, have it look too when the time is up: its timer outlives whatever ends both guards.

    It starts root's copy of cnictl, as the units do; where that is not there or not root's alone, the guards suffice.
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
    """Take that timer away again."""
    if boot_unit.systemd_runs():
        run(["systemctl", "--quiet", "stop", f"{_TIMER}.timer"], check=False)


def _become_first(ready: int) -> NoReturn:
    """In the first child: leave its parent, start the second guard, and watch."""
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        _detach(ready)
        waiting = confirm.pending()
        sys.argv[1:] = ["undo", str(waiting.run)] if waiting else []  # as whom the history and others' waiting name it
        partner = _start_partner()
        os.write(ready, b"1")
        os.close(ready)
        _watch(partner)
    finally:
        os._exit(1)


def _detach(kept: int) -> None:
    """Hold nothing of whoever began the run: terminal, folder, descriptors (one is its lock)."""
    for ignored in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(ignored, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a shutdown ends it; what it waits for is on disk
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(null, standard)
    shared.clear()
    os.closerange(3, kept)
    os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))
    with open("/proc/self/comm", "w", encoding="ascii") as name:
        name.write(NAME)


def _start_partner() -> int:
    """Fork a guard of this guard; its pid, in the parent."""
    parent = os.getpid()
    partner = os.fork()
    if partner:
        return partner
    try:
        os.setsid()  # what is sent to the other's process group doesn't reach it
        _watch(parent)
    finally:
        os._exit(1)


def _watch(partner: int) -> NoReturn:
    """Until nothing waits any more: keep the partner alive, and undo when it is time."""
    descriptor = _open(partner)
    while not _is_over():
        if descriptor < 0 or select.select([descriptor], [], [], _LOOK)[0]:
            _close(descriptor, partner)
            if _is_over():
                break  # as the partner found
            partner = _start_partner()
            descriptor = _open(partner)
            select.select([], [], [], _LOOK)  # where no process can live, don't start one after the other
    os._exit(0)


def _open(pid: int) -> int:
    """A descriptor that is readable once the process has ended; -1 if it has by now."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return -1


def _close(descriptor: int, pid: int) -> None:
    if descriptor >= 0:
        os.close(descriptor)
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return  # it was this one's parent


def _is_over() -> bool:
    """Whether nothing waits any more; undoes what is due."""
    try:
        if confirm.pending() is None:
            return True
        if not confirm.is_due(at_work=False):
            return False
        with exclusive(wait=0):
            undone = confirm.settle()
    except Held:
        return False  # the run itself, or another: the next look
    except (Problem, OSError) as error:
        syslog.syslog(syslog.LOG_ERR, f"cnictl: undoing what was not confirmed: {error}")
        return False
    if undone is not None:
        for line in (str(undone), *undone.left):
            syslog.syslog(syslog.LOG_WARNING, f"cnictl: {line}")
    return confirm.pending() is None
