"""Read a configuration's address keys: the walk-through's `subnet` and `network`, and host-local's `ipam` object.

Names, meanings and defaults of `ipam` are host-local's (cni.dev, plugins/current/ipam/host-local).
"""

from cnictl.core.cidr import MAPPED, Cidr, parse_cidr, parse_interface, parse_pod_cidr, unmapped
from cnictl.core.conf import fields
from cnictl.core.conf.netconf import HOST_LOCAL, NetConf
from cnictl.core.conf.routes import MAIN_TABLE, Route
from cnictl.core.errors import INVALID_CONFIG, CniError
from cnictl.core.leases.pool import Range, RangeSet, first_overlap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

_IPAM_KEYS = frozenset(
    ("type", "ranges", "subnet", "rangeStart", "rangeEnd", "gateway", "routes", "dataDir", "resolvConf", "name")
)
_RANGE_KEYS = frozenset(("subnet", "rangeStart", "rangeEnd", "gateway"))
_ROUTE_KEYS = frozenset(("dst", "gw", "mtu", "advmss", "priority", "table", "scope"))
_EDGES = ("rangeStart", "rangeEnd", "gateway")


def read_addresses(conf: NetConf, document: "dict[str, Any]", with_ranges: bool = True) -> bool:
    """Fill in the addresses that pods get; return whether the configuration has the walk-through's form.

    Without `with_ranges`, ranges may be missing: a runtime gives its ranges to ADD only.
    Raises CniError 7 naming key and value.
    """
    ipam = fields.spelled(fields.member(document, "ipam"), _IPAM_KEYS)
    kind = fields.text(ipam, "type", "ipam.type")
    subnets = fields.texts(document, "subnet")
    networks = [fields.cidr(text, "network", parse_cidr) for text in fields.texts(document, "network")]
    if networks and not subnets and not kind:
        raise CniError(INVALID_CONFIG, "subnet: missing; it is this node's pod CIDR, such as 10.244.0.0/24")
    if kind and kind != HOST_LOCAL:
        _delegate(conf, kind, subnets)
    elif subnets or kind or ipam.get("ranges") or ipam.get("subnet"):
        _serve(conf, document, ipam, subnets, with_ranges)
    families = {network.bits for network in networks}
    for subnet in _uncovered(conf.subnets, networks):
        if subnet.bits in families:
            shown = ", ".join(str(network) for network in networks if network.bits == subnet.bits)
            raise CniError(
                INVALID_CONFIG,
                f"subnet: {subnet} lies outside network {shown}",
                "give each node a subnet inside the network",
            )
    conf.pod_networks = tuple(networks)
    conf.networks = (*networks, *(subnet for subnet in conf.subnets if subnet.bits not in families))
    return bool(subnets)


def _uncovered(subnets: "Iterable[Cidr]", networks: list[Cidr]) -> "Iterator[Cidr]":
    """Yield the subnets that lie in none of the networks. Both are sorted, so that each is looked at once."""
    waiting = sorted(networks, key=_place)
    waiting.reverse()
    bits = last = -1
    """Family and highest address of the networks that begin at or before the subnet."""
    for subnet in sorted(subnets, key=_place):
        while waiting and _place(waiting[-1]) <= _place(subnet):
            network = waiting.pop()
            last = max(last, network.last) if network.bits == bits else network.last
            bits = network.bits
        if subnet.bits != bits or subnet.last > last:
            yield subnet


def _place(cidr: Cidr) -> tuple[int, int]:
    return cidr.bits, cidr.first


def _delegate(conf: NetConf, kind: str, subnets: list[str]) -> None:
    if subnets:
        raise CniError(
            INVALID_CONFIG,
            f"ipam.type: {fields.show(kind)} and subnet would both give addresses",
            "remove one of the two",
        )
    if "/" in kind or "\0" in kind or kind in (".", ".."):
        raise CniError(INVALID_CONFIG, f"ipam.type: {fields.show(kind)} is not a plugin file name")
    conf.ipam_type = kind


def _serve(
    conf: NetConf, document: "dict[str, Any]", ipam: "dict[str, Any]", subnets: list[str], with_ranges: bool
) -> None:
    conf.ipam_type = HOST_LOCAL
    sets = []
    if document.get("runtimeConfig"):
        runtime = fields.spelled(fields.member(document, "runtimeConfig"), fields.RUNTIME_KEYS)
        sets += _range_sets(fields.members(runtime, "ipRanges", "runtimeConfig.ipRanges"), "runtimeConfig.ipRanges")
        conf.subnets_vary = bool(sets)
    where = "subnet"
    if not subnets:
        where = "ipam.subnet"
        subnets = [written for written in (fields.text(ipam, "subnet", where),) if written]
    if len(subnets) > 1 and any(ipam.get(edge) for edge in _EDGES):
        edge = next(edge for edge in _EDGES if ipam.get(edge))
        raise CniError(
            INVALID_CONFIG,
            f"ipam.{edge}: {fields.show(ipam[edge])} belongs to only one of {len(subnets)} subnets",
            "use ranges",
        )
    sets += [RangeSet((_range(ipam, subnet, where, "ipam"),)) for subnet in subnets]
    sets += _range_sets(fields.members(ipam, "ranges", "ipam.ranges"), "ipam.ranges")
    if not sets:
        if with_ranges:
            raise CniError(
                INVALID_CONFIG,
                "ipam.ranges: missing; host-local needs a subnet",
                'such as [[{"subnet": "10.9.0.0/24"}]]; or have the runtime give runtimeConfig.ipRanges, '
                'with "capabilities": {"ipRanges": true}',
            )
        conf.subnets_vary = True
    if len(sets) > 1:
        _refuse_clash(conf, sets)
    conf.sets = tuple(sets)
    conf.routes = [
        _route(route, f"ipam.routes[{place}]")
        for place, route in enumerate(fields.members(ipam, "routes", "ipam.routes"))
    ]
    data_dir = fields.text(ipam, "dataDir", "ipam.dataDir")
    if data_dir:
        if not data_dir.startswith("/") or "\0" in data_dir:
            raise CniError(INVALID_CONFIG, f"ipam.dataDir: {fields.show(data_dir)} is not an absolute path")
        conf.data_dir = data_dir.rstrip("/") or "/"
    conf.resolv_conf = fields.text(ipam, "resolvConf", "ipam.resolvConf")


