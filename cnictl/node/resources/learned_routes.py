"""Set the routes to the peers that were learned from a source: one resource for all, with their own protocol number.

The source decides about these routes, so the journal has only a digest and the differences, and an undo sets the routes
that the source asks for at that time. The source knows all nodes, so packets to a pod CIDR that no node has are
refused.
"""

import errno
import hashlib
from collections.abc import Mapping

from cnictl.core.cidr import parse_address, parse_cidr
from cnictl.core.counted import counted
from cnictl.core.errors import Problem
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import Netlink
from cnictl.node.host import host_links, route_lookup
from cnictl.node.host.route_lookup import LEARNED_PROTOCOL, MAIN_TABLE
from cnictl.node.spec.node_spec import NodeSpec
from cnictl.node.spine import Change, State

UNREACHABLE = "unreachable"
"""Used in place of a gateway: packets are refused (ICMP host unreachable)."""
LAST_METRIC = 0xFFFFFFFF
"""The metric with the lowest precedence: any other route to the same destination comes first."""

Routes = Mapping[str, tuple[str, str]]
"""Gateway and link by destination; the gateway is `UNREACHABLE` if packets are refused."""


class LearnedRoutes:
    """Every route of the main table with the learned routes' protocol number."""

    id = "routes/learned"

    def __init__(self, spec: NodeSpec | None = None) -> None:
        self._spec = spec
        self._seen: dict[str, Routes] = {}
        """The routes seen so far, by digest: a run that fails restores them."""

    def observe(self) -> State | None:
        """Return the number of routes and their digest; None without any."""
        routes = present()
        state = _state(routes)
        if state is not None:
            self._seen[state["digest"]] = routes
        return state

    def desired(self, spec: NodeSpec) -> State | None:
        """Return the same for the routes to the learned peers."""
        return _state(wanted(spec))

    def state_after_reset(self) -> State | None:
        """Return the present routes: a reset removes them by their mark."""
        return self.observe()

    def state_from_source(self) -> State | None:
        """Return the routes after an undo: those of the spec that is in effect then; None without a source."""
        return self.desired(self._spec) if self._spec is not None else None

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:
        """Return the summary and an `ip route` command for each difference."""
        added, gone = self._differences(after)
        commands = [f"ip route del {_in_words(cidr, hop)}" for cidr, hop in gone.items()]
        commands += [f"ip route replace {_in_words(cidr, hop)}" for cidr, hop in added.items()]
        if after is None:
            return f"remove {counted(len(gone), 'learned route')}", "\n".join(commands)
        count = int(after["routes"])
        if before is None or not (added or gone):
            return f"add {counted(count, 'learned route')}", "\n".join(commands)
        words = [f"{len(routes)} {verb}" for routes, verb in ((added, "added"), (gone, "removed")) if routes]
        return f"learned routes: {', '.join(words)}, {count} in all", "\n".join(commands)

    def carry_out(self, change: Change) -> None:
        """Add, replace and remove routes over one socket. Raises Problem that names what the kernel refuses."""
        added, gone = self._differences(change.after)
        with Netlink() as netlink:
            indexes = {link.name: link.index for link in rtnetlink.all_links(netlink)}
            missing = sorted({dev for gateway, dev in added.values() if gateway != UNREACHABLE and dev not in indexes})
            if missing:
                raise Problem(f"there is no link {', '.join(missing)}", "`ip link` lists the links")
            removals = [_removal(cidr, hop) for cidr, hop in gone.items()]
            additions = [_addition(cidr, hop, indexes) for cidr, hop in added.items()]
            refused = [error for error in netlink.refusals(*removals) if error.errno != errno.ESRCH]
            refused += netlink.refusals(*additions)
        if refused:
            raise Problem(
                f"the kernel refuses {counted(len(refused), 'learned route')}, the first with: {refused[0].strerror}"
            )

    def _differences(self, after: State | None) -> tuple[Routes, Routes]:
        """Return the routes to add or replace, and those to remove, to reach the state `after`."""
        now = present()
        target: Routes = {}
        if after is not None:
            target = wanted(self._spec) if self._spec is not None else {}
            if _state(target) != after:
                target = self._seen.get(after["digest"], target)
        added = {cidr: hop for cidr, hop in target.items() if now.get(cidr) != hop}
        return added, {cidr: hop for cidr, hop in now.items() if cidr not in target}


def present() -> Routes:
    """Return the learned routes that the kernel has."""
    return {
        str(destination): (UNREACHABLE, "") if route.kind in route_lookup.REFUSING else (route.gateway, route.dev)
        for destination, route in route_lookup.routes()
        if route.protocol == LEARNED_PROTOCOL and route.table == MAIN_TABLE
    }


def wanted(spec: NodeSpec) -> Routes:
    """Return the routes that the learned peers of `spec` need, and those that refuse the rest of the pod networks."""
    if not spec.reach.source:
        return {}
    links = host_links.peer_links(spec) if spec.learned else {}
    routes = {peer.pod_cidr: (peer.via, links[peer]) for peer in spec.learned if links[peer]}
    if spec.reach.unclaimed != "default-route":
        routes |= {network: (UNREACHABLE, "") for network in spec.networks if network not in routes}
    return routes


def _state(routes: Routes) -> State | None:
    if not routes:
        return None
    lines = "\n".join(f"{cidr} {gateway} {dev}" for cidr, (gateway, dev) in sorted(routes.items()))
    return {"routes": len(routes), "digest": hashlib.sha256(lines.encode()).hexdigest()[:16]}


def _in_words(cidr: str, hop: tuple[str, str]) -> str:
    gateway, dev = hop
    if gateway == UNREACHABLE:
        return f"{UNREACHABLE} {cidr} metric {LAST_METRIC} proto {LEARNED_PROTOCOL}"
    return f"{cidr} via {gateway} dev {dev} proto {LEARNED_PROTOCOL}"


def _addition(cidr: str, hop: tuple[str, str], indexes: Mapping[str, int]) -> tuple[int, int, bytes]:
    destination, (gateway, dev) = parse_cidr(cidr), hop
    if gateway == UNREACHABLE:
        return rtnetlink.refuse_route(destination.packed, destination.prefix, LEARNED_PROTOCOL, LAST_METRIC)
    return rtnetlink.add_route_via(
        indexes[dev], destination.packed, destination.prefix, parse_address(gateway), LEARNED_PROTOCOL, replace=True
    )


def _removal(cidr: str, hop: tuple[str, str]) -> tuple[int, int, bytes]:
    destination = parse_cidr(cidr)
    return rtnetlink.delete_route(
        destination.packed,
        destination.prefix,
        LEARNED_PROTOCOL,
        LAST_METRIC if hop[0] == UNREACHABLE else 0,
    )
