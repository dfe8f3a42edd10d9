"""ADD's result in the shape of the requested CNI version.

Spec 1.1.0 section 5; the older shapes: SPEC.md of releases 0.2.0 (`ip4`), 0.4.0 (`ips[].version`) and 1.0.0.
"""

from cnictl.core.errors import INCOMPATIBLE_VERSION, INVALID_CONFIG, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SUPPORTED_VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")

# the first version with the verb
_SINCE = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}


def check_version(version: str, verb: str) -> None:
    """Raise CniError 1 if the version isn't supported, or doesn't have the verb."""
    if version not in SUPPORTED_VERSIONS:
        raise CniError(
            INCOMPATIBLE_VERSION,
            f"cniVersion {version!r} is not supported",
            f"supported: {', '.join(SUPPORTED_VERSIONS)}",
        )
    since = _SINCE.get(verb, SUPPORTED_VERSIONS[0])
    if SUPPORTED_VERSIONS.index(version) < SUPPORTED_VERSIONS.index(since):
        raise CniError(INCOMPATIBLE_VERSION, f"cniVersion {version} has no {verb}; {since} introduced it")


def objects(previous: "dict[str, Any] | None", key: str, named_by: str) -> "list[dict[str, Any]]":
    """Return prevResult's list `key` of objects with a string `named_by`. Raises CniError 7 if it is malformed."""
    listed = (previous or {}).get(key) or []
    whole = isinstance(listed, list) and all(
        isinstance(entry, dict) and isinstance(entry.get(named_by), str) for entry in listed
    )
    if not whole:
        raise CniError(INVALID_CONFIG, f"prevResult.{key} is not a list of objects with `{named_by}`")
    return list(listed)


def shape(
    version: str, interfaces: "list[Any]", ips: "list[Any]", routes: "list[Any]", dns: object
) -> "dict[str, Any]":
    """Return the result in the shape of `version`. The parts are given in the 1.1.0 shape."""
    if version in ("0.1.0", "0.2.0"):
        return _shape_0_2(version, ips, routes, dns)
    result: dict[str, Any] = {"cniVersion": version, "interfaces": interfaces, "ips": ips, "routes": routes, "dns": dns}
    if version != "1.1.0":
        result["interfaces"] = [
            {key: interface[key] for key in ("name", "mac", "sandbox") if key in interface} for interface in interfaces
        ]
        result["routes"] = [{key: route[key] for key in ("dst", "gw") if key in route} for route in routes]
    if version.startswith("0."):
        result["ips"] = [{"version": _family(ip["address"]), **ip} for ip in ips]
    return result


def _shape_0_2(version: str, ips: "list[Any]", routes: "list[Any]", dns: object) -> "dict[str, Any]":
    result: dict[str, Any] = {"cniVersion": version}
    for ip in ips:
        family = _family(ip["address"])
        part = {"ip": ip["address"], "routes": [route for route in routes if _family(route["dst"]) == family]}
        if ip.get("gateway"):
            part["gateway"] = ip["gateway"]
        result.setdefault(f"ip{family}", part)
    result["dns"] = dns
    return result


def _family(address: str) -> str:
    return "6" if ":" in address else "4"
