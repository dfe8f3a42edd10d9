"""Everything about one attachment as it is now: both ends, what was tracked of it, and its way to somewhere."""

import json
import socket
from typing import Any

from cnictl.core import tracked
from cnictl.core.cidr import format_address, parse_address
from cnictl.core.errors import CniError, Problem
from cnictl.core.process import run
from cnictl.node import ipam, namespaces
from cnictl.node.ipam import Listing, Row
from cnictl.node.lease_details import details
from cnictl.node.spec import is_ipv6
from cnictl.probe import icmp, service, trace

_SHOWN = 20
"""Connections that are listed."""


def choose(listing: Listing, who: str) -> list[Row]:
    """The rows of one attachment: by address, pod (`namespace/name` or `name`), or a container's id or its beginning.

    Raises Problem if there is none, or several.
    """
    named = [row for row in listing.rows if row.pod and who in (row.pod, row.pod.rpartition("/")[2])]
    found = ipam.attachments_of(listing.rows, named or ipam.find(listing.rows, who))
    owners = sorted({(row.container, row.ifname, row.pod) for row in found if row.container})
    if len(owners) > 1:
        listed = ", ".join(f"{pod or container[:13]} {ifname}" for container, ifname, pod in owners)
        raise Problem(f"{who!r} is several attachments: {listed}", "give an address")
    return found


def look(listing: Listing, rows: list[Row], to: str) -> dict[str, Any]:
    """All of it, as JSON values; `to` is where its way out leads. What can't be seen is left out."""
    record = next((row.record for row in rows if row.record is not None and row.record.host_veth), None)
    host_veth = next((row.host_veth for row in rows if row.host_veth), "")
    found: dict[str, Any] = {"leases": [details(listing, row) for row in rows]}
    if not host_veth:
        return found
    found["host_end"] = _first(["ip", "-j", "-d", "-s", "link", "show", "dev", host_veth])
    found["port"] = _first(["bridge", "-j", "-d", "link", "show", "dev", host_veth])
    netns = record.netns if record is not None else namespaces.path_behind(host_veth)
    if not netns:
        return found
    enter = ["nsenter", f"--net={netns}"]
    found["inside"] = _first([*enter, "ip", "-j", "-s", "address", "show", "dev", rows[0].ifname or "eth0"])
    found["routes"] = _json([*enter, "ip", "-j", "route"]) + _json([*enter, "ip", "-j", "-6", "route"])
    found["neighbours"] = [
        one for row in rows if row.address for one in _json(["ip", "-j", "neigh", "show", row.address])
    ]
    found["connections"] = _connections({row.packed for row in rows if row.address})
    source = next((row.address for row in rows if row.address and is_ipv6(row.address) == is_ipv6(to)), "")
    if source and to:
        bridge = record.bridge if record is not None else (found["port"] or {}).get("master", "")
        found["way"] = _way(source, to, netns, bridge)
    return found


def _way(source: str, to: str, netns: str, bridge: str) -> dict[str, Any]:
    """The kernel's routes inside and on the host, and the rules that an echo request meets; it sends one.

    `answered` is None where that is not known: a Service's address answers no echo request.
    """
    inside = _first(["nsenter", f"--net={netns}", "ip", "-j", "route", "get", to])
    here = _first(["ip", "-j", "route", "get", to, "from", source, "iif", bridge])

    def send() -> None:
        with icmp.echo_socket(netns, is_ipv6(to)) as sender:
            series = icmp.Series(sender, to, count=1)
            icmp.ping([series], 0.0, 0.5)
            answered.append(series.answered)

    answered: list[bool] = []
    try:
        rules = trace.rules_met(source, to, send)
    except (OSError, CniError):
        rules = []  # its namespace is gone
    way = {"to": to, "inside": inside, "on_the_host": here, "rules": rules, "answered": any(answered)}
    return way if way["answered"] else _way_to_service(way, source, to, netns)


def _way_to_service(way: dict[str, Any], source: str, to: str, netns: str) -> dict[str, Any]:
    """The same by the ports of a Service, if the address is one: nobody has it, so nothing answers its pings."""
    found = service.find(to)
    if found is None:
        return way
    tried: list[dict[str, Any]] = []

    def connect() -> None:
        tried.extend(service.try_ports(found, to, netns))

    first = next((port for port in found.ports if port.protocol in ("tcp", "udp")), None)
    try:
        rules = trace.rules_met(source, to, connect, (first.protocol, first.port)) if first else []
        if not tried:  # this kernel or its nft can't trace
            connect()
    except (OSError, CniError):
        rules = []  # its namespace is gone
    answered = True if any(port["state"] == "answers" for port in tried) else None
    as_service = {"ports": tried, "endpoints": list(found.endpoints)}
    return {**way, "rules": rules, "answered": answered, "service": as_service}


def _connections(packed: set[bytes]) -> list[dict[str, str]]:
    names = {socket.IPPROTO_TCP: "tcp", socket.IPPROTO_UDP: "udp", socket.IPPROTO_ICMP: "icmp"}
    found: list[dict[str, str]] = []
    try:
        for one in tracked.connections():
            if len(found) == _SHOWN:
                break
            if packed & {one.source, one.target, one.answering}:
                found.append(
                    {
                        "protocol": names.get(one.protocol, str(one.protocol)),
                        "from": format_address(one.source), "to": format_address(one.target),
                        "answered_by": format_address(one.answering),
                    }
                )  # fmt: skip
    except OSError:
        return []
    return found


def _json(argv: list[str]) -> list[dict[str, Any]]:
    done = run(argv, check=False)
    try:
        found = json.loads(done.stdout or "[]")
    except ValueError:
        return []
    return [one for one in found if one] if isinstance(found, list) else []


def _first(argv: list[str]) -> dict[str, Any] | None:
    return next(iter(_json(argv)), None)


def address_of(text: str) -> str:
    """An address as given, in its canonical form. Raises AddressError."""
    return format_address(parse_address(text))
