"""One look at the host: what a program lists or the kernel dumps is read once, however many parts need it."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from cnictl.core import process

_Read = TypeVar("_Read")
_Key = TypeVar("_Key", bound=Hashable)

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


def known(what: str, read: Callable[[], _Read]) -> _Read:
    """Return what `read` returns; within a look, what it returned first. The caller must not change it."""
    if _known is None:
        return read()
    if what not in _known:
        _known[what] = read()
    value: _Read = _known[what]
    return value


def known_each(
    what: str, keys: Iterable[_Key], read: Callable[[Sequence[_Key]], Iterable[_Read]]
) -> Mapping[_Key, _Read]:
    """Return what `read` returns for each key, in their order; within a look, each key is asked about once.

    The mapping may hold more keys. The caller must not change it.
    """
    answers: dict[_Key, _Read] = known(what, dict)
    missing = list(dict.fromkeys(key for key in keys if key not in answers))
    answers.update(zip(missing, read(missing), strict=True))
    return answers
