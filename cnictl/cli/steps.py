"""How a plan and a run are shown: what would be typed by hand, and a table of what was done."""

import contextlib
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnictl.cli.output import Format, print_json, print_table, say, working

if TYPE_CHECKING:
    from cnictl.node.live_pods import Pod
    from cnictl.node.spec import NodeSpec
    from cnictl.node.spine import Change, OnStep, Plan

DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Change nothing: show each difference and the command for it by hand.")
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Go on although live pods lose their network; their attachments are deleted.")
]


class Steps:
    """A run's steps and their outcomes, in order."""

    def __init__(self) -> None:
        self._outcomes: dict[str, str] = {}

    def note(self, change: "Change", outcome: str) -> None:
        """Take a step's outcome; the spine calls it."""
        self._outcomes[change.resource] = outcome

    def following(self, plan: "Plan", tell: Callable[[str], None]) -> "OnStep":
        """`note` for a run of `plan` that also tells the step that is at work."""
        ahead = list(plan.changes)
        count = len(ahead)

        def tell_next() -> None:
            if ahead:
                tell(f"{count - len(ahead) + 1} of {count}: {ahead[0].summary}")

        def note(change: "Change", outcome: str) -> None:
            self.note(change, outcome)
            if outcome == "undone":
                tell(f"taken back: {change.summary}")
                return
            ahead[:] = [one for one in ahead if one.resource != change.resource]
            tell_next()

        tell_next()
        return note

    def rows(self, plan: "Plan") -> list[dict[str, Any]]:
        """Each step as JSON values."""
        found = []
        for step in plan.steps:
            change = step.change
            outcome = "already so" if change is None else self._outcomes.get(change.resource, "not reached")
            row: dict[str, Any] = {"resource": step.resource.id, "outcome": outcome, "summary": step.summary}
            if change is not None:
                row |= {"before": change.before, "after": change.after, "command": change.command}
            found.append(row)
        return found


def require_root(command: str, why: str) -> None:
    """Raise Problem unless this process is root (in its user namespace)."""
    import os

    from cnictl.core.errors import Problem

    if os.geteuid() != 0:
        raise Problem(f"cnictl {command} needs root: it {why}", f"sudo cnictl {command}")


_NOTHING = "nothing to change: the node is as it should be"


def show_run(plan: "Plan", steps: Steps, output: Format, nothing: str = _NOTHING, **more: Any) -> None:
    """The table of a run, or its JSON; `nothing` is said where there was nothing to do."""
    rows = steps.rows(plan)
    changed = sum(row["outcome"] == "changed" for row in rows)
    if output is Format.JSON:
        print_json({"changed": changed, "steps": rows, **more})
        return
    if rows:
        print_table(("step", "outcome"), [(row["summary"], row["outcome"]) for row in rows])
    if not plan.changes:
        say(nothing)


def show_plan(plan: "Plan", output: Format, **more: Any) -> None:
    """What a run would change, with the commands that do the same by hand."""
    steps = Steps()
    for change in plan.changes:
        steps.note(change, "would change")
    if output is Format.JSON:
        print_json({"would_change": len(plan.changes), "steps": steps.rows(plan), **more})
        return
    for step in plan.steps:
        print(f"{'already so' if step.change is None else 'would change'}: {step.summary}")
        if step.change is not None:
            for line in _difference(step.change.before, step.change.after):
                print(f"    {line}")
            for number, line in enumerate(step.change.command.splitlines()):
                print(f"    {'#' if number == 0 else ' '} {line}")
    for pod in more.get("pods_cut_off", ()):
        say(f"would delete the attachment of {pod}")
    if not plan.changes:
        say("nothing would change: the node is as it should be")


def _difference(before: dict[str, Any] | None, after: dict[str, Any] | None) -> list[str]:
    """`- key: before` and `+ key: after` for what differs; long texts are left to the command."""
    lines = []
    old, new = before or {}, after or {}
    for key in dict.fromkeys([*old, *new]):
        if old.get(key) != new.get(key):
            for sign, side in (("-", old), ("+", new)):
                if key in side and len(shown := compact(side[key])) <= 100:
                    lines.append(f"{sign} {key}: {shown}")
    return lines


def compact(value: Any) -> str:
    """A state's value in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {compact(entry)}" for key, entry in value.items())
    if isinstance(value, list):
        return ", ".join(compact(entry) for entry in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def edit_node(
    command: str,
    edit: "Callable[[NodeSpec], NodeSpec]",
    only: Collection[str],
    dry_run: bool,
    output: Format,
    start: "NodeSpec | None" = None,
    force: bool = False,
) -> None:
    """Change this node's spec, and make just those kinds of resources so.

    `start` is the spec to edit; by default that of this node.
    """
    from cnictl.node import addressing, converge, host, peers, spine

    with contextlib.nullcontext() if dry_run else spine.exclusive():
        spec = addressing.check(edit(start or converge.current_spec()))
        peers.check_not_ours(spec.peers, host.own_interfaces())
        host.check_links(spec)
        pods = pods_in_the_way(command, spec, force)
        if dry_run:
            show_plan(converge.plan(spec, only).whole, output, pods_cut_off=[str(pod) for pod in pods])
            return
        detach(pods)
        run(command, spec, only, output)


def pods_in_the_way(command: str, spec: "NodeSpec | None", force: bool) -> "list[Pod]":
    """Pods that would lose their network if this host became `spec`. Raises Problem unless `force`."""
    from cnictl.node import converge, live_pods

    pods = live_pods.cut_off(converge.specs_in_place(), spec)
    if not force:
        live_pods.refuse(pods, f"cnictl {command}")
    return pods


def detach(pods: "Iterable[Pod]") -> None:
    """Delete these pods' attachments, and say so."""
    from cnictl.node import live_pods

    for pod in live_pods.detach_all(pods):
        say(f"deleted the attachment of {pod}: its runtime has to start it anew")


def run(command: str, spec: "NodeSpec", only: Collection[str], output: Format, **more: Any) -> None:
    """Make the host as `spec` says and show how it went; raises Problem after showing. The caller holds the lock."""
    from cnictl.core.errors import Problem
    from cnictl.node import converge

    steps = Steps()
    move = converge.plan(spec, only)
    try:
        with working("looking at this host") as tell:
            converge.establish(move, command, steps.following(move.whole, tell))
    except (Problem, KeyboardInterrupt) as failure:
        error = failure.message if isinstance(failure, Problem) else "interrupted"
        show_run(move.whole, steps, output, error=error, **more)
        raise
    show_run(move.whole, steps, output, **more)