def _range_sets(listed: "list[Any]", subject: str) -> list[RangeSet]:
    sets = []
    for number, spans in enumerate(listed):
        where = f"{subject}[{number}]"
        if not isinstance(spans, list) or not spans or not all(isinstance(span, dict) for span in spans):
            raise CniError(
                INVALID_CONFIG, f"{where}: {fields.show(spans)} is not a list of objects, each a range with `subnet`"
            )
        ranges = []
        for place, written in enumerate(spans):
            span, name = fields.spelled(written, _RANGE_KEYS), f"{where}[{place}]"
            ranges.append(_range(span, fields.text(span, "subnet", f"{name}.subnet"), "", name))
        if len({listed_range.subnet.bits for listed_range in ranges}) > 1:
            shown = ", ".join(map(str, ranges))
            raise CniError(
                INVALID_CONFIG, f"{where}: {shown}: IPv4 and IPv6 in one set", "give each family its own set"
            )
        clash = first_overlap(ranges) if len(ranges) > 1 else None
        if clash is not None:
            raise CniError(INVALID_CONFIG, f"{where}: {clash[0]} and {clash[1]} overlap")
        sets.append(RangeSet(ranges))
    return sets


def _range(span: "dict[str, Any]", subnet: str, where: str, subject: str) -> Range:
    """Return a range; `where` is its subnet's key if that is not `subject`.subnet."""
    where = where or f"{subject}.subnet"
    if not subnet:
        raise CniError(INVALID_CONFIG, f"{where}: missing; it is a subnet for pods, such as 10.9.0.0/24")
    cidr = fields.cidr(subnet, where, parse_pod_cidr)
    if cidr.packed.startswith(MAPPED):
        raise CniError(INVALID_CONFIG, f"{where}: {cidr} is an IPv4 subnet in IPv6 notation", "write it as IPv4")
    edges = {}
    for key in _EDGES:
        value = fields.text(span, key, f"{subject}.{key}")
        edges[key] = unmapped(fields.address(value, f"{subject}.{key}")) if value else b""
        # a gateway may lie outside the subnet, as in host-local
        outside = len(edges[key]) != len(cidr.packed) if key == "gateway" else not cidr.holds(edges[key])
        if value and outside:
            raise CniError(INVALID_CONFIG, f"{subject}.{key}: {value} lies outside {cidr}")
    start, end = (int.from_bytes(edges[key], "big") for key in ("rangeStart", "rangeEnd"))
    addresses = Range(cidr, start, end, edges["gateway"])
    if addresses.size < 1:
        raise CniError(
            INVALID_CONFIG, f"{subject}.rangeEnd: {cidr} has no address for pods from rangeStart to rangeEnd"
        )
    return addresses


def _refuse_clash(conf: NetConf, sets: list[RangeSet]) -> None:
    """Refuse range sets that overlap, or more sets of a family than the version's result has room for."""
    clash = first_overlap(span for ranges in sets for span in ranges.ranges)
    if clash is not None:
        raise CniError(
            INVALID_CONFIG,
            f"ipam.ranges: {clash[0]} and {clash[1]} overlap",
            "a pod gets one address from each range set",
        )
    families = [ranges.ranges[0].subnet.bits for ranges in sets]
    if conf.cni_version < "0.3.0" and len(set(families)) < len(families):
        raise CniError(
            INVALID_CONFIG,
            f"cniVersion: {conf.cni_version} has room for one address of each family, ipam.ranges has {len(sets)} sets",
            "set cniVersion to 1.0.0",
        )


def _route(route: object, subject: str) -> Route:
    if not isinstance(route, dict):
        raise CniError(INVALID_CONFIG, f"{subject}: {fields.show(route)} is not an object with `dst`")
    route = fields.spelled(route, _ROUTE_KEYS)
    destination = _destination(fields.text(route, "dst", f"{subject}.dst"), f"{subject}.dst")
    written = fields.text(route, "gw", f"{subject}.gw")
    gateway = unmapped(fields.address(written, f"{subject}.gw")) if written else b""
    if gateway and len(gateway) != len(destination.packed):
        raise CniError(INVALID_CONFIG, f"{subject}.gw: {written} is not of the same family as {destination}")
    if len(route) == 1 + ("gw" in route):
        return Route(destination, gateway)
    numbers = {
        key: fields.number(route, key, 0, most, f"{subject}.{key}")
        for key, most in (("mtu", 65535), ("advmss", 65535), ("priority", 2**32 - 1), ("table", 2**32 - 1))
    }
    table = numbers["table"] if numbers["table"] != MAIN_TABLE else None
    return Route(
        destination,
        gateway,
        numbers["mtu"] or None,  # 0 means none in the reference
        numbers["advmss"] or None,
        numbers["priority"] or None,
        table or None,
        fields.number(route, "scope", 0, 255, f"{subject}.scope"),
    )


def _destination(written: str, subject: str) -> Cidr:
    """Return a route's destination. The kernel clears host bits of IPv6 routes and refuses them in IPv4 routes."""
    if ":" in written:
        return fields.cidr(written, subject, parse_interface).network
    return fields.cidr(written, subject, parse_cidr)
