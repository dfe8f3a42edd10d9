"""The plugin's network configuration: the keys it takes, checked once, as a value.

Names and meanings are those of the reference `bridge` plugin and of the CNI specification 1.1.0, section 1;
`network` and `subnet` beside them are the walk-through's.
"""

from cnictl.core.cidr import AddressError, Cidr, parse_address, parse_cidr, parse_pod_cidr
from cnictl.core.errors import INVALID_CONFIG, UNSUPPORTED_FIELD, CniError
from cnictl.core.paths import NETWORKS_DIR, PLUGIN_LOG
from cnictl.core.pool import Pool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
NAME_CHARACTERS = frozenset(_LETTERS + "_.-")
NAME_MAX = 200
"""Characters of a network's name: with a prefix it has to fit a link's alias (255 bytes) and a file's name."""
LOG_LEVELS = ("debug", "info", "error", "off")

_SHOWN = 60
"""Characters of an offending value that a message repeats."""

# the reference bridge's keys that this plugin doesn't serve: taken as long as they ask for nothing
_UNSERVED = (
    "forceAddress",
    "promiscMode",
    "vlan",
    "vlanTrunk",
    "macspoofchk",
    "enabledad",
    "disableContainerInterface",
    "portIsolation",
)


class NetConf:
    """What one network asks of the plugin."""

    __slots__ = (
        "backend",
        "bridge",
        "cni_version",
        "data_dir",
        "default_route",
        "dns",
        "hairpin",
        "log_file",
        "log_level",
        "masquerade",
        "mtu",
        "name",
        "network",
        "pool",
        "prev_result",
        "routes",
        "valid_attachments",
    )

    def __init__(self, name: str, cni_version: str, pool: Pool, network: Cidr) -> None:
        self.name = name
        self.cni_version = cni_version
        self.pool = pool
        self.network = network
        """Never masqueraded within: the cluster's pod network, or the subnet where none is named."""
        self.bridge = "cni0"
        self.mtu = 0
        """Bytes; 0: the bridge's."""
        self.hairpin = False
        self.masquerade = False
        self.backend = "nft"
        self.default_route = True
        self.routes: list[tuple[Cidr, bytes]] = []
        self.dns: dict[str, Any] = {}
        self.data_dir = NETWORKS_DIR
        self.log_file = PLUGIN_LOG
        self.log_level = "info"
        self.prev_result: dict[str, Any] | None = None
        self.valid_attachments: list[tuple[str, str]] | None = None
        """What GC was told lives; None if it was not told."""

    @property
    def gateway(self) -> Cidr:
        """The bridge's address with the subnet's prefix."""
        return Cidr(self.pool.gateway, self.pool.subnet.prefix)


def parse_conf(document: object) -> NetConf:
    """Check one plugin's configuration. Raises CniError 7 naming key, value and mend, or 2 for what isn't served."""
    if not isinstance(document, dict):
        raise CniError(INVALID_CONFIG, "the network configuration is no JSON object")
    if "plugins" in document:
        raise CniError(
            INVALID_CONFIG,
            "the configuration is a list (it has `plugins`)",
            "the runtime passes each plugin its own part of a .conflist",
        )
    name = network_name(_text(document, "name"))
    if not name:
        raise CniError(INVALID_CONFIG, "name: missing; a network needs one, such as mynet")
    for key in _UNSERVED:
        if document.get(key):
            raise CniError(UNSUPPORTED_FIELD, f"{key}: {_show(document[key])} is not supported", f"remove {key}")
    pool, ipam = _pool(document)
    conf = NetConf(name, _text(document, "cniVersion") or "0.1.0", pool, pool.subnet)
    _read_addresses(conf, document, ipam)
    _read_link(conf, document)
    _read_logging(conf, document)
    _read_runtime_keys(conf, document)
    return conf


