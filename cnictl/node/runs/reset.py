"""Reset a node: remove all that cnictl made, restore what was there before it, and delete every attachment.

The conf is removed first, so that no runtime starts another pod; the plugin last, so that running calls can end.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cnictl.core import attachments, liveness
from cnictl.core.errors import Problem
from cnictl.core.paths import NODE_FILE, PLUGIN_LOG, RUN_DIR, STATE_DIR
from cnictl.node import spine
from cnictl.node.host import runtimes
from cnictl.node.reach.kubernetes_access import KUBECONFIG
from cnictl.node.resources import inventory
from cnictl.node.resources.bridge import Bridge
from cnictl.node.resources.cni_conf import PLUGIN_TYPE
from cnictl.node.resources.inventory import CONF_KIND, PLUGIN_KIND
from cnictl.node.resources.plugin import Plugin
from cnictl.node.resources.sysctl import Forwarding
from cnictl.node.runs import converge, live_pods, remnants, sweep
from cnictl.node.runs.live_pods import AttachedPod
from cnictl.node.spec import node_file
from cnictl.node.spec.node_spec import NodeSpec
from cnictl.node.spine import OnStep, Plan, Resource
from cnictl.node.state import plugin_calls
from cnictl.node.state.journal import DONE, Journal


@dataclass(frozen=True)
class Reset:
    """What a reset would do: the conf, then pods' attachments, then the rest."""

    names: tuple[str, ...]
    conf: Plan
    pods: tuple[AttachedPod, ...]
    rest: Plan
    left: tuple[str, ...]
    """What looks like ours but stays, because another tool made it or needs it, in words."""

    @property
    def whole(self) -> Plan:
        """Return both plans as one."""
        return spine.joined(self.conf, self.rest)


def plan() -> Reset:
    """Return what a reset would do; nothing is changed."""
    known = converge.specs_in_place()
    specs = known or remnants.guessed_specs()
    # pods of other networks need the plugin too
    recorded = [*attachments.networks(), *remnants.networks_of_links()]
    names = tuple(dict.fromkeys([*(spec.name for spec in specs), *recorded]))
    conf, rest = _resources(specs, names)
    left = [
        f"{path} is not cnictl's (its first plugin is not {PLUGIN_TYPE}): it stays"
        for resource in conf
        for path in (spine.state_after_reset(resource) or {"files": {}})["files"]
    ]
    left += [
        f"{resource.key} stays on: {needed}"
        for resource in rest
        if isinstance(resource, Forwarding) and (needed := resource.needed_by())
    ]
    removal = spine.plan_removal(rest)
    if rest and node_file.is_operators():
        target = os.path.realpath(NODE_FILE)
        left.append(
            f"{NODE_FILE} leads to {target}, a file that cnictl did not make: the symbolic link and the file stay"
        )
    if os.path.lexists(KUBECONFIG):
        left.append(f"{KUBECONFIG} stays: it is an operator's credential; delete it when this host leaves the cluster")
    if not known and removal.changes:
        left += [
            f"{switch.key} stays as it is: its value before cnictl is no longer known"
            for switch in (Forwarding(), Forwarding(ipv6=True))
            if (switch.observe() or {}).get("value") == "1"
        ]
    return Reset(names, spine.plan_removal(conf), tuple(live_pods.attached(names)), removal, tuple(left))


def _resources(specs: list[NodeSpec], names: tuple[str, ...]) -> tuple[list[Resource], list[Resource]]:
    """Return the conf's resource, and all others in the order of their removal.

    Resources that are found by their mark alone come first, then the others in reverse order of creation, and last the
    node file and the plugin.
    """
    plugin = Plugin(bin_dirs=tuple(sorted(sweep.plugin_folders()[1])))  # even if no node was set up with it
    file, *made = inventory.resources(specs[-1], specs)
    conf = [resource for resource in made if inventory.kind(resource) == CONF_KIND]
    middle = [resource for resource in reversed(made) if inventory.kind(resource) not in (CONF_KIND, PLUGIN_KIND)]
    left = [*inventory.remnants_without_spec(specs, names), *inventory.remnants(specs[-1], specs)]
    marked = remnants.resources(names, [*remnants.ports_of_records(), *live_pods.unrecorded_ports(names)])
    return conf, [*marked, *left, *middle, file, plugin]


