"""How every command speaks: a rich table at a terminal, plain text in a pipe, JSON alone on stdout.

Messages go to stderr. Colour never carries meaning alone: every state is also a word.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, Any

import typer


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


def say(message: str) -> None:
    """A message for the person, on stderr."""
    print(message, file=sys.stderr)


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

    with Console(stderr=True).status(Text(what)) as status:
        yield lambda text: status.update(Text(text))


def print_json(value: Any) -> None:
    """The command's whole result as one JSON document on stdout."""
    json.dump(value, sys.stdout, indent=2)
    sys.stdout.write("\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Rows of text: a rich table at a terminal, aligned plain columns in a pipe."""
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
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
