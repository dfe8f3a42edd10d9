"""What an IPAM plugin's ADD answered, whichever version's shape it has, read strictly into that of 1.1.0.

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
    """`ips` (address, gateway), `routes` and `dns`; what the plugin says of interfaces is left out.

    Raises CniError 6 naming what is malformed, also if there is no address. `kind`: the plugin's `ipam.type`.
    """
    version = document.get("cniVersion")
    if version not in (None, "", *SUPPORTED_VERSIONS):
        raise _malformed(kind, f"cniVersion {str(version)[:60]!r} is none of {', '.join(SUPPORTED_VERSIONS)}")
    try:
        if "ip4" in document or "ip6" in document:
            ips, routes = _parse_0_2(document)
        else:
            ips = [_ip(one) for one in _objects(document, "ips")]
            routes = [_route(one) for one in _objects(document, "routes")]
        dns = document.get("dns")
        if dns is not None and not isinstance(dns, dict):
            raise AddressError("dns is no object")
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
            raise AddressError(f"{key} is no object")
        one = _ip({"address": part.get("ip"), "gateway": part.get("gateway")})
        if len(parse_interface(one["address"]).packed) != length:
            raise AddressError(f"{key}: {one['address']} is of the other family")
        ips.append(one)
        routes += [_route(route) for route in _objects(part, "routes")]
    return ips, routes


def _objects(document: "dict[str, Any]", key: str) -> "list[dict[str, Any]]":
    listed = document.get(key)
    if listed is None:
        return []
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise AddressError(f"{key} is no list of objects")
    return list(listed)


def _gateway(written: "Any", what: str, of: Cidr) -> str:
    """A gateway's canonical text, empty where none is written."""
    if written is None or written == "":
        return ""
    packed = unmapped(parse_address(written, what))
    if len(packed) != len(of.packed):
        raise AddressError(f"{what} {written} is of another family than {of}")
    return format_address(packed)


def _ip(one: "dict[str, Any]") -> "dict[str, Any]":
    address = parse_interface(one.get("address") or "", "ips.address")
    found: dict[str, Any] = {"address": str(address)}
    gateway = _gateway(one.get("gateway"), "ips.gateway", address)
    if gateway:
        found["gateway"] = gateway
    return found


def _route(one: "dict[str, Any]") -> "dict[str, Any]":
    destination = parse_interface(one.get("dst") or "", "routes.dst").network
    found: dict[str, Any] = {"dst": str(destination)}
    gateway = _gateway(one.get("gw"), "routes.gw", destination)
    if gateway:
        found["gw"] = gateway
    for key in METRICS:
        number = one.get(key)
        if number is None:
            continue
        bits = 8 if key == "scope" else 32
        if type(number) is not int or not 0 <= number < 1 << bits:
            raise AddressError(f"routes.{key} of {destination} is {str(number)[:60]!r}, no number of {bits} bits")
        found[key] = number
    return found