def refuse(todo: Reset, force: bool) -> None:
    """Raise Problem if there are live pods and no `force`, or if our bridge has a port that is not ours."""
    if not force:
        _refuse_live(todo.pods)
    ours = {*remnants.ports_of_records(), *live_pods.unrecorded_ports(todo.names)}
    for step in todo.rest.steps:
        if isinstance(step.resource, Bridge) and step.change is not None and step.change.after is None:
            step.resource.refuse_others(ours)


def in_words(todo: Reset) -> list[str]:
    """Return a line for each thing that a reset removes, in order."""
    lines = [f"delete the attachment of {pod}" for pod in todo.pods]
    lines = [change.summary for change in todo.conf.changes] + lines + [change.summary for change in todo.rest.changes]
    state = [path for path in (STATE_DIR, RUN_DIR, PLUGIN_LOG) if os.path.lexists(path)]
    return [*lines, *([f"remove cnictl's files in {', '.join(state)}"] if lines and state else [])]


def carry_out(
    force: bool, on_step: OnStep, on_pod: Callable[[AttachedPod], None], check: Callable[[Reset], None] = lambda _: None
) -> Reset:
    """Reset this host. The caller holds `spine.exclusive`; `on_pod` is called for each attachment deleted.

    `check` gets the final plan and may raise Problem. Raises Problem if there are live pods and no `force`, or after
    undoing this run's changes (deleted attachments stay deleted).
    """
    todo, recorded = plan(), attachments.networks()
    refuse(todo, force)
    check(todo)
    journal = Journal("reset-node")
    done = spine.apply(todo.conf, on_step, journal)
    try:
        with plugin_calls.kept_out():  # calls that read the conf before it was removed have ended
            pods = live_pods.attached(todo.names)
            if not force:
                _refuse_live(pods)
            for pod in live_pods.detach_all(pods, journal):
                on_pod(pod)
    except Problem:
        spine.undo(done, on_step, journal)
        raise
    spine.apply(todo.rest, on_step, journal, done)
    journal.end(DONE)
    others = {pod.network for pod in pods if not pod.ours}
    sweep.sweep(list(todo.names), [name for name in recorded if name not in others])
    return todo


def remains() -> list[str]:
    """Return in words what is left of cnictl on a host without a node file; the plugin's own files don't count."""
    todo = plan()
    changes = [*todo.conf.changes, *todo.rest.changes]
    changes = [change for change in changes if not change.resource.startswith(PLUGIN_KIND)]
    left = [change.summary.removeprefix("remove ") for change in changes]
    left += [f"{step.resource.id}, perhaps: {step.unknown}" for step in todo.rest.unknown]
    return [f"{pod.name or pod.container}'s veth" for pod in todo.pods if pod.lost_port] + left


def no_node() -> Problem:
    """Return the error of a command that needs a node, for a host that is not one; it names what is left of cnictl."""
    left = remains()
    if not left:
        return Problem(*converge.NO_NODE)
    return Problem(
        f"{converge.NO_NODE[0]}, but it still has: {'; '.join(left)}",
        "cnictl reset-node removes it (--dry-run shows how); cnictl init-node sets this host up again",
    )


def _refuse_live(pods: Iterable[AttachedPod]) -> None:
    live_pods.refuse([pod for pod in pods if pod.state != liveness.STALE], "reset-node")


def waiting_pods() -> list[str]:
    """Return, for each runtime with a CRI, a line that says how long detached pods stay in Terminating.

    Without any conf, the CRI refuses to stop a sandbox ("cni plugin not initialized").
    """
    return [
        f"{runtime.name} can't stop pods without a CNI conf: these pods stay in Terminating until the next network's "
        f"conf is in {runtime.conf_dir}, or cnictl init-node has run again"
        for runtime in runtimes.find()
        if runtime.settled and runtime.needs_loopback
    ]
