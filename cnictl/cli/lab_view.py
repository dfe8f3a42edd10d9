"""How `cnictl lab demo` looks: progress on stderr, each act's commands and matrix on stdout."""

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any

from cnictl.cli.output import print_table, spinner

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.status import Status

    from cnictl.lab.demo import Played

_SVG_WIDTH = 126


class Progress:
    """What is being done: a spinner at a terminal, a line each elsewhere."""

    def __init__(self) -> None:
        self._status: Status | None = None
        if sys.stderr.isatty():
            from rich.console import Console

            self._status = Console(stderr=True).status("", spinner=spinner())

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.rest()

    def rest(self) -> None:
        """Leave the terminal to others until the next step."""
        if self._status:
            self._status.stop()

    def say(self, step: str) -> None:
        """Show what comes next."""
        if self._status:
            self._status.update(step)
            self._status.start()
        else:
            print(f"… {step}", file=sys.stderr, flush=True)


def show(number: int, played: "Played") -> None:
    """An act: its commands, what they stood for, and the matrix it led to."""
    verdict = "as expected" if not played.surprises else "NOT as expected"
    if not sys.stdout.isatty():
        print(f"{number}. {played.act.title} ({played.seconds:.1f} s, {verdict})")
        for line in _commands(played):
            print(line)
        from cnictl.probe.matrix import lines
        from cnictl.probe.reading import report_from_json

        for name, form in played.reports.items():
            print(f"\npods on {name}:")
            print_table(*lines(report_from_json(form)))
        print(flush=True)
        return
    from rich.console import Console
    from rich.text import Text

    console = Console()
    heading = Text.assemble((f"{number}. {played.act.title}", "bold"), f"  {played.seconds:.1f} s, {verdict}")
    console.print(heading)
    for line in _commands(played):
        console.print(Text(line, style="" if line.startswith("  node") else "dim"), soft_wrap=True)
    console.print(_matrix(played), "")


def save_svg(played: "Played", path: str) -> None:
    """The act's matrix as a picture. Raises Problem if the file can't be written."""
    import io

    from rich.console import Console

    from cnictl.core.errors import Problem

    console = Console(record=True, width=_SVG_WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(_matrix(played))
    try:
        console.save_svg(path, title="cnictl test-connectivity")
    except OSError as error:
        raise Problem(f"{path}: {error.strerror}") from None


def as_json(played: "Played") -> dict[str, Any]:
    """An act for programs."""
    return {
        "title": played.act.title,
        "seconds": round(played.seconds, 2),
        "as_expected": not played.surprises,
        "surprises": played.surprises,
        "commands": dict(played.commands),
        "by_hand": dict(played.by_hand),
        "reports": dict(played.reports),
    }


def _commands(played: "Played") -> list[str]:
    first = next(iter(played.commands))
    lines = [f"  {name}$ {command}" for name, command in played.commands.items()]
    lines.append(f"  by hand on {first}:")
    return lines + [f"    {line}" for line in played.by_hand[first]]


def _matrix(played: "Played") -> "RenderableType":
    from cnictl.probe.matrix import matrix
    from cnictl.probe.reading import report_from_json

    return matrix([(name, report_from_json(form)) for name, form in played.reports.items()])
