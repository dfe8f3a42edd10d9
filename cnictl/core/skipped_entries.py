"""Remember entries among cnictl's files that were skipped because they don't belong there or can't be read.

A skipped entry stops nothing else. The CLI reports each one once, and ends with status 1 if one that may matter could
not be read. Loaded only when such an entry is met.
"""

from cnictl.core import untrusted_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST = 100
"""The most entries that are remembered, because a folder may contain any number of them."""
_VANISHED = (2, 20)
"""ENOENT, ENOTDIR: the entry has disappeared meanwhile, which is not a fault."""
_FOLDER = 21
"""EISDIR: cnictl never writes a folder in place of a file, so it can't matter."""

skipped: "dict[str, tuple[str, bool]]" = {}
"""For each path: why it was skipped, and whether it may matter."""


def skip(path: str, reason: str, matters: bool = False) -> None:
    """Remember that an entry was skipped. `matters`: it may be a network, a lease or a record."""
    if len(skipped) < _MOST or matters:
        before = skipped.get(path)
        skipped[path] = (reason, matters or (before is not None and before[1]))


def skip_unreadable(path: str, error: OSError) -> None:
    """Remember that an entry could not be read, unless it has disappeared meanwhile."""
    if error.errno not in _VANISHED:
        skip(path, (error.strerror or str(error)).lower(), matters=error.errno != _FOLDER)


def failures() -> list[str]:
    """Return a line for each skipped entry that may matter, and forget these."""
    entries = sorted((path, reason) for path, (reason, matters) in skipped.items() if matters)
    for path, _ in entries:
        del skipped[path]
    return [untrusted_text.line(f"{path}: {reason}") for path, reason in entries]


def reports() -> "Iterator[str]":
    """Yield a line for each skipped entry, and forget it."""
    while skipped:
        path = min(skipped)
        reason, _ = skipped.pop(path)
        yield untrusted_text.line(f"skipped: {path}: {reason}")
