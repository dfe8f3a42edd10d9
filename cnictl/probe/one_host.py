"""Refuse the addresses that no single host has: multicast, broadcast, unspecified. Pure."""

import ipaddress
from collections.abc import Iterable

from cnictl.core.cidr import parse_address, parse_cidr
from cnictl.core.errors import UsageProblem


def refuse_group(address: str, pod_cidrs: Iterable[str] = (), is_broadcast: bool = False) -> None:
    """Raise UsageProblem for an address that no single host has.

    `pod_cidrs`: the pod CIDRs whose broadcast addresses are known. `is_broadcast`: whether the kernel's route says so.
    """
    if what := _kind(address, pod_cidrs) or ("a broadcast address" if is_broadcast else ""):
        raise UsageProblem(f"{address} is {what}: TO has to be the address of one host or pod")


def _kind(address: str, pod_cidrs: Iterable[str]) -> str:
    packed = parse_address(address)
    if not any(packed):
        return "the unspecified address"
    if ipaddress.ip_address(packed).is_multicast:
        return "a multicast address"
    if packed == b"\xff" * 4:
        return "the limited broadcast address"
    for cidr in map(parse_cidr, pod_cidrs):
        # a /31 has no broadcast address (RFC 3021), and neither has IPv6
        if cidr.bits == 32 and cidr.prefix <= 30 and packed == cidr.nth(cidr.last - cidr.first):
            return f"the broadcast address of {cidr}"
    return ""
