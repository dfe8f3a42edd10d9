"""Checks that stand before each set-up, made of the node as it is."""

from collections.abc import Callable, Iterable

from cnictl.doctor.check import Seen
from cnictl.doctor.facts import Facts
from cnictl.node import preflight


def preflight_check(*names: str) -> Callable[[Facts], Iterable[Seen]]:
    """What the preflight's checks of these names find; nothing on a host that is no node."""

    def find(facts: Facts) -> Iterable[Seen]:
        if facts.spec is None:
            return
        for name in names:
            for one in preflight.CHECKS[name](facts.spec, facts.spec):
                yield Seen(one.subject, one.message, one.mend, False)

    return find
