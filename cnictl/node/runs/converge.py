"""A node moved to a spec: what differs, and one run that makes it so or leaves the host as it was."""

from collections.abc import Collection
from dataclasses import dataclass, replace

from cnictl.core.errors import Problem
from cnictl.node import spine
from cnictl.node.host import reading
from cnictl.node.resources import inventory
from cnictl.node.resources.bridge import note_mtu as note_bridge_mtu
from cnictl.node.resources.firewalld import Firewalld
from cnictl.node.resources.forward_nft import NftForward
from cnictl.node.runs import sweep
from cnictl.node.spec import node_file
from cnictl.node.spec.node_spec import NodeSpec, as_data
from cnictl.node.spine import Change, OnStep, Plan, Resource, Step
from cnictl.node.state import original_state
from cnictl.node.state.journal import DONE, UNDONE, Journal

_MADE = "made"
"""Where `former` keeps the ids of what cnictl has made as a spec asked for."""

NO_NODE = (
    "this host is no cnictl node: there is no /etc/cnictl/node.toml",
    "cnictl init-node --subnet 10.244.0.0/24 --network 10.244.0.0/20",
)


def current_spec() -> NodeSpec:
    """The spec of this node. Raises Problem if there is none, UsageProblem if its file can't be read."""
    spec = node_file.load()
    if spec is None:
        raise Problem(*NO_NODE)
    return spec


def known_spec() -> NodeSpec | None:
    """Return what this node should be: what its file says or, with the file lost, what cnictl last set up here.

    None on a host that is no node. Raises UsageProblem if the file can't be read.
    """
    spec = node_file.load()
    if spec is not None:
        return spec
    try:
        return next(reversed(original_state.specs()), None)
    except PermissionError:
        return None  # not root: whoever changes something is asked to be


def lost_its_file() -> bool:
    """Return whether this host was set up as a node and has no node file."""
    return node_file.load() is None and bool(original_state.specs())


def specs_in_place() -> list[NodeSpec]:
    """Every spec that may have something on this host, the one in effect last."""
    found = original_state.specs()
    if not found:
        spec = node_file.load()
        return [spec] if spec is not None else []
    return found


@dataclass(frozen=True)
class Move:
    """What it takes to make this host as `spec` says, or the kinds in `only` of it."""

    spec: NodeSpec
    only: tuple[str, ...]
    node_file: Plan
    removal: Plan
    """Of what earlier specs made under names that are no longer in use."""
    wanted: Plan
    reapplies: bool = False
    """Whether it applies the node file as it stands, rather than an edit of it."""

    @property
    def whole(self) -> Plan:
        """All of it in its order: the node file, what goes, what comes."""
        return spine.joined(self.node_file, self.removal, self.wanted)


@reading.once()
def plan(spec: NodeSpec, only: Collection[str] = (), reapplies: bool = False) -> Move:
    """Return every difference between this host and `spec`; with `only`, those of some kinds and the node file's.

    `reapplies`: the node file is applied as it stands, which may raise the pods' MTU again.
    """
    earlier = original_state.specs()
    node_file, *wanted = inventory.resources(spec, earlier, reapplies)
    left = inventory.left_over(spec, earlier)
    if only:
        left, wanted = _of_kinds(left, only), _of_kinds(wanted, only)
    mark = _Marking(spec, earlier)
    return Move(
        spec,
        tuple(only),
        mark.repairs(spine.plan([node_file], spec)),
        mark.repairs(spine.plan_removal(left)),
        mark.repairs(spine.plan(wanted, spec)),
        reapplies,
    )


