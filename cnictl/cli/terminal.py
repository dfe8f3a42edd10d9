"""Tables, coloured lines and the spinner as a terminal shows them. Imported only where there is a terminal."""

import sys
from collections.abc import Iterable, Sequence

from rich import console
from rich.table import Table
from rich.text import Text

from cnictl.cli import encoding

_STYLES = {
    "ok": "green", "unchanged": "dim", "changed": "yellow", "would change": "yellow", "failed": "bold red",
    "live": "green", "stale": "yellow", "torn": "yellow", "unknown": "dim", "in flight": "cyan",
    "freed": "yellow", "would free": "yellow", "left": "dim", "uncertain": "yellow", "drifted": "yellow",
    "undone": "magenta",
    "no answer": "bold red", "one-way": "bold red", "masqueraded": "bold red", "wrong host": "bold red",
    "no address": "bold red", "not reached": "bold red", "not known": "bold red", "loss": "yellow",
    "error": "bold red", "warning": "yellow", "skipped": "dim",
}  # fmt: skip


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> None:
    """Print rows of text as a table on stdout."""
    table = Table(title=title or None, title_justify="left", header_style="bold", show_header=any(columns))
    for column in columns:
        # a narrow terminal wraps a long name, which would be ambiguous if it were cut off
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, style=_STYLES.get(cell.split(":")[0], "")) for cell in row))
    console.Console().print(table)


def print_lines(lines: Iterable[tuple[str, str]]) -> None:
    """Print lines on stdout, each a style and its text."""
    stdout = console.Console(soft_wrap=True, highlight=False)  # people copy commands from here, so lines stay whole
    for style, text in lines:
        stdout.print(Text(text, style=style))


class Spinner:
    """An animated line on stderr while cnictl works."""

    def __init__(self) -> None:
        """Show nothing yet."""
        name = "dots" if encoding.takes(sys.stderr, "\u280b") else "line"
        self._status = console.Console(stderr=True).status("", spinner=name)

    def show(self, text: str) -> None:
        """Show what cnictl is doing now."""
        self._status.update(Text(text))
        self._status.start()

    def stop(self) -> None:
        """Remove the line."""
        self._status.stop()
