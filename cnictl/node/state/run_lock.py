"""Hold the lock that keeps two commands from changing this node at the same time. It does not stop the plugin."""

import contextlib
import fcntl
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cnictl.core import durable, untrusted_text
from cnictl.core.errors import Problem
from cnictl.core.locks import hold
from cnictl.core.paths import RUN_DIR
from cnictl.core.process import shared

RUN_LOCK = f"{RUN_DIR}/run.lock"
"""Locked by the command that changes this node; its text names that command."""

RUN_LOCK_WAIT = 30.0
"""Seconds to wait for another command. A run takes a second or two; after this time something hangs."""


class Held(Problem):
    """Another command is changing this node."""


def tell(message: str) -> None:
    """Print a message on stderr."""
    with contextlib.suppress(OSError):  # a closed stderr must not stop the work
        print(untrusted_text.line(message), file=sys.stderr, flush=True)


@contextmanager
def exclusive(wait: float = RUN_LOCK_WAIT, on_wait: Callable[[str], None] = tell) -> Iterator[None]:
    """Keep other commands from changing this node within this context. Only for the main thread.

    If this process is killed, the lock stays until the programs that it started have ended.
    `on_wait` is called once, with a message about the holder. Raises Held after `wait` seconds (0: immediately), and
    KeyboardInterrupt on SIGTERM.
    """
    descriptor = _take(wait, on_wait)
    former_handler = signal.signal(signal.SIGTERM, signal.default_int_handler)  # undo the run, as on Ctrl-C
    try:
        shared.add(descriptor)
        yield
    finally:
        shared.discard(descriptor)
        signal.signal(signal.SIGTERM, former_handler)
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # a program that hangs may have inherited the descriptor
        os.close(descriptor)


def _take(wait: float, on_wait: Callable[[str], None]) -> int:
    deadline = time.monotonic() + wait
    while True:
        descriptor = _open()
        try:
            _hold(descriptor, wait, deadline, on_wait)
        except BaseException:  # an interruption as well
            os.close(descriptor)
            raise
        if _is_in_place(descriptor):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()} {shlex.join(['cnictl', *sys.argv[1:]])}".encode())
            return descriptor
        os.close(descriptor)  # a reset removed it while this one waited


def _hold(descriptor: int, wait: float, deadline: float, on_wait: Callable[[str], None]) -> None:
    try:
        hold(descriptor, RUN_LOCK, wait=0)
        return
    except Problem:
        if wait > 0:
            on_wait(f"waiting for another cnictl command to end, at most {wait:g} s: {holder()}")
    try:
        hold(descriptor, RUN_LOCK, wait=max(0.0, deadline - time.monotonic()))
    except Problem:
        waited = f" (waited {wait:g} s)" if wait else ""
        raise Held(
            f"another cnictl command is changing this node{waited}: {holder()}",
            "wait for it to end, and run this again" if wait else "without --no-wait, cnictl waits for it to end",
        ) from None


def holder() -> str:
    """Return in words which command holds the lock, or held it last."""
    try:
        pid, _, words = durable.contents(RUN_LOCK).decode("utf-8", "replace").partition(" ")
    except FileNotFoundError:
        return "it just ended"
    return f"{words} (process {pid})" if pid else f"`fuser -v {RUN_LOCK}` names it"


def is_held() -> bool:
    """Return whether a command is changing this node now."""
    try:
        descriptor = os.open(RUN_LOCK, os.O_RDONLY | durable.AT_ONCE)
    except FileNotFoundError:
        return False
    try:
        hold(descriptor, RUN_LOCK, shared=True, wait=0)
    except Problem:
        return True
    finally:
        os.close(descriptor)
    return False


def _open() -> int:
    durable.make_folder(os.path.dirname(RUN_LOCK))
    return os.open(RUN_LOCK, os.O_RDWR | os.O_CREAT | durable.AT_ONCE, 0o600)


def _is_in_place(descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(RUN_LOCK))
    except FileNotFoundError:
        return False
