"""Find faults beyond this node. The request left correctly; the results of other pings show where it ended."""

from cnictl.node import hint
from cnictl.node.hint import Hint
from cnictl.node.host import pod_routes
from cnictl.node.spec.node_spec import Peer
from cnictl.probe.failure import OTHER_HOST_POD, Failure, FailureCause


def refused(failure: Failure) -> FailureCause | None:
    """A host on the path refused the request with an ICMP error."""
    if not failure.series.refusals:
        return None
    refusal = failure.series.refusals[-1]
    words = f"{refusal.by} answers: {refusal.words}"
    at = failure.at_peer
    if at is None or refusal.by != at.peer.via:
        return _refused_by(refusal.by, words)
    if refusal.unrouted:
        return _bridge_gone(failure, at.peer, words)
    if refusal.no_host:
        return _no_such_pod(failure, words)
    return FailureCause("peer-rejects", f"{words} (its FORWARD chain rejects the request)", _accept_there(refusal.by))


def _refused_by(router: str, words: str) -> FailureCause:
    """Return the cause if a router that is not a peer refuses the packets."""
    what_to_do = hint.advice(
        f"check the routes and firewall of {router}", because="that host is not a peer of this node"
    )
    return FailureCause("refused", words, what_to_do)


def _accept_there(peer: str) -> Hint:
    """Return the hint that makes the peer accept pods' packets. Only the peer itself can see deliberate drops."""
    return hint.command("cnictl apply", on=peer)


def peer_silent(failure: Failure) -> FailureCause | None:
    """The peer's node address does not answer this node either."""
    at = failure.at_peer
    if at is None or at.node.answered:
        return None
    protocol = "neighbour discovery" if failure.host.ipv6 else "ARP"
    either = "" if failure.of_host else " either"
    words = f"peer {at.peer.via} does not answer this node{either}, although it answers {protocol}"
    what_to_do = hint.advice(
        f"on {at.peer.via}: check that its firewall accepts ICMP echo from this node",
        because="this node can't tell whether the host or its firewall is silent",
    )
    return FailureCause("peer-silent", words, what_to_do)


def peer_without_bridge(failure: Failure) -> FailureCause | None:
    """The peer answers, but the gateway of its pods does not."""
    at = failure.at_peer
    if at is None or failure.check != OTHER_HOST_POD or at.gateway.answered or at.gateway_from_pod.answered:
        return None
    words = (
        f"peer {at.peer.via} answers, but its pods' gateway {at.gateway.to} does not: no bridge there has this address"
    )
    return FailureCause("peer-without-bridge", words, _bridge_up(failure, at.peer))


def _bridge_up(failure: Failure, peer: Peer) -> Hint:
    """Return the hint for a peer without its bridge. A bridge that is down looks like one with another pod CIDR."""
    other = f"if its pod CIDR is no longer {peer.pod_cidr} (cnictl status there), "
    return hint.command("cnictl bridge up", f"{other}{failure.host.peer_hints.other_cidr(peer)}", on=peer.via)


def reported_to_this_node(failure: Failure) -> FailureCause | None:
    """The peer forwards packets for its own pods to another router, or reports that no pod has the address."""
    at = failure.at_peer
    if at is None or at.pod_from_node is None:
        return None
    for refusal in at.pod_from_node.refusals:
        if refusal.by != at.peer.via:
            words = f"{at.peer.via} forwards packets for {failure.target} to {refusal.by}"
            return _bridge_gone(failure, at.peer, words)
        if refusal.unrouted:
            return _bridge_gone(failure, at.peer, f"{refusal.by} answers this node: {refusal.words}")
        if refusal.no_host:
            return _no_such_pod(failure, f"{refusal.by} answers this node: {refusal.words}")
    return None


def _no_such_pod(failure: Failure, words: str) -> FailureCause:
    by = failure.at_peer.peer.via if failure.at_peer else ""
    why = f"no pod there has {failure.target}, or that pod's link is down"
    what_to_do = hint.advice(
        f"on {by}: cnictl ping host {failure.target}", because="only that host can see whether it has the pod"
    )
    return FailureCause("no-such-pod", f"{words} ({why})", what_to_do)


def _bridge_gone(failure: Failure, peer: Peer, words: str) -> FailureCause:
    where = f"its bridge is down or has no address in {peer.pod_cidr}"
    return FailureCause("peer-without-bridge", f"{words}: {where}", _bridge_up(failure, peer))


def no_return_route(failure: Failure) -> FailureCause | None:
    """The peer answers this node's own address, but not this node's pods."""
    at = failure.at_peer
    if at is None or failure.check != OTHER_HOST_POD or at.gateway_from_pod.answered or failure.of_host:
        return None
    subnet, own = failure.host.spec.subnet, failure.host.route(at.peer.via).source
    words = (
        f"peer {at.peer.via} lacks the return route to {subnet}: its gateway {at.gateway.to} answers this node, "
        f"but not pod {failure.pod.address}, whose request left through {failure.route.dev}"
    )
    return FailureCause("no-return-route", words, failure.host.peer_hints.route_back(at.peer, subnet, own))


def peer_forwarding_off(failure: Failure) -> FailureCause | None:
    """The peer's gateway answers this node's pod, but the peer forwards nothing."""
    at = failure.at_peer
    if at is None or at.expiring is None or at.expiring.refusals:
        return None
    words = (
        f"peer {at.peer.via} does not forward ({failure.host.forward_switch} is 0): "
        f"its gateway {at.gateway.to} answers, but a request with TTL 1 gets no 'time exceeded'"
    )
    return FailureCause("peer-forwarding-off", words, hint.command("cnictl apply", on=at.peer.via))


def peer_drops(failure: Failure) -> FailureCause | None:
    """The peer forwards, but its pod never answers. From here, a drop there looks like a pod that does not answer."""
    at = failure.at_peer
    if at is None or at.expiring is None or not at.expiring.refusals:
        return None
    words = (
        f"peer {at.peer.via} forwards and its gateway {at.gateway.to} answers, but no reply comes from "
        f"{failure.target}: a firewall there or in the pod drops the packets, or the pod has no route back"
    )
    what_to_do = hint.advice(
        f"on {at.peer.via}: cnictl ping {failure.target} {failure.lasting_source}",
        because="only that host can see which of these it is",
    )
    return FailureCause("peer-drops", words, what_to_do)


def outside_silent(failure: Failure) -> FailureCause | None:
    """The target does not answer this node either."""
    if not failure.of_host and (failure.from_host is None or failure.from_host.answered):
        return None
    if failure.from_host is not None and failure.from_host.refusals:
        refusal = failure.from_host.refusals[-1]
        return _refused_by(refusal.by, f"{refusal.by} answers: {refusal.words}")
    either = "" if failure.of_host else " either"
    words = f"{failure.target} does not answer this node{either} (through {failure.route.dev or 'any link'})"
    text = f"check that {failure.target} is up and answers pings; cnictl ping host external tests the uplink"
    if failure.target in (*failure.host.spec.externals, *pod_routes.OUTSIDE):
        text = (
            "name an address that answers: cnictl init-node --external ADDRESS keeps it; or check the uplink's gateway"
        )
    what_to_do = hint.advice(text, because="nothing on this node stops the reply")
    return FailureCause("outside-silent", words, what_to_do)
