"""Add a route that a pod already has through another interface, with a higher metric.

Each attachment keeps its own route, so that a pod whose first network is disconnected still has the second one's.
Loaded only if the kernel refused a route because it exists. Sources: net/ipv4/fib_trie.c (fib_table_insert: one
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
"""IP6_RT_PRIO_USER: the kernel's default metric of an IPv6 route."""
_LAST_METRIC = 2**32 - 1
_TRIES = 16
"""Metrics to try; more than one only if another program adds routes at the same time, or has a blackhole route."""


class Beside:
    """Adds to an interface routes that the pod already has through another one. The pod's routes are listed only once.

    `index` and `ifname` identify the interface; `message` builds the request for a route.
    """

    def __init__(
        self, pod: Netlink, index: int, ifname: str, message: "Callable[[Route], tuple[int, int, bytes]]"
    ) -> None:
        self._pod = pod
        self._index = index
        self._ifname = ifname
        self._message = message
        self._present: dict[int, dict[tuple[bytes, int, int], list[KernelRoute]]] = {}

    def add(self, route: Route) -> Route | None:
        """Add the route with the next free metric; return the new route, or None if this interface already has it.

        Raises CniError 103.
        """
        present = self._same_destination(route)
        requested = route.priority or (_IPV6_METRIC if route.destination.bits == 128 else 0)
        if any(same.priority == requested and self._index in same.links for same in present):
            return None
        taken = {same.priority for same in present} | {requested}
        for _ in range(_TRIES):
            metric = next_metric(requested, taken)
            later = route.with_priority(metric)
            refused = self._pod.refusals(self._message(later))
            if not refused:
                return later
            if refused[0].errno != errno.EEXIST:
                reason = refused[0].strerror
                raise CniError(KERNEL_REFUSED, f"{self._ifname}: route to {route.destination}: {reason}")
            taken.add(metric)
        raise CniError(KERNEL_REFUSED, f"{self._ifname}: route to {route.destination}: another program keeps adding it")

    def _same_destination(self, route: Route) -> list[KernelRoute]:
        bits = route.destination.bits
        if bits not in self._present:
            self._present[bits] = by_destination(listed(self._pod, AF_INET if bits == 32 else AF_INET6))
        return self._present[bits].get(destination_of(route), [])


def next_metric(requested: int, taken: "Iterable[int]") -> int:
    """Return the lowest free metric above `requested`, so that the route keeps its place among the others.

    If there is none, return the highest free one.
    """
    occupied = set(taken)
    metric = requested + 1
    while metric in occupied:
        metric += 1
    if metric <= _LAST_METRIC:
        return metric
    metric = _LAST_METRIC
    while metric in occupied:
        metric -= 1
    return metric


def by_destination(routes: "Iterable[KernelRoute]") -> dict[tuple[bytes, int, int], list[KernelRoute]]:
    """Return the kernel's routes by destination, prefix length and table."""
    grouped: dict[tuple[bytes, int, int], list[KernelRoute]] = {}
    for route in routes:
        grouped.setdefault((route.destination, route.prefix, route.table), []).append(route)
    return grouped


def destination_of(route: Route) -> tuple[bytes, int, int]:
    """Return what the kernel identifies a route by, besides its metric."""
    destination = route.destination
    return destination.packed if destination.prefix else b"", destination.prefix, route.table or MAIN_TABLE
