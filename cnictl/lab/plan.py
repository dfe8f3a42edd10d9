"""Who is on the lab's link and with which addresses: the walk-through's underlay, continued to 16 nodes."""

from dataclasses import asdict, dataclass
from typing import Any

NETWORK = "10.244.0.0/20"
"""The cluster's pod network, that every node's pod CIDR lies in."""
GATEWAY = "10.0.0.1/20"
"""The nodes' default gateway. It knows the nodes' addresses and no pod CIDR."""
OUTSIDE = "192.0.2.10/24"
"""The host outside the cluster (RFC 5737)."""
OUTSIDE_GATEWAY = "192.0.2.1/24"
MAX_NODES = 16
UPLINK = "eth0"

_WALK_THROUGH = ("10.0.0.210/20", "10.0.10.51/20")


@dataclass(frozen=True)
class Machine:
    """One host of the lab: a node, or the one outside."""

    name: str
    interface: str
    """Its address with the link's prefix: `10.0.0.210/20`."""
    gateway: str
    route: str
    """What it reaches through the gateway: a CIDR, or `default`."""
    pod_cidr: str = ""
    """The node's share of NETWORK; empty for the host outside."""

    @property
    def address(self) -> str:
        """Its address alone."""
        return self.interface.partition("/")[0]

    def as_json(self) -> dict[str, Any]:
        """A form that json takes; `Machine(**form)` is the way back."""
        return asdict(self)


def machines(nodes: int) -> list[Machine]:
    """`nodes` nodes (1 to MAX_NODES) and, last, the host outside."""
    found = []
    for number in range(1, nodes + 1):
        interface = _WALK_THROUGH[number - 1] if number <= 2 else f"10.0.{number - 1}.{50 + number}/20"
        gateway = GATEWAY.partition("/")[0]
        found.append(Machine(f"node{number}", interface, gateway, "default", f"10.244.{number - 1}.0/24"))
    found.append(Machine("outside", OUTSIDE, OUTSIDE_GATEWAY.partition("/")[0], "10.0.0.0/20"))
    return found
