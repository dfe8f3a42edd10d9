"""Make preflight checks on a host that is a node already."""

from collections.abc import Callable, Iterable

from cnictl.doctor.check import HostFault
from cnictl.doctor.facts import Facts
from cnictl.node import hint, preflight
from cnictl.node.hint import Hint


def preflight_check(*names: str) -> Callable[[Facts], Iterable[HostFault]]:
    """Return a check that makes the preflight checks of these names; it finds nothing if this host is not a node."""

    def find(facts: Facts) -> Iterable[HostFault]:
        if facts.spec is None:
            return
        for name in names:
            for finding in preflight.CHECKS[name](facts.spec, facts.spec):
                yield HostFault(finding.subject, finding.message, of_a_node(finding.hint), False)

    return find


def of_a_node(given: Hint) -> Hint:
    """Return a preflight hint for a host that is a node: there is no refused command to add an option to."""
    if not given.option:
        return given
    words = f"set the node up with another one: cnictl init-node {given.option}"
    return hint.advice(words, because="a node that is set up otherwise may lose its pods: the operator chooses when")
