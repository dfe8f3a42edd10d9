"""ADD's answer: what this call made, after what the plugins before it in the chain did."""

from cnictl.core.attachments import Record
from cnictl.core.cidr import AddressError, Cidr, format_address, parse_address, parse_interface
from cnictl.core.conf import NetConf
from cnictl.core.errors import INVALID_CONFIG, CniError
from cnictl.core.result import objects, shape
from cnictl.core.routes import Route
from cnictl.core.rtnetlink import Link, format_mac

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_METRICS = ("mtu", "advmss", "priority", "table", "scope")


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
    """The result. `gateway`: the interface that has the gateway's addresses where that isn't the bridge."""
    interfaces, ips, routes = previous(conf)
    first, mtu = len(interfaces), conf.mtu or bridge.mtu
    interfaces += [
        {"name": bridge.name, "mac": bridge.mac, "mtu": bridge.mtu},
        {"name": record.host_veth, "mac": format_mac(host_mac), "mtu": mtu},
        {"name": record.ifname, "mac": record.mac, "mtu": mtu, "sandbox": sandbox},
    ]
    if gateway is not None:
        interfaces.append({"name": gateway.name, "mac": gateway.mac, "mtu": gateway.mtu})
    for address, through in given.ips:
        one: dict[str, Any] = {"address": str(address), "interface": first + 2}
        if through:
            one["gateway"] = format_address(through)
        ips.append(one)
    routes += [_route(route) for route in given.routes]
    return shape(conf.cni_version, interfaces, ips, routes, _dns(conf, given))


def _route(route: Route) -> "dict[str, Any]":
    found: dict[str, Any] = {"dst": str(route.destination)}
    if route.gateway:
        found["gw"] = format_address(route.gateway)
    for key in _METRICS:
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
