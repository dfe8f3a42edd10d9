"""Read the keys that few configurations have: VLANs, port flags, and what a runtime requests for one pod.

Names, meanings and defaults are the reference bridge's (cni.dev, plugins/current/main/bridge) and the conventions'
(containernetworking/cni, CONVENTIONS.md).
"""

from cnictl.core.cidr import parse_interface, unmapped
from cnictl.core.conf import fields
from cnictl.core.conf.netconf import NetConf
from cnictl.core.errors import INVALID_CONFIG, CniError
from cnictl.core.leases.pool import unavailable
from cnictl.core.netlink.rtnetlink import parse_mac

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LAST_VLAN = 4094
"""IEEE 802.1Q: 4095 is reserved."""

_ARGS_KEYS = frozenset(("cni",))
_TRUNK_KEYS = frozenset(("id", "minID", "maxID"))


def read_unusual(conf: NetConf, document: "dict[str, Any]") -> None:
    """Fill in the values of these keys. Raises CniError 7 naming key and value."""
    conf.force_address = fields.flag(document, "forceAddress", False)
    conf.promiscuous = fields.flag(document, "promiscMode", False)
    conf.isolated = fields.flag(document, "portIsolation", False)
    conf.mac_check = fields.flag(document, "macspoofchk", False)
    conf.dad = fields.flag(document, "enabledad", False)
    conf.container_down = fields.flag(document, "disableContainerInterface", False)
    conf.keep_default_vlan = fields.flag(document, "preserveDefaultVlan", False)
    conf.vlan = fields.number(document, "vlan", 0, LAST_VLAN) or 0
    conf.vlan_trunk = _trunk(fields.members(document, "vlanTrunk"))
    args = fields.spelled(fields.member(document, "args"), _ARGS_KEYS)
    args = fields.spelled(fields.member(args, "cni", "args.cni"), fields.RUNTIME_KEYS)
    runtime = fields.spelled(fields.member(document, "runtimeConfig"), fields.RUNTIME_KEYS)
    for given, key in (
        (args, "args.cni.mac"),
        (runtime, "runtimeConfig.mac"),
    ):  # both are checked; the second one counts
        mac = _mac(given, key)
        if mac:
            conf.mac, conf.mac_key = mac, key
    conf.wanted = tuple(
        dict.fromkeys([*_requested(conf, args, "args.cni.ips"), *_requested(conf, runtime, "runtimeConfig.ips")])
    )


def _trunk(listed: "list[Any]") -> list[tuple[int, int]]:
    spans = []
    for place, entry in enumerate(listed):
        subject = f"vlanTrunk[{place}]"
        if not isinstance(entry, dict):
            raise CniError(
                INVALID_CONFIG, f"{subject}: {fields.show(entry)} is not an object with `id`, or `minID` and `maxID`"
            )
        entry = fields.spelled(entry, _TRUNK_KEYS)
        first = fields.number(entry, "minID", 1, LAST_VLAN, f"{subject}.minID")
        last = fields.number(entry, "maxID", 1, LAST_VLAN, f"{subject}.maxID")
        if (first is None) != (last is None):
            missing = "minID" if first is None else "maxID"
            raise CniError(INVALID_CONFIG, f"{subject}.{missing}: missing; a span needs both minID and maxID")
        if first is not None and last is not None:
            if last < first:
                raise CniError(INVALID_CONFIG, f"{subject}.maxID: {last} is below minID {first}")
            spans.append((first, last))
        single = fields.number(entry, "id", 1, LAST_VLAN, f"{subject}.id")
        if single is not None:
            spans.append((single, single))
    return _merged(spans)


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the spans in order; those that touch or overlap are joined."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def refuse_contradictions(conf: NetConf) -> None:
    """Raise CniError 7 naming keys that exclude each other."""
    if conf.promiscuous and conf.hairpin:
        raise CniError(
            INVALID_CONFIG, "promiscMode: true and hairpinMode: true exclude each other", "set one of them to false"
        )
    if conf.container_down and conf.ipam_type:
        raise CniError(
            INVALID_CONFIG,
            f"disableContainerInterface: true, but an interface that is down can't use ipam {conf.ipam_type}",
            "remove ipam and subnet, or disableContainerInterface",
        )
    if any(first <= conf.vlan <= last for first, last in conf.vlan_trunk):
        raise CniError(
            INVALID_CONFIG,
            f"vlanTrunk contains {conf.vlan}, which vlan makes untagged",
            f"leave {conf.vlan} out of vlanTrunk, or remove vlan",
        )


def _mac(given: "dict[str, Any]", subject: str) -> bytes:
    written = fields.text(given, "mac", subject)
    try:
        return parse_mac(written) if written else b""
    except ValueError as error:
        raise CniError(INVALID_CONFIG, f"{subject}: {error}") from None


def _requested(conf: NetConf, given: "dict[str, Any]", subject: str) -> list[bytes]:
    """Return the requested addresses; their prefix lengths are optional and ignored, as the subnet determines them."""
    addresses = []
    for place, written in enumerate(fields.members(given, "ips", subject)):
        name = f"{subject}[{place}]"
        if not isinstance(written, str):
            raise CniError(INVALID_CONFIG, f"{name}: {fields.show(written)} is not a string")
        packed = fields.cidr(written, name, parse_interface).packed if "/" in written else fields.address(written, name)
        packed = unmapped(packed)
        if conf.sets and not any(ranges.holds(packed) for ranges in conf.sets):
            shown = "; ".join(map(str, conf.sets))
            raise CniError(
                INVALID_CONFIG,
                f"{name}: {written} is not an address for pods of {shown}",
                unavailable(conf.sets, packed),
            )
        addresses.append(packed)
    return addresses
