"""Set the routes to other nodes' pods. Our routes have a routing protocol number, so that none outlives its peer."""

from collections.abc import Iterable, Sequence

from cnictl.core.cidr import Cidr, parse_address, parse_cidr
from cnictl.core.errors import Problem
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import Netlink, NetlinkError
from cnictl.node.host import host_links, route_lookup
from cnictl.node.host.route_lookup import LEARNED_PROTOCOL, PROTOCOL, RouteResult
from cnictl.node.spec.node_spec import NodeSpec, Peer
from cnictl.node.spine import Change, State

OURS, LEARNED, KERNELS = "cnictl", "cnictl, learned", "proto kernel"
_OWNERS = {PROTOCOL: OURS, LEARNED_PROTOCOL: LEARNED}
_PROTOCOLS = {2: "kernel", 3: "boot", 4: "static", 16: "dhcp", 186: "bgp", 188: "ospf"}


class PeerRoute:
    """The route to one peer's pod CIDR through that peer's address. An equal manual route is adopted."""

    def __init__(self, pod_cidr: str, table: "RouteTable | None" = None) -> None:
        self._pod_cidr = pod_cidr
        self._table = table or RouteTable()
        self.id = f"route/{pod_cidr}"

    def observe(self) -> State | None:
        """Return the route's next hop, link and owner; our route, if there are several.

        Learned routes are ignored: `LearnedRoutes` handles them. Kernel routes are ignored too: if a pod CIDR moves
        between a peer and this node, the bridge's connected route has the same destination.
        """
        routes = [route for route in self._table.to(self._pod_cidr) if route["owner"] not in (LEARNED, KERNELS)]
        return next((route for route in routes if route["owner"] == OURS), routes[0] if routes else None)

    def desired(self, spec: NodeSpec) -> State | None:
        """Return the route through the peer, on the peer's link or the kernel's choice; None without the peer."""
        peer = self._table.peer_at(self._pod_cidr, spec)
        now = self.observe()
        if peer is None:
            return self.state_after_reset()
        wanted = {"via": peer.via, "dev": self._table.link_to(peer, spec), "owner": OURS}
        return now if now is not None and {**now, "owner": OURS} == wanted else wanted

    def state_after_reset(self) -> State | None:
        """Return the route that a reset leaves: one that is not ours, even if ours exists too; else None."""
        others = (route for route in self._table.to(self._pod_cidr) if route["owner"] not in (OURS, LEARNED))
        return next(others, None)

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:
        """Return the summary and the `ip route` command."""
        if after is None or after["owner"] != OURS:
            return f"remove the route to {self._pod_cidr}", f"ip route del {self._pod_cidr} proto {PROTOCOL}"
        dev = f" dev {after['dev']}" if after["dev"] else ""
        verb = "add" if before is None else "replace"
        command = f"ip route {verb} {self._pod_cidr} via {after['via']}{dev} proto {PROTOCOL}"
        return f"route {self._pod_cidr} through {after['via']}{dev.replace(' dev', ' on')}", command

    @property
    def batch(self) -> "RouteTable":
        """The table that carries out the changes of all its routes together."""
        return self._table

    def carry_out(self, change: Change) -> None:
        """Add, replace or remove the route. Raises Problem with the kernel's error, or if there is a foreign route."""
        for problem in self._table.carry_out([change]).values():
            raise problem


