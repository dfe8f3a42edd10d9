"""What stands among cnictl's files and is none of them: it is passed over, so that it stops nothing else, and noted.

The CLI tells each of them once, and ends with status 1 if something that may matter could not be looked at. Loaded
only where something odd is met.
"""

from cnictl.core import outside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST = 100
"""Entries that are kept: a folder may hold any number of them."""
_VANISHED = (2, 20)
"""ENOENT, ENOTDIR: it is gone meanwhile, which is no fault."""
_FOLDER = 21
"""EISDIR: what is a folder in place of a file was never written as one."""

passed_over: "dict[str, tuple[str, bool]]" = {}
"""By path: why it was passed over, and whether it may matter."""


def pass_over(path: str, reason: str, matters: bool = False) -> None:
    """Keep in mind that an entry was passed over. `matters`: it may be a network, a lease or a record."""
    if len(passed_over) < _MOST or matters:
        before = passed_over.get(path)
        passed_over[path] = (reason, matters or (before is not None and before[1]))


def pass_over_error(path: str, error: OSError) -> None:
    """The same of an entry that can't be read; of one that vanished meanwhile nothing."""
    if error.errno not in _VANISHED:
        pass_over(path, (error.strerror or str(error)).lower(), matters=error.errno != _FOLDER)


def failures() -> list[str]:
    """What may matter and could not be looked at, and none of it again."""
    found = sorted((path, reason) for path, (reason, matters) in passed_over.items() if matters)
    for path, _ in found:
        del passed_over[path]
    return [outside.line(f"{path}: {reason}") for path, reason in found]


def told() -> "Iterator[str]":
    """A line for each, and none of them again."""
    while passed_over:
        path = min(passed_over)
        reason, _ = passed_over.pop(path)
        yield outside.line(f"passed over: {path}: {reason}")
