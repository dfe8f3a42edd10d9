"""Find faults on this node that stop a pod's packet or its reply."""

import errno

from cnictl.core.cidr import parse_address, parse_cidr
from cnictl.core.leases.lease_store import Store
from cnictl.node import hint
from cnictl.node.hint import Hint
from cnictl.node.host import neighbours, pod_routes
from cnictl.node.host.pod_routes import RouteQuestion
from cnictl.node.host.route_lookup import Packet
from cnictl.node.spec.node_spec import Peer
from cnictl.probe import trace, wire
from cnictl.probe.failure import (
    EXTERNAL,
    OTHER_HOST,
    OTHER_HOST_POD,
    OWN_HOST,
    SAME_HOST_POD,
    STAYS,
    Failure,
    FailureCause,
    gateway_of,
)
from cnictl.probe.host import GONE, pod_default_route

_NO_NODE = "no node has this pod CIDR"


def bridge_unfit(failure: Failure) -> FailureCause | None:
    """The bridge is missing, down or without the pods' gateway address."""
    host, name = failure.host, failure.host.spec.bridge
    gateway = parse_cidr(host.spec.subnet)
    wanted = f"{gateway_of(host.spec.subnet)}/{gateway.prefix}"
    if host.bridge is None:
        fault = f"bridge {name} does not exist"
    elif not host.bridge.up:
        fault = f"bridge {name} is down"
    elif wanted not in host.bridge_addresses and failure.check != SAME_HOST_POD:
        has = (
            f"has only {', '.join(host.bridge_addresses)}" if host.bridge_addresses else f"has no {host.family} address"
        )
        fault = f"bridge {name} {has}; the gateway address {wanted} is missing"
    else:
        return None
    return FailureCause("bridge-unfit", fault, hint.command("cnictl bridge up"))


def port_unfit(failure: Failure) -> FailureCause | None:
    """The pod's host veth is missing, down or not on the bridge."""
    veth = failure.pod.host_veth
    fault = failure.host.port_fault(veth) if veth else ""
    if not fault:
        return None
    what_to_do = hint.command("cnictl apply")
    if fault == GONE:
        what_to_do = hint.advice("restart the pod", because="only a new ADD creates its host veth again")
    return FailureCause("port-unfit", f"the pod's host veth {veth} {fault}", what_to_do)


def target_port_unfit(failure: Failure) -> FailureCause | None:
    """The host veth of the pod that is pinged is missing, down or not on the bridge."""
    veth = failure.to_pod.host_veth if failure.to_pod is not None else ""
    fault = failure.host.port_fault(veth) if veth and failure.check == SAME_HOST_POD else ""
    if not fault:
        return None
    what_to_do = hint.command("cnictl apply")
    if fault == GONE:
        what_to_do = hint.advice("restart that pod", because="only a new ADD creates its host veth again")
    return FailureCause("port-unfit", f"the host veth {veth} of pod {failure.target} {fault}", what_to_do)


def away_from_bridge(failure: Failure) -> FailureCause | None:
    """This host's own packets to a pod of this node do not go to the bridge."""
    host, route = failure.host, failure.host.route(failure.target)
    if failure.check != SAME_HOST_POD or route.dev == host.spec.bridge:
        return None
    words = f"packets to pod {failure.target} do not go to {host.spec.bridge}: {route}"
    what_to_do = hint.advice(
        f"find the route or rule that comes first: ip rule; ip route get {failure.target}",
        because="the other route or rule does not belong to cnictl, and its purpose is not known here",
    )
    return FailureCause("diverted", words, pod_routes.hint_for(host.diversions) if host.diversions else what_to_do)


def no_such_pod(failure: Failure) -> FailureCause | None:
    """No pod on this node has a lease for the target."""
    if failure.check != SAME_HOST_POD or Store(failure.host.spec.name).read(failure.target) is not None:
        return None
    words = f"no pod on this node has {failure.target}: the address is not leased"
    return FailureCause("no-such-pod", words, hint.advice("cnictl ipam list", because="the operator chose the address"))


def pod_without_route(failure: Failure) -> FailureCause | None:
    """The pod has no default route, and the target is outside its subnet."""
    if failure.check == SAME_HOST_POD or pod_default_route(failure.pod.netns, failure.host.ipv6):
        return None
    if parse_cidr(failure.host.spec.subnet).holds(parse_address(failure.target)):
        return None
    return FailureCause(
        "pod-without-route",
        f"pod {failure.pod.address} has no {failure.host.family} default route",
        hint.advice(
            "restart the pod; if the new pod has no default route either, run cnictl apply to rewrite the CNI conf",
            because="a pod gets its routes when it starts, and what removed them is not known",
        ),
    )


