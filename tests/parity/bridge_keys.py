"""List each key of the reference `bridge` plugin with its values, and the ways to request a MAC.

The meanings follow the plugin's documentation, cni.dev/plugins/current/main/bridge.
"""

from collections.abc import Callable

from tests.parity.answers import REFUSED, Facts
from tests.parity.families import Family
from tests.parity.scenario import NODE, NOTHING, NULL, POD, REACH, Change, Variant

_MAC = {"a": "02:00:5e:00:53:0a", "b": "02:00:5e:00:53:0b"}
_OTHER_MAC = "02:00:5e:00:53:ff"
_DNS = {"nameservers": ["192.0.2.54"], "search": ["example.org"]}
_OPTIONAL = (
    *("bridge", "isGateway", "forceAddress", "ipMasq", "ipMasqBackend", "mtu", "hairpinMode", "promiscMode", "vlan"),
    *("vlanTrunk", "preserveDefaultVlan", "macspoofchk", "enabledad", "disableContainerInterface", "portIsolation"),
    *("args", "runtimeConfig", "dns"),
)


def _conf(**change: object) -> Change:
    return lambda *_: change


def _facts(**facts: object) -> Callable[[Family], Facts]:
    return lambda _: {key.replace("__", "."): value for key, value in facts.items()}


def _other_address(family: Family) -> tuple[str, ...]:
    lines = ["link add cni0 type bridge", "link set cni0 up"]
    return (
        *lines,
        *(f"address add {net.with_prefix(254)} dev cni0{' nodad' * (net.version == 6)}" for net in family.nets),
    )


def _gateways(family: Family) -> Facts:
    return {"bridge.addresses": [net.with_prefix(1) for net in family.nets]}


def _no_default(family: Family) -> Facts:
    return {"pod.routes": [], **_gateways(family)}


def _defaults(family: Family) -> Facts:
    return {"pod.routes": [f"{net.anywhere} via {net.gateway}" for net in family.nets], **_gateways(family)}


def _tagged(*vlans: str) -> Callable[[Family], Facts]:
    """Return the facts of a port in VLAN 100, whose gateway is a separate interface."""
    names = ["cni0", "the host veth", "eth0 in /run/netns/a", "cni0.100"]
    return lambda _: {"host.vlans": list(vlans), "result.interfaces": names}


