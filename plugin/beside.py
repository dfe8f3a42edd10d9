"""A route that a pod has already through another of its interfaces: the later one is added with a higher metric.

Each attachment keeps its own route, so that a pod whose first network is disconnected still has that of its second.
Loaded only where the kernel refused a route as a second one. Sources: net/ipv4/fib_trie.c (fib_table_insert: one
route for each destination and metric), net/ipv6/ip6_fib.c (fib6_add_rt2node).
"""

import errno

from cnictl.core.conf.routes import MAIN_TABLE, Route
from cnictl.core.errors import KERNEL_REFUSED, CniError
from cnictl.core.netlink.kernel_routes import KernelRoute, listed
from cnictl.core.netlink.rtnetlink import AF_INET, AF_INET6, Netlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_IPV6_METRIC = 1024
"""IP6_RT_PRIO_USER: what the kernel gives an IPv6 route that asks for no metric."""
_LAST_METRIC = 2**32 - 1
_TRIES = 16
"""Metrics to try: more than one only where another program adds routes at the same time, or has a blackhole route."""


class Beside:
    """An interface that gets routes which the pod has already, through another: the pod's are listed once.

    `index` and `ifname` are of the interface, `message` builds the request for a route.
    """

    def __init__(
        self, pod: Netlink, index: int, ifname: str, message: "Callable[[Route], tuple[int, int, bytes]]"
    ) -> None:
        self._pod = pod
        self._index = index
        self._ifname = ifname
        self._message = message
        self._there: dict[int, dict[tuple[bytes, int, int], list[KernelRoute]]] = {}

    def add(self, route: Route) -> Route | None:
        """Add the route with the next free metric; return it as it was made, or None if this interface has it already.

        Raises CniError 103.
        """
        there = self._same_destination(route)
        asked = route.priority or (_IPV6_METRIC if route.destination.bits == 128 else 0)
        if any(one.priority == asked and self._index in one.links for one in there):
            return None
        taken = {one.priority for one in there} | {asked}
        for _ in range(_TRIES):
            metric = next_metric(asked, taken)
            later = route.with_priority(metric)
            refused = self._pod.refusals(self._message(later))
            if not refused:
                return later
            if refused[0].errno != errno.EEXIST:
                said = refused[0].strerror
                raise CniError(KERNEL_REFUSED, f"{self._ifname}: route to {route.destination}: {said}")
            taken.add(metric)
        raise CniError(KERNEL_REFUSED, f"{self._ifname}: route to {route.destination}: another program keeps adding it")

    def _same_destination(self, route: Route) -> list[KernelRoute]:
        bits = route.destination.bits
        if bits not in self._there:
            self._there[bits] = by_destination(listed(self._pod, AF_INET if bits == 32 else AF_INET6))
        return self._there[bits].get(destination_of(route), [])


def next_metric(asked: int, taken: "Iterable[int]") -> int:
    """Return the lowest metric above `asked` that is not taken: the route keeps its place among the others.

    Past the last metric that there is, it is the highest below.
    """
    occupied = set(taken)
    metric = asked + 1
    while metric in occupied:
        metric += 1
    if metric <= _LAST_METRIC:
        return metric
    metric = _LAST_METRIC
    while metric in occupied:
        metric -= 1
    return metric


def by_destination(routes: "Iterable[KernelRoute]") -> dict[tuple[bytes, int, int], list[KernelRoute]]:
    """The kernel's routes by destination, prefix length and table."""
    found: dict[tuple[bytes, int, int], list[KernelRoute]] = {}
    for one in routes:
        found.setdefault((one.destination, one.prefix, one.table), []).append(one)
    return found


def destination_of(route: Route) -> tuple[bytes, int, int]:
    """What routes that the kernel takes for the same one have in common, but for their metric."""
    destination = route.destination
    return destination.packed if destination.prefix else b"", destination.prefix, route.table or MAIN_TABLE
