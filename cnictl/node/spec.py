"""A node's desired state as a value: what /etc/cnictl/node.toml says."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Peer:
    """Another node: its pod CIDR, the node address it is reached at, and the link (empty: the kernel's choice)."""

    pod_cidr: str
    via: str
    dev: str = ""


@dataclass(frozen=True)
class NodeSpec:
    """What this node should be. Addresses and CIDRs are canonical text, checked before they get here."""

    subnet: str
    """This node's pod CIDR; its first address is the bridge's."""
    network: str
    """The cluster's pod network, that every node's pod CIDR lies in; never masqueraded within."""
    name: str = "mynet"
    """The CNI network's name: the lease store's folder, the conf's `name`."""
    bridge: str = "cni0"
    uplink: str = ""
    """Link to the peers; empty: the one that holds the default route, found at each run."""
    mtu: int = 0
    """MTU of bridge and pods in bytes; 0: the uplink's."""
    nat: bool = True
    backend: str = "nft"
    """`nft` or `iptables`: what the masquerade rule set is made with."""
    peers: tuple[Peer, ...] = ()
    external: str = ""
    """Address outside the cluster that `test-connectivity` pings; empty: 1.1.1.1."""


def as_data(spec: NodeSpec) -> dict[str, Any]:
    """The spec as JSON values."""
    return {**asdict(spec), "peers": [asdict(peer) for peer in spec.peers]}


def from_data(data: dict[str, Any]) -> NodeSpec:
    """What `as_data` gave, read back."""
    return NodeSpec(**{**data, "peers": tuple(Peer(**entry) for entry in data["peers"])})