def network_name(name: str) -> str:
    """`name` if it may name a network (spec section 1: a file name too), or empty. Raises CniError 7 otherwise."""
    if name and (name[0] not in _LETTERS or not NAME_CHARACTERS.issuperset(name)):
        raise CniError(
            INVALID_CONFIG, f"name: {_show(name)} has to be letters, digits, `_`, `.`, `-`, the first a letter or digit"
        )
    if len(name) > NAME_MAX:
        raise CniError(INVALID_CONFIG, f"name: {_show(name)} has {len(name)} characters, at most {NAME_MAX} are served")
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


def _read_addresses(conf: NetConf, document: "dict[str, Any]", ipam: "dict[str, Any]") -> None:
    network = _text(document, "network")
    if network:
        conf.network = _cidr(network, "network", parse_cidr)
        if not conf.network.covers(conf.pool.subnet):
            raise CniError(
                INVALID_CONFIG,
                f"subnet: {conf.pool.subnet} lies outside network {conf.network}",
                "give each node a subnet inside the network",
            )
    for place, route in enumerate(_list(ipam, "routes", "ipam.routes")):
        what = f"ipam.routes[{place}]"
        if not isinstance(route, dict):
            raise CniError(INVALID_CONFIG, f"{what}: {_show(route)} is no object with `dst`")
        destination = _cidr(_text(route, "dst"), f"{what}.dst", parse_cidr)
        gateway = _text(route, "gw")
        conf.routes.append((destination, _address(gateway, f"{what}.gw") if gateway else conf.pool.gateway))
    if any(destination.prefix == 0 for destination, _ in conf.routes):
        conf.default_route = False  # the list has it already
    data_dir = _text(ipam, "dataDir", "ipam.dataDir")
    if data_dir:
        if not data_dir.startswith("/") or "\0" in data_dir:
            raise CniError(INVALID_CONFIG, f"ipam.dataDir: {_show(data_dir)} is not an absolute path")
        conf.data_dir = data_dir.rstrip("/") or "/"


def _read_link(conf: NetConf, document: "dict[str, Any]") -> None:
    conf.bridge = _text(document, "bridge") or conf.bridge
    fault = interface_name_fault(conf.bridge)
    if fault:
        raise CniError(INVALID_CONFIG, f"bridge: {_show(conf.bridge)} {fault}")
    mtu = document.get("mtu") or 0
    if type(mtu) is not int or not (mtu == 0 or 68 <= mtu <= 65535):
        raise CniError(INVALID_CONFIG, f"mtu: {_show(mtu)} is not a number of bytes from 68 to 65535")
    conf.mtu = mtu
    for key in ("isGateway", "isDefaultGateway"):
        if _flag(document, key, True) is False:
            raise CniError(
                UNSUPPORTED_FIELD, f"{key}: false is not supported", f"remove {key}: the bridge is the gateway"
            )
    conf.hairpin = _flag(document, "hairpinMode", False)
    conf.masquerade = _flag(document, "ipMasq", False)
    backend = _text(document, "ipMasqBackend") or "nftables"
    if backend not in ("nftables", "iptables"):
        raise CniError(INVALID_CONFIG, f"ipMasqBackend: {_show(backend)} is neither nftables nor iptables")
    conf.backend = "nft" if backend == "nftables" else "iptables"


def _read_logging(conf: NetConf, document: "dict[str, Any]") -> None:
    conf.log_file = _text(document, "logFile") or conf.log_file
    if not conf.log_file.startswith("/") or "\0" in conf.log_file:
        raise CniError(INVALID_CONFIG, f"logFile: {_show(conf.log_file)} is not an absolute path")
    conf.log_level = (_text(document, "logLevel") or conf.log_level).lower()
    if conf.log_level not in LOG_LEVELS:
        raise CniError(INVALID_CONFIG, f"logLevel: {_show(conf.log_level)} is none of {', '.join(LOG_LEVELS)}")


