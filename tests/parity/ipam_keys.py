"""List each key of the reference `host-local` with its values, the ways to request an address, and other IPAM types.

The meanings follow cni.dev/plugins/current/ipam/host-local, and for the parts of a route spec 1.1.0, section 5.
"""

from collections.abc import Callable

from tests.parity.answers import REFUSED, Facts
from tests.parity.families import Family, Net
from tests.parity.places import Json
from tests.parity.scenario import NODE, NOTHING, REACH, Change, Variant, ranges

_NUMBER = {"a": 77, "b": 66}
_DATA_DIR = "/var/lib/elsewhere"
_RESOLV_CONF = "/var/lib/parity.resolv.conf"
_ROUTED = {**REACH, "outside": NOTHING}


def _ipam(make: Callable[[Family, str], Json]) -> Change:
    return lambda family, pod: {"ipam": {"type": "host-local", **make(family, pod)}}


def _spans(**more: Callable[[Net], str]) -> Change:
    """Return a change to one range per family, with these keys in each."""

    def change(family: Family, _: str) -> Json:
        return {
            "ipam": {"ranges": [ranges((net,), **{key: of(net) for key, of in more.items()})[0] for net in family.nets]}
        }

    return change


def _routed(words: str = "via {gateway}", **more: object) -> tuple[Change, Callable[[Family], Facts]]:
    """Return a conf with one route per family and no default gateway, and the routes that the pod must get from it."""

    def route(net: Net) -> Json:
        return {"dst": net.elsewhere, **{key: of(net) if callable(of) else of for key, of in more.items()}}

    def change(family: Family, _: str) -> Json:
        return {"isDefaultGateway": None, "isGateway": True, "ipam": {"routes": [route(net) for net in family.nets]}}

    def expect(family: Family) -> Facts:
        made = [words.format(gateway=net.gateway, ninth=net.at(9)).strip() for net in family.nets]
        return {"pod.routes": sorted(f"{net.elsewhere} {way}" for net, way in zip(family.nets, made, strict=True))}

    return change, expect


def _route(key: str, value: str, words: str, **more: object) -> Variant:
    change, expect = _routed(words, **more)
    return Variant(key, value, change, expect=expect, reach=_ROUTED)


def _second_of_two(family: Family, _: str) -> Json:
    """Return one set of two ranges per family. The first range has one address."""
    pairs = zip(family.nets, family.second, strict=True)
    return {
        "ranges": [
            [{"subnet": first.subnet, "rangeStart": first.at(10), "rangeEnd": first.at(10)}, {"subnet": second.subnet}]
            for first, second in pairs
        ]
    }


def _short(family: Family, _: str) -> Json:
    """Return the short form, `subnet` beside `type`, with a range set for the other family."""
    more = {"ranges": ranges(family.nets[1:])} if family.nets[1:] else {"ranges": None}
    return {"ipam": {"subnet": family.nets[0].subnet, **more}}


def _asked(numbers: dict[str, int], prefix: bool = False) -> Callable[[Family, str], list[str]]:
    def addresses(family: Family, pod: str) -> list[str]:
        return [net.with_prefix(numbers[pod]) if prefix else net.at(numbers[pod]) for net in family.nets]

    return addresses


def _addresses(*given: str) -> Facts:
    return {"pod.addresses": sorted(given)}


def _got(number: int, second: bool = False) -> Callable[[Family], Facts]:
    """Expect the pod to have the address with this number in each subnet, with `second` in the second subnets too."""

    def expect(family: Family) -> Facts:
        nets = (*family.nets, *family.second) if second else family.nets
        return _addresses(*(net.with_prefix(number) for net in nets))

    return expect


def _first_asked(family: Family) -> Facts:
    """Expect the requested address and, for the other family, the next free one: CNI_ARGS requests one address only."""
    return _addresses(family.nets[0].with_prefix(77), *(net.with_prefix(3) for net in family.nets[1:]))


def _static(family: Family, pod: str) -> Json:
    given = [{"address": net.with_prefix(_NUMBER[pod]), "gateway": net.gateway} for net in family.nets]
    return {"ipam": {"type": "static", "ranges": None, "addresses": given, "dns": {"nameservers": ["192.0.2.53"]}}}


def _static_given(family: Family) -> Facts:
    return {**_got(77)(family), "result.dns": {"nameservers": ["192.0.2.53"]}}