BRIDGE = (
    Variant("bridge", "br-pods", _conf(bridge="br-pods"), expect=_facts(bridge__name="br-pods")),
    Variant("bridge", "an existing bridge", before=lambda _: ("link add cni0 type bridge",)),
    Variant(
        "bridge",
        "a link that is not a bridge",
        before=lambda _: ("link add cni0 type veth peer name cni0-peer",),
        must=REFUSED,
        names="cni0",
    ),
    Variant(
        "isGateway",
        "true",
        _conf(isDefaultGateway=None, isGateway=True),
        expect=_no_default,
        reach={**REACH, "outside": NOTHING},
    ),
    Variant(
        "isGateway",
        "false",
        _conf(isDefaultGateway=None, isGateway=False),
        expect=_facts(pod__routes=[], bridge__addresses=[], node__forwards=[]),
        reach={"gateway": NOTHING, "pod": POD, "outside": NOTHING},
    ),
    Variant(
        "isGateway",
        "true, spelled ISGATEWAY",
        _conf(isDefaultGateway=None, ISGATEWAY=True),
        expect=_no_default,
        reach={**REACH, "outside": NOTHING},
    ),
    Variant("isDefaultGateway", "true", expect=_defaults),
    Variant(
        "isDefaultGateway",
        "false",
        _conf(isDefaultGateway=False, isGateway=True),
        expect=_no_default,
        reach={**REACH, "outside": NOTHING},
    ),
    Variant("forceAddress", "true", _conf(forceAddress=True), before=_other_address, expect=_gateways),
    Variant("forceAddress", "false", _conf(forceAddress=False), before=_other_address, must=REFUSED, names="cni0"),
    Variant("ipMasq", "true", _conf(ipMasq=True), reach={**REACH, "outside": NODE}),
    Variant("ipMasq", "false", _conf(ipMasq=False), expect=_facts(node__masquerade=[])),
    *(
        Variant(
            "ipMasqBackend",
            backend,
            _conf(ipMasq=True, ipMasqBackend=backend),
            expect=_facts(node__masquerade=[backend]),
            reach={**REACH, "outside": NODE},
        )
        for backend in ("iptables", "nftables")
    ),
    *(
        Variant("mtu", str(mtu), _conf(mtu=mtu), expect=_facts(bridge__mtu=mtu, host__mtu=mtu, pod__mtu=mtu))
        for mtu in (1400, 9000)
    ),
    Variant("mtu", "0", _conf(mtu=0), expect=_facts(bridge__mtu=1500, host__mtu=1500, pod__mtu=1500)),
    Variant(
        "hairpinMode",
        "true",
        _conf(hairpinMode=True),
        expect=_facts(host__hairpin=True, frames__come_back=True),
        probes=("hairpin",),
    ),
    Variant(
        "hairpinMode",
        "false",
        _conf(hairpinMode=False),
        expect=_facts(host__hairpin=False, frames__come_back=False),
        probes=("hairpin",),
    ),
    Variant("promiscMode", "true", _conf(promiscMode=True), expect=_facts(bridge__promiscuous=True)),
    Variant("promiscMode", "false", _conf(promiscMode=False), expect=_facts(bridge__promiscuous=False)),
    Variant(
        "promiscMode", "true with hairpinMode", _conf(promiscMode=True, hairpinMode=True), must=REFUSED, names="hairpin"
    ),
    Variant("vlan", "100", _conf(vlan=100), expect=_tagged("100 PVID Egress Untagged"), needs="vlan"),
    Variant("vlan", "0", _conf(vlan=0)),
    Variant(
        "vlanTrunk",
        "101, 200 to 202",
        _conf(vlanTrunk=[{"id": 101}, {"minID": 200, "maxID": 202}]),
        expect=_facts(host__vlans=["1 PVID Egress Untagged", "101", "200", "201", "202"]),
        needs="vlan",
    ),
    Variant("vlanTrunk", "empty", _conf(vlanTrunk=[])),
    Variant(
        "preserveDefaultVlan",
        "true",
        _conf(vlan=100, preserveDefaultVlan=True),
        expect=_tagged("1 Egress Untagged", "100 PVID Egress Untagged"),
        needs="vlan",
    ),
    Variant(
        "preserveDefaultVlan",
        "false",
        _conf(vlan=100, preserveDefaultVlan=False),
        expect=_tagged("100 PVID Egress Untagged"),
        needs="vlan",
    ),
    Variant("preserveDefaultVlan", "true without vlan", _conf(preserveDefaultVlan=True)),
    Variant(
        "macspoofchk",
        "true",
        _conf(macspoofchk=True),
        expect=_facts(frames__with_another_mac=False),
        probes=("spoof",),
    ),
    Variant(
        "macspoofchk",
        "false",
        _conf(macspoofchk=False),
        expect=_facts(frames__with_another_mac=True),
        probes=("spoof",),
    ),
    Variant("enabledad", "true", _conf(enabledad=True), expect=_facts(pod__accept_dad="1")),
    Variant("enabledad", "false", _conf(enabledad=False)),
    Variant(
        "disableContainerInterface",
        "true",
        _conf(disableContainerInterface=True, isDefaultGateway=None, ipam=None),
        expect=_facts(pod__up=False, pod__addresses=[]),
        reach={},
    ),
    Variant("disableContainerInterface", "false", _conf(disableContainerInterface=False), expect=_facts(pod__up=True)),
    Variant(
        "disableContainerInterface",
        "true with ipam",
        _conf(disableContainerInterface=True),
        must=REFUSED,
        names="disableContainerInterface",
    ),
    Variant(
        "portIsolation",
        "true",
        _conf(portIsolation=True),
        expect=_facts(host__isolated=True),
        reach={**REACH, "pod": NOTHING},
    ),
    Variant("portIsolation", "false", _conf(portIsolation=False), expect=_facts(host__isolated=False)),
    Variant(
        "args.cni.mac",
        "a MAC",
        lambda _, pod: {"args": {"cni": {"mac": _MAC[pod]}}},
        expect=_facts(pod__mac=_MAC["a"]),
    ),
    Variant(
        "runtimeConfig.mac",
        "a MAC",
        lambda _, pod: {"runtimeConfig": {"mac": _MAC[pod]}},
        expect=_facts(pod__mac=_MAC["a"]),
    ),
    Variant(
        "runtimeConfig.mac",
        "a MAC, over args.cni.mac and CNI_ARGS",
        lambda _, pod: {"runtimeConfig": {"mac": _MAC[pod]}, "args": {"cni": {"mac": _OTHER_MAC}}},
        environment=lambda *_: {"CNI_ARGS": f"IgnoreUnknown=1;MAC={_OTHER_MAC}"},
        expect=_facts(pod__mac=_MAC["a"]),
    ),
    Variant(
        "CNI_ARGS MAC",
        "a MAC",
        environment=lambda _, pod: {"CNI_ARGS": f"IgnoreUnknown=1;MAC={_MAC[pod]}"},
        expect=_facts(pod__mac=_MAC["a"]),
    ),
    Variant(
        "CNI_ARGS MAC",
        "a MAC, no IgnoreUnknown",
        environment=lambda _, pod: {"CNI_ARGS": f"MAC={_MAC[pod]}"},
        expect=_facts(pod__mac=_MAC["a"]),
    ),
    Variant("dns", "a server", _conf(dns=_DNS), expect=lambda _: {"result.dns": _DNS}),
    Variant(
        "unknown keys",
        "ignored",
        _conf(note="of the operator", ipam={"note": 1}, capabilities={"mac": True}, runtimeConfig={"portMappings": []}),
    ),
    Variant("unknown keys", "every known key null", _conf(**dict.fromkeys(_OPTIONAL, NULL))),
)
