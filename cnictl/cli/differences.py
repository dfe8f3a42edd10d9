"""Desired against actual as a diff with the manual commands: coloured at a terminal, the same words plain in a pipe."""

import difflib
from collections.abc import Iterable, Iterator
from typing import Any

from cnictl.cli import output
from cnictl.node.spine import State, Step

_STYLES = {"+": "green", "-": "red", "@": "cyan", "#": "dim", "=": "dim", "~": "bold yellow"}
_LONGEST = 100
"""Characters of a value that is shown in a line of its own; longer ones are left to the command."""

_INDENT = "    "

Line = tuple[str, str]
"""What kind of line, a key of the styles, and its text."""


def show(steps: Iterable[Step]) -> None:
    """Every step of a plan on stdout: already so, or what is there, what should be, and the command."""
    write(line for step in steps for line in of_step(step))


def write(lines: Iterable[Line]) -> None:
    """Lines on stdout, coloured at a terminal."""
    output.print_lines((_STYLES[kind], text) for kind, text in lines)


def of_step(step: Step) -> Iterator[Line]:
    """The lines of one step."""
    if step.unknown:
        yield "~", f"not known: {step.resource.id}: {step.unknown}"
        return
    if step.change is None:
        yield "=", f"already so: {step.summary}"
        return
    yield "~", f"would change: {step.summary}"
    yield from of_change(step.change.before, step.change.after, step.change.command)


def of_change(before: State | None, after: State | None, command: str) -> Iterator[Line]:
    """What differs, and the command that makes it so."""
    for kind, text in difference(before or {}, after or {}):
        yield kind, _INDENT + text
    for number, line in enumerate(command.splitlines()):
        yield "#", f"{_INDENT}{'#' if number == 0 else ' '} {line}"


def difference(before: State, after: State, within: str = "") -> Iterator[Line]:
    """`- key: before` and `+ key: after` for what differs; texts that changed line by line."""
    for key in dict.fromkeys([*before, *after]):
        old, new = before.get(key), after.get(key)
        name = f"{within}{key}"
        if old == new:
            continue
        if isinstance(old, str) and isinstance(new, str) and "\n" in old + new:
            yield from _of_text(name, old, new)
        elif isinstance(old, dict) and isinstance(new, dict):
            yield from difference(old, new, f"{name} ")
        elif isinstance(old, list) and isinstance(new, list):
            yield from (("-", f"- {name}: {compact(one)}") for one in old if one not in new)
            yield from (("+", f"+ {name}: {compact(one)}") for one in new if one not in old)
        else:
            for sign, value in (("-", old), ("+", new)):
                if value is not None and len(shown := compact(value)) <= _LONGEST:
                    yield sign, f"{sign} {name}: {shown}"


def _of_text(name: str, old: str, new: str) -> Iterator[Line]:
    for line in difflib.unified_diff(old.splitlines(), new.splitlines(), name, name, n=1, lineterm=""):
        yield (line[0] if line[0] in "+-@" else "="), line


def compact(value: Any) -> str:
    """A state's value in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {compact(entry)}" for key, entry in value.items())
    if isinstance(value, list):
        return ", ".join(compact(entry) for entry in value)
    return str(value).lower() if isinstance(value, bool) else str(value)
