"""Read the answer to an IPAM plugin's ADD strictly, and convert it from any version's shape to that of 1.1.0.

Spec 1.1.0 section 5 "Add Success", abbreviated: without `interfaces`. Older shapes: see `cnictl.core.result`.
"""

from cnictl.core.cidr import AddressError, Cidr, format_address, parse_address, parse_interface, unmapped
from cnictl.core.conf.routes import METRICS
from cnictl.core.errors import DECODING_FAILURE, CniError
from cnictl.core.result import SUPPORTED_VERSIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def parse_ipam_result(document: "dict[str, Any]", kind: str) -> "dict[str, Any]":
    """Return `ips` (address, gateway), `routes` and `dns` of an IPAM plugin's result; its interfaces are ignored.

    Raises CniError 6 naming what is malformed, or if there is no address. `kind`: the plugin's `ipam.type`.
    """
    version = document.get("cniVersion")
    if version not in (None, "", *SUPPORTED_VERSIONS):
        raise _malformed(kind, f"cniVersion {str(version)[:60]!r} is not one of {', '.join(SUPPORTED_VERSIONS)}")
    try:
        if "ip4" in document or "ip6" in document:
            ips, routes = _parse_0_2(document)
        else:
            ips = [_ip(entry) for entry in _objects(document, "ips")]
            routes = [_route(entry) for entry in _objects(document, "routes")]
        dns = document.get("dns")
        if dns is not None and not isinstance(dns, dict):
            raise AddressError("dns is not an object")
    except AddressError as error:
        raise _malformed(kind, str(error)) from None
    if not ips:
        raise _malformed(kind, "it has no address in `ips`")
    return {"cniVersion": "1.1.0", "ips": ips, "routes": routes, "dns": dns or {}}


def _malformed(kind: str, fault: str) -> CniError:
    return CniError(DECODING_FAILURE, f"ipam.type {kind!r}: the plugin's result can't be used: {fault}")


def _parse_0_2(document: "dict[str, Any]") -> "tuple[list[dict[str, Any]], list[dict[str, Any]]]":
    ips, routes = [], []
    for key, length in (("ip4", 4), ("ip6", 16)):
        part = document.get(key)
        if part is None:
            continue
        if not isinstance(part, dict):
            raise AddressError(f"{key} is not an object")
        ip = _ip({"address": part.get("ip"), "gateway": part.get("gateway")})
        if len(parse_interface(ip["address"]).packed) != length:
            raise AddressError(f"{key}: {ip['address']} is of the other family")
        ips.append(ip)
        routes += [_route(route) for route in _objects(part, "routes")]
    return ips, routes


def _objects(document: "dict[str, Any]", key: str) -> "list[dict[str, Any]]":
    listed = document.get(key)
    if listed is None:
        return []
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise AddressError(f"{key} is not a list of objects")
    return list(listed)


def _gateway(written: "Any", subject: str, of: Cidr) -> str:
    """Return a gateway's canonical text; empty if there is none."""
    if written is None or written == "":
        return ""
    packed = unmapped(parse_address(written, subject))
    if len(packed) != len(of.packed):
        raise AddressError(f"{subject} {written} is not of the same family as {of}")
    return format_address(packed)


def _ip(entry: "dict[str, Any]") -> "dict[str, Any]":
    address = parse_interface(entry.get("address") or "", "ips.address")
    ip: dict[str, Any] = {"address": str(address)}
    gateway = _gateway(entry.get("gateway"), "ips.gateway", address)
    if gateway:
        ip["gateway"] = gateway
    return ip


def _route(entry: "dict[str, Any]") -> "dict[str, Any]":
    destination = parse_interface(entry.get("dst") or "", "routes.dst").network
    route: dict[str, Any] = {"dst": str(destination)}
    gateway = _gateway(entry.get("gw"), "routes.gw", destination)
    if gateway:
        route["gw"] = gateway
    for key in METRICS:
        number = entry.get(key)
        if number is None:
            continue
        bits = 8 if key == "scope" else 32
        if type(number) is not int or not 0 <= number < 1 << bits:
            raise AddressError(f"routes.{key} of {destination} is {str(number)[:60]!r}, no number of {bits} bits")
        route[key] = number
    return route
