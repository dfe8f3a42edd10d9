"""Print the output of commands: tables without boxes, names, or one JSON document on stdout.

A table looks the same at a terminal and in a pipe, except that a terminal adds colour and limits the width. Messages go
to stderr. Colour never carries meaning alone: every state is also a word.
"""

import contextlib
import json
import os
import select
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, Any

import typer

from cnictl.cli import groups, layout
from cnictl.core import untrusted_text
from cnictl.core.errors import UsageProblem


class Format(StrEnum):
    """The values of `-o`."""

    TABLE = "table"
    WIDE = "wide"
    NAME = "name"
    JSON = "json"


_SINGLE = (Format.TABLE, Format.JSON)


def refuse_list_format(chosen: Format, command: str) -> None:
    """Raise UsageProblem if a list format is chosen for a command that prints no list, such as `history RUN`."""
    if chosen not in _SINGLE:
        raise UsageProblem(f"-o {chosen}: {command} prints no list", "use -o table or -o json")


def _known_format(text: str) -> Format:
    """Return the format of that name. The error lists only the formats of a command that shows one thing."""
    if text not in list(Format):
        raise typer.BadParameter(f"{text!r} is not one of {', '.join(repr(str(each)) for each in _SINGLE)}.")
    return Format(text)


def _of_one_thing(context: typer.Context, chosen: Format) -> Format:
    if not context.resilient_parsing:
        refuse_list_format(chosen, context.command_path)
    return chosen


OutputOption = Annotated[
    Format,
    typer.Option(
        "--output",
        "-o",
        metavar="[table|json]",
        parser=_known_format,
        callback=_of_one_thing,
        autocompletion=lambda: [str(each) for each in _SINGLE],
        help="table for people, json for programs.",
    ),
]
"""The option of commands that show one thing."""
ListOption = Annotated[
    Format,
    typer.Option(
        "--output",
        "-o",
        help="table for people; wide: more columns, nothing shortened; name: one name on each line; json for programs.",
    ),
]
"""The option of commands that list things."""

_LONGEST_MESSAGE, _LONGEST_LINE = 4000, 1 << 16
"""The most characters of a line on stderr, and on stdout, where commands must stay complete to be copied."""


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
    """Print how the kernel diverts pods' packets."""
    for line in diversion_lines(diversions):
        say(line)


def diversion_lines(diversions: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield how the kernel diverts pods' packets: each cause once, and each hint once below its causes."""
    causes_by_hint: dict[str, list[str]] = {}
    for diversion in diversions:
        causes_by_hint.setdefault(diversion["hint"]["text"], []).append(diversion["cause"])
    for hint, causes in causes_by_hint.items():
        yield from dict.fromkeys(causes)
        yield f"  hint: {hint}"


def write(text: str = "", flush: bool = False) -> None:
    """Print lines of the command's result on stdout; `flush`: immediately, also into a pipe."""
    print(plain(text), flush=flush)


_STDOUT = 1


def pause(seconds: float) -> None:
    """Wait, and pass on what was printed before. Raises BrokenPipeError as soon as nobody reads stdout any more."""
    sys.stdout.flush()
    end = time.monotonic() + seconds
    watch = select.poll()
    watch.register(_STDOUT, 0)
    events = watch.poll(seconds * 1000)
    if any(event & (select.POLLERR | select.POLLHUP) for _, event in events):
        raise BrokenPipeError
    select.select([], [], [], max(0.0, end - time.monotonic()))  # poll(2) returns early for a closed descriptor


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
    """Print one JSON object on its own line immediately, because further lines may follow."""
    print(json.dumps({"version": JSON_VERSION, **document}), flush=True)


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], whole: int = 0, wide: bool = False, prose: int = 0
) -> None:
    """Print rows in columns, as `cnictl.cli.layout` lays them out for the screen.

    The last `whole` columns hold commands to copy, and the `prose` columns before them sentences: each gets its own
    lines. `wide`: never wrap a line, as in a pipe.
    """
    width = None if wide else screen_width()
    longest = longest_cell(None) if wide else untrusted_text.LONGEST_TEXT
    print_layout(laid_out(columns, rows, width, whole, longest, prose))


def longest_cell(width: int | None) -> int:
    """Return the most characters of a cell on a screen of this width, or on one without a limit (None)."""
    return _LONGEST_LINE if width is None else untrusted_text.LONGEST_TEXT


def laid_out(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int | None,
    whole: int = 0,
    longest: int = untrusted_text.LONGEST_TEXT,
    prose: int = 0,
) -> list[layout.Line]:
    """Return the lines of a table for a screen of this width, with control characters escaped.

    `longest`: the most characters of a cell, except in the last `whole` columns, which are copied and run.
    """
    end = len(columns) - whole
    cells = [
        [untrusted_text.line(cell, longest if place < end else _LONGEST_LINE) for place, cell in enumerate(row)]
        for row in rows
    ]
    return layout.table(columns, cells, width, whole, prose)


def print_layout(lines: Iterable[layout.Line]) -> None:
    """Print lines that are already laid out; in colour at a terminal."""
    if sys.stdout.isatty():
        groups.terminal().print_layout(lines)
        return
    for line in lines:
        print(layout.text_of(line))


def print_list(
    output: Format,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    names: Iterable[str],
    more: int = 0,
    whole: int = 0,
) -> None:
    """Print a list for people, or its names for scripts.

    The last `more` columns before the last `whole` ones (see `print_table`) are shown only with `-o wide`.
    """
    if output is Format.NAME:
        print_names(names)
        return
    is_wide = output is Format.WIDE
    end = len(columns) - whole
    usual = end if is_wide else end - more

    def chosen(cells: Sequence[str]) -> Sequence[str]:
        return [*cells[:usual], *cells[end:]]

    print_table(chosen(columns), list(map(chosen, rows)), whole, is_wide)


def print_names(names: Iterable[str]) -> None:
    """Print names, each once and on its own line, for other commands to read."""
    for name in dict.fromkeys(filter(None, names)):
        print(untrusted_text.line(name, _LONGEST_LINE))


_LEAST_ROOM = 24
"""The least columns that a text is wrapped to."""


def screen_width() -> int | None:
    """Return the columns of the terminal that stdout is; None if it is none, and lines have no limit."""
    if not sys.stdout.isatty():
        return None
    return screen_size().columns


def screen_size() -> os.terminal_size:
    """Return the size of the terminal that stdout is. The environment's COLUMNS and LINES take precedence."""
    try:
        columns, lines = os.get_terminal_size(sys.stdout.fileno())
    except (OSError, ValueError):
        columns, lines = 0, 0
    given = [os.environ.get(name, "") for name in ("COLUMNS", "LINES")]
    chosen = [int(text) if text.isdecimal() else 0 for text in given]
    return os.terminal_size((chosen[0] or columns or 80, chosen[1] or lines or 24))


def print_hanging(lead: str, text: str, style: str = "") -> None:
    """Print `lead` and a text that is wrapped at spaces to the terminal, its further lines indented below the first."""
    width = screen_width()
    room = max(_LEAST_ROOM, width - layout.width_of(lead)) if width is not None else None
    first, *others = layout.wrapped(plain(text), room) if room is not None else [plain(text)]
    indent = " " * layout.width_of(lead)
    print_lines([(style, lead + first), *((style, indent + line) for line in others)])


def print_lines(lines: Iterable[tuple[str, str]]) -> None:
    """Print lines on stdout, each a style and its text: coloured at a terminal."""
    if sys.stdout.isatty():
        groups.terminal().print_lines((style, plain(text)) for style, text in lines)
        return
    for _, text in lines:
        print(plain(text))
