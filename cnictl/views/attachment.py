"""Everything about one attachment as it is now: both ends, what was tracked of it, and its way to somewhere."""

import json
import os
import socket
from typing import Any

from cnictl.core.cidr import format_address
from cnictl.core.errors import Problem, UsageProblem
from cnictl.core.process import run
from cnictl.node.addresses import lease_list
from cnictl.node.addresses.lease_list import Listing, Row
from cnictl.node.host import connections, namespaces
from cnictl.node.spec import pod_names
from cnictl.node.spec.node_spec import NodeSpec, is_ipv6, of_family
from cnictl.probe import icmp, service, trace
from cnictl.probe.targets import DEFAULT_EXTERNALS
from cnictl.views.lease_details import details

_SHOWN = 20
"""Connections that are listed."""
_PROTOCOLS = {
    socket.IPPROTO_TCP: "tcp", socket.IPPROTO_UDP: "udp", socket.IPPROTO_ICMP: "icmp", socket.IPPROTO_ICMPV6: "icmpv6",
    socket.IPPROTO_SCTP: "sctp",
}  # fmt: skip


def choose(listing: Listing, who: str) -> list[Row]:
    """The rows of one attachment: by address, pod (`namespace/name` or `name`), or a container's id or its beginning.

    Raises Problem if there is none, or several.
    """
    found = lease_list.attachments_of(listing.rows, lease_list.find(listing.rows, who))
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
    talk = _connections({row.packed for row in rows if row.address})
    found["connections"] = talk[:_SHOWN]
    found["more_connections"] = len(talk) - len(found["connections"])
    if to:
        source = next((row.address for row in rows if row.address and is_ipv6(row.address) == is_ipv6(to)), "")
        bridge = record.bridge if record is not None else (found["port"] or {}).get("master", "")
        found["way"] = _way(source, to, netns, bridge, talk)
    return found


def _way(source: str, to: str, netns: str, bridge: str, talk: list[dict[str, Any]]) -> dict[str, Any]:
    """The kernel's routes inside and on the host, and the rules that an echo request meets; it sends one.

    `answered` is None where that is not known: nothing could be sent, which `unasked` gives the reason of, or it is a
    Service's address, which answers no echo request. `connections` are those of `talk` that lead there and work.
    """
    way: dict[str, Any] = {"to": to, "asked": "ICMP echo request", "answered": None, "inside": None,
                           "on_the_host": None, "rules": [], "connections": working(talk, source, to)}  # fmt: skip
    if not source:
        return {**way, "unasked": f"this attachment has no {'IPv6' if is_ipv6(to) else 'IPv4'} address"}
    if not os.path.exists(netns):
        return {**way, "unasked": f"its network namespace {netns} is gone"}
    way["inside"] = _first(["nsenter", f"--net={netns}", "ip", "-j", "route", "get", to])
    way["on_the_host"] = _first(["ip", "-j", "route", "get", to, "from", source, "iif", bridge])
    series: list[icmp.Series] = []

    def send() -> None:
        with icmp.echo_socket(netns, is_ipv6(to)) as sender:
            series.append(icmp.Series(sender, to, count=1))
            icmp.ping(series[-1:], 0.0, 0.5)

    try:
        way["rules"] = trace.rules_met(source, to, send)
        if not series:  # this kernel or its nft can't trace
            send()
    except (OSError, Problem) as fault:
        return {**way, "unasked": str(fault)} if not series else way
    if series[0].send_error:
        return {**way, "unasked": f"the pod could not send: {series[0].send_error}"}
    way["answered"] = series[0].answered
    if series[0].refusals:
        way["refused"] = f"{series[0].refusals[-1].by} answers: {series[0].refusals[-1].words}"
    return way if way["answered"] else _way_to_service(way, source, to, netns)


def working(talk: list[dict[str, Any]], source: str, to: str) -> list[str]:
    """The protocols and ports there of connections that an address opened to another one, and that work: `tcp/443`.

    One that NAT sent on there counts with the port that it was sent on to.
    """
    found = []
    for one in talk:
        port = one["port"] if one["to"] == to else one["sent_on_to_port"] or one["port"]
        if one["works"] and port and one["from"] == source and to in (one["to"], one["answered_by"]):
            found.append(f"{one['protocol']}/{port}")
    return list(dict.fromkeys(found))


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
    except (OSError, Problem):
        rules = []  # its namespace is gone
    answered = True if any(port["state"] == "answers" for port in tried) else None
    as_service = {"ports": tried, "endpoints": list(found.endpoints)}
    return {**way, "rules": rules, "answered": answered, "service": as_service}


def _connections(packed: set[bytes]) -> list[dict[str, Any]]:
    """What the kernel tracks from and to these addresses: each entry says what was sent earlier, and what came back."""
    try:
        listed = [one for one in connections.connections() if packed & {one.source, one.target, one.answering}]
    except OSError:
        return []
    return list(map(_as_json, listed))


def _as_json(one: connections.Connection) -> dict[str, Any]:
    """A connection for programs. `works`: of TCP both sides talk, of others something came back."""
    return {
        "protocol": _PROTOCOLS.get(one.protocol, str(one.protocol)),
        "from": format_address(one.source),
        "to": format_address(one.target),
        "port": one.port or None,
        "answered_by": format_address(one.answering) if one.answered else None,
        "sent_on_to": format_address(one.answering) if one.answering not in (one.target, b"") else None,
        "sent_on_to_port": one.answering_port if one.answering_port != one.port else None,
        "works": one.assured if one.protocol == socket.IPPROTO_TCP else one.answered,
    }


def _json(argv: list[str]) -> list[dict[str, Any]]:
    done = run(argv, check=False)
    try:
        found = json.loads(done.stdout or "[]")
    except ValueError:
        return []
    return [one for one in found if one] if isinstance(found, list) else []


def _first(argv: list[str]) -> dict[str, Any] | None:
    return next(iter(_json(argv)), None)


def target(listing: Listing, rows: list[Row], to: str, spec: NodeSpec | None) -> str:
    """Return the address to look for the way to: that of `to`, by default one outside; empty for a pod without any.

    Raises UsageProblem.
    """
    like = next((row.address for row in rows if row.address), "")
    if to:
        return address_of(listing, to, like)
    outside = (*(spec.externals if spec is not None else ()), *DEFAULT_EXTERNALS)
    return of_family(outside, like) if like else ""


def address_of(listing: Listing, text: str, like: str) -> str:
    """The address that `text` is, or that a pod of this network has, of the family of `like` where it has one.

    Raises UsageProblem.
    """
    packed = pod_names.address_in(text)
    if packed:
        return format_address(packed)
    try:
        addresses = [row.address for row in choose(listing, text) if row.address]
    except Problem:
        addresses = []
    if not addresses:
        message = f"--to {text}: is neither an address nor a pod or container of this node"
        raise UsageProblem(message, "cnictl pod 10.244.0.12 --to 10.244.1.7")
    return next((one for one in addresses if like and is_ipv6(one) == is_ipv6(like)), addresses[0])
