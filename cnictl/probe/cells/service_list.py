"""List the Services that kube-proxy has rules for on this host, in each of its modes: iptables, nftables, IPVS.

Sources: kubernetes pkg/proxy (chain KUBE-SERVICES, map service-ips, comments `NAMESPACE/NAME:PORT`); Linux
net/netfilter/ipvs/ip_vs_ctl.c, the format of /proc/net/ip_vs.
"""

import json
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from cnictl.core import durable
from cnictl.core.cidr import AddressError, format_address, parse_address
from cnictl.core.errors import Problem
from cnictl.core.process import run
from cnictl.node.spec.node_spec import is_ipv6

Json = dict[str, Any]
_CHAIN, _TABLE, _MAP = "KUBE-SERVICES", "kube-proxy", "service-ips"
_IPVS, _LARGEST = "/proc/net/ip_vs", 1 << 22


@dataclass(frozen=True)
class ServicePort:
    """A port of a Service that has endpoints."""

    address: str
    protocol: str
    port: int
    name: str = ""
    """`NAMESPACE/NAME`; empty if the rules do not name it (IPVS)."""


def services() -> list[ServicePort]:
    """Return the Services whose connections this host's rules forward, each port once."""
    by_port: dict[tuple[str, str, int], ServicePort] = {}
    for service in (*_by_iptables(), *_by_nftables(), *_by_ipvs()):
        by_port.setdefault((service.address, service.protocol, service.port), service)
    return list(by_port.values())


def preferred(
    services: Iterable[ServicePort], protocol: str, ipv6: bool, name: str, port: int = 0
) -> ServicePort | None:
    """Return the Service called `name`, else any other of the protocol, family and, if given, port."""
    fitting = [s for s in services if s.protocol == protocol and is_ipv6(s.address) == ipv6 and port in (0, s.port)]
    return next((service for service in fitting if service.name == name), next(iter(fitting), None))


def of_iptables(saved: str) -> Iterator[ServicePort]:
    """Yield the Services in the output of `iptables-save`."""
    for line in saved.splitlines():
        if not line.startswith(f"-A {_CHAIN} "):
            continue
        words = shlex.split(line)
        options = dict(pairwise(words))
        address, _, prefix = options.get("-d", "").partition("/")
        target, port = options.get("-j", ""), options.get("--dport", "")
        if prefix in ("32", "128") and port.isdecimal() and target.startswith("KUBE-SVC-") and "!" not in words:
            name = options.get("--comment", "").partition(" ")[0].partition(":")[0]
            yield ServicePort(address, options.get("-p", ""), int(port), name)


def of_nftables(ruleset: Iterable[Json]) -> Iterator[ServicePort]:
    """Yield the Services in the listing of `nft -j`."""
    for entry in ruleset:
        map_ = entry.get("map", {})
        if (map_.get("table"), map_.get("name")) != (_TABLE, _MAP):
            continue
        for element in map_.get("elem") or ():
            key, verdict = element if isinstance(element, list) and len(element) == 2 else ({}, {})
            parts = key.get("concat", []) if isinstance(key, dict) else []
            chain = str(((verdict or {}).get("goto") or {}).get("target", "")) if isinstance(verdict, dict) else ""
            if len(parts) == 3 and isinstance(parts[2], int) and chain.startswith("service-"):
                name = "/".join(chain.partition("-")[2].partition("-")[2].split("/")[:2])
                yield ServicePort(str(parts[0]), str(parts[1]), parts[2], name)


def of_ipvs(text: str) -> Iterator[ServicePort]:
    """Yield the Services with at least one endpoint in the content of /proc/net/ip_vs."""
    service: ServicePort | None = None
    for line in text.splitlines():
        match = re.match(r"(TCP|UDP)\s+(\S+):([0-9A-F]{4})\s", line)
        if match:
            address = _ipvs_address(match[2])
            service = ServicePort(address, match[1].lower(), int(match[3], 16)) if address else None
        elif line.startswith("  -> ") and service is not None:
            yield service
            service = None


def _ipvs_address(text: str) -> str:
    try:
        packed = parse_address(text[1:-1]) if text.startswith("[") else bytes.fromhex(text)
        return format_address(packed)
    except (AddressError, ValueError):
        return ""


def _by_iptables() -> Iterator[ServicePort]:
    for program in ("iptables-save", "ip6tables-save", "iptables-legacy-save", "ip6tables-legacy-save"):
        try:
            yield from of_iptables(run([program], check=False).stdout)
        except (Problem, ValueError):
            continue  # the program is missing, or a rule can't be split into words


def _by_nftables() -> Iterator[ServicePort]:
    for family in ("ip", "ip6"):
        try:
            listed = run(["nft", "-j", "list", "map", family, _TABLE, _MAP], check=False).stdout
            yield from of_nftables(json.loads(listed or "{}").get("nftables", []))
        except (Problem, ValueError):
            continue


def _by_ipvs() -> Iterator[ServicePort]:
    try:
        yield from of_ipvs(durable.contents(_IPVS, _LARGEST).decode("ascii", "replace"))
    except OSError:
        return  # the kernel has no IPVS, or has not loaded it
