"""Define hypothesis strategies for what a caller may pass to a call: configurations, results, environments.

Half of the values drawn for a key are valid or nearly valid; the other half are arbitrary.
"""

import json
import os
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tests.kernel.plugin.client import VALID, WALK_THROUGH

Json = dict[str, Any]
Drawn = st.SearchStrategy[Any]

TIMES = int(os.environ.get("CNICTL_FUZZ", "0"))
"""Multiplies the usual number of examples, drawn differently in each run. 0: half of it, the same in each run."""


def bounded(examples: int) -> settings:
    """Return settings for half as many examples in the suite, and `TIMES` as many in `make fuzz`."""
    return settings(
        max_examples=examples * TIMES if TIMES else max(10, examples // 2),
        derandomize=TIMES == 0,
        deadline=timedelta(seconds=30),
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )


class Token(str):
    """Text that goes into the document unchanged, such as JSON libraries do not write."""


def document(value: object) -> bytes:
    """Return `value` as JSON, with its tokens unchanged."""
    if isinstance(value, Token):
        return value.encode()
    if isinstance(value, dict):
        return b"{" + b", ".join(document(key) + b": " + document(item) for key, item in value.items()) + b"}"
    if isinstance(value, list):
        return b"[" + b", ".join(map(document, value)) + b"]"
    return json.dumps(value).encode()


# only the tokens have lone surrogates, as escapes: unescaped ones can't be encoded as UTF-8
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
tokens = st.sampled_from(
    [
        *map(Token, ("1e999", "-1e999", "NaN", "Infinity", "-0", "1E-400", "01", "1" * 5000, '"\\ud800"', '"\\udc80"')),
        *map(Token, ("[" * 99 + "]" * 99, "[" * 300 + "]" * 300, '{"a":' * 150 + "1" + "}" * 150, "tru", '"\\u0000"')),
    ]
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | text | tokens
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3), max_leaves=6
)

cidrs = st.sampled_from(
    ["10.244.0.0/24", "10.244.0.0/30", "10.244.0.0/31", "0.0.0.0/0", "255.255.255.255/32", "224.0.0.0/4", "::/0",
     "fd00:10:244::/64", "fd00:10:244::/127", "fd00:10:244::1/64", "fe80::/10", "ff00::/8", "::ffff:10.244.0.0/120",
     "10.244.0.0/24/24", "10.244.0.0/-1", "10.244.0.0/1e1", " 10.244.0.0/24", "10.244.0.0/24\n", "127.0.0.0/8",
     "\u0661\u0660.244.0.0/24", "10.244.0.0/024", "fd00::%eth0/64", "::/129", "10.244.0.0/16", "", "/", "x" * 5000]
)  # fmt: skip
addresses = st.sampled_from(
    ["10.244.0.1", "10.244.0.2", "10.244.0.255", "10.244.0.0", "10.244.0.256", "fd00:10:244::1", "fd00:10:244::2", "::",
     "fe80::1", "::ffff:10.244.0.9", "0.0.0.0", "255.255.255.255", "10.244.0.7/24", "fd00:10:244::7/64", "10.244.0.010",
     "../10.244.0.2", "10.244.0.2\0", "1", ":", "g::1"]
)  # fmt: skip
# cni0 is the only valid link name here, so that no example leaves another bridge behind
link_names = st.sampled_from(["cni0", "", ".", "..", "a/b", "../x", "eth%d", "a:b", "a b", "x" * 16, "\x7f", "é" * 8])
macs = st.sampled_from(["02:00:00:00:00:01", "01:00:00:00:00:01", "00:00:00:00:00:00", "02:00:00:00:00", "2:0:0:0:0:1"])
# root writes to the path in such a key: draw only paths that are invalid or inside the store
paths = st.sampled_from(["", ".", "etc", "a\0b", "/var/lib/cni/\0", "/var/lib/cni/networks/", "/dev/null/x"])
vlans = st.integers(-1, 4096)


def either(meant: Drawn) -> Drawn:
    """Draw from `meant`, or any value."""
    return meant | anything


def objects(**keys: Drawn) -> Drawn:
    """Draw an object with some of these keys."""
    return st.fixed_dictionaries({}, optional={key: either(meant) for key, meant in keys.items()})


def lists(of: Drawn, longest: int = 3) -> Drawn:
    """Draw a list with entries from `of`, or any value."""
    return st.lists(either(of), max_size=longest)


ranges = objects(subnet=cidrs, rangeStart=addresses, rangeEnd=addresses, gateway=addresses)
range_sets = lists(lists(ranges))
numbers = st.integers(-1, 70000) | st.integers(2**31, 2**33)
routes = lists(
    objects(dst=cidrs, gw=addresses, mtu=numbers, advmss=numbers, priority=numbers, table=numbers, scope=numbers)
)
ipams = objects(
    type=st.sampled_from(["host-local", "host-local", "", ".", "..", "../bridge", "no-such-plugin", "a\0b", "x" * 300]),
    subnet=cidrs,
    rangeStart=addresses,
    rangeEnd=addresses,
    gateway=addresses,
    ranges=range_sets | st.just([[{"subnet": "10.244.0.0/24"}], [{"subnet": "fd00:10:244::/64"}]]),
    routes=routes,
    dataDir=paths,
    resolvConf=paths,
)
trunks = lists(objects(id=vlans, minID=vlans, maxID=vlans))
interfaces = lists(
    objects(
        name=st.sampled_from(["eth0", "cni0", "lo", "../x", ""]),
        mac=macs,
        mtu=numbers,
        sandbox=st.sampled_from(["/run/netns/pod", "", "/proc/self/ns/net"]),
        socketPath=paths,
        pciID=text,
    )
)
results = objects(
    cniVersion=st.sampled_from(["1.1.0", "0.2.0", "9"]),
    interfaces=interfaces,
    ips=lists(objects(address=cidrs, gateway=addresses, interface=st.integers(-2, 3), version=st.sampled_from("46"))),
    routes=routes,
    dns=objects(nameservers=lists(addresses), domain=text, search=lists(text), options=lists(text)),
)

