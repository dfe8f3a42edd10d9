"""Bring a node to a spec: find the differences and make all changes in one run, or leave the host as it was."""

from collections.abc import Collection
from dataclasses import dataclass, replace

from cnictl.core.errors import Problem
from cnictl.node import spine
from cnictl.node.host import reading
from cnictl.node.resources import inventory
from cnictl.node.resources.bridge import note_mtu as note_bridge_mtu
from cnictl.node.resources.cluster_file import ClusterFile
from cnictl.node.resources.firewalld import Firewalld
from cnictl.node.resources.forward_nft import NftForward
from cnictl.node.runs import sweep
from cnictl.node.spec import node_file
from cnictl.node.spec.node_spec import NodeSpec, as_data
from cnictl.node.spine import Change, OnStep, Plan, Resource, State, Step
from cnictl.node.state import original_state
from cnictl.node.state.journal import DONE, UNDONE, Journal

_MADE = "made"
"""The key in the original state for the ids of the resources that cnictl has made for a spec."""

NO_NODE = (
    "this host is not set up as a cnictl node: there is no /etc/cnictl/node.toml",
    "cnictl init-node --subnet POD_CIDR --network POD_NETWORK, where no other node has POD_CIDR",
)


def current_spec() -> NodeSpec:
    """Return the spec of this node. Raises Problem if there is none, UsageProblem if its file can't be read."""
    spec = node_file.load()
    if spec is None:
        raise Problem(*NO_NODE)
    return spec


def known_spec() -> NodeSpec | None:
    """Return this node's spec: that of its file or, if the file is lost, the one that cnictl last set up here.

    None on a host that is not a node. Raises UsageProblem if the file can't be read.
    """
    spec = node_file.load()
    if spec is not None:
        return spec
    try:
        return next(reversed(original_state.specs()), None)
    except PermissionError:
        return None  # the user is not root; commands that change something require root anyway


def lost_its_file() -> bool:
    """Return whether this host was set up as a node and has no node file."""
    return node_file.load() is None and bool(original_state.specs())


def specs_in_place() -> list[NodeSpec]:
    """Return every spec that may have left something on this host; the last one is in effect."""
    return original_state.specs() or [spec for spec in [node_file.load()] if spec is not None]


@dataclass(frozen=True)
class NodeChange:
    """The changes that make this host match `spec`, or only its resources of the kinds in `only`."""

    spec: NodeSpec
    only: tuple[str, ...]
    node_file: Plan
    removal: Plan
    """Removes what earlier specs made under names that are no longer in use."""
    wanted: Plan
    reapplies: bool = False
    """Whether it applies the node file unedited."""

    @property
    def whole(self) -> Plan:
        """All changes in their order: the node file, removals, the rest."""
        return spine.joined(self.node_file, self.removal, self.wanted)


@reading.cached_pass()
def plan(spec: NodeSpec, only: Collection[str] = (), reapplies: bool = False) -> NodeChange:
    """Return every difference between this host and `spec`; with `only`, those of some kinds and of the node file.

    `reapplies`: the node file is applied unedited, which may raise the pods' MTU again.
    """
    earlier = original_state.specs()
    node_file, *wanted = inventory.resources(spec, earlier, reapplies)
    left = inventory.remnants(spec, earlier)
    if only:
        left = [resource for resource in left if inventory.kind(resource) in only]
        wanted = [resource for resource in wanted if inventory.kind(resource) in only]
    plans = [spine.plan([node_file], spec), spine.plan_removal(left), spine.plan(wanted, spec)]
    file, removal, rest = _with_repairs(plans, spec, earlier)
    return NodeChange(spec, tuple(only), file, removal, rest, reapplies)


