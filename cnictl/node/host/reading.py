"""Run each program that lists something once, even if several parts of a command need its output."""

from collections.abc import Iterator
from contextlib import contextmanager

from cnictl.core import process


@contextmanager
def once() -> Iterator[None]:
    """Run programs that only list (nft, iptables, ip, containerd) once with the same arguments within this context.

    For commands that change nothing meanwhile. A nested context belongs to the outer one.
    """
    if process.answered is not None:
        yield
        return
    process.answered = {}
    try:
        yield
    finally:
        process.answered = None
