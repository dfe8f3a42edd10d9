"""Why TCP or UDP does not pass where a ping does: the rule that the kernel names, or the one that the rules show."""

from collections.abc import Sequence

from cnictl.core.errors import Problem
from cnictl.node import hint
from cnictl.node.host import own_host
from cnictl.probe import trace
from cnictl.probe.failure import OWN_HOST, SAME_HOST_POD, Cause
from cnictl.probe.host import Host
from cnictl.probe.pods import CheckedPod
from cnictl.probe.ports import Attempt

CHOSEN = "some-ports"
"""The name of the cause where somebody's rules let pods in to particular ports alone, which this can't try."""


def stopped_by(check: str, pod: CheckedPod, host: Host, stopped: Sequence[Attempt]) -> Cause:
    """The rule that drops what a pod sends, and the command that lets it pass."""
    names = " and ".join(attempt.protocol.upper() for attempt in stopped)
    words = f"{names} to {stopped[0].to} does not pass, though ping does ({stopped[0].words})"
    if check not in (OWN_HOST, SAME_HOST_POD):
        there = hint.advice(
            f"look at the rules of the node that {stopped[0].to} is on: cnictl doctor",
            because="rules of another host can't be read from here",
        )
        return Cause("ports-dropped", words, there)
    drop = _traced(pod, stopped[0])
    rules = _of_rules(host) if check == OWN_HOST else []
    chain = f"{drop.table} {drop.chain}" if drop is not None else ""
    known = next((rule for rule in rules if chain.endswith(rule.chain.rpartition(" ")[2])), None) if rules else None
    if drop is not None:
        words += f": it is dropped on this node by {drop.words}"
    elif rules:
        known = rules[0]
        words += f': it is dropped on this node by "{known.rule}" of {known.chain}'
    if known is not None and known.chosen:
        return Cause(CHOSEN, f"{words}; other rules let pods in to some ports", known.allow)
    if known is not None:
        return Cause("dropped-here", words, known.allow)
    if drop is not None:
        let_in = hint.advice(f"allow {pod.address} in that chain", because="the chain's owner decides what it lets in")
        return Cause("dropped-here", words, let_in)
    return Cause("ports-dropped", words, hint.advice("cnictl doctor", because="it looks, and removes nothing"))


def _traced(pod: CheckedPod, attempt: Attempt) -> trace.Drop | None:
    def again() -> None:
        once_more = Attempt(attempt.protocol, attempt.netns, attempt.to, attempt.port, attempt.listening)
        once_more.send()
        if once_more.asking is not None:
            once_more.asking.close()

    return trace.find_drop(pod.address, attempt.to, again, (attempt.protocol, attempt.port))


def _of_rules(host: Host) -> list[own_host.Dropped]:
    try:
        return own_host.dropped(host.spec)
    except Problem:
        return []