def _with_repairs(plans: list[Plan], spec: NodeSpec, earlier: list[NodeSpec]) -> list[Plan]:
    """Return the plans with their repairs marked.

    A repair restores a state that the spec in effect already asked for and that cnictl has made before: the first
    `apply` after `bridge up` repairs nothing. What follows from a new cluster file is not a repair.
    """
    changed = {change.resource for todo in plans for change in todo.changes}
    if not earlier or not changed or ClusterFile().id in changed:
        return plans
    previous = earlier[-1]
    made: list[str] | None = original_state.recall(_MADE)  # None on a node of an earlier cnictl
    known: dict[str, Resource] = {}
    if previous != spec:
        known = {resource.id: resource for resource in inventory.resources(previous, earlier)}

    def is_repair(change: Change) -> bool:
        if change.after is not None and made is not None and change.resource not in made:
            return False
        resource = known.get(change.resource)
        try:
            return previous == spec or (resource.desired(previous) if resource is not None else None) == change.after
        except (Problem, OSError):
            return False

    def marked(step: Step) -> Step:
        if step.change is None or not is_repair(step.change):
            return step
        return replace(step, change=replace(step.change, repair=True))

    return [Plan(tuple(map(marked, todo.steps))) for todo in plans]


def note_mtu(done: Plan, spec: NodeSpec) -> None:
    """Record the MTU that a run has given the pods' bridge."""
    for step in done.steps:
        if step.resource.id == f"bridge/{spec.bridge}":
            note_bridge_mtu(spec, _state_after(step))


def _note_made(node_change: NodeChange) -> None:
    """Record which resources are as the spec asks; if one of these differs later, it has drifted.

    An earlier cnictl did not keep this record. On its nodes, only a run that covers every resource starts it.
    """
    note_mtu(node_change.wanted, node_change.spec)
    known: list[str] | None = original_state.recall(_MADE)
    if known is None and node_change.only:
        return
    steps = [*node_change.node_file.steps, *node_change.wanted.steps]
    made = {*(known or ()), *(step.resource.id for step in steps if _state_after(step) is not None)}
    if made - {*(known or ())}:
        original_state.amend(_MADE, sorted(made))


def forget_made(gone: Plan) -> None:
    """Remove from the record the resources that an undo has removed."""
    removed = {change.resource for change in gone.changes if change.after is None}
    known: list[str] = original_state.recall(_MADE) or []
    if removed & set(known):
        original_state.amend(_MADE, sorted(set(known) - removed))


def _state_after(step: Step) -> State | None:
    return step.state if step.change is None else step.change.after


def journal_of(node_change: NodeChange, command: str, ignored: Collection[str] = ()) -> Journal:
    """Return a journal for the run. `ignored`: preflight checks whose findings were accepted."""
    about = {"ignored": sorted(ignored)} if ignored else {}
    return Journal(command, {"spec": as_data(node_change.spec), **about})


def establish(node_change: NodeChange, on_step: OnStep, journal: Journal) -> Plan:
    """Carry out a change of the node. The caller has held `spine.exclusive` since before it was planned.

    Returns the changes that were needed in addition to the plan. Raises Problem after undoing this run's changes. If
    the spec is already in effect, the run repairs what it can, and nothing is undone.
    """
    added = Plan(())
    repairs = node_change.reapplies and original_state.specs() == [node_change.spec]
    if not repairs or not node_change.whole.changes:
        node_change.whole.refuse_unknown()
    if not node_change.whole.changes:
        return added
    before = original_state.snapshot()
    if repairs:
        spine.remember(node_change.wanted)
        spine.repair(node_change.whole, on_step, journal)
        _note_made(node_change)
        return added
    if not original_state.specs():
        original_state.amend(_MADE, [])  # from now on this host is a node, and what isn't noted was never made
    original_state.add_spec(node_change.spec)
    sweep.remember(node_change.spec)
    spine.remember(node_change.wanted)
    try:
        done = spine.apply(node_change.whole, on_step, journal)
        if any(change.resource == Firewalld.id for change in node_change.wanted.changes):
            added = spine.plan([NftForward(node_change.spec)], node_change.spec)  # firewalld's rules have just changed
            spine.apply(added, on_step, journal, done)
    except BaseException:
        if journal.outcome == UNDONE:
            original_state.restore(before)
        raise
    for step in node_change.removal.steps:
        original_state.forget(step.resource.id)
    if not node_change.only:
        original_state.only_spec(node_change.spec)
    _note_made(node_change)
    journal.end(DONE)
    return added
