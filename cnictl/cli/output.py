"""How every command speaks: a rich table at a terminal, plain text in a pipe, JSON alone on stdout.

Messages go to stderr. Colour never carries meaning alone: every state is also a word.
"""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, Any

import typer

from cnictl.cli import encoding
from cnictl.core import outside


class Format(StrEnum):
    """What `-o` takes."""

    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[Format, typer.Option("--output", "-o", help="table for people, json for programs.")]

STYLES = {
    "ok": "green", "already so": "dim", "changed": "yellow", "would change": "yellow", "failed": "bold red",
    "live": "green", "stale": "yellow", "torn": "yellow", "unknown": "dim", "in flight": "cyan",
    "freed": "yellow", "would free": "yellow", "left": "dim", "uncertain": "yellow", "drifted": "yellow",
    "undone": "magenta",
    "error": "bold red", "warning": "yellow", "skipped": "dim",
}  # fmt: skip


_LONGEST_MESSAGE, _LONGEST_LINE = 4000, 1 << 16
"""Characters of a line on stderr, and of one on stdout: a command that is there to be copied stays whole."""
_WIDEST = 80
"""Characters that a column is aligned to in a pipe: one long cell doesn't pad every other row."""


def plain(text: str, longest: int = _LONGEST_LINE) -> str:
    """Return text for a terminal or a pipe: what names from outside hold beyond plain letters is escaped.

    Its own line ends stay. All that commands print passes here, but for JSON.
    """
    return "\n".join(outside.line(part, longest) for part in text.split("\n"))


def say(message: str) -> None:
    """Print a message for the person on stderr. One that can't be written doesn't stop the work."""
    with contextlib.suppress(OSError):
        print(plain(message, _LONGEST_MESSAGE), file=sys.stderr, flush=True)


def say_strays(strays: Sequence[dict[str, str]]) -> None:
    """Print where packets of pods go astray on stderr, each cause once, and under those of one hint the hint."""
    for hint in dict.fromkeys(stray["mend"] for stray in strays):
        for cause in dict.fromkeys(stray["cause"] for stray in strays if stray["mend"] == hint):
            say(cause)
        say(f"  hint: {hint}")


def write(text: str = "") -> None:
    """Print lines of the command's result on stdout."""
    print(plain(text))


def spinner() -> str:
    """Return the name of the spinner that a terminal can show."""
    return "dots" if encoding.takes(sys.stderr, "\u280b") else "line"


@contextmanager
def working(what: str) -> Iterator[Callable[[str], None]]:
    """Say on stderr what is going on for as long as it does, at a terminal; nothing in a pipe.

    What it gives says the next thing. Print nothing on stdout meanwhile.
    """
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status(Text(plain(what)), spinner=spinner()) as status:
        yield lambda text: status.update(Text(plain(text)))


def print_json(value: Any) -> None:
    """The command's whole result as one JSON document on stdout."""
    json.dump(value, sys.stdout, indent=2)
    sys.stdout.write("\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Rows of text: a rich table at a terminal, aligned plain columns in a pipe."""
    rows = [[outside.line(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        _print_plain(columns, rows)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", header_style="bold", show_header=any(columns))
    for column in columns:
        # a narrow terminal breaks a name over lines; cut off, it could be any
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, style=STYLES.get(cell.split(":")[0], "")) for cell in row))
    Console().print(table)


def _print_plain(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    heading = [[column.upper() for column in columns]] if any(columns) else []
    lines = [*heading, *[list(row) for row in rows]]
    widths = [max(min(len(line[i]), _WIDEST) for line in lines) for i in range(len(columns))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
