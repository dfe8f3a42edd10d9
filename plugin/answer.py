"""ADD's answer: what this call made, after what the plugins before it in the chain did."""

from cnictl.core.attachments import Record
from cnictl.core.cidr import AddressError, Cidr, format_address, parse_address, parse_interface
from cnictl.core.conf.netconf import NetConf
from cnictl.core.conf.routes import METRICS, Route
from cnictl.core.errors import INVALID_CONFIG, CniError
from cnictl.core.netlink.rtnetlink import Link, format_mac
from cnictl.core.result import objects, shape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


class Given:
    """What an attachment gets: addresses, each with its gateway (empty: none), routes and name servers."""

    __slots__ = ("dns", "ips", "routes")

    def __init__(self, ips: "Sequence[tuple[Cidr, bytes]]" = (), routes: "Sequence[Route]" = ()) -> None:
        self.ips = ips
        self.routes = routes
        self.dns: dict[str, Any] = {}

    @property
    def addresses(self) -> list[Cidr]:
        """The addresses alone."""
        return [address for address, _ in self.ips]

    @property
    def gateways(self) -> list[Cidr]:
        """The gateways, each with its subnet's prefix and once."""
        return list(dict.fromkeys(Cidr(gateway, address.prefix) for address, gateway in self.ips if gateway))


def previous(conf: NetConf) -> "tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]":
    """Interfaces, addresses and routes of the plugins before this one. Raises CniError 7 if they are malformed."""
    interfaces = objects(conf.prev_result, "interfaces", "name")
    ips = objects(conf.prev_result, "ips", "address")
    routes = objects(conf.prev_result, "routes", "dst")
    for one in ips:
        if type(one.get("interface", 0)) not in (int, type(None)):
            raise CniError(
                INVALID_CONFIG, f"prevResult.ips: {one['address']}: interface {one['interface']!r:.60} is not a number"
            )
    try:
        for listed, key, via in ((ips, "address", "gateway"), (routes, "dst", "gw")):
            for one in listed:
                parse_interface(one[key], f"prevResult: {key}")
                if one.get(via):
                    parse_address(one[via], f"prevResult: {via}")
    except AddressError as error:
        raise CniError(INVALID_CONFIG, str(error)) from None
    return interfaces, ips, routes


def answer(
    conf: NetConf, record: Record, sandbox: str, bridge: Link, host_mac: bytes, given: Given, gateway: Link | None
) -> "dict[str, Any]":
    """Return the result. `gateway`: the interface that has the gateway's addresses where that isn't the bridge.

    Everything of this call comes before what the plugins before it reported, with the bridge as the first interface:
    the firewall plugin takes interfaces[0] for the bridge, and runtimes take the first address for the pod's.
    """
    before, earlier_ips, earlier_routes = previous(conf)
    mtu = conf.mtu or bridge.mtu
    interfaces: list[dict[str, Any]] = [
        {"name": bridge.name, "mac": bridge.mac, "mtu": bridge.mtu},
        {"name": record.host_veth, "mac": format_mac(host_mac), "mtu": mtu},
        {"name": record.ifname, "mac": record.mac, "mtu": mtu, "sandbox": sandbox},
    ]
    if gateway is not None:
        interfaces.append({"name": gateway.name, "mac": gateway.mac, "mtu": gateway.mtu})
    ips = []
    for address, through in given.ips:
        one: dict[str, Any] = {"address": str(address), "interface": 2}
        if through:
            one["gateway"] = format_address(through)
        ips.append(one)
    if conf.prev_result:
        ips += [_moved(one, len(interfaces)) for one in earlier_ips]
    routes = [*map(_route, given.routes), *earlier_routes]
    return shape(conf.cni_version, [*interfaces, *before], ips, routes, _dns(conf, given))


def _moved(ip: "dict[str, Any]", places: int) -> "dict[str, Any]":
    """Return an entry of prevResult.ips for interfaces that stand so many places later; some write -1 for none."""
    place = ip.get("interface")
    return ip if place is None or place < 0 else {**ip, "interface": place + places}


def _route(route: Route) -> "dict[str, Any]":
    found: dict[str, Any] = {"dst": str(route.destination)}
    if route.gateway:
        found["gw"] = format_address(route.gateway)
    for key in METRICS:
        value = getattr(route, key)
        if value is not None:
            found[key] = value
    return found


def _dns(conf: NetConf, given: Given) -> "dict[str, Any]":
    """Key by key the configuration's word counts, then the IPAM plugin's, then that of the plugins before."""
    before = (conf.prev_result or {}).get("dns")
    own = conf.result_dns() if conf.resolv_conf or any(conf.dns.values()) else {}
    merged = dict(before) if isinstance(before, dict) else {}
    for words in (given.dns, own):
        merged.update((key, value) for key, value in words.items() if value)
    return merged
