"""Build ADD's result from what this call made and the results of the previous plugins in the chain."""

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
    """What an attachment gets: addresses, each with its gateway (empty: none), routes and DNS settings."""

    __slots__ = ("dns", "ips", "routes")

    def __init__(self, ips: "Sequence[tuple[Cidr, bytes]]" = (), routes: "Sequence[Route]" = ()) -> None:
        self.ips = ips
        self.routes = routes
        self.dns: dict[str, Any] = {}

    @property
    def addresses(self) -> list[Cidr]:
        """The addresses without their gateways."""
        return [address for address, _ in self.ips]

    @property
    def gateways(self) -> list[Cidr]:
        """The gateways, each once and with its subnet's prefix."""
        return list(dict.fromkeys(Cidr(gateway, address.prefix) for address, gateway in self.ips if gateway))


def previous(conf: NetConf) -> "tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]":
    """Return the previous plugins' interfaces, addresses and routes. Raises CniError 7 if they are malformed."""
    interfaces = objects(conf.prev_result, "interfaces", "name")
    ips = objects(conf.prev_result, "ips", "address")
    routes = objects(conf.prev_result, "routes", "dst")
    for ip in ips:
        if type(ip.get("interface", 0)) not in (int, type(None)):
            raise CniError(
                INVALID_CONFIG, f"prevResult.ips: {ip['address']}: interface {ip['interface']!r:.60} is not a number"
            )
    try:
        for listed, key, via in ((ips, "address", "gateway"), (routes, "dst", "gw")):
            for entry in listed:
                parse_interface(entry[key], f"prevResult: {key}")
                if entry.get(via):
                    parse_address(entry[via], f"prevResult: {via}")
    except AddressError as error:
        raise CniError(INVALID_CONFIG, str(error)) from None
    return interfaces, ips, routes


def answer(
    conf: NetConf, record: Record, sandbox: str, bridge: Link, host_mac: bytes, given: Given, gateway: Link | None
) -> "dict[str, Any]":
    """Return the result. `gateway`: the interface with the gateway's addresses if that isn't the bridge.

    What this call made precedes what the previous plugins reported, and the bridge is the first interface: the firewall
    plugin takes interfaces[0] for the bridge, and runtimes take the first address for the pod's.
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
        entry: dict[str, Any] = {"address": str(address), "interface": 2}
        if through:
            entry["gateway"] = format_address(through)
        ips.append(entry)
    if conf.prev_result:
        ips += [_moved(ip, len(interfaces)) for ip in earlier_ips]
    routes = [*map(_route, given.routes), *earlier_routes]
    return shape(conf.cni_version, [*interfaces, *before], ips, routes, _dns(conf, given))


def _moved(ip: "dict[str, Any]", places: int) -> "dict[str, Any]":
    """Return an entry of prevResult.ips with its interface moved by some places; some plugins write -1 for none."""
    place = ip.get("interface")
    return ip if place is None or place < 0 else {**ip, "interface": place + places}


def _route(route: Route) -> "dict[str, Any]":
    entry: dict[str, Any] = {"dst": str(route.destination)}
    if route.gateway:
        entry["gw"] = format_address(route.gateway)
    for key in METRICS:
        value = getattr(route, key)
        if value is not None:
            entry[key] = value
    return entry


def _dns(conf: NetConf, given: Given) -> "dict[str, Any]":
    """Return `dns`: for each key the configuration's value, else the IPAM plugin's, else the previous plugins'."""
    before = (conf.prev_result or {}).get("dns")
    own = conf.result_dns() if conf.resolv_conf or any(conf.dns.values()) else {}
    merged = dict(before) if isinstance(before, dict) else {}
    for words in (given.dns, own):
        merged.update((key, value) for key, value in words.items() if value)
    return merged
