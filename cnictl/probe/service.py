"""Recognize the address of a Service: rules forward its connections to endpoints, and nothing answers its pings.

The rules come from kube-proxy (iptables-legacy, iptables-nft, nftables) or from an operator. If connections are
forwarded without rules (eBPF, IPVS), the connections that the kernel tracks show it.
"""

import json
import re
import select
import shlex
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from cnictl.core.cidr import format_address, parse_address
from cnictl.core.errors import Problem
from cnictl.core.process import run
from cnictl.node.host import connections
from cnictl.node.spec.node_spec import is_ipv6
from cnictl.probe.netns_thread import inside

Json = dict[str, Any]
_DROPS = frozenset(("REJECT", "DROP", "reject", "drop"))
_SENDS_ON = frozenset(("DNAT", "REDIRECT"))
_WAIT = 2.0
"""Seconds to wait for an answer of a Service's port."""
_TRIED = 5
"""Ports to try; a Service may have many."""


@dataclass(frozen=True, order=True)
class Port:
    """A port of a Service."""

    protocol: str
    port: int
    has_endpoints: bool = True
    """Whether rules forward its connections; False if they reject them because no pod serves the port."""


@dataclass(frozen=True)
class Service:
    """An address whose connections are forwarded to endpoints."""

    ports: tuple[Port, ...]
    """The ports that rules name; empty if only tracked connections show the Service."""
    endpoints: tuple[str, ...]
    """The hosts that answer the tracked connections to it."""


def find(address: str) -> Service | None:
    """Return the Service at an address, from this host's rules and tracked connections; None if there is none."""
    ports = {*_of_iptables(address), *of_nftables(_ruleset(), address)}
    served = {(port.protocol, port.port) for port in ports if port.has_endpoints}
    kept = {port for port in ports if port.has_endpoints or (port.protocol, port.port) not in served}
    endpoints = _answering(address)
    return Service(tuple(sorted(kept)), endpoints) if kept or endpoints else None


def try_ports(service: Service, address: str, netns: str) -> list[Json]:
    """Connect to the ports of a Service from the namespace at path `netns`; return the state of each."""
    return [
        {"protocol": port.protocol, "port": port.port, "state": _tried(port, address, netns)}
        for port in service.ports[:_TRIED]
    ]


def _tried(port: Port, address: str, netns: str) -> str:
    """Return `answers`, `refused`, `no answer` or `no endpoints`; `unknown` if the protocol requires no answer."""
    if not port.has_endpoints:
        return "no endpoints"
    if port.protocol not in ("tcp", "udp"):
        return "unknown"
    kind = socket.SOCK_STREAM if port.protocol == "tcp" else socket.SOCK_DGRAM
    family = socket.AF_INET6 if is_ipv6(address) else socket.AF_INET
    with inside(netns, lambda: socket.socket(family, kind | socket.SOCK_NONBLOCK)) as asking:
        try:
            asking.connect_ex((address, port.port))
            if port.protocol == "udp":
                asking.send(b"\0")
                readable, _, _ = select.select([asking], [], [], _WAIT / 4)
                return "answers" if readable and asking.recv(1) is not None else "unknown"
            _, connected, _ = select.select([], [asking], [], _WAIT)
            if not connected:
                return "no answer"
            failed = asking.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            return "refused" if failed else "answers"
        except OSError:
            return "refused"


def of_iptables(saved: str, address: str) -> Iterator[Port]:
    """Yield the ports of `address` whose connections iptables rules forward or reject.

    `saved` is the output of `iptables-save`.
    """
    rules = [_Rule(shlex.split(line), table) for table, line in _rule_lines(saved)]
    leading = _leading(((rule.table, rule.chain), (rule.table, rule.target)) for rule in rules)
    for rule in rules:
        if rule.destination != parse_address(address) or not rule.ports:
            continue
        sends_on = rule.table == "nat" and (rule.target in _SENDS_ON or (rule.table, rule.target) in leading)
        if sends_on or rule.target in _DROPS:
            for number in rule.ports:
                yield Port(rule.protocol, number, sends_on)


def _rule_lines(saved: str) -> Iterator[tuple[str, str]]:
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif line.startswith("-A "):
            yield table, line


class _Rule:
    """The parts of an iptables rule that matter here."""

    def __init__(self, words: list[str], table: str) -> None:
        options = dict(pairwise(words))
        self.table, self.chain = table, options.get("-A", "")
        self.target = options.get("-j") or options.get("-g", "")
        self.protocol = options.get("-p", "")
        self.destination = _host(options["-d"]) if "-d" in options and "!" not in words else None
        listed = options.get("--dport") or options.get("--dports", "")
        self.ports = [int(number) for number in re.findall(r"(?<![\d:])\d+(?![\d:])", listed)]


def _host(text: str) -> bytes | None:
    """Return a single address, packed; None for a larger prefix."""
    address, _, prefix = text.partition("/")
    return parse_address(address) if prefix in ("", "32", "128") else None


