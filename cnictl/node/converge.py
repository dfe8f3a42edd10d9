"""A node moved to a spec: what differs, and one run that makes it so or leaves the host as it was."""

from collections.abc import Collection

from cnictl.core.errors import Problem
from cnictl.node import former, inventory, leftovers, spine
from cnictl.node.journal import Journal
from cnictl.node.spec import NodeSpec, load
from cnictl.node.spine import OnStep, Plan, Resource

NO_NODE = (
    "this host is no cnictl node: there is no /etc/cnictl/node.toml",
    "cnictl init-node --subnet 10.244.0.0/24 --network 10.244.0.0/20",
)


def current_spec() -> NodeSpec:
    """The spec of this node. Raises Problem if there is none, UsageProblem if its file can't be read."""
    spec = load()
    if spec is None:
        raise Problem(*NO_NODE)
    return spec


def specs_in_place() -> list[NodeSpec]:
    """Every spec that may have something on this host, the one in effect last."""
    found = former.specs()
    if not found:
        spec = load()
        return [spec] if spec is not None else []
    return found


def plan(spec: NodeSpec, only: Collection[str] = ()) -> Plan:
    """Every difference between this host and `spec`; with `only`, those of some kinds and the node file's."""
    removal, node_file, wanted = _plans(spec, only)
    return spine.joined(node_file, removal, wanted)


def _plans(spec: NodeSpec, only: Collection[str]) -> tuple[Plan, Plan, Plan]:
    earlier = former.specs()
    node_file, *wanted = inventory.resources(spec, earlier)
    left = inventory.left_over(spec, earlier)
    if only:
        left, wanted = _of_kinds(left, only), _of_kinds(wanted, only)
    return spine.plan_removal(left), spine.plan([node_file], spec), spine.plan(wanted, spec)


def _of_kinds(resources: list[Resource], only: Collection[str]) -> list[Resource]:
    return [resource for resource in resources if inventory.kind(resource) in only]


def establish(spec: NodeSpec, command: str, on_step: OnStep, only: Collection[str] = ()) -> Plan:
    """Make the host so; returns what it took. The caller holds `spine.exclusive`.

    Raises Problem after undoing this run's changes.
    """
    removal, node_file, wanted = _plans(spec, only)
    todo = spine.joined(node_file, removal, wanted)
    if not todo.changes:
        return todo
    before = former.snapshot()
    journal = Journal(command)
    former.add_spec(spec)
    leftovers.remember(spec)
    spine.remember(wanted)
    try:
        spine.apply(todo, on_step, journal)
    except BaseException:
        if journal.outcome == "undone":
            former.restore(before)
        raise
    for step in removal.steps:
        former.forget(step.resource.id)
    if not only:
        former.only_spec(spec)
    journal.end("done")
    return todo
