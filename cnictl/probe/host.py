"""Read how this host treats a packet. Each value is read once, when a finder first needs it."""

import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from cnictl.core.cidr import parse_cidr
from cnictl.core.errors import CniError, Problem
from cnictl.core.masquerade import rule_set
from cnictl.core.masquerade.rule_set import Masquerade
from cnictl.core.process import Finished, run
from cnictl.node.hint import sysctl_name
from cnictl.node.host import host_links, pod_routes
from cnictl.node.runs import converge
from cnictl.node.spec.node_spec import NodeSpec, Peer, is_ipv6
from cnictl.node.spine import Change
from cnictl.probe.netns_thread import inside

Json = dict[str, Any]


GONE = "is gone"
"""The fault of a host veth that does not exist."""


class Route:
    """Where the kernel sends a packet: link and next hop, or the text of its error."""

    __slots__ = ("error", "gateway", "link", "source")

    def __init__(self, link: str = "", gateway: str = "", source: str = "", error: str = "") -> None:
        self.link = link
        self.gateway = gateway
        self.source = source
        self.error = error

    @property
    def spoofed(self) -> bool:
        """Whether the kernel refuses the source: EXDEV, on newer kernels EINVAL (net/ipv4/fib_frontend.c)."""
        return "cross-device" in self.error or "Invalid argument" in self.error


class Host:
    """This node's network namespace in one address family, as far as the finders need it."""

    def __init__(self, spec: NodeSpec, whole: NodeSpec | None = None) -> None:
        self.spec = spec
        """The node's spec, reduced to this address family."""
        self.whole = whole or spec
        """The node's spec with both families."""
        self._routes: dict[tuple[str, str, str], Route] = {}

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
        return _read(f"/proc/sys/{self.forward_switch.replace('.', '/')}") != "0"

    def forwards_from(self, link: str) -> bool:
        """Return whether the kernel forwards packets that come in on a link: net.ipv4.conf.LINK.forwarding.

        IPv6 has one switch for all links (net/ipv6/ip6_output.c, ip6_forward).
        """
        return self.ipv6 or _read(f"/proc/sys/net/ipv4/conf/{link}/forwarding") != "0"

    @cached_property
    def bridge(self) -> Json | None:
        """`ip -j address show dev BRIDGE`; None if there is no such link."""
        links = _json(run(["ip", "-j", "address", "show", "dev", self.spec.bridge], check=False))
        return links[0] if links else None

    @cached_property
    def bridge_addresses(self) -> list[str]:
        """The bridge's addresses of the family with prefix length, without link-local addresses."""
        family = "inet6" if self.ipv6 else "inet"
        infos = [info for info in (self.bridge or {}).get("addr_info", []) if info.get("family") == family]
        return [f"{info['local']}/{info['prefixlen']}" for info in infos if info.get("scope") != "link"]

    def port_fault(self, host_veth: str) -> str:
        """Return what is wrong with a pod's host veth as a bridge port; empty if nothing is."""
        links = _json(run(["ip", "-j", "link", "show", "dev", host_veth], check=False))
        if not links:
            return GONE
        if "UP" not in links[0].get("flags", []):
            return "is down"
        if links[0].get("master") != self.spec.bridge:
            return f"is not on {self.spec.bridge}"
        return ""

    def route(self, to: str, source: str = "", through: str = "") -> Route:
        """Return where the kernel sends a packet to `to`.

        `source` and `through` describe a forwarded packet: its source address and the link on which it came in.
        """
        packet = (to, source, through)
        if packet not in self._routes:
            self._routes[packet] = self._find_route(*packet)
        return self._routes[packet]

    def _find_route(self, to: str, source: str, through: str) -> Route:
        command = ["ip", "-j", "route", "get", to]
        if source:
            command += ["from", source, "iif", through]
        done = run(command, check=False)
        routes = _json(done)
        if not routes:
            return Route(error=done.stderr.strip().rpartition("answers: ")[2] or "no route")
        return Route(routes[0].get("dev", ""), routes[0].get("gateway", ""), routes[0].get("prefsrc", ""))

    @cached_property
    def peer_links(self) -> dict[Peer, str]:
        """The link to each peer of the node."""
        return host_links.peer_links(self.whole)

    @cached_property
    def strays(self) -> list[pod_routes.Stray]:
        """The packets of this node's pods that the kernel sends elsewhere."""
        return pod_routes.look(self.whole).strays

    def neighbour(self, address: str) -> str:
        """Return an address's state in the neighbour table: `REACHABLE`, `FAILED`, …; empty if it has no entry."""
        entries = _json(run(["ip", "-j", "neighbour", "show", "to", address], check=False))
        return " ".join(entries[0].get("state", [])) if entries else ""

    @cached_property
    def masquerade_stands(self) -> bool:
        """Whether the node's masquerade rule set is loaded."""
        spec = self.whole
        wanted = Masquerade(spec.name, map(parse_cidr, spec.subnets), map(parse_cidr, spec.networks))
        try:
            return rule_set.stands(wanted, spec.backend)
        except CniError:
            return False

    def differs(self, *kinds: str) -> bool:
        """Return whether `cnictl apply` would change a resource whose id begins with one of `kinds`.

        If not, `cnictl apply` is no hint.
        """
        try:
            return any(change.resource.startswith(kinds) for change in self._drift)
        except (Problem, CniError, OSError):
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
        values = {name: _read(f"/proc/sys/net/ipv4/conf/{name}/rp_filter") for name in ("all", link)}
        if "2" in values.values():
            return ""
        strict = next((name for name in (link, "all") if values[name] == "1"), "")
        return sysctl_name("net", "ipv4", "conf", strict, "rp_filter") if strict else ""


def pod_default_route(netns: str, ipv6: bool = False) -> str:
    """Return the gateway of a pod's default route; empty if it has none."""
    command = ["ip", "-6" if ipv6 else "-4", "-j", "route", "show", "default"]
    routes = _json(inside(netns, lambda: run(command, check=False)))
    return str(routes[0].get("gateway", "")) if routes else ""


def _json(done: Finished) -> list[Json]:
    """Return the entries that `ip -j` printed; none if it failed."""
    try:
        entries = json.loads(done.stdout or "[]")
    except ValueError:
        return []
    return [entry for entry in entries if entry]


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""
