"""A pod's routes, as a configuration lists them and as ADD makes them."""

from cnictl.core.cidr import Cidr

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAIN_TABLE = 254
"""RT_TABLE_MAIN, linux/rtnetlink.h."""
SCOPE_LINK = 253
"""RT_SCOPE_LINK: from this scope on, a destination is on the link itself and the kernel refuses a gateway."""
METRICS = ("mtu", "advmss", "priority", "table", "scope")
"""What a route may have besides destination and gateway: the names in configurations, results and `Route`."""


class Route:
    """A route; None leaves a value to the kernel (CNI spec 1.1.0, section 5)."""

    __slots__ = ("advmss", "destination", "gateway", "mtu", "priority", "scope", "table")

    def __init__(
        self,
        destination: Cidr,
        gateway: bytes = b"",
        mtu: int | None = None,
        advmss: int | None = None,
        priority: int | None = None,
        table: int | None = None,
        scope: int | None = None,
    ) -> None:
        self.destination = destination
        self.gateway = gateway
        """Empty: the gateway of the pod's first address of the family."""
        self.mtu = mtu
        """Bytes."""
        self.advmss = advmss
        """Bytes of TCP payload in a segment, as the pod announces them."""
        self.priority = priority
        self.table = table
        self.scope = scope

    def through(self, gateway: bytes) -> "Route":
        """Return the same route with that gateway."""
        return Route(self.destination, gateway, self.mtu, self.advmss, self.priority, self.table, self.scope)

    def with_priority(self, priority: int) -> "Route":
        """Return the same route with that metric."""
        return Route(self.destination, self.gateway, self.mtu, self.advmss, priority, self.table, self.scope)


def complete(routes: "Iterable[Route]", gateways: "Sequence[bytes]", default: bool) -> list[Route]:
    """Return the routes as ADD makes them: a missing gateway becomes the first one of the family.

    With `default`, each family with a gateway gets a default route, unless one is listed.
    """
    first: dict[int, bytes] = {}
    for gateway in gateways:
        first.setdefault(len(gateway), gateway)
    made = []
    for route in routes:
        on_link = route.scope is not None and route.scope >= SCOPE_LINK
        if not route.gateway and not on_link:
            route = route.through(first.get(len(route.destination.packed), b""))
        made.append(route)
    if default:
        listed = {
            len(route.destination.packed)
            for route in made
            if route.destination.prefix == 0 and route.table in (None, MAIN_TABLE)
        }
        made += [Route(Cidr(bytes(family), 0), gateway) for family, gateway in first.items() if family not in listed]
    return made
