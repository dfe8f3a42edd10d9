"""Cache readings of the host during one look: each program's listing and each kernel dump is read only once."""

import _thread
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from cnictl.core import process

_Read = TypeVar("_Read")
_Key = TypeVar("_Key", bound=Hashable)

_known: dict[str, Any] | None = None
"""The readings since the look began, by key; None if no look is under way and nothing is cached."""


@contextmanager
def apart() -> Iterator[None]:
    """Keep this thread out of other threads' looks: it works beside them, and each reading of its own is a new one."""
    own = _thread.get_ident()
    process.apart.add(own)
    try:
        yield
    finally:
        process.apart.discard(own)


@contextmanager
def once() -> Iterator[None]:
    """Begin a look: in this context, run each listing program (nft, iptables, ip, containerd) once for its arguments.

    `known` caches its values too. This is for parts of a command that change nothing. A look within a look belongs to
    the outer one.
    """
    global _known
    if process.answered is not None or _thread.get_ident() in process.apart:
        yield
        return
    process.answered, _known = {}, {}
    try:
        yield
    finally:
        process.answered = _known = None


def known(key: str, read: Callable[[], _Read]) -> _Read:
    """Return the value of `read()`; within a look, its first value for this key. The caller must not change it."""
    if _known is None or _thread.get_ident() in process.apart:
        return read()
    if key not in _known:
        _known[key] = read()
    value: _Read = _known[key]
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
