"""One look at the host: what programs list is asked for once, however many parts of a command need it."""

from collections.abc import Iterator
from contextlib import contextmanager

from cnictl.core import process


@contextmanager
def once() -> Iterator[None]:
    """Within it every program that only lists (nft, iptables, ip, containerd) runs once with the same arguments.

    For commands that change nothing meanwhile. A look within a look is part of it.
    """
    if process.answered is not None:
        yield
        return
    process.answered = {}
    try:
        yield
    finally:
        process.answered = None
