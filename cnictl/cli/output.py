"""Print the output of commands: a rich table at a terminal, plain text in a pipe, or one JSON document on stdout.

Messages go to stderr. Colour never carries meaning alone: every state is also a word.
"""

import contextlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, Any

import typer

from cnictl.cli import groups
from cnictl.core import untrusted_text


class Format(StrEnum):
    """The values of `-o`."""

    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[Format, typer.Option("--output", "-o", help="table for people, json for programs.")]

_LONGEST_MESSAGE, _LONGEST_LINE = 4000, 1 << 16
"""The most characters of a line on stderr and of one on stdout, where a command to copy must stay whole."""
_WIDEST = 80
"""The most characters that a column is padded to in a pipe, so that one long cell does not pad every row."""


def plain(text: str, longest: int = _LONGEST_LINE) -> str:
    """Return text for a terminal or a pipe, with control characters escaped and line ends kept.

    Everything that commands print passes through here, except JSON.
    """
    return "\n".join(untrusted_text.line(part, longest) for part in text.split("\n"))


def say(message: str) -> None:
    """Print a message on stderr. A message that can't be written does not stop the command."""
    with contextlib.suppress(OSError):
        print(plain(message, _LONGEST_MESSAGE), file=sys.stderr, flush=True)


def say_diversions(diversions: Sequence[dict[str, Any]]) -> None:
    """Print where the kernel sends pods' packets elsewhere: each cause once, and each hint once below its causes."""
    causes_by_hint: dict[str, list[str]] = {}
    for diversion in diversions:
        causes_by_hint.setdefault(diversion["hint"]["text"], []).append(diversion["cause"])
    for hint, causes in causes_by_hint.items():
        for cause in dict.fromkeys(causes):
            say(cause)
        say(f"  hint: {hint}")


def write(text: str = "", flush: bool = False) -> None:
    """Print lines of the command's result on stdout; `flush`: at once, also into a pipe."""
    print(plain(text), flush=flush)


class Progress:
    """Show progress on stderr: a spinner at a terminal; in a pipe nothing, or a line for each step."""

    def __init__(self, lines: bool) -> None:
        """`lines`: print a line for each step in a pipe."""
        self._lines = lines
        self._spinner = groups.terminal().Spinner() if sys.stderr.isatty() else None

    def __call__(self, step: str) -> None:
        """Show the next step."""
        if self._spinner is not None:
            self._spinner.show(plain(step))
        elif self._lines:
            say(f"… {step}")

    def pause(self) -> None:
        """Stop the spinner until the next step."""
        if self._spinner is not None:
            self._spinner.stop()


@contextmanager
def working(step: str = "", lines: bool = False) -> Iterator[Progress]:
    """Show progress on stderr within the context; call the result with the next step.

    Call its `pause` before printing on stdout.
    """
    progress = Progress(lines)
    try:
        if step:
            progress(step)
        yield progress
    finally:
        progress.pause()


JSON_VERSION = 1
"""The version of the JSON that commands print. docs/json.md says what raises it."""


def print_json(document: Mapping[str, Any]) -> None:
    """Print the command's whole result on stdout as one JSON object."""
    print(json.dumps({"version": JSON_VERSION, **document}, indent=2))


def print_items(items: Iterable[Mapping[str, Any]], facts: Mapping[str, Any] | None = None) -> None:
    """Print the command's result on stdout as one JSON object with a list of `items`; `facts` are its other keys."""
    print_json({**(facts or {}), "items": list(items)})


def print_json_line(document: Mapping[str, Any]) -> None:
    """Print one JSON object on a line of its own immediately: further lines may follow it."""
    print(json.dumps({"version": JSON_VERSION, **document}), flush=True)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Print rows: a rich table at a terminal, aligned plain columns in a pipe."""
    rows = [[untrusted_text.line(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        _print_plain(columns, rows)
        return
    groups.terminal().print_table(columns, rows, title)


def print_lines(lines: Iterable[tuple[str, str]]) -> None:
    """Print lines on stdout, each a style and its text: coloured at a terminal."""
    if sys.stdout.isatty():
        groups.terminal().print_lines((style, plain(text)) for style, text in lines)
        return
    for _, text in lines:
        print(plain(text))


def _print_plain(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    heading = [[column.upper() for column in columns]] if any(columns) else []
    lines = [*heading, *[list(row) for row in rows]]
    widths = [max(min(len(line[i]), _WIDEST) for line in lines) for i in range(len(columns))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
