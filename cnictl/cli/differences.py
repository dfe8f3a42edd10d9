"""Show what differs as a diff, and the manual commands: in colour at a terminal, plain in a pipe."""

from __future__ import annotations  # a type would execute the module that the loader postpones

import difflib
from collections.abc import Iterable, Iterator
from typing import Any

from cnictl.cli import output
from cnictl.node import spine

_STYLES = {"": "", "+": "green", "-": "red", "@": "cyan", "#": "dim", "=": "dim", "~": "bold yellow"}
_LONGEST = 100
"""The longest value, in characters, that is shown on its own line; the manual command shows longer ones."""

_INDENT = "    "

Line = tuple[str, str]
"""The kind of line (a key of `_STYLES`), and its text."""


def write(lines: Iterable[Line]) -> None:
    """Print lines on stdout, in colour at a terminal."""
    output.print_lines((_STYLES[kind], text) for kind, text in lines)


def of_change(before: spine.State | None, after: spine.State | None, command: str) -> Iterator[Line]:
    """Return what differs, and the manual command that changes it."""
    for kind, text in difference(before or {}, after or {}):
        yield kind, _INDENT + text
    for number, line in enumerate(command.splitlines()):
        yield "#", f"{_INDENT}{'#' if number == 0 else ' '} {line}"


def difference(before: spine.State, after: spine.State, within: str = "", texts: bool = True) -> Iterator[Line]:
    """Return `- key: before` and `+ key: after` for each difference.

    Texts of several lines are compared line by line, or left out without `texts`.
    """
    for key in dict.fromkeys([*before, *after]):
        old, new = before.get(key), after.get(key)
        name = f"{within}{key}"
        if old == new:
            continue
        if isinstance(old, str) and isinstance(new, str) and "\n" in old + new:
            yield from _of_text(name, old, new) if texts else ()
        elif isinstance(old, dict) and isinstance(new, dict):
            yield from difference(old, new, f"{name} ", texts)
        elif isinstance(old, list) and isinstance(new, list):
            yield from (("-", f"- {name}: {compact(entry)}") for entry in old if entry not in new)
            yield from (("+", f"+ {name}: {compact(entry)}") for entry in new if entry not in old)
        else:
            for sign, value in (("-", old), ("+", new)):
                shown = compact(value) if value is not None else ""
                if shown and len(shown) <= _LONGEST and "\n" not in shown:
                    yield sign, f"{sign} {name}: {shown}"


def _of_text(name: str, old: str, new: str) -> Iterator[Line]:
    for line in difflib.unified_diff(old.splitlines(), new.splitlines(), name, name, n=1, lineterm=""):
        yield (line[0] if line[0] in "+-@" else "="), line


def compact(value: Any) -> str:
    """Return a state's value in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {compact(entry)}".strip() for key, entry in value.items())
    if isinstance(value, list):
        return ", ".join(compact(entry) for entry in value)
    return str(value).lower() if isinstance(value, bool) else str(value)
