"""Read the state that decides what this host does with a packet. Each value is read once, at its first use."""

from collections.abc import Sequence
from functools import cached_property

from cnictl.core import sysctl
from cnictl.core.cidr import Cidr, parse_address, parse_cidr
from cnictl.core.errors import Problem
from cnictl.core.masquerade.backends import backend
from cnictl.core.masquerade.rule_set import RuleSet
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import Link, Netlink
from cnictl.node.hint import sysctl_name
from cnictl.node.host import host_links, pod_routes, policy_rules, route_lookup
from cnictl.node.host.route_lookup import LEARNED_PROTOCOL, MAIN_TABLE, REFUSING, Packet, RouteResult
from cnictl.node.reach.peer_hints import PeerHints
from cnictl.node.runs import converge
from cnictl.node.spec.node_spec import NodeSpec, Peer, is_ipv6
from cnictl.node.spec.peers import is_link_local
from cnictl.node.spine import Change
from cnictl.probe.netns_thread import inside

GONE = "is gone"
"""The fault of a host veth that does not exist."""
NO_CARRIER = "has no carrier"
"""The fault of a host veth whose other end, in the pod, is down."""
_CARRYING = (0, 6)  # linux/if.h, IF_OPER_UNKNOWN and IF_OPER_UP


class Host:
    """This node's network namespace in one address family, as far as the finders need it."""

    def __init__(self, spec: NodeSpec, whole: NodeSpec | None = None) -> None:
        self.spec = spec
        """The node's spec, reduced to this address family."""
        self.whole = whole or spec
        """The node's spec with both families."""
        self._routes: dict[Packet, RouteResult] = {}

    @property
    def ipv6(self) -> bool:
        """Whether the family is IPv6."""
        return is_ipv6(self.spec.subnet)

    @property
    def family(self) -> str:
        """The family's name."""
        return "IPv6" if self.ipv6 else "IPv4"

    @property
    def forward_switch(self) -> str:
        """The kernel setting that turns on forwarding for the family."""
        return "net.ipv6.conf.all.forwarding" if self.ipv6 else "net.ipv4.ip_forward"

    @cached_property
    def forwarding(self) -> bool:
        """Whether `forward_switch` is on."""
        return sysctl.read(self.forward_switch.replace(".", "/")) != "0"

    def forwards_from(self, link: str) -> bool:
        """Return whether the kernel forwards packets that come in on a link: net.ipv4.conf.LINK.forwarding.

        IPv6 has one switch for all links (net/ipv6/ip6_output.c, ip6_forward).
        """
        return self.ipv6 or sysctl.read(f"net/ipv4/conf/{link}/forwarding") != "0"

    @cached_property
    def bridge(self) -> Link | None:
        """The bridge; None if the link does not exist."""
        with Netlink() as netlink:
            return rtnetlink.get_link(netlink, self.spec.bridge)

    @cached_property
    def bridge_addresses(self) -> list[str]:
        """The bridge's addresses of the family with prefix length, without link-local addresses."""
        if self.bridge is None:
            return []
        family = rtnetlink.AF_INET6 if self.ipv6 else rtnetlink.AF_INET
        with Netlink() as netlink:
            addresses = rtnetlink.addresses(netlink, self.bridge.index, family)
        return [str(Cidr(packed, prefix)) for packed, prefix in addresses if not is_link_local(packed)]

    def bridge_fault(self, gateway: str = "") -> str:
        """Return why the bridge can't serve pods; empty if it can. `gateway`: the address that it must have."""
        name, wanted = self.spec.bridge, f"{gateway}/{parse_cidr(self.spec.subnet).prefix}"
        if self.bridge is None:
            return f"bridge {name} does not exist"
        if not self.bridge.up:
            return f"bridge {name} is down"
        if gateway and wanted not in self.bridge_addresses:
            present = ", ".join(self.bridge_addresses)
            has = f"has only {present}" if present else f"has no {self.family} address"
            return f"bridge {name} {has}; the gateway address {wanted} is missing"
        return ""

    def port_fault(self, host_veth: str) -> str:
        """Return the fault of a pod's host veth as a bridge port; empty if it has none."""
        with Netlink() as netlink:
            port = rtnetlink.get_link(netlink, host_veth)
        if port is None:
            return GONE
        if not port.up:
            return "is down"
        if self.bridge is None or port.master != self.bridge.index:
            return f"is not on {self.spec.bridge}"
        if port.operstate not in _CARRYING:
            return NO_CARRIER
        return ""

    def route(self, to: str, source: str = "", through: str = "") -> RouteResult:
        """Return where the kernel sends a packet to `to`.

        `source` and `through` describe a forwarded packet: its source address and the link on which it came in.
        """
        packet = Packet(to, source, through)
        if packet not in self._routes:
            self._routes[packet] = route_lookup.look_up(packet, entries=False)
        return self._routes[packet]

    @cached_property
    def peer_hints(self) -> PeerHints:
        """The hints for missing peers, which depend on the source of this node's peers."""
        return PeerHints(self.whole)

    def no_node_has(self, address: str) -> bool:
        """Return whether this node refuses packets to `address` because its source of peers lists no node with it."""
        route = _main_route(address)
        return route is not None and route[1].protocol == LEARNED_PROTOCOL and route[1].kind in REFUSING

    def routes_pods(self, address: str) -> bool:
        """Return whether a route of the main table leads to `address` or to a part of the pod network that has it."""
        found = _main_route(address)
        return found is not None and found[0].prefix >= parse_cidr(self.spec.network).prefix

    @cached_property
    def peer_links(self) -> dict[Peer, str]:
        """The link to each peer of the node."""
        return host_links.peer_links(self.whole)

    @cached_property
    def diversions(self) -> list[pod_routes.Diversion]:
        """The diversions of packets of this node's pods."""
        return pod_routes.observe(self.whole).diversions

    @cached_property
    def masquerade_loaded(self) -> bool:
        """Whether the node's masquerade rule set is loaded."""
        spec = self.whole
        wanted = RuleSet(spec.name, map(parse_cidr, spec.subnets), map(parse_cidr, spec.networks))
        try:
            return backend(spec.backend).is_loaded(wanted)
        except Problem:
            return False

    def differs(self, *kinds: str) -> bool:
        """Return whether `cnictl apply` would change a resource whose id begins with one of `kinds`.

        If not, `cnictl apply` is not a hint.
        """
        try:
            return any(change.resource.startswith(kinds) for change in self._drift)
        except (Problem, OSError):
            return True  # `cnictl apply` prints the error

    @cached_property
    def _drift(self) -> Sequence[Change]:
        return converge.plan(self.whole).whole.changes

    def strict_reverse_path(self, link: str) -> str:
        """Return the kernel setting that makes a link's reverse path filter strict; empty if it is not strict.

        The larger of the values for `all` and for the link decides (linux ip-sysctl.txt). IPv6 has no such setting.
        """
        if self.ipv6:
            return ""
        values = {name: sysctl.read(f"net/ipv4/conf/{name}/rp_filter") for name in ("all", link)}
        if "2" in values.values():
            return ""
        strict = next((name for name in (link, "all") if values[name] == "1"), "")
        return sysctl_name("net", "ipv4", "conf", strict, "rp_filter") if strict else ""


def has_address(netns: str, address: str) -> bool:
    """Return whether a link of the namespace has an address."""

    def is_local() -> bool:
        return route_lookup.look_up(Packet(address), entries=False).kind == route_lookup.LOCAL

    return inside(netns, is_local)


def _main_route(address: str) -> tuple[Cidr, RouteResult] | None:
    """Return the main table's route to an address."""
    main = [entry for entry in route_lookup.routes() if entry[1].table == MAIN_TABLE]
    return policy_rules.longest(main, parse_address(address))


def pod_default_route(netns: str, ipv6: bool = False) -> str:
    """Return the gateway of a pod's default route; empty if it has none."""
    for destination, route in inside(netns, route_lookup.routes):
        if not destination.prefix and (destination.bits == 128) == ipv6 and route.table == route_lookup.MAIN_TABLE:
            return route.gateway
    return ""
