"""flock(2) with a bound on the wait, so that a stuck process doesn't hold up every pod's start."""

import errno
import time
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock
from posix import O_CREAT, O_RDWR, close
from posix import open as open_descriptor

from cnictl.core.durable import AT_ONCE, make_folder
from cnictl.core.errors import IO_FAILURE, TRY_AGAIN, CniError

LOCK_WAIT = 20.0
"""Seconds: longer than any burst of allocations takes, and far shorter than the runtime waits (4 minutes)."""

NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
"""Errors of flock(2) on a file system without locks."""


class Locked:
    """Context in which a file is locked with flock(2).

    The kernel releases the lock when the process ends. Raises CniError 11 if another process holds it past `wait`
    seconds.
    """

    def __init__(self, path: str, shared: bool = False, wait: float = LOCK_WAIT) -> None:
        self.path = path
        self._shared = shared
        self._wait = wait
        self._descriptor = -1

    def __enter__(self) -> "Locked":
        try:
            self._descriptor = open_descriptor(self.path, O_RDWR | O_CREAT | AT_ONCE, 0o600)
        except FileNotFoundError:
            make_folder(self.path.rpartition("/")[0])
            self._descriptor = open_descriptor(self.path, O_RDWR | O_CREAT | AT_ONCE, 0o600)
        try:
            hold(self._descriptor, self.path, self._shared, self._wait)
        except CniError:
            close(self._descriptor)
            raise
        return self

    def make_exclusive(self) -> bool:
        """Make a shared lock exclusive if no other process shares it; return whether it is exclusive now.

        flock(2) releases the lock before it takes the other kind, so another process may take it meanwhile. Raises
        CniError 11 if that one holds it too long.
        """
        try:
            flock(self._descriptor, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            hold(self._descriptor, self.path, shared=True, wait=self._wait)
            return False
        return True

    def __exit__(self, *_: object) -> None:
        close(self._descriptor)


def no_locks(path: str, error: OSError) -> CniError:
    """Return the error for a file whose file system answers flock(2) with one of `NO_LOCKS`."""
    return CniError(
        IO_FAILURE,
        f"{path}: its file system has no locks ({error.strerror})",
        "mount it with locks (NFS: without `nolock`, with rpc.statd running), or choose another dataDir",
    )


def hold(descriptor: int, path: str, shared: bool = False, wait: float = LOCK_WAIT) -> None:
    """Lock an open file until it is closed. Raises CniError 11 past `wait` seconds."""
    kind = LOCK_SH if shared else LOCK_EX
    deadline = time.monotonic() + wait
    pause = 0.0005
    while True:
        try:
            flock(descriptor, kind | LOCK_NB)
            return
        except OSError as error:
            if error.errno in NO_LOCKS:
                raise no_locks(path, error) from None
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
        if time.monotonic() >= deadline:
            raise CniError(
                TRY_AGAIN,
                f"{path} is locked by another process",
                f"waited {wait:g} s; `fuser -v {path}` shows it",
            )
        time.sleep(pause)
        pause = min(pause * 2, 0.02)
