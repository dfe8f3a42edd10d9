"""Show what a command is about to remove, and ask at a terminal.

The node is not locked while the command waits for the answer. Afterwards the command compares the node with what it
showed.
"""

import sys
from collections.abc import Iterable
from typing import Annotated

import typer

from cnictl.cli.output import say

YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]


def can_ask(yes: bool) -> bool:
    """Return whether there is a person to ask."""
    return not yes and sys.stdin.isatty()


def show(lines: Iterable[str]) -> None:
    """Show on stderr what is about to change."""
    for line in lines:
        say(f"  {line}")


def confirm(question: str) -> None:
    """Ask, on stderr. Any answer but yes ends the command with exit status 1."""
    if not typer.confirm(question, err=True):
        say("nothing was changed")
        raise typer.Exit(1)
