"""Read the plugin's network configuration.

Names and meanings are those of the reference `bridge` plugin and of the CNI specification 1.1.0, section 1;
`network` and `subnet` are the walk-through's.
"""

from cnictl.core import programs
from cnictl.core.conf import fields
from cnictl.core.conf.addresses import read_addresses
from cnictl.core.conf.netconf import NetConf
from cnictl.core.errors import INVALID_CONFIG, CniError
from cnictl.core.untrusted_text import NAME_CHARACTERS, NAME_STARTS, NETWORK_NAME_MAX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

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
"""Keys that have a meaning in the specification, the reference, the walk-through or this plugin."""

# keys of few configurations: read by `link`, which is loaded only then
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


def parse_conf(document: object, to_undo: bool = False, with_ranges: bool = True) -> NetConf:
    """Check a plugin's configuration. Raises CniError 7 naming key and value, or 2 for what isn't supported.

    With `to_undo`, keys may contradict each other: what was made before an edit can still be removed. Without
    `with_ranges`, address ranges may be missing: a runtime gives them only to ADD (`runtimeConfig.ipRanges`).
    """
    if not isinstance(document, dict):
        raise CniError(INVALID_CONFIG, "the network configuration is not a JSON object")
    if "plugins" in document:
        raise CniError(
            INVALID_CONFIG,
            "the configuration is a list (it has `plugins`)",
            "the runtime passes each plugin its own part of a .conflist",
        )
    document = fields.spelled(document, KEYS)
    name = fields.text(document, "name")
    fault = network_name_fault(name)
    if fault:
        raise CniError(INVALID_CONFIG, f"name: {fault}")
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


def _check_capabilities(conf: NetConf, capabilities: "dict[str, Any]") -> None:
    """Raise CniError 7 if a value is neither true nor false, or if neither ipam nor the runtime gives ranges."""
    for key in capabilities:
        fields.flag(capabilities, key, False, f"capabilities.{key}")
    if conf.served and not conf.sets and capabilities and capabilities.get("ipRanges") is not True:
        raise CniError(
            INVALID_CONFIG,
            "capabilities.ipRanges: not true, and ipam has no ranges: no pod can get an address",
            'add "ranges" to ipam, or "ipRanges": true to capabilities',
        )


def network_name_fault(name: str) -> str:
    """Return why a text can't name a network and a file (spec section 1); empty if it can, or is empty."""
    if name and (name[0] not in NAME_STARTS or not NAME_CHARACTERS.issuperset(name)):
        return f"{fields.show(name)} may contain only letters, digits, `_`, `.`, `-`, the first a letter or digit"
    if len(name) > NETWORK_NAME_MAX:
        return f"{fields.show(name)} has {len(name)} characters, the limit is {NETWORK_NAME_MAX}"
    return ""


def interface_name_fault(name: str) -> str:
    """Return why the kernel would refuse a link with this name (net/core/dev.c, dev_valid_name), or empty."""
    if not name:
        return "is empty"
    if len(name.encode("utf-8", "surrogateescape")) > 15:
        return "has over 15 characters"
    if name in (".", ".."):
        return "is a folder's name"
    # the kernel would replace a `%d` by a number
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
    if not backend:  # the reference prefers iptables; use whichever is installed
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
        raise CniError(INVALID_CONFIG, f"logLevel: {fields.show(conf.log_level)} is not one of {', '.join(LOG_LEVELS)}")


def _read_runtime_keys(conf: NetConf, document: "dict[str, Any]") -> None:
    if document.get("dns") is not None:
        from cnictl.core.conf.resolv import read_dns

        conf.dns = read_dns(fields.member(document, "dns"))
    previous = document.get("prevResult")
    if previous is not None:
        if not isinstance(previous, dict):
            raise CniError(INVALID_CONFIG, f"prevResult: {fields.show(previous)} is not an object")
        conf.prev_result = previous
    if "cni.dev/valid-attachments" in document:
        conf.valid_attachments = []
        for entry in fields.members(document, "cni.dev/valid-attachments"):
            keys = fields.spelled(entry, _ATTACHMENT_KEYS) if isinstance(entry, dict) else {}
            pair = (keys.get("containerID"), keys.get("ifname"))
            if not (isinstance(pair[0], str) and isinstance(pair[1], str)):
                raise CniError(
                    INVALID_CONFIG,
                    f"cni.dev/valid-attachments: {fields.show(entry)} is not an object with containerID and ifname",
                )
            conf.valid_attachments.append((pair[0], pair[1]))
