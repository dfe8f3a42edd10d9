"""Render a command's help as plain text, wrapped once to the terminal's width.

typer's own help needs rich, whose import takes longer than a short command runs.
"""

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

_WIDEST, _NARROWEST = 100, 40
_LONGEST_NAME = 28
"""Columns; the explanation of a longer name is on the lines below it."""
_VERBATIM = "\b"
"""The line that opens a paragraph which must not be wrapped: a help text's examples."""


def text(command: Any, context: Any) -> str:
    """Return the help of a command or group for a context of click's."""
    width = max(_NARROWEST, min(shutil.get_terminal_size().columns, _WIDEST))
    pieces = (piece.strip("{}") for piece in command.collect_usage_pieces(context))  # newer releases of typer add them
    usage = textwrap.fill(
        " ".join([context.command_path, *pieces]),
        width,
        initial_indent="Usage: ",
        subsequent_indent="       ",
        break_on_hyphens=False,
        break_long_words=False,
    )
    sections = [usage, *_description(command.help or "", width)]
    for title, rows in _lists(command, context):
        if rows:
            sections.append("\n".join([_heading(title), *_columns(rows, width)]))
    return "\n\n".join(sections)


def _description(words: str, width: int) -> Iterator[str]:
    for paragraph in words.split("\n\n"):
        first, _, rest = paragraph.partition("\n")
        if first.strip() == _VERBATIM:
            yield f"{_heading('Examples')}\n{textwrap.indent(textwrap.dedent(rest).rstrip(), '  ')}"
        elif paragraph.strip():
            yield _filled(paragraph, width)


def _lists(command: Any, context: Any) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    for title, kind in (("Arguments", "argument"), ("Options", "option")):
        chosen = [each for each in command.get_params(context) if each.param_type_name == kind]
        records = [record for each in chosen if (record := each.get_help_record(context)) is not None]
        yield title, [(name, ranges_in_words(explanation)) for name, explanation in records]
    if hasattr(command, "list_commands"):
        listed = [command.get_command(context, name) for name in command.list_commands(context)]
        yield "Commands", [(each.name, each.short_help) for each in listed if not each.hidden]


def ranges_in_words(text: str) -> str:
    """Return a text of click's with its ranges in words: `1 to 16` for `1<=x<=16`, and `at least 0` for `x>=0`."""
    return re.sub(r"x>=([\d.]+)", r"at least \1", re.sub(r"([\d.]+)<=x<=([\d.]+)", r"\1 to \2", text))


def _columns(rows: list[tuple[str, str]], width: int) -> Iterator[str]:
    names = max((len(name) for name, _ in rows if len(name) <= _LONGEST_NAME), default=_LONGEST_NAME)
    indent = " " * (names + 4)
    for name, explanation in rows:
        lines = _filled(explanation, width, indent).splitlines()
        if lines and len(name) <= names:
            yield f"  {name.ljust(names)}  {lines.pop(0).strip()}"
        else:
            yield f"  {name}"
        yield from lines


def _filled(words: str, width: int, indent: str = "") -> str:
    return textwrap.fill(
        " ".join(words.split()),
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )


def _heading(title: str) -> str:
    bold = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"
    return f"\x1b[1m{title}:\x1b[0m" if bold else f"{title}:"