def _read_runtime_keys(conf: NetConf, document: "dict[str, Any]") -> None:
    conf.dns = _object(document, "dns")
    previous = document.get("prevResult")
    if previous is not None:
        if not isinstance(previous, dict):
            raise CniError(INVALID_CONFIG, f"prevResult: {_show(previous)} is no object")
        conf.prev_result = previous
    if "cni.dev/valid-attachments" in document:
        conf.valid_attachments = []
        for one in _list(document, "cni.dev/valid-attachments"):
            pair = (one.get("containerID"), one.get("ifname")) if isinstance(one, dict) else (None, None)
            if not (isinstance(pair[0], str) and isinstance(pair[1], str)):
                raise CniError(
                    INVALID_CONFIG, f"cni.dev/valid-attachments: {_show(one)} is no object with containerID and ifname"
                )
            conf.valid_attachments.append((pair[0], pair[1]))


def _pool(document: "dict[str, Any]") -> "tuple[Pool, dict[str, Any]]":
    """The addresses to hand out: the walk-through's `subnet`, or host-local's `ipam` object with one range."""
    ipam = _object(document, "ipam")
    subnet = _text(document, "subnet")
    kind = _text(ipam, "type", "ipam.type")
    if kind not in ("", "host-local"):
        raise CniError(
            UNSUPPORTED_FIELD, f"ipam.type: {_show(kind)} is not supported", "give `subnet`, or ipam.type host-local"
        )
    where, span = "subnet", ipam
    sets = _list(ipam, "ranges", "ipam.ranges")
    if sets:
        if len(sets) != 1 or not isinstance(sets[0], list) or len(sets[0]) != 1 or not isinstance(sets[0][0], dict):
            raise CniError(
                UNSUPPORTED_FIELD, f"ipam.ranges: {_show(sets)} is not supported", "give one set holding one range"
            )
        span = sets[0][0]
    if not subnet:
        where, subnet = "ipam.subnet", _text(span, "subnet", "ipam.subnet")
    if not subnet:
        raise CniError(INVALID_CONFIG, "subnet: missing; it is this node's pod CIDR, such as 10.244.0.0/24")
    cidr = _cidr(subnet, where, parse_pod_cidr)
    if cidr.bits != 32:
        raise CniError(UNSUPPORTED_FIELD, f"{where}: {cidr} is not supported: IPv6", "give an IPv4 subnet")
    edges = {}
    for key in ("rangeStart", "rangeEnd", "gateway"):
        value = _text(span, key, f"ipam.{key}")
        edges[key] = _address(value, f"ipam.{key}") if value else b""
        if value and not cidr.holds(edges[key]):
            raise CniError(INVALID_CONFIG, f"ipam.{key}: {value} lies outside {cidr}")
    start, end = (int.from_bytes(edges[key], "big") for key in ("rangeStart", "rangeEnd"))
    pool = Pool(cidr, start, end, edges["gateway"])
    if pool.end < pool.start or pool.size < 1:
        raise CniError(INVALID_CONFIG, f"ipam.rangeEnd: nothing between it and rangeStart in {cidr} is left for pods")
    return pool, ipam


def _text(document: "dict[str, Any]", key: str, shown: str = "") -> str:
    value = document.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise CniError(INVALID_CONFIG, f"{shown or key}: {_show(value)} is no text")
    return value


def _flag(document: "dict[str, Any]", key: str, default: bool) -> bool:
    value = document.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise CniError(INVALID_CONFIG, f"{key}: {_show(value)} is neither true nor false")
    return value


def _object(document: "dict[str, Any]", key: str) -> "dict[str, Any]":
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise CniError(INVALID_CONFIG, f"{key}: {_show(value)} is no object")
    return value


def _list(document: "dict[str, Any]", key: str, shown: str = "") -> "list[Any]":
    value = document.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise CniError(INVALID_CONFIG, f"{shown or key}: {_show(value)} is no list")
    return value


def _cidr(text: str, what: str, parse: "Any") -> Cidr:
    try:
        cidr: Cidr = parse(text, what)
    except AddressError as error:
        raise CniError(INVALID_CONFIG, str(error)) from None
    return cidr


def _address(text: str, what: str) -> bytes:
    try:
        return parse_address(text, what)
    except AddressError as error:
        raise CniError(INVALID_CONFIG, str(error)) from None


def _show(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else shown[: _SHOWN - 1] + "…"
