"""Plan the machines on the lab's link and their addresses: the walk-through's underlay, extended to 16 nodes.

A dual-stack lab adds IPv6 of the same shape: one link, a router that knows only the nodes, a host outside.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

NETWORK = "10.244.0.0/20"
"""The cluster's pod network; every node's pod CIDR lies in it."""
GATEWAY = "10.0.0.1/20"
"""The nodes' default gateway. It knows the nodes' addresses, but no pod CIDR."""
OUTSIDE = "192.0.2.10/24"
"""The host outside the cluster (RFC 5737)."""
OUTSIDE_GATEWAY = "192.0.2.1/24"
NETWORK6, GATEWAY6 = "fd00:244::/48", "fd00:10::1/64"
OUTSIDE6, OUTSIDE_GATEWAY6 = "2001:db8::10/64", "2001:db8::1/64"
"""RFC 3849."""
OUTSIDE_ALSO, OUTSIDE_ALSO6 = "1.1.1.1/32", "2606:4700:4700::1111/128"
"""Further addresses of the host outside: those that test-connectivity pings by default."""
MAX_NODES = 16
UPLINK = "eth0"

_WALK_THROUGH = ("10.0.0.210/20", "10.0.10.51/20")
_WALK_THROUGH6 = ("fd00:10::210/64", "fd00:10::51/64")


@dataclass(frozen=True)
class Machine:
    """One host of the lab: a node, or the host outside."""

    name: str
    interface: str
    """Its address with the link's prefix: `10.0.0.210/20`."""
    gateway: str
    route: str
    """The destination of its route through the gateway: a CIDR, or `default`."""
    pod_cidr: str = ""
    """The node's share of NETWORK; empty for the host outside."""
    interface6: str = ""
    """Its IPv6 address with the link's prefix; empty in a lab that is not dual-stack."""
    gateway6: str = ""
    route6: str = ""
    pod_cidr6: str = ""

    @property
    def address(self) -> str:
        """Its address without the prefix."""
        return self.interface.partition("/")[0]

    @property
    def address6(self) -> str:
        """Its IPv6 address without the prefix."""
        return self.interface6.partition("/")[0]

    def as_json(self) -> dict[str, Any]:
        """Return the machine as a JSON object; `Machine(**form)` reads it back."""
        return asdict(self)


def machines(nodes: int, dual_stack: bool = False) -> list[Machine]:
    """Return `nodes` nodes (1 to MAX_NODES) and, last, the host outside."""
    planned = []
    for number in range(1, nodes + 1):
        interface = _WALK_THROUGH[number - 1] if number <= 2 else f"10.0.{number - 1}.{50 + number}/20"
        gateway = GATEWAY.partition("/")[0]
        planned.append(Machine(f"node{number}", interface, gateway, "default", f"10.244.{number - 1}.0/24"))
    planned.append(Machine("outside", OUTSIDE, OUTSIDE_GATEWAY.partition("/")[0], "10.0.0.0/20"))
    return [_with_ipv6(machine, number) for number, machine in enumerate(planned)] if dual_stack else planned


def _with_ipv6(machine: Machine, number: int) -> Machine:
    if not machine.pod_cidr:
        gateway = OUTSIDE_GATEWAY6.partition("/")[0]
        return replace(machine, interface6=OUTSIDE6, gateway6=gateway, route6="fd00:10::/64")
    interface = _WALK_THROUGH6[number] if number < len(_WALK_THROUGH6) else f"fd00:10::{51 + number}/64"
    pods = f"fd00:244:0:{number:x}::/64" if number else "fd00:244::/64"
    gateway = GATEWAY6.partition("/")[0]
    return replace(machine, interface6=interface, gateway6=gateway, route6="default", pod_cidr6=pods)
