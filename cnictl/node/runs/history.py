"""List the runs in the journal, and undo one of them: revert each thing that it changed, through the spine.

A change is reverted if its resource is still as the run left it. If somebody has changed the resource since, or pods
depend on it now, it is left as it is and reported.
"""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from cnictl.core import attachments, liveness
from cnictl.core.counted import first_of
from cnictl.core.errors import Problem, UsageProblem
from cnictl.node import hint, spine
from cnictl.node.hint import Hint
from cnictl.node.reach import learning
from cnictl.node.resources import inventory
from cnictl.node.resources.cluster_file import ClusterFile
from cnictl.node.resources.inventory import CONF_KIND, PLUGIN_KIND
from cnictl.node.resources.learned_routes import LearnedRoutes
from cnictl.node.resources.plugin import Plugin
from cnictl.node.resources.route import PeerRoute, RouteTable
from cnictl.node.resources.textfile import NodeFile
from cnictl.node.runs import converge, joining, live_pods, sweep
from cnictl.node.runs.live_pods import AttachedPod
from cnictl.node.runs.revert import Trace, add_repairs, reverted, traces
from cnictl.node.spec import addressing, node_file
from cnictl.node.spec.node_spec import FILE, NodeSpec, from_data
from cnictl.node.spine import Change, MayBeNeeded, OnStep, Plan, Resource, Step
from cnictl.node.state import journal, learned_peers, original_state, plugin_calls
from cnictl.node.state.journal import DONE, FAILED, FINISHED, UNDONE, Journal, Run
from cnictl.node.state.learned_peers import with_learned

POD_KINDS = ("sysctl", "bridge", "address", "netfilter", "masquerade", "forward", PLUGIN_KIND)
"""Kinds of resources that a pod's network depends on; routes to other nodes and the conf are not among them."""

_EVERY_NETWORKS = ("sysctl", PLUGIN_KIND)
"""The kinds among them that pods of other networks need too, such as the network of a hand-written conf."""

_FOR_GOOD = {
    "attachment": "an attachment that was deleted: the runtime has to create the pod again",
    "lease": "an address that was freed: another pod may have it by now",
}
"""Changes that no undo can revert, by kind."""


@dataclass(frozen=True)
class Undo:
    """What an undo of a run would do."""

    run: Run
    plan: Plan
    left: tuple[str, ...]
    """What the undo does not revert and why, in words."""
    spec: NodeSpec | None
    """What the node file says afterwards; None: there is none."""
    kept: tuple[str, ...] = ()
    """The repairs of the run, in words. An undo keeps them, because the faults would come back without them."""
    whole: bool = False
    """Whether repairs are reverted too."""
    in_effect: NodeSpec | None = None
    """The spec in effect after the undo, if it differs from the node file because a person edited that."""
    later: tuple[Run, ...] = ()
    """The later runs that changed what therefore has to stay, oldest first."""


def runs() -> list[Run]:
    """Return every run in the journal, latest first."""
    return [run for run in reversed(journal.runs()) if run.command]


def find(number: int) -> Run:
    """Return the run of a number. Raises UsageProblem if there is no journal of it."""
    run = journal.read(number)
    if run is None:
        known = journal.numbers()
        raise UsageProblem(
            f"there is no run {number}", f"cnictl history lists runs {known[0]} to {known[-1]}" if known else ""
        )
    return run


def latest_to_undo() -> Run:
    """Return the operator's latest run that an undo can revert; not an undo, a repair, or an undone run.

    Raises Problem if there is none.
    """
    repairs = []
    for run in runs():
        if not run.undoes and not run.undone_by and run.end != UNDONE and _revertible(run):
            if not run.is_repair:
                return run
            repairs.append(run)
    if repairs:
        raise Problem(
            f"only repairs are left to undo; the latest is run {repairs[0].number} ({repairs[0].command})",
            "cnictl history lists them; `cnictl undo RUN` undoes a repair, and the fault returns with it",
        )
    raise Problem("there is no run to undo", "cnictl history lists them")


