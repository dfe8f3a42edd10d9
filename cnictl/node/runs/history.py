"""What the journal tells of runs, and taking one back: the things that it changed, one by one, through the spine.

Nothing is put back as a whole image. A thing is taken back where it is as the run left it; what somebody changed
since, or what pods stand on by now, is left and said.
"""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from cnictl.core import attachments, liveness
from cnictl.core.errors import Problem, UsageProblem
from cnictl.node import spine
from cnictl.node.resources import inventory
from cnictl.node.resources.inventory import CONF_KIND, PLUGIN_KIND
from cnictl.node.resources.plugin import Plugin
from cnictl.node.resources.route import PeerRoute
from cnictl.node.resources.textfile import NodeFile
from cnictl.node.runs import converge, live_pods, sweep
from cnictl.node.runs.live_pods import AttachedPod
from cnictl.node.runs.revert import Trace, add_repairs, traces, way_back
from cnictl.node.spec import node_file
from cnictl.node.spec.node_spec import NodeSpec, from_data
from cnictl.node.spine import Carrying, Change, OnStep, Plan, Resource, Step
from cnictl.node.state import journal, original_state, plugin_calls
from cnictl.node.state.journal import DONE, FAILED, FINISHED, UNDONE, Journal, Run

POD_KINDS = ("sysctl", "bridge", "address", "netfilter", "masquerade", "forward", PLUGIN_KIND)
"""Kinds of resources that a pod's network stands on; routes to other nodes and the conf are not among them."""

_EVERY_NETWORKS = ("sysctl", PLUGIN_KIND)
"""Those of them that serve other networks' pods too, of a conf written by hand, say."""

_FOR_GOOD = {
    "attachment": "an attachment that was deleted: its pod's runtime has to start it anew",
    "lease": "an address that was freed: another pod may have it by now",
}
"""Changes that no undo takes back, by kind."""


@dataclass(frozen=True)
class Undo:
    """What it takes to take a run back."""

    run: Run
    plan: Plan
    left: tuple[str, ...]
    """What stays as it is and why, in words."""
    spec: NodeSpec | None
    """What the node file says afterwards; None: there is none."""
    kept: tuple[str, ...] = ()
    """What the run only repaired, in words: it stays, or the fault would be back."""
    whole: bool = False
    """Whether repairs are taken back too."""
    in_effect: NodeSpec | None = None
    """Where the file goes on asking for what the run made, for a person edited it: the spec that is in effect then."""


def runs() -> list[Run]:
    """Every run that is known of, latest first."""
    return [run for run in reversed(journal.runs()) if run.command]


def find(number: int) -> Run:
    """One run. Raises UsageProblem if there is no journal of it."""
    run = journal.read(number)
    if run is None:
        known = journal.numbers()
        raise UsageProblem(
            f"there is no run {number}", f"they are {known[0]} to {known[-1]}: cnictl history" if known else ""
        )
    return run


def latest_to_undo() -> Run:
    """The operator's latest run that still stands: no undo, no repair, not taken back, and not for good.

    Raises Problem without one.
    """
    repairs = []
    for run in runs():
        if not run.undoes and not run.taken_back and run.end != UNDONE and _revocable(run):
            if not run.is_repair:
                return run
            repairs.append(run)
    if repairs:
        raise Problem(
            f"there is no run of an operator's to take back: run {repairs[0].number} ({repairs[0].command}) and all "
            "that still stand only repaired this node",
            "cnictl history lists them; `cnictl undo RUN` takes a repair back, and the fault returns with it",
        )
    raise Problem("there is no run to take back", "cnictl history lists them")


def passed_over(run: Run) -> list[Run]:
    """Return the repairs since a run, which `undo` without a number passes over, oldest first."""
    return [one for one in reversed(runs()) if one.number > run.number and one.is_repair and not one.taken_back]


def outcome(run: Run, at_work: bool = False) -> str:
    """How a run ended and what became of it since, in words."""
    if run.taken_back:
        return "taken back" + (f" by run {run.taken_back}" if run.taken_back != run.number else "")
    if not run.end:
        return "at work" if at_work else "cut off"
    return {
        DONE: "done, not all taken back" if run.left else "done",
        UNDONE: "failed, undone",
        FAILED: "failed in part",
        FINISHED: "cut off, gone on with",
    }[run.end]


