"""Run preflight checks on a host that is already a node."""

from collections.abc import Callable, Iterable

from cnictl.doctor.check import HostFault
from cnictl.doctor.facts import Facts
from cnictl.node import hint, preflight
from cnictl.node.hint import Hint


def preflight_check(*names: str) -> Callable[[Facts], Iterable[HostFault]]:
    """Return a check that runs the named preflight checks; it finds nothing if this host is not a node."""

    def find(facts: Facts) -> Iterable[HostFault]:
        if facts.spec is None:
            return
        for name in names:
            for finding in preflight.CHECKS[name](facts.spec, facts.spec):
                yield HostFault(finding.subject, finding.message, of_a_node(finding.hint), False)

    return find


def of_a_node(given: Hint) -> Hint:
    """Return a preflight hint for a host that is a node, where no refused command can take another option."""
    if not given.option:
        return given
    words = f"set the node up with another value: cnictl init-node {given.option}"
    return hint.advice(words, because="another value may cut off the node's pods, so the operator chooses when")