def passed_over(run: Run) -> list[Run]:
    """Return the repairs since a run, which `undo` without a number passes over, oldest first."""
    later_runs = [later for later in reversed(runs()) if later.number > run.number]
    return [later for later in later_runs if later.is_repair and not later.undone_by]


def outcome(run: Run, is_running: bool = False) -> str:
    """Return in words how a run ended and what became of it since."""
    if run.undone_by:
        return "undone" + (f" by run {run.undone_by}" if run.undone_by != run.number else "")
    if not run.end:
        return "running" if is_running else "cut off"
    return {
        DONE: "done, not all reverted" if run.left else "done",
        UNDONE: "failed, undone",
        FAILED: "failed in part",
        FINISHED: "cut off, continued later",
    }[run.end]


def plan_undo(run: Run, whole: bool = False) -> Undo:
    """Return what an undo of `run` would do; nothing is changed.

    What the run only repaired stays, unless all of it was a repair, or with `whole`.
    """
    whole = whole or run.is_repair
    known = _resources(run)
    changed = traces(run)
    since = [other for other in journal.runs() if other.number > run.number]
    add_repairs(changed, since)
    cut_off = {resource for undo in _cut_off_undos(run) for resource in undo.half_made}
    for trace in changed:
        trace.half_made = trace.half_made or trace.resource in cut_off
    kept = [trace for trace in changed if trace.repair and not trace.half_made and not whole]
    back: list[Step] = []
    left: list[str] = []
    later: dict[int, Run] = {}
    pods: tuple[AttachedPod, ...] | None = None
    spec = _spec_after(run)
    names = {known_spec.name for known_spec in converge.specs_in_place()}
    order = [trace for trace in reversed(changed) if trace not in kept]
    # the node file comes first, so that a boot meanwhile restores nothing; then the conf
    order.sort(key=lambda trace: (trace.resource != NodeFile.id, not trace.resource.startswith(f"{CONF_KIND}/")))
    for trace in order:
        resource = known.get(trace.resource)
        kind = trace.resource.partition("/")[0]
        if resource is None:
            left.append(f"{trace.resource}: {_FOR_GOOD.get(kind, 'nothing that cnictl can revert by itself')}")
            continue
        try:
            now = resource.observe()
        except (Problem, OSError) as error:
            left.append(f"{trace.resource} can't be read and is not changed: {error}")
            continue
        target, notes = reverted(resource, trace, now)
        if notes:
            later |= {other.number: other for other in _changes_of(trace, since) if not other.is_repair}
        makes_again = trace.after is None and target is not None  # this takes nothing from pods
        if target != now and kind in POD_KINDS and not makes_again:
            if pods is None:
                pods = _dependent_pods(run, spec)
            removes = target is None or kind == "sysctl"  # the thing itself is removed or switched off
            dependent = [pod for pod in pods if kind in _EVERY_NETWORKS or pod.network in names]
            if dependent:
                target, notes = now, [f"pods need it: {first_of(list(map(str, dependent)), 3)}"]
            elif removes and isinstance(resource, MayBeNeeded) and (needed := resource.needed_by()):
                target, notes = now, [needed]
        if notes:
            by = _changed_by(_changes_of(trace, since))
            left += [f"{trace.resource}: {note}{by}" for note in notes]
        if target != now:
            summary, command = resource.describe(now, target)
            back.append(Step(resource, now, summary, Change(resource.id, now, target, summary, command)))
    stays = tuple(f"{trace.resource}: run {run.number} only repaired it" for trace in kept)
    depending = tuple(later[number] for number in sorted(later))
    return Undo(run, Plan(tuple(back)), tuple(left), spec, stays, whole, _spec_before_edit(run, spec), depending)


