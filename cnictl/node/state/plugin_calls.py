"""Keep the plugin from running while a command changes its code or pods' attachments."""

from collections.abc import Iterator
from contextlib import contextmanager

from cnictl.core.errors import Problem
from cnictl.core.locks import Locked
from cnictl.core.paths import NODE_LOCK

WAIT = 30.0
"""Seconds to wait for running calls to end; each wait inside a call is shorter."""


@contextmanager
def kept_out() -> Iterator[None]:
    """Wait until the plugin's running calls have ended, and hold off new ones within this context.

    Raises Problem if a call still runs after `WAIT` seconds.
    """
    lock = Locked(NODE_LOCK, wait=WAIT)
    try:
        lock.__enter__()
    except Problem as problem:
        problem.message = f"calls of the plugin are still running: {problem.message}"
        raise
    try:
        yield
    finally:
        lock.__exit__()