def of_nftables(ruleset: Iterable[Json], address: str) -> Iterator[Port]:
    """Yield the ports of `address` whose connections nftables rules and maps forward or reject.

    `ruleset` is the listing of `nft -j`.
    """
    entries = list(ruleset)
    rules = [entry["rule"] for entry in entries if "rule" in entry]
    jumps: list[tuple[Any, Any]] = []
    for rule in rules:
        here = (rule["family"], rule["table"], rule["chain"])
        jumps += [
            (here, target if target in _SENDS_ON else (rule["family"], rule["table"], target))
            for target in _targets(rule["expr"])
        ]
        for name in re.findall(r'"@([\w.-]+)"', json.dumps(rule["expr"])):
            jumps += [(here, target) for target in _of_map(entries, rule["family"], rule["table"], name)]
    leading = _leading(jumps)
    for entry in entries:
        map_ = entry.get("map", {})
        for element in map_.get("elem") or ():
            key, verdict = element if isinstance(element, list) and len(element) == 2 else (None, None)
            port = _port_of(key, address)
            if port is not None:
                to = [(map_["family"], map_["table"], target) for target in _targets(verdict)]
                yield Port(*port, any(target in leading for target in to))
    for rule in rules:
        matched = {_field(part): part["match"]["right"] for part in rule["expr"] if _is_equal(part)}
        for protocol in ("tcp", "udp", "sctp"):
            number = matched.get((protocol, "dport"))
            if address in (matched.get(("ip", "daddr")), matched.get(("ip6", "daddr"))) and isinstance(number, int):
                to = [(rule["family"], rule["table"], target) for target in _targets(rule["expr"])]
                if "DNAT" in _targets(rule["expr"]) or any(target in leading for target in to):
                    yield Port(protocol, number)


def _targets(value: Any) -> list[str]:
    """Return the chains that an expression or a verdict leads to, and `DNAT` if it contains a DNAT or redirect."""
    if isinstance(value, list):
        return [target for part in value for target in _targets(part)]
    if not isinstance(value, dict):
        return []
    chains = [str(value[kind]["target"]) for kind in ("jump", "goto") if isinstance(value.get(kind), dict)]
    chains += ["DNAT"] if "dnat" in value or "redirect" in value else []
    return chains + [target for part in value.values() for target in _targets(part)]


def _of_map(entries: Iterable[Json], family: str, table: str, name: str) -> Iterator[tuple[str, str, str]]:
    for entry in entries:
        map_ = entry.get("map", {})
        if (map_.get("family"), map_.get("table"), map_.get("name")) == (family, table, name):
            yield from ((family, table, target) for target in _targets(map_.get("elem") or []))


def _port_of(key: Any, address: str) -> tuple[str, int] | None:
    """Return protocol and port of a map's key that consists of `address`, a protocol and a port; None for others."""
    parts = key.get("concat", []) if isinstance(key, dict) else []
    if len(parts) == 3 and parts[0] == address and isinstance(parts[1], str) and isinstance(parts[2], int):
        return parts[1], parts[2]
    return None


def _is_equal(part: Json) -> bool:
    return isinstance(part.get("match"), dict) and part["match"].get("op") == "=="


def _field(part: Json) -> tuple[str, str]:
    left = part["match"].get("left", {})
    payload = left.get("payload", {}) if isinstance(left, dict) else {}
    return str(payload.get("protocol", "")), str(payload.get("field", ""))


def _leading(jumps: Iterable[tuple[Any, Any]]) -> set[Any]:
    """Return the chains from which one or more jumps lead to a rule that forwards connections."""
    pairs = list(jumps)
    leading: set[Any] = set()
    while True:
        newly_leading = {
            chain for chain, target in pairs
            if target in leading or (target[-1] if isinstance(target, tuple) else target) in _SENDS_ON
        } - leading  # fmt: skip
        if not newly_leading:
            return leading
        leading |= newly_leading


def _of_iptables(address: str) -> Iterator[Port]:
    six = "6" if is_ipv6(address) else ""
    for program in (f"ip{six}tables-save", f"ip{six}tables-legacy-save"):
        try:
            yield from of_iptables(run([program], check=False).stdout, address)
        except (Problem, ValueError):
            continue  # the program is missing, or a rule can't be split into words


def _ruleset() -> list[Json]:
    try:
        listed: list[Json] = json.loads(run(["nft", "-j", "list", "ruleset"], check=False).stdout or "{}")["nftables"]
    except (Problem, ValueError, KeyError):
        return []
    return listed


def _answering(address: str) -> tuple[str, ...]:
    packed = parse_address(address)
    try:
        return tuple(
            dict.fromkeys(
                format_address(connection.answering)
                for connection in connections.connections(sent_on=True)
                if connection.target == packed and connection.answering not in (packed, b"")
            )
        )
    except OSError:
        return ()