def carry_out(undo: Undo, command: str, on_step: OnStep, unconfirmed: bool = False) -> Run | None:
    """Undo a run as planned. The caller has held `spine.exclusive` since before it was planned.

    `unconfirmed`: nobody confirmed the run in time. Returns the undo's own run; None if there was nothing left to do.
    If a step fails, the others are done all the same; then it raises Problem that names the failures, and the run does
    not count as undone.
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
    if any(step.resource.id in (LearnedRoutes.id, ClusterFile().id) for step in undo.plan.steps):
        learning.refreshed(undo.spec) if undo.spec is not None else learned_peers.forget()
    if not undo.left and not any(_is_in_place(run) for run in runs() if run.number > undo.run.number):
        original_state.restore(undo.run.former)
    if not undo.run.end:
        journal.append(undo.run.number, {"end": UNDONE})
    undone = journal.read(undo.run.undoes) if undo.run.undoes else None
    if undone is not None:
        journal.append(undone.number, {"taken_back": 0})
    if record.number or not undo.run.undone_by:
        by = record.number or (stopped[-1].number if stopped else undo.run.number)
        journal.append(undo.run.number, {"taken_back": by})
    for run in stopped:
        journal.append(run.number, {"end": FINISHED})
    return journal.read(record.number) if record.number else None


def resume() -> tuple[list[str], list[Run]]:
    """Finish undos that were cut off; return in words what was done, and the other runs that were cut off.

    These are left to the operator: `cnictl apply` continues from the present state, `cnictl undo` undoes them. The
    caller holds `spine.exclusive`.
    """
    words, others = list[str](), list[Run]()
    for run in journal.unfinished():
        at = run.entries[-1].resource
        undone = journal.read(run.undoes) if run.undoes else None
        if undone is None:
            others.append(run)
            words.append(
                f"run {run.number} ({run.command}) was cut off at {at}: continuing from the present state; "
                f"`cnictl undo {run.number}` undoes it instead"
            )
        elif undone.undone_by:
            journal.append(run.number, {"end": FINISHED})
        else:
            undo = plan_undo(undone, run.whole)
            carry_out(undo, run.command, lambda *_: None, run.unconfirmed)
            words.append(
                f"run {run.number} ({run.command}) was cut off at {at}: finished, run {undone.number} is undone"
            )
            words += [f"left: {line}" for line in undo.left]
    if others:
        sweep.sweep_cut_off()
    return words, others


def _cut_off_undos(run: Run) -> list[Run]:
    """Return the undos of `run` that were cut off."""
    return [undo for undo in journal.unfinished() if undo.undoes == run.number]


def _is_in_place(run: Run) -> bool:
    """Return whether some change of a run may still be in place; repairs don't count."""
    if run.is_repair or run.undoes or run.undone_by or run.end == UNDONE:
        return False
    return any(trace.before != trace.after or trace.half_made for trace in _revertible(run))


def _revertible(run: Run) -> list[Trace]:
    """Return what a run did that an undo can revert."""
    return [trace for trace in traces(run) if trace.resource.partition("/")[0] not in _FOR_GOOD]


def _resources(run: Run) -> dict[str, Resource]:
    """Return every resource that the run may have changed, by its id; its own spec comes before others."""
    earlier = [from_data(data) for data in run.former.get("specs", [])]
    specs = [*([from_data(run.spec)] if run.spec else []), *reversed(earlier), *reversed(converge.specs_in_place())]
    resources: dict[str, Resource] = {NodeFile.id: NodeFile()}
    for spec in specs:
        for resource in [*inventory.resources(spec, specs), *inventory.remnants(None, specs)]:
            resources.setdefault(resource.id, resource)
    table = RouteTable()
    for trace in traces(run):
        kind, _, name = trace.resource.partition("/")
        if trace.resource == LearnedRoutes.id:
            resources[trace.resource] = LearnedRoutes(_learning_after(run))
        elif kind == "route":
            resources[trace.resource] = PeerRoute(name, table)
        elif kind == PLUGIN_KIND:
            state: dict[str, Any] = trace.after or trace.before or {"lib_dir": "", "bin_dirs": []}
            resources[trace.resource] = Plugin(None, state["lib_dir"], tuple(state["bin_dirs"]))
    return resources


