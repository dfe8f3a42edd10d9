"""Follow one request through this host: the kernel's trace with the routes, neighbours and connection around it."""

import json
import socket
from collections.abc import Callable
from functools import cache

from cnictl.core import sysctl
from cnictl.core.cidr import format_address, parse_address
from cnictl.core.errors import Problem
from cnictl.core.process import run
from cnictl.node.host import connections, neighbours, route_lookup
from cnictl.node.host.route_lookup import Packet
from cnictl.node.spec.node_spec import is_ipv6
from cnictl.probe import packet_path, trace
from cnictl.probe.answer import TOO_BIG, UNSENT, Answer
from cnictl.probe.ends import Origin, Target
from cnictl.probe.netns_thread import inside
from cnictl.probe.packet_path import ANSWER, CONNECTION, NEIGHBOUR, NOTE, REPLY, REQUEST, ROUTE, Sources, Step
from cnictl.probe.place import as_target
from cnictl.probe.trace import Drop

_PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP, "icmp": socket.IPPROTO_ICMP}


def follow(source: Origin, to: Target, send: Callable[[], Answer]) -> list[Step]:
    """Return the steps of the request that `send` sends, in order, and its outcome. The step that drops it comes last.

    Raises Problem if this kernel or its nft can't trace.
    """
    own = source.source(to.address, to.scope)
    place = to.place
    fate: list[Answer] = []
    tables = packet_path.tables(own, to.address, place.protocol, place.port) if own else ()
    events = list(trace.traced(tables, lambda: fate.append(send()))) if tables else []
    if not fate:
        fate.append(send())
    after = [*_untraced_rules(to.address), *(_tracked(own, to) if own else ()), Step(REPLY, ANSWER, _fate(fate[0]))]
    if tables and not events and fate[0].state not in (UNSENT, TOO_BIG):
        raise Problem("the kernel's trace shows no packet of the request", _untraceable())
    return packet_path.ordered(_inside(source, to), packet_path.steps(events, _sources()), after)


def sent_on_to(source: Origin, to: Target, send: Callable[[], object]) -> tuple[str, int]:
    """Return the address and port to which this host's rules forward a request; the target's own if they do not.

    Return an empty address and port 0 if this kernel or its nft can't trace.
    """
    own = source.source(to.address, to.scope)
    if not own:
        return "", 0
    tables = packet_path.tables(own, to.address, to.place.protocol, to.place.port)
    return packet_path.sent_on_to(list(trace.traced(tables, send)))


def find_drop(source: Origin, to: Target, send: Callable[[], object]) -> Drop | None:
    """Return the rule or policy of this host that drops or rejects the request that `send` sends, or its answer.

    None if no nftables rule does, or if this kernel or its nft can't trace.
    """
    own = source.source(to.address, to.scope)
    tables = packet_path.tables(own, to.address, to.place.protocol, to.place.port) if own else ()
    for event in trace.traced(tables, send) if tables else ():
        if event.drops:
            return trace.drop_of(event)
    return None


def _fate(answer: Answer) -> str:
    """Return the outcome of the request in words."""
    by = f" by {answer.by}" if answer.by else ""
    took = f" after {answer.seconds * 1000:.3f} ms" if answer.came else ""
    return f"{answer.state}{by}{took}" + (f": {answer.words}" if answer.words else "")


def _untraced_rules(address: str) -> list[Step]:
    """Return a note if iptables-legacy has rules, which the kernel's trace does not cover."""
    tables = trace.legacy_tables(is_ipv6(address))
    if not tables:
        return []
    program = "ip6tables-legacy" if is_ipv6(address) else "iptables-legacy"
    return [Step(REQUEST, NOTE, f"the kernel does not trace the rules of {program} (tables {', '.join(tables)})")]


def _untraceable() -> str:
    """Return why nothing was traced."""
    try:
        run(["nft", "list", "tables"])
    except Problem as problem:
        return f"--trace needs nft: {problem.message}"
    return "the request did not leave the pod, or this kernel has no packet trace (CONFIG_NF_TABLES_INET)"


def _inside(source: Origin, to: Target) -> list[Step]:
    """Return the route and the neighbour in the sender's own namespace, if it is not this host's."""
    if source.is_host:
        return []

    def steps_inside() -> list[Step]:
        route = route_lookup.look_up(Packet(to.address, oif=to.scope))
        steps = [Step(REQUEST, f"{ROUTE} in the pod", packet_path.route_words(route))]
        hop = route.gateway or to.address
        if route.dev and not route.errno and route.kind == route_lookup.UNICAST:
            steps.append(Step(REQUEST, f"{NEIGHBOUR} in the pod", f"{hop}: {_neighbour(hop, route.dev)}"))
        return steps

    return inside(source.pod.netns, steps_inside)


def _sources() -> Sources:
    return Sources(_hooks(), cache(trace.rule_text), route_lookup.look_up, _neighbour, _unforwarded)


def _hooks() -> dict[tuple[str, str, str], str]:
    """Return the hook of every base chain of nftables."""
    listed = json.loads(run(["nft", "-j", "list", "chains"], check=False).stdout or "{}").get("nftables", [])
    chains = [entry["chain"] for entry in listed if "hook" in entry.get("chain", {})]
    return {(chain["family"], chain["table"], chain["name"]): chain["hook"] for chain in chains}


def _neighbour(address: str, link: str) -> str:
    try:
        return neighbours.in_words(address, link)
    except OSError:
        return "not known"


def _unforwarded(link: str, ipv6: bool) -> str:
    of_ipv4 = ("net/ipv4/ip_forward", f"net/ipv4/conf/{link}/forwarding")
    for name in ("net/ipv6/conf/all/forwarding",) if ipv6 else of_ipv4:
        if sysctl.read(name) == "0":
            return f"{name.replace('/', '.')} is 0"
    return ""


def _tracked(source: str, to: Target) -> list[Step]:
    """Return the connection that the kernel tracks for the request."""
    protocol = socket.IPPROTO_ICMPV6 if to.place.port == 0 and is_ipv6(to.address) else _PROTOCOLS[to.place.protocol]
    wanted = (protocol, parse_address(source), parse_address(to.address), to.place.port)
    latest = None
    try:
        for entry in connections.connections():
            if (entry.protocol, entry.source, entry.target, entry.port) == wanted:
                latest = entry
    except OSError:
        return []
    if latest is None:
        return [Step(REQUEST, CONNECTION, "not tracked")]
    state = "established" if latest.assured else "answered" if latest.answered else "not answered"
    words = f"{to.place.service} {source} → {to.address}: {state}"
    if latest.answering not in (latest.target, b""):
        words += f", forwarded to {_end(latest.answering, latest.answering_port)}"
    if latest.replied_to not in (latest.source, b""):
        words += f", masqueraded as {format_address(latest.replied_to)}"
    return [Step(REQUEST, CONNECTION, words)]


def _end(packed: bytes, port: int) -> str:
    address = format_address(packed)
    if not port:
        return address
    return as_target(address, port)
