"""What this host looks like to a packet: each question asked of the kernel once, when a cause first needs it."""

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
"""What is wrong with a host veth that is not there."""


class Route:
    """The kernel's answer to "where would this packet go": link and next hop, or its refusal in words."""

    __slots__ = ("error", "gateway", "link", "source")

    def __init__(self, link: str = "", gateway: str = "", source: str = "", error: str = "") -> None:
        self.link = link
        self.gateway = gateway
        self.source = source
        self.error = error

    @property
    def spoofed(self) -> bool:
        """Whether the source address was refused: EXDEV, on newer kernels EINVAL (net/ipv4/fib_frontend.c)."""
        return "cross-device" in self.error or "Invalid argument" in self.error


class Host:
    """This node's network namespace, as far as the causes ask about it, in one address family."""

    def __init__(self, spec: NodeSpec, whole: NodeSpec | None = None) -> None:
        self.spec = spec
        """The node's, cut down to the family asked about."""
        self.whole = whole or spec
        """The node's, of both families."""
        self._routes: dict[tuple[str, str, str], Route] = {}

    @property
    def ipv6(self) -> bool:
        """Whether that family is IPv6."""
        return is_ipv6(self.spec.subnet)

    @property
    def family(self) -> str:
        """That family's name."""
        return "IPv6" if self.ipv6 else "IPv4"

    @property
    def forward_switch(self) -> str:
        """The sysctl without which a node forwards nothing of the family."""
        return "net.ipv6.conf.all.forwarding" if self.ipv6 else "net.ipv4.ip_forward"

    @cached_property
    def forwarding(self) -> bool:
        """Whether it is on."""
        return _read(f"/proc/sys/{self.forward_switch.replace('.', '/')}") != "0"

    def forwards_from(self, link: str) -> bool:
        """Return net.ipv4.conf.LINK.forwarding, which decides for a packet that comes in there.

        IPv6 knows only the one switch for all links (net/ipv6/ip6_output.c, ip6_forward).
        """
        return self.ipv6 or _read(f"/proc/sys/net/ipv4/conf/{link}/forwarding") != "0"

    @cached_property
    def bridge(self) -> Json | None:
        """`ip -j address show dev BRIDGE`; None if there is no such link."""
        found = _json(run(["ip", "-j", "address", "show", "dev", self.spec.bridge], check=False))
        return found[0] if found else None

    @cached_property
    def bridge_addresses(self) -> list[str]:
        """The bridge's addresses of the family, with prefix length; not its link-local one."""
        family = "inet6" if self.ipv6 else "inet"
        infos = [one for one in (self.bridge or {}).get("addr_info", []) if one.get("family") == family]
        return [f"{one['local']}/{one['prefixlen']}" for one in infos if one.get("scope") != "link"]

    def port_fault(self, host_veth: str) -> str:
        """What is wrong with a pod's host veth as a port of the bridge; empty if nothing is."""
        found = _json(run(["ip", "-j", "link", "show", "dev", host_veth], check=False))
        if not found:
            return GONE
        if "UP" not in found[0].get("flags", []):
            return "is down"
        if found[0].get("master") != self.spec.bridge:
            return f"is not on {self.spec.bridge}"
        return ""

    def route(self, to: str, source: str = "", through: str = "") -> Route:
        """Where a packet to `to` goes; with `source` and `through`, one from there that came in by that link."""
        asked = (to, source, through)
        if asked not in self._routes:
            self._routes[asked] = self._find_route(*asked)
        return self._routes[asked]

    def _find_route(self, to: str, source: str, through: str) -> Route:
        asked = ["ip", "-j", "route", "get", to]
        if source:
            asked += ["from", source, "iif", through]
        done = run(asked, check=False)
        found = _json(done)
        if not found:
            return Route(error=done.stderr.strip().rpartition("answers: ")[2] or "no route")
        one = found[0]
        return Route(one.get("dev", ""), one.get("gateway", ""), one.get("prefsrc", ""))

    @cached_property
    def peer_links(self) -> dict[Peer, str]:
        """The link to each of the node's peers."""
        return host_links.peer_links(self.whole)

    @cached_property
    def strays(self) -> list[pod_routes.Stray]:
        """What the kernel sends elsewhere of this node's pods' packets."""
        return pod_routes.look(self.whole).strays

    def neighbour(self, address: str) -> str:
        """State of an address in the neighbour table: `REACHABLE`, `FAILED`, …; empty if it isn't there."""
        found = _json(run(["ip", "-j", "neighbour", "show", "to", address], check=False))
        return " ".join(found[0].get("state", [])) if found else ""

    @cached_property
    def masquerade_stands(self) -> bool:
        """Whether the node's masquerade rule set is in the kernel as it should be."""
        spec = self.whole
        wanted = Masquerade(spec.name, map(parse_cidr, spec.subnets), map(parse_cidr, spec.networks))
        try:
            return rule_set.stands(wanted, spec.backend)
        except CniError:
            return False

    def differs(self, *kinds: str) -> bool:
        """Whether `cnictl apply` would change a resource whose id begins so: if not, it is no hint."""
        try:
            return any(change.resource.startswith(kinds) for change in self._drift)
        except (Problem, CniError, OSError):
            return True  # `apply` says what keeps it from being told

    @cached_property
    def _drift(self) -> Sequence[Change]:
        return converge.plan(self.whole).whole.changes

    def strict_reverse_path(self, link: str) -> str:
        """The sysctl that makes a link filter strictly, or empty (linux ip-sysctl.txt: the larger of the two).

        IPv6 has none: there a firewall rule does it.
        """
        if self.ipv6:
            return ""
        values = {name: _read(f"/proc/sys/net/ipv4/conf/{name}/rp_filter") for name in ("all", link)}
        if "2" in values.values():
            return ""
        strict = next((name for name in (link, "all") if values[name] == "1"), "")
        return sysctl_name("net", "ipv4", "conf", strict, "rp_filter") if strict else ""


def pod_default_route(netns: str, ipv6: bool = False) -> str:
    """The gateway of a pod's default route; empty if it has none."""
    asked = ["ip", "-6" if ipv6 else "-4", "-j", "route", "show", "default"]
    found = _json(inside(netns, lambda: run(asked, check=False)))
    return str(found[0].get("gateway", "")) if found else ""


def _json(done: Finished) -> list[Json]:
    """What `ip -j` printed; nothing where it failed or found nothing."""
    try:
        found = json.loads(done.stdout or "[]")
    except ValueError:
        return []
    return [one for one in found if one]


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""