def _learning_after(run: Run) -> NodeSpec | None:
    """Return the spec after the undo, with the peers from its source; None if it will have no source."""
    spec = _spec_after(run)
    if spec is None or not spec.reach.source:
        return None
    resource = ClusterFile()
    now = resource.observe()
    trace = next((trace for trace in traces(run) if trace.resource == resource.id), None)
    target = reverted(resource, trace, now)[0] if trace is not None else now
    try:
        spec = addressing.check(spec)
        return joining.of_text(spec, target["text"]) if spec.reach.source == FILE and target else with_learned(spec)
    except UsageProblem:
        return with_learned(spec)


def _spec_after(run: Run) -> NodeSpec | None:
    """Return the spec in the node file after the undo; None if there will be none, or an invalid one."""
    resource = NodeFile()
    now = resource.observe()
    trace = next((trace for trace in traces(run) if trace.resource == NodeFile.id), None)
    target = reverted(resource, trace, now)[0] if trace is not None else now
    try:
        return node_file.parse(target["text"]) if target else None
    except UsageProblem:
        return None


def _spec_before_edit(run: Run, spec: NodeSpec | None) -> NodeSpec | None:
    """Return the spec before a run that applied an edited node file, if the edit is still there."""
    earlier = run.former.get("specs", [])
    if not earlier or run.spec is None or spec is None or run.spec in earlier:
        return None
    if any(entry.resource == NodeFile.id for entry in run.entries):
        return None
    before = from_data(earlier[-1])
    return before if spec == from_data(run.spec) else None


def _dependent_pods(run: Run, spec: NodeSpec | None) -> tuple[AttachedPod, ...]:
    """Return the pods, not proven dead, that lose their network if the run is undone."""
    if any(entry.resource == NodeFile.id for entry in run.entries):
        return tuple(live_pods.cut_off(converge.specs_in_place(), spec)) if spec is not None else _alive()
    if any(trace.before is None for trace in traces(run)):
        return _alive()
    return ()


def _alive() -> tuple[AttachedPod, ...]:
    names = dict.fromkeys([*(spec.name for spec in converge.specs_in_place()), *attachments.networks()])
    return tuple(pod for pod in live_pods.attached(names) if pod.state != liveness.STALE)


def _changed_by(changes: list[Run]) -> str:
    """Return the runs in words; empty without any."""
    return f", by {', '.join(map(_named, changes))}" if changes else ""


def _changes_of(trace: Trace, since: list[Run]) -> list[Run]:
    """Return those of the later runs that changed the same thing and are not undone."""
    return [
        later
        for later in since
        if later.command and not later.undone_by and not later.undoes
        if any(entry.resource == trace.resource for entry in later.entries)
    ]


def _named(run: Run) -> str:
    return f"run {run.number} ({run.command})"


def in_the_way(undo: Undo) -> tuple[str, Hint]:
    """Return in words which later runs keep an undo from being whole, and the hint; empty if none does."""
    if not undo.later:
        return "", hint.NONE
    named = ", ".join(map(_named, undo.later))
    words = f"only a part of run {undo.run.number} can be undone, because later runs changed the same things: {named}"
    first = [f"cnictl undo {run.number}" for run in reversed(undo.later)]
    return words, hint.command(
        " && ".join([*first, f"cnictl undo {undo.run.number}"]), "or remove all of cnictl: cnictl reset-node"
    )


def next_to_undo() -> str:
    """Return in words which run the next `cnictl undo` takes."""
    try:
        return f"the next `cnictl undo` takes {_named(latest_to_undo())}"
    except Problem as problem:
        return problem.message


def consequences(undo: Undo) -> list[str]:
    """Return in words what an undo leaves, and what follows from that for pods and for a later reset."""
    lines = [f"left: {note}" for note in undo.left]
    conf_goes = any(
        inventory.kind(step.resource) == CONF_KIND and step.change is not None and step.change.after is None
        for step in undo.plan.steps
    )
    if conf_goes and undo.left:
        lines.append(
            "runtimes with a CRI can't stop pods without a CNI conf: pods stay in Terminating until one is installed"
        )
    if undo.left and undo.spec is None:
        lines.append(
            "what is left belongs to no node file any more: `cnictl reset-node` removes it, once the pods are gone"
        )
    return lines
