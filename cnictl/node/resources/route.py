"""Keep the routes to other nodes' pods. Ours carry a routing protocol number, so that a stale one is found."""

from typing import Any

from cnictl.core.errors import Problem
from cnictl.node.host import host_links, route_lookup
from cnictl.node.host.route_lookup import PROTOCOL
from cnictl.node.spec.node_spec import NodeSpec, Peer
from cnictl.node.spine import Change, State

OURS = "cnictl"
_PROTOCOLS = {2: "kernel", 3: "boot", 4: "static", 16: "dhcp", 186: "bgp", 188: "ospf"}


class PeerRoute:
    """The route to one peer's pods. An equal route that was made by hand is adopted."""

    def __init__(self, pod_cidr: str, table: "RouteTable | None" = None) -> None:
        self._pod_cidr = pod_cidr
        self._table = table or RouteTable()
        self.id = f"route/{pod_cidr}"

    def observe(self) -> State | None:
        """Return the route's gateway, link and owner; our own route comes first."""
        found = self._table.to(self._pod_cidr)
        for route in found:
            if route["owner"] == OURS:
                return route
        return found[0] if found else None

    def desired(self, spec: NodeSpec) -> State | None:
        """Return the route through the peer's address and link; None if the peer is gone."""
        peer = next((peer for peer in spec.peers if peer.pod_cidr == self._pod_cidr), None)
        found = self.observe()
        if peer is None:
            return found if found is not None and found["owner"] != OURS else None
        wanted = {"via": peer.via, "dev": self._table.link_to(peer, spec)}
        if found is not None and (found["via"], found["dev"]) == (wanted["via"], wanted["dev"]):
            return {**wanted, "owner": found["owner"]}
        return {**wanted, "owner": OURS}

    def former(self) -> State | None:
        """Return another program's route; None for our own."""
        found = self.observe()
        return found if found is not None and found["owner"] != OURS else None

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:
        """Return the summary and the `ip route` command."""
        if after is None:
            return f"remove the route to {self._pod_cidr}", f"ip route del {self._pod_cidr} proto {PROTOCOL}"
        dev = f" dev {after['dev']}" if after["dev"] else ""
        verb = "add" if before is None else "replace"
        command = f"ip route {verb} {self._pod_cidr} via {after['via']}{dev} proto {PROTOCOL}"
        return f"route {self._pod_cidr} through {after['via']}{dev.replace(' dev', ' on')}", command

    def carry_out(self, change: Change) -> None:
        """Add, replace or remove it. Raises Problem if the kernel refuses, or another program's route is in the way."""
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
                        raise Problem(f"there is no link {change.after['dev']}", "`ip link` lists them")
                    arguments["oif"] = links[0]
                iproute.route("add" if change.before is None else "replace", **arguments)
            except NetlinkError as error:
                raise Problem(*_kernel_words(error, change)) from None


class RouteTable:
    """The routes of the main table, read once until `forget`.

    A dump takes milliseconds per hundred routes, and a node has a resource for each peer.
    """

    def __init__(self) -> None:
        self._read: list[tuple[str, dict[str, str]]] | None = None
        self._links: tuple[NodeSpec, dict[Peer, str]] | None = None

    def forget(self) -> None:
        """Read the routes again at the next use."""
        self._read = None

    def to(self, pod_cidr: str) -> list[dict[str, str]]:
        """Return the routes to exactly that CIDR, lowest metric first: `via`, `dev`, `owner`."""
        return [route for destination, route in self._all() if destination == pod_cidr]

    def link_to(self, peer: Peer, spec: NodeSpec) -> str:
        """Return the link of a peer's route; empty if there is none."""
        if self._links is None or self._links[0] != spec:
            self._links = (spec, host_links.peer_links(spec))
        return self._links[1].get(peer, "")

    def orphans(self, spec: NodeSpec | None) -> list[str]:
        """Return the destinations of our routes that no peer of `spec` has."""
        claimed = {peer.pod_cidr for peer in spec.peers} if spec is not None else set()
        return sorted({destination for destination, route in self._all() if route["owner"] == OURS} - claimed)

    def _all(self) -> list[tuple[str, dict[str, str]]]:
        if self._read is None:
            self._read = _listed()
        return self._read


def _listed() -> list[tuple[str, dict[str, str]]]:
    found = []
    for destination, route in route_lookup.routes():
        if route.table == route_lookup.MAIN_TABLE:
            dev, gateway = route.hops[0] if len(route.hops) == 1 else ("", "")  # none of ours has several next hops
            owner = OURS if route.protocol == PROTOCOL else f"proto {_PROTOCOLS.get(route.protocol, route.protocol)}"
            found.append((str(destination), {"via": gateway, "dev": dev, "owner": owner}))
    return found


def _refuse_foreign(pod_cidr: str, before: State | None) -> None:
    if before is not None and before["owner"] != OURS:
        through = f"through {before['via']} " if before["via"] else ""
        raise Problem(
            f"{pod_cidr} already has a route {through}on {before['dev']} that cnictl did not make ({before['owner']})",
            f"if it is wrong: ip route del {pod_cidr}",
        )


def _kernel_words(error: Exception, change: Change) -> tuple[str, str]:
    said = str(error.args[1]) if len(error.args) > 1 else str(error)
    via = change.after["via"] if change.after else ""
    return f"the kernel refuses: {said}", f"`ip route get {via}` shows how this host reaches the peer" if via else ""
