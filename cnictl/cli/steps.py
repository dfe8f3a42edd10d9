"""Show the plans and runs of commands that change this node, and ask before changes."""

from __future__ import annotations  # a type would execute the module that the loader postpones

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import typer

from cnictl.cli import asking, output, script
from cnictl.cli.output import Format, print_json, print_table
from cnictl.core.counted import counted
from cnictl.core.errors import UsageProblem
from cnictl.node import spine
from cnictl.node.runs import engine, live_pods
from cnictl.views import network_views


def options_of(
    dry_run: bool, exit_code: bool, force: bool = False, no_wait: bool = False, confirm_within: int | None = None
) -> engine.Options:
    """Return the options of a run. Raises UsageProblem for options that exclude each other."""
    if exit_code and not dry_run:
        raise UsageProblem("--exit-code needs --dry-run: without it, the exit status says whether the run failed")
    return engine.Options(dry_run, force, no_wait, confirm_within)


_NOTHING = "nothing to change: the node is as it should be"


def with_count(nothing: str, plan: spine.Plan) -> str:
    """Return the message of a run without changes, with the number of resources that it compared."""
    return f"{nothing} ({counted(len(plan.steps), 'resource')} checked)" if plan.steps else nothing


class Terminal:
    """An `engine.Operator` at a terminal: shows a run on stdout and stderr, and asks."""

    def __init__(
        self,
        output: Format,
        exit_code: bool = False,
        yes: bool = False,
        nothing: str = "",
    ) -> None:
        """`exit_code`: a preview with changes ends with status 1. `nothing`: the message of a run without changes."""
        self._output = output
        self._exit_code = exit_code
        self._yes = yes
        self._nothing = nothing
        self.json_extra: dict[str, Any] = {}
        """Further values for the JSON document of the run."""

    def say(self, message: str) -> None:
        """Print a message on stderr."""
        output.say(message)

    def working(self, step: str) -> AbstractContextManager[Callable[[str], None]]:
        """Show on stderr what the run is doing."""
        return output.working(step)

    def can_ask(self) -> bool:
        """Return whether there is a person to ask."""
        return asking.can_ask(self._yes)

    def approve(self, lines: Iterable[str], question: str) -> None:
        """Show what is about to change, and ask. Any answer but yes ends the command with exit status 1."""
        asking.show(lines)
        asking.confirm(question)

    def preview(self, plan: spine.Plan, pods: Sequence[live_pods.AttachedPod] | None = None, refusal: str = "") -> None:
        """Show what a run would change, as a script; `pods` would lose their attachments. `refusal`: why it can't run.

        The caller raises the refusal afterwards.
        """
        if self._output is Format.JSON:
            report = engine.Report(plan, {change.resource: "would change" for change in plan.changes})
            cut = {} if pods is None else {"pods_cut_off": [str(pod) for pod in pods]}
            print_json({"would_change": len(plan.changes), "steps": report.rows(), **self.json_extra, **cut})
        else:
            script.show(plan, refusal)
            for pod in () if refusal else pods or ():
                self.say(f"would delete the attachment of {pod}")
            if not plan.changes and not plan.unknown:
                self.say(with_count(self._nothing or script.NOTHING, plan))
        plan.refuse_unknown()
        if self._exit_code and plan.changes and not refusal:
            raise typer.Exit(1)

    def report(self, done: engine.Report) -> None:
        """Show a run as a table or JSON; then name the pods whose MTU is now larger than the bridge's."""
        rows, extra = done.rows(), dict(self.json_extra)
        if done.error:
            extra["error"] = done.error
        if done.confirm_within:
            extra |= {"run": done.run, "confirm_within": done.confirm_within}
        if self._output is Format.JSON:
            print_json({"changed": sum(row["outcome"] == "changed" for row in rows), "steps": rows, **extra})
        else:
            off = [row for row in rows if row["outcome"] != "unchanged"]
            if off and (done.outcomes or not done.error):
                right = len(rows) - len(off)
                rest = [("unchanged", counted(right, "resource"))] if right else []
                print_table(("outcome", "step"), [*((row["outcome"], row["summary"]) for row in off), *rest])
            if not done.error and not done.plan.changes and not done.plan.unknown:
                self.say(with_count(self._nothing or _NOTHING, done.plan))
        if done.spec is not None and not done.error and (note := network_views.mtu_note(done.spec, done.plan)):
            self.say(note)
