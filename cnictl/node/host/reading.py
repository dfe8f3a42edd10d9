"""Cache what is read from the host during one pass: each program's listing and each kernel dump is read only once.

A pass belongs to its thread. What another thread has read may be older than this thread's question, or come from
another network namespace. A worker thread shares the pass of the thread that asks it by `joining`.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import local
from typing import Any, TypeVar

from cnictl.core import process

_Read = TypeVar("_Read")
_Key = TypeVar("_Key", bound=Hashable)


class _Pass(local):
    values: dict[str, Any] | None = None
    """The readings of the pass, by key; None outside a pass, when nothing is cached."""


_pass = _Pass()


@contextmanager
def cached_pass() -> Iterator[None]:
    """Begin a pass: in this context, run each listing program (nft, iptables, ip, containerd) once for its arguments.

    `cached` caches its values too. This is for parts of a command that change nothing. A pass within a pass belongs to
    the outer one.
    """
    if _pass.values is not None:
        yield
        return
    process.reuse.outputs, _pass.values = {}, {}
    try:
        yield
    finally:
        process.reuse.outputs = _pass.values = None


def joining() -> Callable[[], None]:
    """Return a function by which another thread, such as a pool's worker, joins this thread's pass permanently."""
    outputs, values = process.reuse.outputs, _pass.values

    def join() -> None:
        process.reuse.outputs, _pass.values = outputs, values

    return join


def cached(key: str, read: Callable[[], _Read]) -> _Read:
    """Return the value of `read()`; within a pass, its first value for this key. The caller must not change it."""
    values = _pass.values
    if values is None:
        return read()
    if key not in values:
        values[key] = read()
    value: _Read = values[key]
    return value


def known_each(
    what: str, keys: Iterable[_Key], read: Callable[[Sequence[_Key]], Iterable[_Read]]
) -> Mapping[_Key, _Read]:
    """Return what `read` returns for each key, in the order of the keys; within a pass, each key is read once.

    The mapping may hold more keys. The caller must not change it.
    """
    answers: dict[_Key, _Read] = cached(what, dict)
    missing = list(dict.fromkeys(key for key in keys if key not in answers))
    answers.update(zip(missing, read(missing), strict=True))
    return answers