def plan_undo(run: Run, whole: bool = False) -> Undo:
    """What it takes to take `run` back; nothing is touched.

    What the run only repaired stays, unless all of it was a repair, or with `whole`.
    """
    whole = whole or run.is_repair
    known = _resources(run)
    found = traces(run)
    add_repairs(found, (one for one in journal.runs() if one.number > run.number))
    cut_off = {resource for undo in _cut_off_undos(run) for resource in undo.half_made}
    for trace in found:
        trace.half_made = trace.half_made or trace.resource in cut_off
    kept = [trace for trace in found if trace.repair and not trace.half_made and not whole]
    back: list[Step] = []
    left: list[str] = []
    pods: tuple[AttachedPod, ...] | None = None
    spec = _spec_after(run)
    names = {one.name for one in converge.specs_in_place()}
    for trace in _in_order([one for one in found if one not in kept]):
        resource = known.get(trace.resource)
        kind = trace.resource.partition("/")[0]
        if resource is None:
            left.append(f"{trace.resource}: {_FOR_GOOD.get(kind, 'nothing that cnictl can take back by itself')}")
            continue
        try:
            now = resource.observe()
        except (Problem, OSError) as error:
            left.append(f"{trace.resource}: not known, and left as it is: {error}")
            continue
        target, notes = way_back(resource, trace, now)
        if target != now and kind in POD_KINDS and _takes_away(target, trace):
            if pods is None:
                pods = _standing(run, spec)
            here = [pod for pod in pods if kind in _EVERY_NETWORKS or pod.network in names]
            if here:
                more = f" and {len(here) - 3} more" if here[3:] else ""
                target, notes = now, [f"pods stand on it: {', '.join(map(str, here[:3]))}{more}"]
            elif _ends(kind, target) and isinstance(resource, Carrying) and (standing := resource.carries()):
                target, notes = now, [f"it has {standing}"]
        left += [f"{trace.resource}: {note}{_by_whom(run, trace)}" for note in notes]
        if target != now:
            summary, command = resource.describe(now, target)
            back.append(Step(resource, now, summary, Change(resource.id, now, target, summary, command)))
    stays = tuple(f"{trace.resource}: run {run.number} only repaired it" for trace in kept)
    return Undo(run, Plan(tuple(back)), tuple(left), spec, stays, whole, _spec_before_edit(run, spec))


def carry_out(undo: Undo, command: str, on_step: OnStep, unconfirmed: bool = False) -> Run | None:
    """Take a run back as planned. The caller holds `spine.exclusive` since before it was planned.

    `unconfirmed`: nobody confirmed the run in time. Returns the undo's own run; None where there was nothing to do any
    more. All that can be is done; raises Problem that names what failed, and then the run counts as not taken back.
    """
    stopped = _cut_off_undos(undo.run)
    about = {"undoes": undo.run.number, "left": list(undo.left), "whole": undo.whole, "unconfirmed": unconfirmed}
    record = Journal(command, about)
    try:
        if undo.plan.steps:
            switches = any(inventory.kind(step.resource) == PLUGIN_KIND for step in undo.plan.steps)
            with plugin_calls.kept_out() if switches else nullcontext():
                spine.repair(undo.plan, on_step, record)
        if undo.run.half_made or stopped:
            sweep.sweep_cut_off()
            sweep.sweep_chains()
    finally:
        spec = undo.in_effect or undo.spec
        if spec is not None and undo.plan.steps:
            original_state.add_spec(spec)
        converge.forget_made(undo.plan)
        if spec is not None:
            converge.note_mtu(undo.plan, spec)
    if not undo.left and not any(_stands(run) for run in runs() if run.number > undo.run.number):
        original_state.restore(undo.run.former)
    if not undo.run.end:
        journal.append(undo.run.number, {"end": UNDONE})
    undone = journal.read(undo.run.undoes) if undo.run.undoes else None
    if undone is not None:
        journal.append(undone.number, {"taken_back": 0})
    if record.number or not undo.run.taken_back:
        by = record.number or (stopped[-1].number if stopped else undo.run.number)
        journal.append(undo.run.number, {"taken_back": by})
    for run in stopped:
        journal.append(run.number, {"end": FINISHED})
    return journal.read(record.number) if record.number else None


def resume() -> tuple[list[str], list[Run]]:
    """Finish undos that were cut off, as they say themselves what they were to reach; what was done, in words.

    Of other runs cut off this tells, and returns them, and leaves the choice: `cnictl apply` goes on from what is
    there, `cnictl undo` takes them back. The caller holds `spine.exclusive`.
    """
    told, others = list[str](), list[Run]()
    for run in journal.unfinished():
        at = run.entries[-1].resource
        undone = journal.read(run.undoes) if run.undoes else None
        if undone is None:
            others.append(run)
            told.append(
                f"run {run.number} ({run.command}) was cut off at {at}: going on from what is there; "
                f"`cnictl undo {run.number}` takes it back instead"
            )
        elif undone.taken_back:
            journal.append(run.number, {"end": FINISHED})
        else:
            undo = plan_undo(undone, run.whole)
            carry_out(undo, run.command, lambda *_: None, run.undoes_unconfirmed)
            told.append(
                f"run {run.number} ({run.command}) was cut off at {at}: finished, run {undone.number} is taken back"
            )
            told += [f"left: {one}" for one in undo.left]
    if others:
        sweep.sweep_cut_off()
    return told, others