_part_0_2 = objects(ip=cidrs, gateway=addresses, routes=routes)
results_0_2 = objects(cniVersion=st.sampled_from(["0.2.0", "0.1.0"]), ip4=_part_0_2, ip6=_part_0_2, dns=anything)

KEYS: dict[str, Drawn] = {
    "cniVersion": st.sampled_from(["1.1.0", "1.0.0", "0.4.0", "0.1.0", "", "1", "1.1", "99.0.0", "1.1.0\n"]),
    "cniVersions": lists(text),
    "disableCheck": st.booleans(),
    "disableGC": st.booleans(),
    "name": st.sampled_from(["mynet", "", ".", "..", "../x", "a/b", "n" * 201, "a\0b", "ä", "mynet@x"]),
    "type": text,
    "plugins": lists(st.just(WALK_THROUGH)),
    "capabilities": objects(ips=st.booleans(), mac=st.booleans()),
    "network": cidrs | lists(cidrs),
    "subnet": cidrs | lists(cidrs),
    "bridge": link_names,
    "mtu": st.sampled_from([0, 67, 68, 1280, 1500, 9000, 65535, 65536, -1]),
    "hairpinMode": st.booleans(),
    "promiscMode": st.booleans(),
    "isGateway": st.booleans(),
    "isDefaultGateway": st.booleans(),
    "forceAddress": st.booleans(),
    "ipMasqBackend": st.sampled_from(["nftables", "iptables", "", "ebtables"]),
    "vlan": vlans,
    "vlanTrunk": trunks,
    "preserveDefaultVlan": st.booleans(),
    "macspoofchk": st.just(False),
    "enabledad": st.booleans(),
    "disableContainerInterface": st.booleans(),
    "portIsolation": st.booleans(),
    "dns": objects(nameservers=lists(addresses), domain=text, search=lists(text), options=lists(text)),
    "ipam": ipams,
    "logFile": paths,
    "logLevel": st.sampled_from(["debug", "INFO", "error", "off", "loud", ""]),
    "args": objects(cni=objects(ips=lists(addresses | cidrs), mac=macs)),
    "runtimeConfig": objects(
        ips=lists(addresses | cidrs), mac=macs, ipRanges=range_sets, portMappings=anything, aliases=anything
    ),
    "prevResult": results,
    VALID: lists(objects(containerID=st.sampled_from(["pod", "..", "", "a/b"]), ifname=link_names)),
    "cni.dev/attachments": anything,
}
"""Every key that the plugin takes and those that a runtime adds, except keys whose rules outlive the pod."""

_BASE: Json = {**WALK_THROUGH, "cniVersion": "1.1.0", "bridge": "cni0", VALID: []}


@st.composite
def confs(draw: st.DrawFn) -> bytes:
    """Draw the walk-through's configuration, or one in the reference's form, with some keys changed."""
    conf = dict(_BASE)
    if draw(st.booleans()):
        del conf["subnet"], conf["network"]
        conf["ipam"] = draw(ipams)
    for key in draw(st.lists(st.sampled_from(sorted(KEYS)), max_size=4, unique=True)):
        conf[key] = draw(either(KEYS[key]))
    # a name that is valid by chance would make a bridge that stays
    if isinstance(conf["bridge"], str) and not isinstance(conf["bridge"], Token) and conf["bridge"].isprintable():
        conf["bridge"] = conf["bridge"] if conf["bridge"] in ("cni0", "", ".", "..") else f"{conf['bridge']}/"
    if isinstance(conf.get("logFile"), str) and conf["logFile"].startswith("/"):
        conf["logFile"] = draw(paths)
    return document(conf)


_bytes = st.binary(max_size=24).map(lambda raw: os.fsdecode(raw.replace(b"\0", b"")))
HOSTILE = (
    "..", ".", "/", "../../../../tmp/x", "a/../../b", "/etc/passwd", "a@b", "a b", "a\nb", "-rf", "", "eth%d", "%s%n",
    "x" * 15, "x" * 16, "x" * 230, "x" * 255, "x" * 4000, "pod", "eth0", "ethé", "\x7f", "\x1b[31m", "$(id)", "`id`",
    ";id", "0", "lo", "cni0", "all", "default", "/proc/self/ns/net", "/proc/self/ns/mnt", "/dev/null", "/run/netns",
)  # fmt: skip
names = st.sampled_from(HOSTILE) | _bytes
pairs = st.tuples(
    st.sampled_from(["IP", "MAC", "IgnoreUnknown", "K8S_POD_NAME", "K8S_POD_NAMESPACE", "K8S_POD_UID", "", "Other"]),
    names | addresses.filter(lambda address: "\0" not in address) | macs,
)
cni_args = names | st.lists(pairs, max_size=4).map(lambda listed: ";".join(f"{key}={value}" for key, value in listed))
verbs = st.sampled_from(["ADD", "ADD", "ADD", "DEL", "DEL", "CHECK", "CHECK", "GC", "STATUS", "VERSION"])
