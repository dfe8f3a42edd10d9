"""Show what a command takes away before it does, and ask at a terminal.

The node is not held while a person thinks: what is found afterwards is compared with what was shown.
"""

import sys
from collections.abc import Iterable
from typing import Annotated

import typer

from cnictl.cli.output import say
from cnictl.core.errors import Problem
from cnictl.node.runs.live_pods import AttachedPod
from cnictl.node.spine import Plan

YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]


def asks(yes: bool) -> bool:
    """Return whether a person is there to be asked."""
    return not yes and sys.stdin.isatty()


def show(lines: Iterable[str]) -> None:
    """Show on stderr what is about to go."""
    for line in lines:
        say(f"  {line}")


def confirm(question: str) -> None:
    """Ask, on stderr. Any answer but yes ends the command with exit status 1."""
    if not typer.confirm(question, err=True):
        say("nothing was changed")
        raise typer.Exit(1)


def pod(shown: AttachedPod) -> str:
    """Return what tells a pod from others, whatever has become of it since."""
    return f"{shown.network} {shown.container or shown.lost_port} {shown.ifname} {shown.name}".strip()


def refuse_unshown(shown: Plan, now: Plan, also_shown: Iterable[object] = (), also_now: Iterable[object] = ()) -> None:
    """Raise Problem if there is more to do now than was shown: changes, or other things such as pods."""
    known = {change.resource: change for change in shown.changes}
    more = [change.summary for change in now.changes if known.get(change.resource) != change]
    seen = set(map(str, also_shown))
    more += [text for text in map(str, also_now) if text not in seen]
    if more:
        raise Problem(
            f"this host changed while cnictl waited for the answer ({'; '.join(more)}); nothing was changed",
            "run the command again",
        )
