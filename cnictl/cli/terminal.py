"""Draw colours and the spinner. This module is imported only if there is a terminal."""

import io
import sys
from collections.abc import Iterable

from rich import console
from rich.text import Text

from cnictl.cli import encoding
from cnictl.cli.layout import Line, Segment

_STYLES = {
    "ok": "green", "unchanged": "dim", "changed": "yellow", "would change": "yellow", "failed": "bold red",
    "live": "green", "stale": "yellow", "torn": "yellow", "unknown": "dim", "in flight": "cyan",
    "freed": "yellow", "would free": "yellow", "left": "dim", "uncertain": "yellow", "drifted": "yellow",
    "undone": "magenta",
    "no answer": "bold red", "one-way": "bold red", "masqueraded": "bold red", "wrong host": "bold red",
    "no address": "bold red", "not reached": "bold red", "not known": "bold red", "loss": "yellow",
    "error": "bold red", "warning": "yellow", "skipped": "dim",
}  # fmt: skip


def print_layout(lines: Iterable[Line]) -> None:
    """Print lines that are laid out for the screen, on stdout. The terminal folds a word that is wider than it."""
    stdout = console.Console(soft_wrap=True, highlight=False)
    for line in lines:
        text = coloured(line)
        text.rstrip()
        stdout.print(text)


def coloured(line: Line) -> Text:
    """Return a line of a table with its colours."""
    return Text.assemble(*((segment.text, _style(segment)) for segment in line))


def save_picture(lines: Iterable[Line], path: str, title: str, width: int) -> None:
    """Save lines as an SVG picture of a terminal. Raises OSError."""
    recorder = console.Console(
        record=True, width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor", highlight=False
    )
    for line in lines:
        recorder.print(coloured(line), soft_wrap=True)
    recorder.save_svg(path, title=title)


def _style(segment: Segment) -> str:
    return "bold" if segment.heading else _STYLES.get(segment.cell.split(":")[0], "")


def print_lines(lines: Iterable[tuple[str, str]]) -> None:
    """Print lines on stdout, each a style and its text."""
    stdout = console.Console(soft_wrap=True, highlight=False)  # people copy commands from here: don't wrap lines
    for style, text in lines:
        stdout.print(Text(text, style=style))


class Spinner:
    """An animated line on stderr while cnictl works."""

    def __init__(self) -> None:
        """Show nothing yet."""
        name = "dots" if encoding.can_encode(sys.stderr, "\u280b") else "line"
        self._status = console.Console(stderr=True).status("", spinner=name)

    def show(self, text: str) -> None:
        """Show what cnictl is doing now."""
        self._status.update(Text(text))
        self._status.start()

    def stop(self) -> None:
        """Remove the line."""
        self._status.stop()
