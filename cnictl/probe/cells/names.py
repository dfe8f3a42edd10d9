"""Name the cells of `test-connectivity`, and choose those to run."""

from collections.abc import Sequence
from difflib import get_close_matches

from cnictl.core.errors import UsageProblem
from cnictl.probe.checks import CHECKS
from cnictl.probe.failure import EXTERNAL, OTHER_HOST_POD, SAME_HOST_POD

TCP, UDP, DNS, CLUSTER_IP = "tcp", "udp", "dns", "cluster-ip"
HOST_PORT, HAIRPIN, PATH_MTU, IPV6 = "host-port", "hairpin", "path-mtu", "ipv6"
CELLS = (TCP, UDP, DNS, CLUSTER_IP, HOST_PORT, HAIRPIN, PATH_MTU, IPV6)
"""The cells besides the checks that ping, in the order of their rows."""
ALL = (*CHECKS, *CELLS)

_NEEDS = {
    TCP: {SAME_HOST_POD, OTHER_HOST_POD, EXTERNAL},
    UDP: {SAME_HOST_POD, OTHER_HOST_POD, EXTERNAL},
    DNS: {EXTERNAL},
    CLUSTER_IP: {OTHER_HOST_POD},
    PATH_MTU: {OTHER_HOST_POD, EXTERNAL},
}
"""The checks whose results a cell shows or uses to explain its own."""


def choose(only: Sequence[str], skip: Sequence[str]) -> frozenset[str]:
    """Return the cells to run: those of `only`, or all, without those of `skip`. Raises UsageProblem."""
    for name in (*only, *skip):
        if name not in ALL:
            near = get_close_matches(name, ALL, 1)
            raise UsageProblem(
                f"there is no check {name!r}", f"did you mean {near[0]}?" if near else f"there are {', '.join(ALL)}"
            )
    chosen = frozenset(only or ALL) - frozenset(skip)
    if not chosen:
        raise UsageProblem("--skip leaves out every check that --only names")
    return chosen


def checks_for(chosen: frozenset[str]) -> frozenset[str]:
    """Return the checks to run for the chosen cells: those chosen themselves, and those that the others need."""
    needed = {check for name in chosen for check in _NEEDS.get(name, ())}
    return frozenset(check for check in CHECKS if check in chosen or check in needed)
