"""The plugin's network configuration: the keys it takes, checked once, as a value.

Names and meanings are those of the reference `bridge` plugin and of the CNI specification 1.1.0, section 1;
`network` and `subnet` beside them are the walk-through's.
"""

from cnictl.core import programs
from cnictl.core.cidr import Cidr
from cnictl.core.conf import fields
from cnictl.core.conf.addresses import HOST_LOCAL, read_addresses
from cnictl.core.errors import INVALID_CONFIG, CniError
from cnictl.core.paths import NETWORKS_DIR, PLUGIN_LOG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cnictl.core.conf.routes import Route
    from cnictl.core.leases.pool import RangeSet

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
NAME_CHARACTERS = frozenset(_LETTERS + "_.-")
NAME_MAX = 200
"""Characters of a network's name: with a prefix it has to fit a link's alias (255 bytes) and a file's name."""
LOG_LEVELS = ("debug", "info", "error", "off")

KEYS = frozenset(
    (
        *("cniVersion", "cniVersions", "name", "type", "capabilities", "disableCheck", "disableGC", "dns", "ipam"),
        *("bridge", "network", "subnet", "isGateway", "isDefaultGateway", "ipMasq", "ipMasqBackend", "mtu"),
        *("hairpinMode", "logFile", "logLevel", "prevResult", "cni.dev/valid-attachments", "cni.dev/attachments"),
        *("args", "runtimeConfig", "forceAddress", "promiscMode", "portIsolation", "macspoofchk", "enabledad"),
        *("disableContainerInterface", "vlan", "vlanTrunk", "preserveDefaultVlan"),
    )
)
"""Keys that the specification, the reference, the walk-through or this plugin gives a meaning."""

# what a plain configuration has none of: read by `conf_link`, that is loaded only then
_UNUSUAL = frozenset(
    (
        "args",
        "disableContainerInterface",
        "enabledad",
        "forceAddress",
        "macspoofchk",
        "portIsolation",
        "preserveDefaultVlan",
        "promiscMode",
        "runtimeConfig",
        "vlan",
        "vlanTrunk",
    )
)

_ATTACHMENT_KEYS = frozenset(("containerID", "ifname"))


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


def parse_conf(document: object, to_undo: bool = False, with_ranges: bool = True) -> NetConf:
    """Check one plugin's configuration. Raises CniError 7 naming key, value and hint, or 2 for what isn't served.

    With `to_undo` keys may contradict each other: what was made before an edit can still be taken away. Without
    `with_ranges` a configuration that has no address ranges passes: a runtime may give them to ADD alone
    (`runtimeConfig.ipRanges`).
    """
    if not isinstance(document, dict):
        raise CniError(INVALID_CONFIG, "the network configuration is no JSON object")
    if "plugins" in document:
        raise CniError(
            INVALID_CONFIG,
            "the configuration is a list (it has `plugins`)",
            "the runtime passes each plugin its own part of a .conflist",
        )
    document = fields.spelled(document, KEYS)
    name = network_name(fields.text(document, "name"))
    if not name:
        raise CniError(INVALID_CONFIG, "name: missing; a network needs one, such as mynet")
    conf = NetConf(name, fields.text(document, "cniVersion") or "0.1.0")
    conf.walk_through = read_addresses(conf, document, with_ranges)
    conf.is_gateway = fields.flag(document, "isGateway", conf.walk_through)
    conf.default_route = fields.flag(document, "isDefaultGateway", conf.walk_through and conf.is_gateway)
    conf.is_gateway = conf.is_gateway or conf.default_route
    _read_link(conf, document)
    if not _UNUSUAL.isdisjoint(document):
        from cnictl.core.conf.link import read_unusual, refuse_contradictions

        read_unusual(conf, document)
        if not to_undo:
            refuse_contradictions(conf)
    _read_logging(conf, document)
    _read_runtime_keys(conf, document)
    if "capabilities" in document and not to_undo:
        _check_capabilities(conf, fields.member(document, "capabilities"))
    return conf


def _check_capabilities(conf: NetConf, told: "dict[str, Any]") -> None:
    """Raise CniError 7 if a value is neither true nor false, or if nobody can give the addresses that are missing."""
    for key in told:
        fields.flag(told, key, False, f"capabilities.{key}")
    if conf.served and not conf.sets and told and told.get("ipRanges") is not True:
        raise CniError(
            INVALID_CONFIG,
            "capabilities.ipRanges: not true, and ipam has no ranges: no pod can get an address",
            'add "ranges" to ipam, or "ipRanges": true to capabilities',
        )