IPAM = (
    Variant("ipam.ranges", "one set per family", expect=_got(3)),
    Variant(
        "ipam.ranges",
        "two sets per family",
        _ipam(lambda family, _: {"ranges": ranges((*family.nets, *family.second))}),
        expect=_got(3, second=True),
    ),
    Variant(
        "ipam.ranges",
        "two ranges in a set, the first full",
        _ipam(_second_of_two),
        expect=lambda family: _addresses(*(net.with_prefix(2) for net in family.second)),
    ),
    Variant("ipam.rangeStart", ".50", _spans(rangeStart=lambda net: net.at(50)), expect=_got(51)),
    Variant("ipam.rangeEnd", ".3", _spans(rangeEnd=lambda net: net.at(3)), expect=_got(3)),
    Variant(
        "ipam.gateway",
        ".254",
        _spans(gateway=lambda net: net.at(254)),
        expect=lambda family: {"bridge.addresses": [net.with_prefix(254) for net in family.nets]},
    ),
    _route("ipam.routes", "only a dst", "via {gateway}"),
    Variant(
        "ipam.routes",
        "the default route",
        lambda family, _: {
            "isDefaultGateway": None,
            "isGateway": True,
            "ipam": {"routes": [{"dst": net.anywhere} for net in family.nets]},
        },
        expect=lambda family: {"pod.routes": [f"{net.anywhere} via {net.gateway}" for net in family.nets]},
    ),
    _route("ipam.routes[].gw", ".9", "via {ninth}", gw=lambda net: net.at(9)),
    _route("ipam.routes[].mtu", "1300", "via {gateway} mtu 1300", mtu=1300),
    _route("ipam.routes[].advmss", "1200", "via {gateway} advmss 1200", advmss=1200),
    _route("ipam.routes[].priority", "50", "via {gateway} priority 50", priority=50),
    _route("ipam.routes[].table", "100", "via {gateway} table 100", table=100),
    _route("ipam.routes[].scope", "0, global", "via {gateway}", scope=0),
    Variant(
        "ipam.routes[].scope",
        "253, link",
        _routed(scope=253)[0],
        # a destination on the link has no gateway; the kernel keeps no scope for IPv6
        expect=lambda family: {
            "pod.routes": sorted(f"{net.elsewhere}{' scope link' * (net.version == 4)}" for net in family.nets)
        },
        reach=_ROUTED,
    ),
    Variant(
        "ipam.resolvConf",
        "a file",
        lambda *_: {"ipam": {"resolvConf": _RESOLV_CONF}},
        files={
            _RESOLV_CONF: "# of the host\nnameserver 192.0.2.53\nnameserver 2001:db8::53\ndomain example.org\n"
            "search example.org example.net\noptions ndots:2 edns0\n"
        },
        expect=lambda _: {
            "result.dns": {
                "nameservers": ["192.0.2.53", "2001:db8::53"],
                "domain": "example.org",
                "search": ["example.org", "example.net"],
                "options": ["ndots:2", "edns0"],
            }
        },
    ),
    Variant(
        "ipam.resolvConf",
        "a file, and dns",
        lambda *_: {"ipam": {"resolvConf": _RESOLV_CONF}, "dns": {"nameservers": ["192.0.2.54"]}},
        files={_RESOLV_CONF: "nameserver 192.0.2.53\n"},
        expect=lambda _: {"result.dns": {"nameservers": ["192.0.2.54"]}},
    ),
    Variant(
        "ipam.dataDir",
        _DATA_DIR,
        lambda *_: {"ipam": {"dataDir": _DATA_DIR}},
        expect=lambda family: {
            "node.leases_elsewhere": {net.at(3): "pod-a\r\neth0" for net in family.nets},
            "node.leases": {},
        },
    ),
    Variant("ipam.subnet", "the short form", _short, expect=_got(3)),
    Variant(
        "runtimeConfig.ipRanges",
        "instead of ranges",
        lambda family, _: {"ipam": {"ranges": None}, "runtimeConfig": {"ipRanges": ranges(family.nets)}},
        expect=_got(3),
    ),
    Variant(
        "runtimeConfig.ipRanges",
        "before ranges",
        lambda family, _: {
            "ipam": {"ranges": ranges(family.second)},
            "runtimeConfig": {"ipRanges": ranges(family.nets)},
        },
        expect=_got(3, second=True),
    ),
    Variant(
        "CNI_ARGS IP",
        ".77",
        environment=lambda family, pod: {"CNI_ARGS": f"IgnoreUnknown=1;IP={family.nets[0].at(_NUMBER[pod])}"},
        expect=_first_asked,
    ),
    Variant(
        "CNI_ARGS IP",
        ".77, no IgnoreUnknown",
        environment=lambda family, pod: {"CNI_ARGS": f"IP={family.nets[0].at(_NUMBER[pod])}"},
        expect=_first_asked,
    ),
    Variant(
        "args.cni.ips",
        ".77",
        lambda family, pod: {"args": {"cni": {"ips": _asked(_NUMBER)(family, pod)}}},
        expect=_got(77),
    ),
    *(
        Variant(
            "runtimeConfig.ips",
            name,
            lambda family, pod, prefix=prefix: {"runtimeConfig": {"ips": _asked(_NUMBER, prefix)(family, pod)}},  # type: ignore[misc]
            expect=_got(77),
        )
        for name, prefix in ((".77", False), (".77 with a prefix", True))
    ),
    Variant(
        "runtimeConfig.ips",
        "an address in use",
        lambda family, _: {"runtimeConfig": {"ips": [net.at(5) for net in family.nets]}},
        files={
            f"/var/lib/cni/networks/parity/{address}": "other\r\neth0" for address in ("10.22.0.5", "2001:db8:22::5")
        },
        must=REFUSED,
        names="5",
    ),
    Variant(
        "ipam.type",
        "none: layer 2",
        lambda *_: {"ipam": None, "isDefaultGateway": None},
        # the pod may get its addresses from others on the link, such as a router
        expect=lambda _: {
            "pod.up": True,
            "pod.addresses": [],
            "pod.accepts_ra": True,
            "frames.reach_the_other_pod": True,
        },
        reach={},
        probes=("layer2",),
    ),
    Variant(
        "ipam.type",
        "static",
        _static,
        expect=_static_given,
        # this release's `static` does not support 1.1.0: an ADD with that version would fail, as GC's call to it does
        verbs={"STATUS": REFUSED, "GC": REFUSED},
    ),
    Variant(
        "ipam.type",
        "static, with ipMasq",
        lambda family, pod: {"ipMasq": True, **_static(family, pod)},
        expect=_static_given,
        reach={**REACH, "outside": NODE},
        verbs={"STATUS": REFUSED, "GC": REFUSED},
    ),
    Variant(
        "ipam.type",
        "a plugin that is missing",
        lambda *_: {"ipam": {"type": "absent-ipam"}},
        must=REFUSED,
        names="absent-ipam",
        verbs={"DEL": REFUSED},
    ),
)
