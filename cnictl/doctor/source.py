"""Check the source of peers: that it answers, that its nodes are accepted, and that it agrees with this node."""

import time
from collections.abc import Iterable

from cnictl.core.counted import counted
from cnictl.doctor.check import Check, HostFault
from cnictl.doctor.facts import Facts
from cnictl.node import hint
from cnictl.node.reach import learning
from cnictl.node.reach.accept import REFUSED
from cnictl.node.state import learned_peers

_NAMED = 10


def _conflict(facts: Facts) -> Iterable[HostFault]:
    learned = learned_peers.load()
    if facts.spec is not None and facts.spec.reach.source and learned is not None and learned.conflict:
        yield HostFault(
            learned.source,
            f"{learned.conflict}; running pods keep their addresses, and the runtime starts no pod here",
            hint.advice(
                f"drain this node and run `cnictl init-node --from {learned_peers.from_argument(learned)}`; "
                "or restore its pod CIDR in the source",
                because="only the operator knows which of the two is right, and pods have to be restarted",
            ),
        )


def _stale(facts: Facts) -> Iterable[HostFault]:
    if facts.spec is None or not facts.spec.reach.source:
        return
    learned = learned_peers.load()
    if learned is None:
        yield HostFault(facts.spec.reach.source, "the list of peers has never been read", hint.command("cnictl apply"))
    elif (absence := learning.absence(learned)) and not learned.trouble:
        yield HostFault(
            learned.source,
            absence,
            hint.advice(
                "add this node to the source, or take it down here: cnictl reset-node",
                because="only the operator knows whether this node still belongs to the cluster",
            ),
        )
    elif learned.trouble:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(learned.stale_since))
        yield HostFault(
            learned.source,
            f"stale since {since}; the peers of the last list are kept: {learned.trouble_alone}",
            hint.advice(
                f"{learned.todo or 'repair the source'}; `cnictl node list` shows the last list",
                because="the source is not on this host, or its content belongs to the operator",
            ),
        )


def _refused(facts: Facts) -> Iterable[HostFault]:
    learned = learned_peers.load()
    if facts.spec is None or not facts.spec.reach.source or learned is None:
        return
    refused = [node for node in learned.nodes if node["state"] == REFUSED]
    for node in refused[:_NAMED]:
        yield HostFault(
            f"{node['name']} {node['pod_cidr']}".strip(),
            f"is in the source but gets no route: {node['why']}",
            hint.advice(f"correct it in the source ({learned.source})", because="the source belongs to the operator"),
        )
    if len(refused) > _NAMED:
        yield HostFault(
            counted(len(refused) - _NAMED, "more node"),
            "in the source, but without a route",
            hint.advice("cnictl node list shows each with its reason", because="the source belongs to the operator"),
        )


CHECKS = (
    Check(
        "source-conflict", 36, "error", "/var/lib/cnictl/peers.json: this node's pod CIDR according to its source",
        "Two nodes with one pod CIDR assign the same addresses.",
        "cnictl node list", _conflict,
    ),
    Check(
        "source-stale", 33, "warning", "/var/lib/cnictl/peers.json: when the source of peers answered last",
        "Nodes that join or leave go unnoticed here until the source answers again.",
        "cnictl node list", _stale,
    ),
    Check(
        "node-refused", 33, "warning", "/var/lib/cnictl/peers.json: listed nodes that were refused, and why",
        "Pods on this node can't reach the pods of a refused node.",
        "cnictl node list", _refused,
    ),
)  # fmt: skip
