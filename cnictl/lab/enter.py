"""Run a command in a machine of the lab. This is a separate program: only a single thread may enter a user namespace.

    python3 -c "…enter.main()" PID CWD COMMAND…

The program exits with the command's status, or dies of the same signal. Whatever ends the program ends the command too.
"""

import os
import signal
import sys
from typing import NoReturn

from cnictl.lab.syscalls import die_with_parent, setns

_NAMESPACES = ("user", "mnt", "net", "uts", "ipc", "pid")  # user first: it grants the right to enter the others
_PASSED_ON = (signal.SIGTERM, signal.SIGHUP)
KILL_COMMAND = signal.SIGUSR1
"""Makes this program kill and reap the command. After a SIGKILL of this program, the host's process 1 reaps it."""


def main() -> NoReturn:
    """Run the command. Exit status 125: the machine can't be entered; 126 and 127 as in a shell."""
    pid, folder, command = sys.argv[1], sys.argv[2], sys.argv[3:]
    try:
        _enter(pid)
    except OSError as error:
        print(f"cnictl: can't enter the lab: {error.strerror}", file=sys.stderr)
        sys.exit(125)
    child = os.fork()  # only child processes are in the pid namespace
    if child == 0:
        _become(folder, command)
    # the terminal also sends these two signals to the command, which decides what to do
    for ignored in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(ignored, signal.SIG_IGN)
    for passed in _PASSED_ON:
        signal.signal(passed, lambda number, _: os.kill(child, number))
    signal.signal(KILL_COMMAND, lambda *_: os.kill(child, signal.SIGKILL))
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        ended_by = os.WTERMSIG(status)
        if ended_by not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(ended_by, signal.SIG_DFL)
        os.kill(os.getpid(), ended_by)
    os._exit(os.waitstatus_to_exitcode(status))


def _enter(pid: str) -> None:
    """Enter the machine's namespaces as its root. Raises OSError."""
    as_root = os.geteuid() == 0
    opened = [os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in _NAMESPACES]
    if as_root:
        try:
            os.setgroups([])
        except PermissionError:
            pass  # this is root of a user namespace without groups
        _hand_over_pipes(os.stat(f"/proc/{pid}"))
    for descriptor in opened:
        setns(descriptor)
        os.close(descriptor)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def _hand_over_pipes(owner: os.stat_result) -> None:
    """Let the command reopen its standard streams: the root of the host made the pipes, not the machine's root."""
    for standard in range(3):
        try:
            is_pipe = os.readlink(f"/proc/self/fd/{standard}").startswith("pipe:")
        except OSError:
            continue  # closed
        if is_pipe:
            try:
                os.fchown(standard, owner.st_uid, owner.st_gid)
            except OSError:
                pass  # the pipe belongs to another user namespace: the command can use it, but not reopen it


def _become(folder: str, command: list[str]) -> NoReturn:
    die_with_parent(signal.SIGKILL)
    for restored in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and exec would pass that on
        signal.signal(restored, signal.SIG_DFL)
    try:
        os.chdir(folder)
        os.execvp(command[0], command)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        print(f"{command[0]}: {'not found' if missing else error.strerror}", file=sys.stderr)
        sys.stderr.flush()
        os._exit(127 if missing else 126)