def network_name(name: str) -> str:
    """`name` if it may name a network (spec section 1: a file name too), or empty. Raises CniError 7 otherwise."""
    if name and (name[0] not in _LETTERS or not NAME_CHARACTERS.issuperset(name)):
        raise CniError(
            INVALID_CONFIG,
            f"name: {fields.show(name)} has to be letters, digits, `_`, `.`, `-`, the first a letter or digit",
        )
    if len(name) > NAME_MAX:
        raise CniError(
            INVALID_CONFIG, f"name: {fields.show(name)} has {len(name)} characters, at most {NAME_MAX} are served"
        )
    return name


def interface_name_fault(name: str) -> str:
    """Why the kernel would refuse a link of this name (net/core/dev.c, dev_valid_name), or empty."""
    if not name:
        return "is empty"
    if len(name.encode("utf-8", "surrogateescape")) > 15:
        return "has over 15 characters"
    if name in (".", ".."):
        return "is a folder's name"
    # the kernel would put a number in place of a `%d`
    if any(c in "/:%" or c.isspace() or not c.isprintable() for c in name):
        return "has a `/`, `:`, `%`, space or control character"
    return ""


def _read_link(conf: NetConf, document: "dict[str, Any]") -> None:
    conf.bridge = fields.text(document, "bridge") or conf.bridge
    fault = interface_name_fault(conf.bridge)
    if fault:
        raise CniError(INVALID_CONFIG, f"bridge: {fields.show(conf.bridge)} {fault}")
    mtu = document.get("mtu")
    if mtu is None:
        mtu = 0
    if type(mtu) is not int or not (mtu == 0 or 68 <= mtu <= 65535):
        raise CniError(INVALID_CONFIG, f"mtu: {fields.show(mtu)} is not a number of bytes from 68 to 65535")
    conf.mtu = mtu
    conf.hairpin = fields.flag(document, "hairpinMode", False)
    conf.masquerade = fields.flag(document, "ipMasq", False)
    backend = fields.text(document, "ipMasqBackend")
    if not backend:  # the reference's choice is the other way round; whichever there is has to do
        only_iptables = conf.masquerade and not programs.find("nft") and bool(programs.find("iptables"))
        backend = "iptables" if only_iptables else "nftables"
    if backend not in ("nftables", "iptables"):
        raise CniError(INVALID_CONFIG, f"ipMasqBackend: {fields.show(backend)} is neither nftables nor iptables")
    conf.backend = "nft" if backend == "nftables" else "iptables"


def _read_logging(conf: NetConf, document: "dict[str, Any]") -> None:
    conf.log_file = fields.text(document, "logFile") or conf.log_file
    if not conf.log_file.startswith("/") or "\0" in conf.log_file:
        raise CniError(INVALID_CONFIG, f"logFile: {fields.show(conf.log_file)} is not an absolute path")
    conf.log_level = (fields.text(document, "logLevel") or conf.log_level).lower()
    if conf.log_level not in LOG_LEVELS:
        raise CniError(INVALID_CONFIG, f"logLevel: {fields.show(conf.log_level)} is none of {', '.join(LOG_LEVELS)}")


def _read_runtime_keys(conf: NetConf, document: "dict[str, Any]") -> None:
    if document.get("dns") is not None:
        from cnictl.core.conf.resolv import read_dns

        conf.dns = read_dns(fields.member(document, "dns"))
    previous = document.get("prevResult")
    if previous is not None:
        if not isinstance(previous, dict):
            raise CniError(INVALID_CONFIG, f"prevResult: {fields.show(previous)} is no object")
        conf.prev_result = previous
    if "cni.dev/valid-attachments" in document:
        conf.valid_attachments = []
        for one in fields.members(document, "cni.dev/valid-attachments"):
            named = fields.spelled(one, _ATTACHMENT_KEYS) if isinstance(one, dict) else {}
            pair = (named.get("containerID"), named.get("ifname"))
            if not (isinstance(pair[0], str) and isinstance(pair[1], str)):
                raise CniError(
                    INVALID_CONFIG,
                    f"cni.dev/valid-attachments: {fields.show(one)} is no object with containerID and ifname",
                )
            conf.valid_attachments.append((pair[0], pair[1]))
