"""One look at the host: what a program lists or the kernel dumps is read once, however many parts need it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from cnictl.core import process

_Read = TypeVar("_Read")

_known: dict[str, Any] | None = None
"""What was read since the look began, by what it is; None: everything is read anew."""


@contextmanager
def once() -> Iterator[None]:
    """Run programs that only list (nft, iptables, ip, containerd) once with the same arguments within this context.

    What `known` is asked for is read once too. For parts of a command that change nothing meanwhile. A look within a
    look is part of it.
    """
    global _known
    if process.answered is not None:
        yield
        return
    process.answered, _known = {}, {}
    try:
        yield
    finally:
        process.answered = _known = None


def known(key: str, read: Callable[[], _Read]) -> _Read:
    """Return what `read` returns; within a look, what it returned first. The caller must not change it."""
    if _known is None:
        return read()
    if key not in _known:
        _known[key] = read()
    value: _Read = _known[key]
    return value
