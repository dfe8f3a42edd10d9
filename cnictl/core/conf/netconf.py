"""A checked network configuration as a value."""

from cnictl.core.cidr import Cidr
from cnictl.core.paths import NETWORKS_DIR, PLUGIN_LOG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cnictl.core.conf.routes import Route
    from cnictl.core.leases.pool import RangeSet

HOST_LOCAL = "host-local"


class NetConf:
    """The configuration of one network."""

    walk_through = False
    """Whether it has the walk-through's form, with `subnet`: then `cnictl init-node` sets up the node's forwarding."""
    bridge = "cni0"
    mtu = 0
    """Bytes; 0: the bridge's MTU."""
    is_gateway = False
    """Whether the bridge has the ranges' gateway addresses."""
    default_route = False
    """Whether pods get a default route in each family for which `routes` has none."""
    masquerade = False
    backend = "nft"
    hairpin = False
    promiscuous = False
    isolated = False
    """Whether pods of this network can't reach each other through the bridge (portIsolation)."""
    mac_check = False
    """Whether a pod may send only from its own MAC (macspoofchk)."""
    vlan = 0
    """The pod's untagged VLAN; 0: none."""
    keep_default_vlan = False
    container_down = False
    """Whether the pod's interface stays down (disableContainerInterface)."""
    dad = False
    """Whether duplicate address detection precedes the use of an IPv6 address (enabledad)."""
    force_address = False
    """Whether another address on the bridge is replaced by the gateway's."""
    mac = b""
    """The MAC that the configuration requests for the pod; it overrides that of CNI_ARGS. Empty: none."""
    mac_key = ""
    """The key of the configuration that requests `mac`."""
    wanted: "tuple[bytes, ...]" = ()
    """Addresses that the configuration requests, in addition to those of CNI_ARGS."""
    ipam_type = ""
    """Empty: layer 2 only. `host-local`: leased here, also with the walk-through's `subnet`. Else: the IPAM plugin."""
    sets: "tuple[RangeSet, ...]" = ()
    """The range sets, of which a pod gets one address each; empty unless addresses are leased here."""
    subnets_vary = False
    """Whether the runtime gives the ranges, and may give others for the next pod."""
    networks: tuple[Cidr, ...] = ()
    """The destinations that are never masqueraded: the cluster's pod networks, or the subnets if none is named."""
    pod_networks: tuple[Cidr, ...] = ()
    """The destinations in `networks` that the key `network` names."""
    data_dir = NETWORKS_DIR
    resolv_conf = ""
    """Path of a resolv.conf(5) that is used if `dns` is empty."""
    log_file = PLUGIN_LOG
    log_level = "info"
    prev_result: "dict[str, Any] | None" = None
    valid_attachments: list[tuple[str, str]] | None = None
    """The attachments that GC must keep; None if the list is missing."""

    def __init__(self, name: str, cni_version: str) -> None:
        self.name = name
        self.cni_version = cni_version
        self.vlan_trunk: list[tuple[int, int]] = []
        """Tagged VLANs that the pod may use: first and last of each span."""
        self.routes: list[Route] = []
        self.dns: dict[str, Any] = {}

    @property
    def served(self) -> bool:
        """Whether addresses are leased here, from `sets`, instead of by an IPAM plugin."""
        return self.ipam_type == HOST_LOCAL

    @property
    def subnets(self) -> tuple[Cidr, ...]:
        """The subnets of the range sets, each once."""
        return tuple(dict.fromkeys(span.subnet for ranges in self.sets for span in ranges.ranges))

    @property
    def gateways(self) -> list[Cidr]:
        """The bridge's addresses, each with its subnet's prefix; none if the bridge is not a gateway."""
        if not self.is_gateway:
            return []
        spans = (span for ranges in self.sets for span in ranges.ranges)
        return list(dict.fromkeys(Cidr(span.gateway, span.subnet.prefix) for span in spans))

    def result_dns(self) -> "dict[str, Any]":
        """Return the result's `dns`: the configuration's, else resolvConf's, else the previous plugin's.

        Raises CniError 7 if the file that resolvConf names can't be read.
        """
        if any(self.dns.values()):
            return self.dns
        if self.resolv_conf:
            from cnictl.core.conf.resolv import read_resolv_conf

            return read_resolv_conf(self.resolv_conf)
        previous = (self.prev_result or {}).get("dns")
        return previous if isinstance(previous, dict) else {}
