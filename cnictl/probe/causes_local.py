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
from cnictl.probe.drop_hint import for_drop
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
from cnictl.probe.host import GONE, NO_CARRIER, has_address, pod_default_route
from cnictl.probe.pods import CheckedPod

_NO_NODE = "no node has this pod CIDR"


def bridge_unfit(failure: Failure) -> FailureCause | None:
    """The bridge is missing, down or without the pods' gateway address."""
    gateway = "" if failure.check == SAME_HOST_POD else gateway_of(failure.host.spec.subnet)
    fault = failure.host.bridge_fault(gateway)
    return FailureCause("bridge-unfit", fault, hint.command("cnictl bridge up")) if fault else None


def port_unfit(failure: Failure) -> FailureCause | None:
    """The pod's host veth is missing, down, not on the bridge or without a carrier."""
    veth = failure.pod.host_veth
    fault = failure.host.port_fault(veth) if veth else ""
    if not fault:
        return None
    if fault == NO_CARRIER:
        return _link_down(failure.pod)
    what_to_do = hint.command("cnictl apply")
    if fault == GONE:
        what_to_do = hint.advice("restart the pod", because="only a new ADD creates its host veth again")
    return FailureCause("port-unfit", f"the pod's host veth {veth} {fault}", what_to_do)


def target_port_unfit(failure: Failure) -> FailureCause | None:
    """The host veth of the pod that is pinged is missing, down, not on the bridge or without a carrier."""
    veth = failure.to_pod.host_veth if failure.to_pod is not None else ""
    fault = failure.host.port_fault(veth) if veth and failure.check == SAME_HOST_POD else ""
    if not fault or failure.to_pod is None:
        return None
    if fault == NO_CARRIER:
        return _link_down(failure.to_pod)
    what_to_do = hint.command("cnictl apply")
    if fault == GONE:
        what_to_do = hint.advice("restart that pod", because="only a new ADD creates its host veth again")
    return FailureCause("port-unfit", f"the host veth {veth} of pod {failure.target} {fault}", what_to_do)


def _link_down(pod: CheckedPod) -> FailureCause:
    """Return the cause if the pod's end of its link is down: then the host's end has no carrier."""
    words = f"link {pod.ifname} of pod {pod.address} is down: its host veth {pod.host_veth} {NO_CARRIER}"
    because = "a link that goes down loses its routes and IPv6 addresses, and only an ADD makes all of them"
    return FailureCause("pod-link-down", words, hint.advice("restart that pod", because=because))


def pod_without_address(failure: Failure) -> FailureCause | None:
    """The pod that sends, or the pod of this node that is pinged, no longer has its address."""
    for pod, address in ((failure.pod, failure.pod.address), (failure.to_pod, failure.target)):
        if pod is not None and pod.netns and address and not has_address(pod.netns, address):
            words = f"pod {pod.name} no longer has its address {address} on its link {pod.ifname}"
            because = "a pod gets its addresses when it starts, and what removed this one is not known"
            return FailureCause("no-address", words, hint.advice("restart that pod", because=because))
    return None


def reply_refused_by_pod(failure: Failure) -> FailureCause | None:
    """The reply left this node for the pod that sent the request, and the pod did not accept it."""
    pod = failure.pod
    if not any(s.reply and s.leaving and pod.host_veth and s.link == pod.host_veth for s in failure.sightings):
        return None
    words = f"the reply reached pod {pod.address} through {pod.host_veth}, but the pod drops it"
    what_to_do = hint.advice(
        f"check the pod's own firewall and reverse path filter: nsenter --net={pod.netns} nft list ruleset",
        because="they belong to the pod",
    )
    return FailureCause("pod-drops", words, what_to_do)


def pod_silent(failure: Failure) -> FailureCause | None:
    """The request went to the pod of this node that is pinged, and nothing came back."""
    pod = failure.to_pod
    if failure.check != SAME_HOST_POD or pod is None or not pod.host_veth or failure.reply_came:
        return None
    if not any(sighting.leaving and sighting.link == pod.host_veth for sighting in failure.sightings):
        return None
    words = f"the request reached pod {failure.target} through {pod.host_veth}, and the pod does not answer"
    what_to_do = hint.advice(
        f"check the firewall and the routes in the pod: nsenter --net={pod.netns} nft list ruleset; "
        f"nsenter --net={pod.netns} ip route get {failure.pod.address}",
        because="they belong to the pod",
    )
    return FailureCause("pod-silent", words, what_to_do)


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
    if (
        route.dev
        and failure.check == EXTERNAL
        and failure.within_network
        and not failure.host.routes_pods(failure.target)
    ):
        words = f"no peer of this node has {failure.target}, so packets go to {route.gateway or route.dev}"
        return FailureCause("no-route", words, failure.host.peer_hints.unknown_node(failure.target))
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
    words = f"next hop {hop} does not answer {protocol} on {link}"
    return FailureCause(
        "neighbour-unresolved",
        f"{words} (neighbour table: {state})" if unresolved else words,
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
    return FailureCause(
        "dropped-here", f"{dropped_packet} dropped on this node by {drop.words}", _let_through(failure, drop)
    )


def _let_through(failure: Failure, drop: trace.Drop) -> Hint:
    """Return the hint for a drop: `cnictl apply` if one of cnictl's accept rules is missing, else the rule's.

    If no accept rule is missing, the drop is deliberate.
    """
    if failure.check != OWN_HOST and failure.host.differs("forward/", "firewalld/"):
        return hint.command("cnictl apply")
    return for_drop(drop, failure.pod.address)


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