class _Marking:
    """Tells repairs from changes that move the node.

    A repair makes a thing what the spec in effect asked for already, if cnictl has made it so before: the first
    `apply` after `bridge up` repairs nothing.
    """

    def __init__(self, spec: NodeSpec, earlier: list[NodeSpec]) -> None:
        self._spec, self._earlier = spec, earlier
        self._previous = earlier[-1] if earlier else None
        self._made: list[str] | None = original_state.recall(_MADE)  # None: of a release that did not note it
        self._known: dict[str, Resource] | None = None

    def repairs(self, todo: Plan) -> Plan:
        """Return the plan with its repairs marked."""
        return Plan(
            tuple(
                replace(step, change=replace(step.change, repair=True))
                if step.change is not None and self._is_repair(step.change)
                else step
                for step in todo.steps
            )
        )

    def _is_repair(self, change: Change) -> bool:
        if self._previous is None:
            return False
        if change.after is not None and self._made is not None and change.resource not in self._made:
            return False
        if self._previous == self._spec:
            return True
        if self._known is None:
            self._known = {one.id: one for one in inventory.resources(self._previous, self._earlier)}
        known = self._known.get(change.resource)
        try:
            return (known.desired(self._previous) if known is not None else None) == change.after
        except (Problem, OSError):
            return False


def note_mtu(done: Plan, spec: NodeSpec) -> None:
    """Keep the MTU that a run has given the pods' bridge."""
    for step in done.steps:
        if step.resource.id == f"bridge/{spec.bridge}":
            note_bridge_mtu(spec, step.state if step.change is None else step.change.after)


def _note_made(move: Move) -> None:
    """Keep which things are as a spec asked for: what differs later of these has drifted.

    On a node of a release that did not note it, only a run that saw to all of the node begins to.
    """
    note_mtu(move.wanted, move.spec)
    if original_state.recall(_MADE) is None and move.only:
        return
    made = [step.resource.id for step in (*move.node_file.steps, *move.wanted.steps) if _is_there(step)]
    known: list[str] = original_state.recall(_MADE) or []
    if set(made) - set(known):
        original_state.amend(_MADE, sorted({*known, *made}))


def forget_made(gone: Plan) -> None:
    """Drop the note of what an undo has removed."""
    removed = {change.resource for change in gone.changes if change.after is None}
    known: list[str] = original_state.recall(_MADE) or []
    if removed & set(known):
        original_state.amend(_MADE, sorted(set(known) - removed))


def _is_there(step: Step) -> bool:
    return (step.state if step.change is None else step.change.after) is not None


def _of_kinds(resources: list[Resource], only: Collection[str]) -> list[Resource]:
    return [resource for resource in resources if inventory.kind(resource) in only]


def journal_of(move: Move, command: str, ignored: Collection[str] = ()) -> Journal:
    """The journal of a run that carries this out. `ignored`: preflight checks whose findings were accepted."""
    about = {"ignored": sorted(ignored)} if ignored else {}
    return Journal(command, {"spec": as_data(move.spec), **about})


def establish(move: Move, on_step: OnStep, journal: Journal) -> Plan:
    """Carry a move out. The caller holds `spine.exclusive` since before it was planned.

    Returns what was made beyond the plan. Raises Problem after undoing this run's changes. To apply the spec that is in
    effect already repairs what it can, and undoes nothing.
    """
    more = Plan(())
    repairs = move.reapplies and original_state.specs() == [move.spec]
    if not repairs or not move.whole.changes:
        move.whole.refuse_unknown()
    if not move.whole.changes:
        return more
    before = original_state.snapshot()
    if repairs:
        spine.remember(move.wanted)
        spine.repair(move.whole, on_step, journal)
        _note_made(move)
        return more
    if not original_state.specs():
        original_state.amend(_MADE, [])  # a node from here on: what isn't noted was never made
    original_state.add_spec(move.spec)
    sweep.remember(move.spec)
    spine.remember(move.wanted)
    try:
        done = spine.apply(move.whole, on_step, journal)
        if any(change.resource == Firewalld.id for change in move.wanted.changes):
            more = spine.plan([NftForward(move.spec)], move.spec)  # firewalld's rules are others by now
            spine.apply(more, on_step, journal, done)
    except BaseException:
        if journal.outcome == UNDONE:
            original_state.restore(before)
        raise
    for step in move.removal.steps:
        original_state.forget(step.resource.id)
    if not move.only:
        original_state.only_spec(move.spec)
    _note_made(move)
    journal.end(DONE)
    return more