def _cut_off_undos(run: Run) -> list[Run]:
    """Undos of `run` that were stopped at work."""
    return [one for one in journal.unfinished() if one.undoes == run.number]


def _stands(run: Run) -> bool:
    """Whether a run's changes may be there still; a repair has none of its own."""
    if run.is_repair:
        return False
    changed = any(trace.before != trace.after or trace.half_made for trace in _revocable(run))
    return changed and not run.undoes and not run.taken_back and run.end != UNDONE


def _revocable(run: Run) -> list[Trace]:
    """What a run did that an undo can take back."""
    return [trace for trace in traces(run) if trace.resource.partition("/")[0] not in _FOR_GOOD]


def _in_order(found: list[Trace]) -> list[Trace]:
    """What is wanted of the node first, so that a boot in between doesn't bring back the rest; then last first."""
    rest = [trace for trace in reversed(found) if trace.resource not in (NodeFile.id,)]
    return [trace for trace in found if trace.resource == NodeFile.id] + [
        *(trace for trace in rest if trace.resource.startswith(f"{CONF_KIND}/")),
        *(trace for trace in rest if not trace.resource.startswith(f"{CONF_KIND}/")),
    ]


def _resources(run: Run) -> dict[str, Resource]:
    """Every resource that the run may have changed, by its id, as its own spec has it before others'."""
    earlier = [from_data(data) for data in run.former.get("specs", [])]
    specs = [*([from_data(run.spec)] if run.spec else []), *reversed(earlier), *reversed(converge.specs_in_place())]
    found: dict[str, Resource] = {NodeFile.id: NodeFile()}
    for spec in specs:
        for resource in [*inventory.resources(spec, specs), *inventory.left_over(None, specs)]:
            found.setdefault(resource.id, resource)
    for trace in traces(run):
        kind, _, name = trace.resource.partition("/")
        if kind == "route":
            found[trace.resource] = PeerRoute(name)
        elif kind == PLUGIN_KIND:
            state: dict[str, Any] = trace.after or trace.before or {"lib_dir": "", "bin_dirs": []}
            found[trace.resource] = Plugin(None, state["lib_dir"], tuple(state["bin_dirs"]))
    return found


def _spec_after(run: Run) -> NodeSpec | None:
    """What the node file will say once the run is taken back; None if there will be none, or one that says nothing."""
    resource = NodeFile()
    now = resource.observe()
    trace = next((trace for trace in traces(run) if trace.resource == NodeFile.id), None)
    target = way_back(resource, trace, now)[0] if trace is not None else now
    try:
        return node_file.parse(target["text"]) if target else None
    except UsageProblem:
        return None


def _spec_before_edit(run: Run, spec: NodeSpec | None) -> NodeSpec | None:
    """The spec ahead of a run that applied what a person wrote into the node file, if that is still there."""
    earlier = run.former.get("specs", [])
    if not earlier or run.spec is None or spec is None or run.spec in earlier:
        return None
    if any(entry.resource == NodeFile.id for entry in run.entries):
        return None
    before = from_data(earlier[-1])
    return before if spec == from_data(run.spec) else None


def _ends(kind: str, target: dict[str, Any] | None) -> bool:
    """Whether the thing itself goes, or is switched off."""
    return target is None or kind == "sysctl"


def _takes_away(target: dict[str, Any] | None, trace: Trace) -> bool:
    """Whether pods may lose something by it: what was there before the run and is made again takes nothing."""
    return not (trace.after is None and target is not None)


def _standing(run: Run, spec: NodeSpec | None) -> tuple[AttachedPod, ...]:
    """Pods, not proven dead, that lose their network if the run is taken back."""
    if any(entry.resource == NodeFile.id for entry in run.entries):
        return tuple(live_pods.cut_off(converge.specs_in_place(), spec)) if spec is not None else _alive()
    if any(trace.before is None for trace in traces(run)):
        return _alive()
    return ()


def _alive() -> tuple[AttachedPod, ...]:
    names = dict.fromkeys([*(spec.name for spec in converge.specs_in_place()), *attachments.networks()])
    return tuple(pod for pod in live_pods.attached(names) if pod.state != liveness.STALE)


def _by_whom(run: Run, trace: Trace) -> str:
    """The later runs of cnictl that changed the same thing, in words."""
    later = [one for one in runs() if one.number > run.number and not one.taken_back and not one.undoes]
    named = [f"run {one.number} ({one.command})" for one in reversed(later) if trace.resource in _changed(one)]
    return f", by {', '.join(named)}" if named else ""


def _changed(run: Run) -> set[str]:
    return {entry.resource for entry in run.entries}
