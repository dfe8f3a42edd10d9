"""Find out why TCP or UDP does not pass although ping does, from the kernel's trace or from the rules."""

from collections.abc import Sequence

from cnictl.core.errors import Problem
from cnictl.node import hint
from cnictl.node.host import own_host
from cnictl.probe import trace
from cnictl.probe.drop_hint import for_drop
from cnictl.probe.failure import OWN_HOST, SAME_HOST_POD, FailureCause
from cnictl.probe.host import Host
from cnictl.probe.pods import CheckedPod
from cnictl.probe.ports import Attempt

CHOSEN = "some-ports"
"""The name of the cause if the host's rules admit pods only to particular ports. Those ports are not tried."""


def stopped_by(check: str, pod: CheckedPod, host: Host, stopped: Sequence[Attempt]) -> FailureCause:
    """Return the rule that drops a pod's packets, and the command that lets them pass."""
    names = " and ".join(attempt.protocol.upper() for attempt in stopped)
    words = f"{names} to {stopped[0].to} does not pass, although ping does ({stopped[0].words})"
    if check not in (OWN_HOST, SAME_HOST_POD):
        there = hint.advice(
            f"run cnictl doctor on the node of {stopped[0].to}",
            because="the rules of another host can't be read from here",
        )
        return FailureCause("ports-dropped", words, there)
    return named_cause(check, pod, host, words, _traced(pod, stopped[0]))


def named_cause(check: str, pod: CheckedPod, host: Host, words: str, drop: trace.Drop | None) -> FailureCause:
    """Return the cause if packets stop on this node: `drop` if the trace found it, else what the rules show.

    `words` describe the packets that do not pass.
    """
    rules = _of_rules(host) if check == OWN_HOST else []
    chain = f"{drop.table} {drop.chain}" if drop is not None else ""
    named = next((rule for rule in rules if chain.endswith(rule.chain.rpartition(" ")[2])), None) if rules else None
    if drop is not None:
        words += f": dropped on this node by {drop.words}"
    elif rules:
        named = rules[0]
        words += f': dropped on this node by rule "{named.rule}" of chain {named.chain}'
    if named is not None and named.chosen:
        return FailureCause(CHOSEN, f"{words}; other rules let pods in to some ports", named.allow)
    if named is not None:
        return FailureCause("dropped-here", words, named.allow)
    if drop is not None:
        return FailureCause("dropped-here", words, for_drop(drop, pod.address))
    return FailureCause("ports-dropped", words, hint.advice("cnictl doctor", because="it reads and changes nothing"))


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