def forwarding_off(failure: Failure) -> FailureCause | None:
    """Forwarding is off on this node, on its bridge or on its uplink."""
    host = failure.host
    if not host.forwarding:
        return FailureCause("forwarding-off", f"{host.forward_switch} is 0 on this node", hint.command("cnictl apply"))
    for link in (host.spec.bridge, host.route(failure.target).dev):
        if link and not host.forwards_from(link):
            sysctl = hint.sysctl_name("net", "ipv4", "conf", link, "forwarding")
            return FailureCause("forwarding-off", f"{sysctl} is 0 on this node", hint.command(f"sysctl -w {sysctl}=1"))
    return None


def diverted(failure: Failure) -> FailureCause | None:
    """A policy rule or a more specific route diverts the request or its reply."""
    host, target, pod = failure.host, failure.target, failure.pod.address
    spec, bridge = host.whole, host.spec.bridge
    peer = failure.at_peer.peer if failure.at_peer is not None else None
    link = host.peer_links.get(peer, "") if peer is not None else ""
    questions: list[RouteQuestion] = []
    if failure.check == OWN_HOST:
        questions = [RouteQuestion(pod_routes.OWN, Packet(pod, target), bridge)]
    elif failure.check == OTHER_HOST_POD and peer is not None and peer in spec.known_peers and link:
        questions = [
            RouteQuestion(pod_routes.TO_PODS, Packet(target, pod, bridge), link, peer.via, peer),
            RouteQuestion(pod_routes.FROM_PODS, Packet(pod, target, link), bridge, "", peer),
        ]
    elif failure.check == OTHER_HOST and peer is not None and link:
        questions = [
            RouteQuestion(pod_routes.TO_NODE, Packet(target, pod, bridge), link, "", peer),
            RouteQuestion(pod_routes.FROM_PODS, Packet(pod, target, link), bridge, "", peer),
        ]
    elif failure.check == EXTERNAL:
        questions = [RouteQuestion(pod_routes.TO_OUTSIDE, Packet(target, pod, bridge))]
        questions += [
            RouteQuestion(pod_routes.FROM_OUTSIDE, Packet(pod, target, by), bridge) for by in failure.reply_links
        ]
    diversions = [
        diversion
        for diversion in pod_routes.judge(spec, questions)
        if diversion.rule is not None or not _is_missing(diversion)
    ]
    if not diversions:
        return None
    same = [other for other in host.diversions if other.by == diversions[0].by]
    return FailureCause("diverted", diversions[0].words, pod_routes.hint_for([*diversions, *same]))


def _is_missing(diversion: pod_routes.Diversion) -> bool:
    """Return whether a missing route explains the diversion; `no_route` reports that."""
    question, route = diversion.question, diversion.route
    if question.peer is None or question.kind != pod_routes.TO_PODS:
        return question.kind == pod_routes.TO_OUTSIDE or bool(route.errno)
    inside = route.destination and parse_cidr(question.peer.pod_cidr).covers(parse_cidr(route.destination))
    return not inside


def no_route(failure: Failure) -> FailureCause | None:
    """This node has no route for the packet, or its route to a peer's pods does not lead to that peer."""
    route = failure.route
    if route.spoofed:
        return None  # `reverse_path` reports it
    if failure.check == OTHER_HOST_POD and failure.at_peer is not None:
        peer = failure.at_peer.peer
        if route.gateway == peer.via:
            return None
        where = f"packets would go to {route.gateway or route.dev}" if route.dev else str(route)
        words = f"no route to the peer's pod CIDR {peer.pod_cidr} through {peer.via}: "
        if peer not in failure.host.spec.known_peers and _is_unclaimed(failure):
            words += f"{_NO_NODE}, according to {failure.host.peer_hints.source}"
            return FailureCause("unclaimed", words, failure.host.peer_hints.route_here(peer))
        return FailureCause("no-route", words + where, _route_to(failure, peer))
    if route.dev:
        return None
    if _is_unclaimed(failure):
        words = f"no route to {failure.target}: {_NO_NODE}, according to {failure.host.peer_hints.source}"
        return FailureCause("unclaimed", words, failure.host.peer_hints.unknown_node(failure.target))
    what_to_do = hint.advice(
        "add a default route to this host: ip route add default via GATEWAY",
        because="the uplink's gateway is not known here",
    )
    if failure.within_network:
        what_to_do = failure.host.peer_hints.unknown_node(failure.target)
    return FailureCause("no-route", f"no route to {failure.target}: {route}", what_to_do)


