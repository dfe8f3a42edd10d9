"""List invalid values for every key. ADD must refuse each, name the key or value, and leave nothing behind."""

from collections.abc import Callable

from tests.parity.answers import REFUSED
from tests.parity.families import Family
from tests.parity.places import Json
from tests.parity.scenario import Change, Variant

_NET = "10.22.0.0/24"
_FLAGS = (
    "isGateway",
    "isDefaultGateway",
    "forceAddress",
    "ipMasq",
    "hairpinMode",
    "promiscMode",
    "preserveDefaultVlan",
    "macspoofchk",
    "enabledad",
    "disableContainerInterface",
    "portIsolation",
)

_OF_THE_BRIDGE: tuple[tuple[str, object], ...] = (
    *((key, "yes") for key in _FLAGS),
    ("bridge", "a-name-of-16-chr"),
    ("bridge", "with/slash"),
    ("bridge", 7),
    ("ipMasqBackend", "pf"),
    ("ipMasqBackend", 4),
    ("mtu", -1),
    ("mtu", 70000),
    ("mtu", "1400"),
    ("vlan", -1),
    ("vlan", 4095),
    ("vlan", "100"),
    ("vlanTrunk", "1-5"),
    ("vlanTrunk", [{"minID": 5}]),
    ("vlanTrunk", [{"maxID": 5}]),
    ("vlanTrunk", [{"minID": 9, "maxID": 5}]),
    ("vlanTrunk", [{"id": 0}]),
    ("vlanTrunk", [{"id": 4095}]),
    ("dns", "192.0.2.53"),
    ("name", "../escape"),
    ("name", 5),
    ("cniVersion", 1),
    ("cniVersion", "latest"),
    ("prevResult", "none"),
    ("prevResult", {"cniVersion": "1.0.0", "interfaces": "eth0"}),
    ("prevResult", {"cniVersion": "1.0.0", "ips": [{"address": "10.22.0.300/24"}]}),
)

_OF_HOST_LOCAL: tuple[tuple[str, object], ...] = (
    ("ranges", "10.22.0.0/24"),
    ("ranges", [[]]),
    ("ranges", [{"subnet": _NET}]),
    ("ranges", [[{"subnet": "10.22.0.0/33"}]]),
    ("ranges", [[{"subnet": "10.22.0.5/24"}]]),
    ("ranges", [[{"subnet": "10.22.0.0/32"}]]),
    ("ranges", [[{"subnet": _NET}], [{"subnet": "10.22.0.128/25"}]]),
    ("ranges", [[{"subnet": _NET}, {"subnet": "2001:db8:22::/64"}]]),
    ("rangeStart", "10.99.0.1"),
    ("rangeStart", "first"),
    ("rangeEnd", "10.99.0.1"),
    ("rangeEnd", 9),
    ("gateway", "10.22.0"),
    ("routes", "10.99.0.0/16"),
    ("routes", [{"dst": "10.99.0.0/99"}]),
    ("routes", [{}]),
    ("routes[].gw", [{"dst": "10.99.0.0/16", "gw": "gateway"}]),
    ("routes[].mtu", [{"dst": "10.99.0.0/16", "mtu": "1300"}]),
    ("routes[].mtu", [{"dst": "10.99.0.0/16", "mtu": -1}]),
    ("routes[].advmss", [{"dst": "10.99.0.0/16", "advmss": -1}]),
    ("routes[].priority", [{"dst": "10.99.0.0/16", "priority": "low"}]),
    ("routes[].table", [{"dst": "10.99.0.0/16", "table": "main"}]),
    ("routes[].table", [{"dst": "10.99.0.0/16", "table": -1}]),
    ("routes[].scope", [{"dst": "10.99.0.0/16", "scope": 300}]),
    ("resolvConf", "/var/lib/no-such.conf"),
    ("resolvConf", 5),
    ("dataDir", 5),
    ("subnet", "10.22.0.0"),
    ("type", 5),
)


