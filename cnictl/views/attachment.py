"""Collect what `cnictl pod` shows about one attachment: both ends, tracked connections, and the path to an address."""

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
"""The maximum number of connections listed."""
_PROTOCOLS = {
    socket.IPPROTO_TCP: "tcp", socket.IPPROTO_UDP: "udp", socket.IPPROTO_ICMP: "icmp", socket.IPPROTO_ICMPV6: "icmpv6",
    socket.IPPROTO_SCTP: "sctp",
}  # fmt: skip


def choose(listing: Listing, who: str) -> list[Row]:
    """Return the rows of one attachment.

    `who` is an address, a pod (`namespace/name` or `name`), or the beginning of a container's id. Raises Problem if no
    attachment or more than one matches.
    """
    matching = lease_list.attachments_of(listing.rows, lease_list.find(listing.rows, who))
    owners = sorted({(row.container, row.ifname, row.pod) for row in matching if row.container})
    if len(owners) > 1:
        listed = ", ".join(f"{pod or container[:13]} {ifname}" for container, ifname, pod in owners)
        raise Problem(f"{who!r} matches several attachments: {listed}", "give an address")
    return matching


def collect(listing: Listing, rows: list[Row], to: str) -> dict[str, Any]:
    """Return the attachment as JSON values. `to` is the address to test. Values that can't be read are left out."""
    record = next((row.record for row in rows if row.record is not None and row.record.host_veth), None)
    host_veth = next((row.host_veth for row in rows if row.host_veth), "")
    shown: dict[str, Any] = {"leases": [details(listing, row) for row in rows]}
    if not host_veth:
        return shown
    shown["host_end"] = _first(["ip", "-j", "-d", "-s", "link", "show", "dev", host_veth])
    shown["port"] = _first(["bridge", "-j", "-d", "link", "show", "dev", host_veth])
    netns = record.netns if record is not None else namespaces.path_behind(host_veth)
    if not netns:
        return shown
    enter = ["nsenter", f"--net={netns}"]
    shown["inside"] = _first([*enter, "ip", "-j", "-s", "address", "show", "dev", rows[0].ifname or "eth0"])
    shown["routes"] = _json([*enter, "ip", "-j", "route"]) + _json([*enter, "ip", "-j", "-6", "route"])
    shown["neighbours"] = [
        entry for row in rows if row.address for entry in _json(["ip", "-j", "neigh", "show", row.address])
    ]
    tracked = _connections({row.packed for row in rows if row.address})
    shown["connections"] = tracked[:_SHOWN]
    shown["more_connections"] = len(tracked) - len(shown["connections"])
    if to:
        source = next((row.address for row in rows if row.address and is_ipv6(row.address) == is_ipv6(to)), "")
        bridge = record.bridge if record is not None else (shown["port"] or {}).get("master", "")
        shown["way"] = _way(source, to, netns, bridge, tracked)
    return shown


def _way(source: str, to: str, netns: str, bridge: str, tracked: list[dict[str, Any]]) -> dict[str, Any]:
    """Send an echo request; return the kernel's routes in the pod and on the host, and the rules that it meets.

    `answered` is None if it is unknown: either nothing could be sent (`unasked` is the reason), or `to` is a Service
    address, which answers no echo requests. `connections` are those of `tracked` that lead to `to` and work.
    """
    way: dict[str, Any] = {"to": to, "asked": "ICMP echo request", "answered": None, "inside": None,
                           "on_the_host": None, "rules": [], "connections": working(tracked, source, to)}  # fmt: skip
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


def working(tracked: list[dict[str, Any]], source: str, to: str) -> list[str]:
    """Return protocol and port, such as `tcp/443`, of each working connection that `source` opened to `to`.

    If NAT forwarded a connection to `to`, its port is the port after NAT.
    """
    ports = []
    for entry in tracked:
        port = entry["port"] if entry["to"] == to else entry["sent_on_to_port"] or entry["port"]
        if entry["works"] and port and entry["from"] == source and to in (entry["to"], entry["answered_by"]):
            ports.append(f"{entry['protocol']}/{port}")
    return list(dict.fromkeys(ports))


def _way_to_service(way: dict[str, Any], source: str, to: str, netns: str) -> dict[str, Any]:
    """Add the state of a Service's ports to `way` if `to` is a Service address, which answers no pings."""
    target = service.find(to)
    if target is None:
        return way
    tried: list[dict[str, Any]] = []

    def connect() -> None:
        tried.extend(service.try_ports(target, to, netns))

    first = next((port for port in target.ports if port.protocol in ("tcp", "udp")), None)
    try:
        rules = trace.rules_met(source, to, connect, (first.protocol, first.port)) if first else []
        if not tried:  # this kernel or its nft can't trace
            connect()
    except (OSError, Problem):
        rules = []  # the pod's namespace is gone
    answered = True if any(port["state"] == "answers" for port in tried) else None
    as_service = {"ports": tried, "endpoints": list(target.endpoints)}
    return {**way, "rules": rules, "answered": answered, "service": as_service}


def _connections(packed: set[bytes]) -> list[dict[str, Any]]:
    """Return the connections from and to these addresses that the kernel tracks."""
    try:
        tracked = connections.connections()
        return [_as_json(entry) for entry in tracked if packed & {entry.source, entry.target, entry.answering}]
    except OSError:
        return []


def _as_json(entry: connections.Connection) -> dict[str, Any]:
    """Return a connection as JSON values. TCP works if both sides talk; other protocols, if a reply came back."""
    return {
        "protocol": _PROTOCOLS.get(entry.protocol, str(entry.protocol)),
        "from": format_address(entry.source),
        "to": format_address(entry.target),
        "port": entry.port or None,
        "answered_by": format_address(entry.answering) if entry.answered else None,
        "sent_on_to": format_address(entry.answering) if entry.answering not in (entry.target, b"") else None,
        "sent_on_to_port": entry.answering_port if entry.answering_port != entry.port else None,
        "works": entry.assured if entry.protocol == socket.IPPROTO_TCP else entry.answered,
    }


def _json(argv: list[str]) -> list[dict[str, Any]]:
    done = run(argv, check=False)
    try:
        entries = json.loads(done.stdout or "[]")
    except ValueError:
        return []
    return [entry for entry in entries if entry] if isinstance(entries, list) else []


def _first(argv: list[str]) -> dict[str, Any] | None:
    return next(iter(_json(argv)), None)


def target(listing: Listing, rows: list[Row], to: str, spec: NodeSpec | None) -> str:
    """Return the address to test: `to`, or by default an external address; empty if the pod has no address.

    Raises UsageProblem.
    """
    like = next((row.address for row in rows if row.address), "")
    if to:
        return address_of(listing, to, like)
    outside = (*(spec.externals if spec is not None else ()), *DEFAULT_EXTERNALS)
    return of_family(outside, like) if like else ""


def address_of(listing: Listing, text: str, like: str) -> str:
    """Return `text` if it is an address, or else the address of the pod it names, preferably of the family of `like`.

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
        message = f"--to {text}: not an address, and no pod or container on this node matches"
        raise UsageProblem(message, "cnictl pod 10.244.0.12 --to 10.244.1.7")
    return next((address for address in addresses if like and is_ipv6(address) == is_ipv6(like)), addresses[0])