def _is_unclaimed(failure: Failure) -> bool:
    """Return whether the source of peers lists no node with the target."""
    refused = failure.route.errno == errno.EHOSTUNREACH
    return refused and failure.within_network and failure.host.no_node_has(failure.target)


def _route_to(failure: Failure, peer: Peer) -> Hint:
    """Return the hint for packets to a peer's pods that take another route: add, repair or inspect a route."""
    if peer not in failure.host.spec.known_peers:
        return failure.host.peer_hints.route_here(peer)
    if failure.host.differs("route/", "routes/"):
        return hint.command("cnictl apply")
    return hint.advice(
        f"the peer's route is in place, but another route or rule comes first: ip rule; ip route get {failure.target} "
        f"from {failure.pod.address} iif {failure.host.spec.bridge}",
        because="the other route or rule does not belong to cnictl, and its purpose is not known here",
    )


def neighbour_unresolved(failure: Failure) -> FailureCause | None:
    """The next hop does not answer ARP or, in IPv6, neighbour solicitations."""
    hop, link = failure.route.gateway or failure.target, failure.route.dev
    state = neighbours.state_of(hop)
    unresolved = "FAILED" in state or "INCOMPLETE" in state
    if not unresolved and (not failure.left_as or failure.reply_came or _answers(failure, hop, link)):
        return None
    protocol = "neighbour discovery" if failure.host.ipv6 else "ARP"
    return FailureCause(
        "neighbour-unresolved",
        f"next hop {hop} does not answer {protocol} on {link} (neighbour table: {state or 'nothing'})",
        hint.advice(
            f"bring {hop} up, or check that it is on the same network segment as {link}; "
            "cnictl route list shows the peers' addresses",
            because="the fault is on another host or on its link",
        ),
    )


def dropped(failure: Failure) -> FailureCause | None:
    """A firewall rule on this node drops the request, or the reply that reached this node."""
    if failure.left_as and not failure.reply_came:
        return None
    drop = trace.find_drop(failure.pod.address, failure.target, failure.resend)
    if drop is None and failure.check not in STAYS and not failure.left_as:
        drop = next(iter(trace.forward_policies(failure.host.ipv6)), None)
    if drop is None:
        return None
    dropped_packet = "the reply is" if failure.reply_came else "it is"
    return FailureCause("dropped-here", f"{dropped_packet} dropped on this node by {drop.words}", _let_through(failure))


def _let_through(failure: Failure) -> Hint:
    """Return the hint for a drop: `cnictl apply` if one of cnictl's accept rules is missing, else advice.

    If no accept rule is missing, the drop is deliberate.
    """
    if failure.check != OWN_HOST and failure.host.differs("forward/", "firewalld/"):
        return hint.command("cnictl apply")
    return hint.advice(
        f"accept {failure.pod.address} in that chain",
        because="cnictl's accept rules are in place, and they never come before a drop of particular packets",
    )


def reverse_path(failure: Failure) -> FailureCause | None:
    """A strict reverse path filter drops the request or its reply as spoofed."""
    host, bridge = failure.host, failure.host.spec.bridge
    ways = [] if failure.of_host else [(failure.target, failure.pod.address, bridge)]
    if failure.check not in STAYS:
        ways += [(failure.pod.address, failure.target, link) for link in failure.reply_links]
    for to, source, link in ways:
        sysctl = host.strict_reverse_path(link)
        if sysctl and host.route(to, source, link).spoofed:
            words = f"the reverse path filter of {link} drops packets from {source}: the route back uses another link"
            return FailureCause("reverse-path", words, hint.command(f"sysctl -w {sysctl}=2"))
    return None


def not_masqueraded(failure: Failure) -> FailureCause | None:
    """The request left with the pod's own address, so an outside host can't answer it."""
    if failure.within_network or failure.left_as != failure.pod.address:
        return None
    left = f"the request left with the pod's own address {failure.left_as}"
    if not failure.host.masquerade_loaded:
        return FailureCause("no-masquerade", f"no masquerade rule: {left}", hint.command("cnictl nat enable"))
    what_to_do = hint.advice(
        "look for a rule before the masquerade rule: nft list ruleset; iptables -t nat -S POSTROUTING",
        because="cnictl's rules are in place, and the rule that comes first is not known here",
    )
    return FailureCause("no-masquerade", f"the masquerade rule did not apply: {left}", what_to_do)


def _answers(failure: Failure, hop: str, link: str) -> bool:
    """Return whether the next hop answers now. The neighbour table lists a host for some seconds after it is gone."""
    try:
        return wire.answers(hop, link, failure.host.route(hop).source)
    except (OSError, ValueError):
        return True  # a link without Ethernet addresses has no neighbour to resolve
