"""Print what a command would change as a shell script: first a summary, then each step with its manual command.

Everything that is not a command is a comment, so the whole can be pasted into root's shell, where it does what the
command would do. The content of a file appears once, in the command that writes it.
"""

from collections.abc import Iterable, Iterator, Sequence

from cnictl.cli import differences
from cnictl.cli.differences import Line
from cnictl.core.counted import counted
from cnictl.node.spine import Change, Plan

NOTHING = "nothing would change: the node is as it should be"


def show(plan: Plan, refusal: str = "") -> None:
    """Print a plan on stdout; `refusal`: why the command would not carry it out."""
    if refusal:
        differences.write([("~", comment(f"refused without --force: {refusal}"))])
    differences.write(of_plan(plan))


def show_changes(changes: Sequence[Change]) -> None:
    """Print changes on stdout."""
    differences.write(of_changes(changes))


def of_plan(plan: Plan) -> Iterator[Line]:
    """Return the lines of the script of a plan."""
    for step in plan.unknown:
        yield "~", comment(f"not known: {step.resource.id}: {step.unknown}")
    yield from _summary(plan.changes)
    right = sum(step.change is None and not step.unknown for step in plan.steps)
    if right and plan.changes:
        yield "=", f"# unchanged: {counted(right, 'resource')}"
    yield from _steps(plan.changes)


def of_changes(changes: Sequence[Change]) -> Iterator[Line]:
    """Return the lines of the script of some changes."""
    yield from _summary(changes)
    yield from _steps(changes)


def of_commands(summary: str, commands: Iterable[str]) -> Iterator[Line]:
    """Return one step: what it does, and its commands."""
    yield "~", comment(summary)
    yield from (("", line) for command in commands for line in command.split("\n"))


def comment(text: str) -> str:
    """Return a text as comments of a shell script, whatever lines it has."""
    return "\n".join(f"# {line}" for line in text.split("\n"))


def _summary(changes: Sequence[Change]) -> Iterator[Line]:
    if not changes:
        return
    count = len(changes)
    yield "~", f"# would change ({count}; nothing is changed yet):"
    yield from (("~", comment(f"{number:>4}. {change.summary}")) for number, change in enumerate(changes, 1))


def _steps(changes: Sequence[Change]) -> Iterator[Line]:
    for number, change in enumerate(changes, 1):
        yield "", ""
        yield "~", comment(f"{number}. {change.summary}")
        for kind, text in differences.difference(change.before or {}, change.after or {}, texts=False):
            yield kind, comment(f"    {text}")
        yield from (("", line) for line in change.command.split("\n") if change.command)
        if not change.command:
            yield "=", "#    no command is needed"