class RouteTable:
    """The main table's routes of both families, read once until `forget`.

    A dump takes milliseconds per hundred routes, and the resource of each peer needs it.
    """

    def __init__(self) -> None:
        self._read: dict[str, list[dict[str, str]]] | None = None
        self._links: tuple[NodeSpec, dict[Peer, str]] | None = None
        self._peers: tuple[NodeSpec, dict[str, Peer]] | None = None

    def forget(self) -> None:
        """Forget the routes, because one was changed. They are read again when they are needed."""
        self._read = None

    def carry_out(self, changes: Sequence[Change]) -> dict[str, Problem]:
        """Add, replace and remove routes, all over one socket; return what the kernel refuses, by resource."""
        self.forget()
        failures: dict[str, Problem] = {}
        messages: list[tuple[int, int, bytes]] = []
        sent: list[Change] = []
        others = _listed(route_lookup.routes_but(PROTOCOL))
        with Netlink() as netlink:
            indexes = {link.name: link.index for link in rtnetlink.all_links(netlink)}
            for change in changes:
                try:
                    messages.append(_message(change, indexes, others.get(_pod_cidr(change), [])))
                    sent.append(change)
                except Problem as problem:
                    failures[change.resource] = problem
            refusals = netlink.refusals(*messages)
            self.forget()
            for refused in refusals:
                change = sent[refused.position]
                failures[change.resource] = Problem(*_kernel_words(refused, change))
        return failures

    def to(self, pod_cidr: str) -> list[dict[str, str]]:
        """Return the routes to exactly that CIDR, lowest metric first: `via`, `dev`, `owner`."""
        return self._all().get(pod_cidr, [])

    def peer_at(self, pod_cidr: str, spec: NodeSpec) -> Peer | None:
        """Return the peer of `spec` that has a pod CIDR; None without one."""
        if self._peers is None or self._peers[0] is not spec:
            self._peers = (spec, {peer.pod_cidr: peer for peer in spec.peers})
        return self._peers[1].get(pod_cidr)

    def link_to(self, peer: Peer, spec: NodeSpec) -> str:
        """Return the link of a peer's route; empty if the kernel knows none (then it refuses the route)."""
        if self._links is None or self._links[0] != spec:
            self._links = (spec, host_links.peer_links(spec))
        return self._links[1].get(peer, "")

    def without_peer(self, spec: NodeSpec | None) -> list[str]:
        """Return the destinations of our routes that belong to no peer of `spec`."""
        claimed = {peer.pod_cidr for peer in spec.peers} if spec is not None else set()
        ours = {cidr for cidr, routes in self._all().items() if any(route["owner"] == OURS for route in routes)}
        return sorted(ours - claimed)

    def _all(self) -> dict[str, list[dict[str, str]]]:
        if self._read is None:
            self._read = _listed(route_lookup.routes())
        return self._read


def _listed(ways: Iterable[tuple[Cidr, RouteResult]]) -> dict[str, list[dict[str, str]]]:
    """Return the main table's routes by destination."""
    routes: dict[str, list[dict[str, str]]] = {}
    for destination, route in ways:
        if route.table == route_lookup.MAIN_TABLE:
            dev, gateway = route.hops[0] if len(route.hops) == 1 else ("", "")  # our routes have a single next hop
            owner = _OWNERS.get(route.protocol) or f"proto {_PROTOCOLS.get(route.protocol, route.protocol)}"
            routes.setdefault(str(destination), []).append({"via": gateway, "dev": dev, "owner": owner})
    return routes


def _message(change: Change, indexes: dict[str, int], others: list[dict[str, str]]) -> tuple[int, int, bytes]:
    """Return the message that carries a change out. Raises Problem if a foreign route is there, or no link.

    `others`: the routes to the same pod CIDR that are not ours. A static peer's route replaces a learned one.
    """
    cidr = parse_cidr(_pod_cidr(change))
    if change.after is None or change.after["owner"] != OURS:  # the route of others stays
        return rtnetlink.delete_route(cidr.packed, cidr.prefix, PROTOCOL)
    for route in [change.before] if change.before is not None else others:
        _refuse_foreign(str(cidr), route)
    dev = change.after["dev"]
    if dev and dev not in indexes:
        raise Problem(f"there is no link {dev}", "`ip link` lists the links")
    index, gateway = indexes.get(dev, 0), parse_address(change.after["via"])
    return rtnetlink.add_route_via(
        index, cidr.packed, cidr.prefix, gateway, PROTOCOL, change.before is not None or bool(others)
    )


def _pod_cidr(change: Change) -> str:
    return change.resource.partition("/")[2]


def _refuse_foreign(pod_cidr: str, route: State) -> None:
    if route["owner"] not in (OURS, LEARNED):
        through = f"through {route['via']} " if route["via"] else ""
        raise Problem(
            f"{pod_cidr} already has a route {through}on {route['dev']} that cnictl did not make ({route['owner']})",
            f"if that route is wrong: ip route del {pod_cidr}",
        )


def _kernel_words(error: NetlinkError, change: Change) -> tuple[str, str]:
    message = error.strerror or str(error)
    via = change.after["via"] if change.after else ""
    return (
        f"the kernel refuses the route: {message}",
        f"`ip route get {via}` shows how this host reaches the peer" if via else "",
    )