_OF_HOST_LOCAL_IN_IPV6: tuple[tuple[str, object], ...] = (
    ("ranges", [[{"subnet": "2001:db8:22::/129"}]]),
    ("ranges", [[{"subnet": "2001:db8:22::5/64"}]]),
    ("ranges", [[{"subnet": "2001:db8:22::/128"}]]),
    ("routes[].gw", [{"dst": "2001:db8:cb::/48", "gw": "10.22.0.9"}]),
)
_IN_IPV6 = {
    "rangeStart": "2001:db8:99::1",
    "rangeEnd": "2001:db8:99::1",
    "gateway": "2001:db8:99::1",
}


def _of_the_bridge(key: str, value: object) -> Variant:
    return _refused(key, value, lambda *_: {key: value})


def _of_host_local(key: str, value: object) -> Variant:
    def change(*_: object) -> Json:
        plain = key.partition("[")[0]
        if key in ("rangeStart", "rangeEnd", "gateway"):
            subnet = "2001:db8:22::/64" if ":" in str(value) else _NET
            return {"ipam": {"ranges": [[{"subnet": subnet, key: value}]]}}
        if key == "subnet":
            return {"ipam": {"ranges": None, "subnet": value}}
        return {"ipam": {plain: value}}

    return _refused(f"ipam.{key}", value, change)


def _refused(
    key: str, value: object, change: Change, environment: Callable[[Family, str], dict[str, str]] | None = None
) -> Variant:
    names = key.partition("[")[0].rpartition(".")[2].split()[-1]
    if environment is not None:
        return Variant(key, f"bad: {value!r}", change, must=REFUSED, names=names, environment=environment)
    return Variant(key, f"bad: {value!r}", change, must=REFUSED, names=names)


def _asked(*path: str, value: object) -> Change:
    change: Json = {path[-1]: value}
    for key in reversed(path[:-1]):
        change = {key: change}
    return lambda *_: change


BAD = (
    *(_of_the_bridge(key, value) for key, value in _OF_THE_BRIDGE),
    *(_of_host_local(key, value) for key, value in _OF_HOST_LOCAL),
    _refused("args.cni.mac", "zz", _asked("args", "cni", "mac", value="zz")),
    _refused("runtimeConfig.mac", "02:00:5e", _asked("runtimeConfig", "mac", value="02:00:5e")),
    _refused("runtimeConfig.mac", "01:00:5e:00:00:01", _asked("runtimeConfig", "mac", value="01:00:5e:00:00:01")),
    _refused("args.cni.ips", ["ten"], _asked("args", "cni", "ips", value=["ten"])),
    _refused("args.cni.ips", ["10.99.0.1"], _asked("args", "cni", "ips", value=["10.99.0.1"])),
    _refused("runtimeConfig.ips", ["ten"], _asked("runtimeConfig", "ips", value=["ten"])),
    _refused("runtimeConfig.ips", ["10.99.0.1"], _asked("runtimeConfig", "ips", value=["10.99.0.1"])),
    _refused("runtimeConfig.ips", ["10.22.0.1"], _asked("runtimeConfig", "ips", value=["10.22.0.1"])),
    _refused("runtimeConfig.ipRanges", "10.22.0.0/24", _asked("runtimeConfig", "ipRanges", value="10.22.0.0/24")),
    _refused("runtimeConfig.ipRanges", [[{}]], _asked("runtimeConfig", "ipRanges", value=[[{}]])),
    *(
        _refused(
            f"CNI_ARGS {key}",
            value,
            lambda *_: {},
            lambda *_, text=f"IgnoreUnknown=1;{key}={value}": {"CNI_ARGS": text},
        )
        for key, value in (("MAC", "zz"), ("IP", "10.22.0.300"), ("IP", "10.99.0.1"))
    ),
)
"""Values that are tested only with IPv4, because a value is refused when it is read, before the family matters."""

BAD_IN_IPV6 = tuple(_of_host_local(key, value) for key, value in (*_OF_HOST_LOCAL_IN_IPV6, *_IN_IPV6.items()))
"""IPv6 values."""
