"""A network configuration that was checked, as a value: what one network asks of the plugin."""

from cnictl.core.cidr import Cidr
from cnictl.core.paths import NETWORKS_DIR, PLUGIN_LOG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cnictl.core.conf.routes import Route
    from cnictl.core.leases.pool import RangeSet

HOST_LOCAL = "host-local"


class NetConf:
    """What one network asks of the plugin."""

    walk_through = False
    """Whether it has the walk-through's form, with `subnet`: then `cnictl init-node` sees to the node's forwarding."""
    bridge = "cni0"
    mtu = 0
    """Bytes; 0: the bridge's."""
    is_gateway = False
    """Whether the bridge has the ranges' gateway addresses."""
    default_route = False
    """Whether pods get a default route in each family that `routes` has none for."""
    masquerade = False
    backend = "nft"
    hairpin = False
    promiscuous = False
    isolated = False
    """Whether pods of this network can't reach each other through the bridge (portIsolation)."""
    mac_check = False
    """Whether a pod may send from its own MAC alone (macspoofchk)."""
    vlan = 0
    """The pod's untagged VLAN; 0: none."""
    keep_default_vlan = False
    container_down = False
    """Whether the pod's interface stays down (disableContainerInterface)."""
    dad = False
    """Whether duplicate addresses are looked for before an IPv6 address is used (enabledad)."""
    force_address = False
    """Whether another address on the bridge gives way to the gateway's."""
    mac = b""
    """The pod's MAC that the configuration asks for, before what CNI_ARGS says; empty: none."""
    mac_key = ""
    """The key that asks for it."""
    wanted: "tuple[bytes, ...]" = ()
    """Addresses that the configuration asks for, besides those of CNI_ARGS."""
    ipam_type = ""
    """Empty: layer 2 only. `host-local`: served here, for the walk-through's `subnet` too. Else: a plugin to ask."""
    sets: "tuple[RangeSet, ...]" = ()
    """What addresses are taken from, one of each; empty unless served here."""
    subnets_vary = False
    """Whether the runtime says the ranges, and may say others for the next pod."""
    networks: tuple[Cidr, ...] = ()
    """Never masqueraded within: the cluster's pod networks, or the subnets where none is named."""
    pod_networks: tuple[Cidr, ...] = ()
    """Of these the ones that `network` names."""
    data_dir = NETWORKS_DIR
    resolv_conf = ""
    """A resolver's configuration whose words pods get where `dns` says nothing."""
    log_file = PLUGIN_LOG
    log_level = "info"
    prev_result: "dict[str, Any] | None" = None
    valid_attachments: list[tuple[str, str]] | None = None
    """What GC was told lives; None if it was not told."""

    def __init__(self, name: str, cni_version: str) -> None:
        self.name = name
        self.cni_version = cni_version
        self.vlan_trunk: list[tuple[int, int]] = []
        """Tagged VLANs that the pod may use: first and last of each span."""
        self.routes: list[Route] = []
        self.dns: dict[str, Any] = {}

    @property
    def served(self) -> bool:
        """Whether addresses are leased here, from `sets`."""
        return self.ipam_type == HOST_LOCAL

    @property
    def subnets(self) -> tuple[Cidr, ...]:
        """The subnets of the range sets, each once."""
        return tuple(dict.fromkeys(one.subnet for ranges in self.sets for one in ranges.ranges))

    @property
    def gateways(self) -> list[Cidr]:
        """The bridge's addresses, each with its subnet's prefix; none if the bridge is no gateway."""
        if not self.is_gateway:
            return []
        spans = (one for ranges in self.sets for one in ranges.ranges)
        return list(dict.fromkeys(Cidr(one.gateway, one.subnet.prefix) for one in spans))

    def result_dns(self) -> "dict[str, Any]":
        """The result's `dns`: the configuration's, else resolvConf's, else the former plugin's.

        Raises CniError 7 if the file resolvConf names can't be read.
        """
        if any(self.dns.values()):
            return self.dns
        if self.resolv_conf:
            from cnictl.core.conf.resolv import read_resolv_conf

            return read_resolv_conf(self.resolv_conf)
        found = (self.prev_result or {}).get("dns")
        return found if isinstance(found, dict) else {}
