"""A node's desired state as a value: the content of /etc/cnictl/node.toml."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

FAMILIED = {"subnet": "subnets", "network": "networks", "external": "externals"}
"""Keys of the node file with at most one value for each address family, and the spec's fields for them."""
FOLDERS = ("bin_dirs", "conf_dirs")
"""The fields that hold folders named by the operator."""


@dataclass(frozen=True)
class Peer:
    """Another node: its pod CIDR, its own address, and the link to it (empty: the kernel's choice)."""

    pod_cidr: str
    via: str
    dev: str = ""


FILE, KUBERNETES = "file", "kubernetes"
"""The kinds of sources of peers."""


@dataclass(frozen=True)
class Reach:
    """The source of this node's peers: the `[reach]` table of the node file."""

    source: str = ""
    """`file` or `kubernetes`; empty: there are only the static peers of the node file."""
    node: str = ""
    """This node's name in the source; empty: the host's name (Kubernetes), or the node with its address (file)."""
    file: str = ""
    """The cluster file's path; empty: /etc/cnictl/cluster.toml."""
    kubeconfig: str = ""
    """The path of the Kubernetes credential; empty: /etc/cnictl/kubeconfig."""
    unclaimed: str = ""
    """How to treat packets to a pod CIDR that no node has: `unreachable` (the default) or `default-route`."""


@dataclass(frozen=True)
class NodeSpec:
    """The desired state of a node. Addresses and CIDRs are canonical text, which `addressing.check` has checked."""

    subnets: tuple[str, ...]
    """This node's pod CIDRs, at most one for each address family. The bridge has the first address of each."""
    networks: tuple[str, ...]
    """The cluster's pod networks, which contain all nodes' pod CIDRs. Packets within them are not masqueraded."""
    name: str = "mynet"
    """The CNI network's name: `name` in the conf, and the lease store's folder."""
    bridge: str = "cni0"
    uplink: str = ""
    """The link to the peers; empty: the default route's link, found at each run."""
    mtu: int = 0
    """MTU of bridge and pods in bytes; 0: the smallest MTU over the links to other hosts."""
    nat: bool = True
    backend: str = "nft"
    """The packet filter for the masquerade rule set: `nft` or `iptables`."""
    peers: tuple[Peer, ...] = ()
    externals: tuple[str, ...] = ()
    """Addresses outside the cluster for `test-connectivity` to ping, one for each family; default: Cloudflare's."""

    log_level: str = ""
    """The plugin's log level, one of `core.conf.LOG_LEVELS`; empty for the default."""
    log_file: str = ""
    """The absolute path of the plugin's log; empty for the default."""
    plugin_version: str = ""
    """The version of the plugin that runtimes start, as `plugin list` names it; empty: the one in use stays."""
    forward: bool = True
    """Whether cnictl adds accept rules for pods' packets if the host's firewalls drop forwarded packets."""
    bin_dirs: tuple[str, ...] = ()
    """Folders for the plugin, in addition to those of the runtimes that are found on this host."""
    conf_dirs: tuple[str, ...] = ()
    """Folders for the conf, in addition to those of the runtimes."""
    reach: Reach = Reach()
    learned: tuple[Peer, ...] = field(default=(), compare=False)
    """The accepted peers from the source. They are not part of the desired state, because the source decides."""

    @property
    def known_peers(self) -> tuple[Peer, ...]:
        """All peers: the static ones of the node file, then the learned ones."""
        return (*self.peers, *self.learned)

    @property
    def subnet(self) -> str:
        """The first pod CIDR; runtimes report the address in it as a pod's address."""
        return self.subnets[0]

    @property
    def network(self) -> str:
        """The pod network of the first pod CIDR."""
        return of_family(self.networks, self.subnet) or self.networks[0]


def is_ipv6(text: str) -> bool:
    """Return whether an address or a CIDR is IPv6."""
    return ":" in text


def by_family(spec: NodeSpec) -> tuple[NodeSpec, ...]:
    """Return the spec split by address family, in the order of its subnets."""
    return tuple(
        replace(
            spec,
            subnets=(subnet,),
            networks=(of_family(spec.networks, subnet),),
            peers=tuple(peer for peer in spec.peers if is_ipv6(peer.pod_cidr) == is_ipv6(subnet)),
            learned=tuple(peer for peer in spec.learned if is_ipv6(peer.pod_cidr) == is_ipv6(subnet)),
            externals=tuple(address for address in spec.externals if is_ipv6(address) == is_ipv6(subnet)),
        )
        for subnet in spec.subnets
    )


def of_family(texts: Iterable[str], like: str) -> str:
    """Return the first address or CIDR that has the family of `like`; empty if none has."""
    return next((text for text in texts if is_ipv6(text) == is_ipv6(like)), "")


def text_or_list(texts: tuple[str, ...]) -> str | list[str]:
    """Return the form for files: a string for one text or none, a list for several."""
    return list(texts) if len(texts) > 1 else "".join(texts)


def texts_of(value: str | list[str]) -> tuple[str, ...]:
    """Return the texts that `text_or_list` turned into `value`."""
    if isinstance(value, str):
        return (value,) if value else ()
    return tuple(value)


def as_data(spec: NodeSpec) -> dict[str, Any]:
    """Return the spec as JSON values."""
    data = {**asdict(replace(spec, peers=(), learned=())), "peers": [dict(vars(peer)) for peer in spec.peers]}
    del data["learned"]
    if not spec.reach.source:
        del data["reach"]  # as in the journals of a node without a source
    data |= {field: list(data[field]) for field in FOLDERS}
    return data | {key: text_or_list(data.pop(field)) for key, field in FAMILIED.items()}


def from_data(data: dict[str, Any]) -> NodeSpec:
    """Return the spec that `as_data` turned into `data`. Keys of a newer cnictl are left out."""
    values = {FAMILIED.get(key, key): value for key, value in data.items()}
    values |= {field: texts_of(data[key]) for key, field in FAMILIED.items() if key in data}
    values |= {field: tuple(data[field]) for field in FOLDERS if field in data}
    values.pop("learned", None)
    if "reach" in data:
        values["reach"] = Reach(**_known(Reach, data["reach"]))
    values["peers"] = tuple(Peer(**_known(Peer, entry)) for entry in data["peers"])
    return NodeSpec(**_known(NodeSpec, values))


_NAMES = {kind: frozenset(field.name for field in fields(kind)) for kind in (Peer, NodeSpec, Reach)}


def _known(kind: type[Peer | NodeSpec | Reach], values: dict[str, Any]) -> dict[str, Any]:
    names = _NAMES[kind]
    return {key: value for key, value in values.items() if key in names}
