"""The way back: all that cnictl made goes, what was there before it returns, and no pod is left hanging.

The conf goes first, so that no runtime starts another pod; the plugin goes last, so that those at work can end.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cnictl.core import attachments, liveness
from cnictl.core.errors import CniError, Problem
from cnictl.core.locks import Locked
from cnictl.core.paths import NODE_FILE, NODE_LOCK
from cnictl.node import converge, inventory, leftovers, live_pods, node_file, spine
from cnictl.node.inventory import CONF_KIND, PLUGIN_KIND
from cnictl.node.journal import Journal
from cnictl.node.live_pods import Pod
from cnictl.node.resources.cni_conf import PLUGIN_TYPE
from cnictl.node.resources.plugin import Plugin
from cnictl.node.resources.program import ProgramCopy
from cnictl.node.resources.sysctl import Forwarding
from cnictl.node.spec import NodeSpec
from cnictl.node.spine import OnStep, Plan, Resource

PLUGIN_CALLS_WAIT = 30.0
"""Seconds to wait for plugin calls at work to end: a call's own waits are bounded below that."""


@dataclass(frozen=True)
class Reset:
    """What a reset would do: the conf, then pods' attachments, then the rest."""

    names: tuple[str, ...]
    conf: Plan
    pods: tuple[Pod, ...]
    rest: Plan
    left: tuple[str, ...]
    """What stays though it looks like ours, for another tool made it or lives by it; in words."""

    @property
    def whole(self) -> Plan:
        """Both plans as one, to be shown."""
        return spine.joined(self.conf, self.rest)


def plan() -> Reset:
    """What a reset would do; nothing is touched."""
    specs = converge.specs_in_place()
    conf, rest = _resources(specs)
    # pods of other networks hang on the plugin too
    names = tuple(dict.fromkeys([*(spec.name for spec in specs), *attachments.networks()]))
    left = [
        f"{path} is not cnictl's (no first plugin {PLUGIN_TYPE}): it stays"
        for one in conf
        for path in (spine.former_state(one) or {"files": {}})["files"]
    ]
    left += [
        f"{one.key} stays on: it has {standing}"
        for one in rest
        if isinstance(one, Forwarding) and (standing := one.carries())
    ]
    if rest and node_file.is_operators():
        target = os.path.realpath(NODE_FILE)
        left.append(f"{NODE_FILE} leads to {target}, a file that cnictl did not make: the link and the file stay")
    return Reset(
        names, spine.plan_removal(conf), tuple(live_pods.attached(names)), spine.plan_removal(rest), tuple(left)
    )


def _resources(specs: list[NodeSpec]) -> tuple[list[Resource], list[Resource]]:
    """The conf, and all the rest in the order it goes: as it came, backwards, but the node file and the plugin last."""
    plugin = Plugin(bin_dirs=tuple(sorted(leftovers.plugin_folders()[1])))  # also where no node was set up with it
    if not specs:
        return [], [ProgramCopy(needed=False), plugin]
    file, *made = inventory.resources(specs[-1], specs)
    conf = [one for one in made if inventory.kind(one) == CONF_KIND]
    middle = [one for one in reversed(made) if inventory.kind(one) not in (CONF_KIND, PLUGIN_KIND)]
    return conf, [*inventory.strays(specs), *inventory.left_over(specs[-1], specs), *middle, file, plugin]


def carry_out(force: bool, on_step: OnStep, on_pod: Callable[[Pod], None]) -> Reset:
    """Reset this host. The caller holds `spine.exclusive`; `on_pod` is told of each attachment deleted.

    Raises Problem: live pods and no `force`, or after undoing this run's changes (deleted attachments stay deleted).
    """
    todo, recorded = plan(), attachments.networks()
    if not force:
        _refuse_live(todo.pods)
    journal = Journal("reset-node")
    done = spine.apply(todo.conf, on_step, journal)
    try:
        with Locked(NODE_LOCK, wait=PLUGIN_CALLS_WAIT):  # whoever read the conf before it went has ended
            pods = live_pods.attached(todo.names)
            if not force:
                _refuse_live(pods)
            for pod in live_pods.detach_all(pods, journal):
                on_pod(pod)
    except (Problem, CniError) as failure:
        spine.undo(done, on_step, journal)
        raise failure if isinstance(failure, Problem) else Problem(failure.msg, failure.details) from None
    spine.apply(todo.rest, on_step, journal, done)
    journal.end("done")
    others = {pod.network for pod in pods if not pod.ours}
    leftovers.sweep(list(todo.names), [name for name in recorded if name not in others])
    return todo


def _refuse_live(pods: Iterable[Pod]) -> None:
    live_pods.refuse([pod for pod in pods if pod.state != liveness.STALE], "reset-node")
