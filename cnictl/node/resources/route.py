"""Set the routes to other nodes' pods. Our routes have a routing protocol number, so that none outlives its peer."""

from typing import Any

from cnictl.core.errors import Problem
from cnictl.node.host import host_links, route_lookup
from cnictl.node.host.route_lookup import PROTOCOL
from cnictl.node.spec.node_spec import NodeSpec, Peer
from cnictl.node.spine import Change, State

OURS = "cnictl"
_PROTOCOLS = {2: "kernel", 3: "boot", 4: "static", 16: "dhcp", 186: "bgp", 188: "ospf"}


class PeerRoute:
    """The route to one peer's pod CIDR through that peer's address. An equal route made by hand is adopted."""

    def __init__(self, pod_cidr: str, table: "RouteTable | None" = None) -> None:
        self._pod_cidr = pod_cidr
        self._table = table or RouteTable()
        self.id = f"route/{pod_cidr}"

    def observe(self) -> State | None:
        """Return the route's next hop, link and owner; our route, if there are several."""
        routes = self._table.to(self._pod_cidr)
        return next((route for route in routes if route["owner"] == OURS), routes[0] if routes else None)

    def desired(self, spec: NodeSpec) -> State | None:
        """Return the route through the peer, on the peer's link or the kernel's choice; None if the peer is gone."""
        peer = next((peer for peer in spec.peers if peer.pod_cidr == self._pod_cidr), None)
        now = self.observe()
        if peer is None:
            return now if now is not None and now["owner"] != OURS else None
        wanted = {"via": peer.via, "dev": self._table.link_to(peer, spec), "owner": OURS}
        return now if now is not None and {**now, "owner": OURS} == wanted else wanted

    def former(self) -> State | None:
        """Return a route that is not ours, which a reset leaves; else None."""
        now = self.observe()
        return now if now is not None and now["owner"] != OURS else None

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:
        """Return the summary and the `ip route` command."""
        if after is None:
            return f"remove the route to {self._pod_cidr}", f"ip route del {self._pod_cidr} proto {PROTOCOL}"
        dev = f" dev {after['dev']}" if after["dev"] else ""
        verb = "add" if before is None else "replace"
        command = f"ip route {verb} {self._pod_cidr} via {after['via']}{dev} proto {PROTOCOL}"
        return f"route {self._pod_cidr} through {after['via']}{dev.replace(' dev', ' on')}", command

    def carry_out(self, change: Change) -> None:
        """Add, replace or remove the route. Raises Problem with the kernel's error, or if another's route exists."""
        from pyroute2 import IPRoute
        from pyroute2.netlink.exceptions import NetlinkError

        self._table.forget()
        with IPRoute() as iproute:
            try:
                if change.after is None:
                    iproute.route("del", dst=self._pod_cidr, proto=PROTOCOL)
                    return
                _refuse_foreign(self._pod_cidr, change.before)
                arguments: dict[str, Any] = {"dst": self._pod_cidr, "gateway": change.after["via"], "proto": PROTOCOL}
                if change.after["dev"]:
                    links = iproute.link_lookup(ifname=change.after["dev"])
                    if not links:
                        raise Problem(f"there is no link {change.after['dev']}", "`ip link` lists the links")
                    arguments["oif"] = links[0]
                iproute.route("add" if change.before is None else "replace", **arguments)
            except NetlinkError as error:
                via = change.after["via"] if change.after else ""
                raise Problem(
                    f"the kernel refuses the route: {error.args[-1]}",
                    f"`ip route get {via}` shows how this host reaches the peer" if via else "",
                ) from None


class RouteTable:
    """The main table's routes of both families, read once until `forget`.

    A dump costs milliseconds per hundred routes, and each peer of a node has a resource that asks.
    """

    def __init__(self) -> None:
        self._read: list[tuple[str, dict[str, str]]] | None = None
        self._links: tuple[NodeSpec, dict[Peer, str]] | None = None

    def forget(self) -> None:
        """Forget the routes, because one was changed; the next question reads them again."""
        self._read = None

    def to(self, pod_cidr: str) -> list[dict[str, str]]:
        """Return the routes to exactly that CIDR, lowest metric first: `via`, `dev`, `owner`."""
        return [route for destination, route in self._all() if destination == pod_cidr]

    def link_to(self, peer: Peer, spec: NodeSpec) -> str:
        """Return the link of a peer's route; empty if the kernel knows none, and then it refuses the route."""
        if self._links is None or self._links[0] != spec:
            self._links = (spec, host_links.peer_links(spec))
        return self._links[1].get(peer, "")

    def orphans(self, spec: NodeSpec | None) -> list[str]:
        """Return the destinations of our routes that belong to no peer of `spec`."""
        claimed = {peer.pod_cidr for peer in spec.peers} if spec is not None else set()
        return sorted({destination for destination, route in self._all() if route["owner"] == OURS} - claimed)

    def _all(self) -> list[tuple[str, dict[str, str]]]:
        if self._read is None:
            routes = []
            for destination, route in route_lookup.routes():
                if route.table == route_lookup.MAIN_TABLE:
                    dev, via = route.hops[0] if len(route.hops) == 1 else ("", "")  # none of ours has several next hops
                    name = _PROTOCOLS.get(route.protocol, route.protocol)
                    owner = OURS if route.protocol == PROTOCOL else f"proto {name}"
                    routes.append((str(destination), {"via": via, "dev": dev, "owner": owner}))
            self._read = routes
        return self._read


def _refuse_foreign(pod_cidr: str, before: State | None) -> None:
    if before is not None and before["owner"] != OURS:
        through = f"through {before['via']} " if before["via"] else ""
        raise Problem(
            f"{pod_cidr} already has a route {through}on {before['dev']} that cnictl did not make ({before['owner']})",
            f"if that route is wrong: ip route del {pod_cidr}",
        )
