"""Ping other hosts' pods and nodes from a probe pod and from this node, and find the cause of each failure.

All targets are pinged at the same time. Those that stay silent are pinged again, with pings that distinguish causes.
"""

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from cnictl.core.cidr import parse_address, parse_cidr
from cnictl.core.counted import counted
from cnictl.node.spec.node_spec import NodeSpec, Peer, by_family, is_ipv6, of_family
from cnictl.node.spec.peers import is_link_local
from cnictl.probe.capture import Capture
from cnictl.probe.causes import OF_THIS_NODE
from cnictl.probe.checks import companions, judge
from cnictl.probe.failure import EXTERNAL, OTHER_HOST, OTHER_HOST_POD, FailureCause
from cnictl.probe.follow_up import ask_on
from cnictl.probe.host import Host
from cnictl.probe.icmp import Series, echo_socket, ping
from cnictl.probe.pair_reports import (
    NODE_POD,
    POD_EXTERNAL,
    POD_NODE,
    POD_POD,
    PairRequest,
    Ping,
    ReportedCause,
    Target,
)
from cnictl.probe.pods import CheckedPod
from cnictl.probe.targets import Planned, Targets, Wanted

_INTERVAL = 0.1
_AGAIN = 2
"""Echo requests of the second try."""
_LOOKED_INTO = 16
"""The largest number of failures to examine. If more targets fail, they share a few causes."""
_KINDS = {OTHER_HOST_POD: POD_POD, OTHER_HOST: POD_NODE, EXTERNAL: POD_EXTERNAL}


@dataclass
class _TargetPings:
    """The pings to one target: the first try and, if no answer came, the second."""

    check: str
    host: str
    planned: Planned
    tries: list[Series]
    part: "_Part"
    via: str = ""
    cause: FailureCause | None = None

    @property
    def answered(self) -> bool:
        return any(series.answered for series in self.tries)

    def as_ping(self) -> Ping:
        pod = self.part.pod.address
        times = [rtt for series in self.tries for rtt in series.rtts.values()]
        return Ping(
            self.check,
            "ipv6" if self.part.host.ipv6 else "ipv4",
            self.host,
            "" if self.check == NODE_POD else pod,
            self.tries[0].to if self.tries else "",
            tuple(series.number for series in self.tries),
            sum(len(series.sent) for series in self.tries),
            sum(series.received for series in self.tries),
            (min(times) * 1000, sum(times) / len(times) * 1000, max(times) * 1000) if times else None,
            self.via,
            _reported(self.cause) if self.cause else None,
            self.planned.skip,
        )


@dataclass
class _Part:
    """This node in one address family."""

    host: Host
    pod: CheckedPod
    inside: socket.socket
    outside: socket.socket
    targets: list[_TargetPings] = field(default_factory=list)


def run_pairs(spec: NodeSpec, pod: CheckedPod, request: PairRequest, on_step: Callable[[str], None]) -> list[Ping]:
    """Ping every target, and the address outside the cluster, in each address family that `pod` has."""
    with ExitStack() as stack:
        parts = []
        for family_spec in by_family(spec):
            family_pod = pod.in_family_of(family_spec.subnet)
            if family_pod.address:
                host = Host(family_spec, spec)
                inside, outside = (stack.enter_context(echo_socket(netns, host.ipv6)) for netns in (pod.netns, ""))
                parts.append(_Part(host, family_pod, inside, outside))
        for part in parts:
            part.targets = list(_plan(part, request))
        everything = [target for part in parts for target in part.targets]
        first = [series for target in everything for series in target.tries]
        on_step(f"pinging {counted(len(first), 'target')} from pod {' '.join(pod.addresses)}")
        if first:
            ping(list(dict.fromkeys(first)), _INTERVAL, request.timeout)
        silent = [target for target in everything if target.tries and not target.answered]
        if silent:
            _look_into(silent, request.timeout, on_step)
        return [target.as_ping() for target in everything]


def _plan(part: _Part, request: PairRequest) -> Iterator[_TargetPings]:
    """Yield the pings of one address family.

    They go from our pod to each target's pod and node and to an outside host, and from our node to each target's pod.
    """
    targets = [target for target in request.targets if of_family(target.pod, part.pod.address)]
    peers = {target.name: _peer(part.host.spec, target) for target in targets}
    pods = dict.fromkeys(of_family(target.pod, part.pod.address) for target in targets)
    extended = replace(part.host.spec, peers=tuple(dict.fromkeys(filter(None, peers.values()))), learned=())
    wanted = Wanted(request.count, request.timeout, tuple(pods), request.externals)
    planned = Targets(extended, part.host, None, wanted, part.inside, part.outside).all_checks()
    to_pods = {plan.series.to: plan for plan in planned if plan.check == OTHER_HOST_POD and plan.series}
    to_nodes = {plan.series.to: plan for plan in planned if plan.check == OTHER_HOST and plan.series}
    for target in targets:
        address, peer = of_family(target.pod, part.pod.address), peers[target.name]
        via = next((known.via for known in part.host.spec.known_peers if known.pod_cidr in target.pod_cidrs), "")
        if address in to_pods:  # an address in our own pod CIDR belongs to no other host
            yield _first_try(to_pods[address], target.name, part, via)
            from_node = Series(part.outside, address, request.count)
            yield _TargetPings(NODE_POD, target.name, Planned(OTHER_HOST_POD, from_node), [from_node], part, via)
        if peer is not None and peer.via in to_nodes:
            yield _first_try(to_nodes[peer.via], target.name, part, via)
    yield from (_first_try(plan, "", part) for plan in planned if plan.check == EXTERNAL)


def _first_try(planned: Planned, host: str, part: _Part, via: str = "") -> _TargetPings:
    return _TargetPings(_KINDS[planned.check], host, planned, [planned.series] if planned.series else [], part, via)


def _peer(spec: NodeSpec, target: Target) -> Peer | None:
    """Return the peer through which the target should be reached; None if it has no pod CIDR or address in the family.

    A peer that this node knows is used if it leads to the target. Otherwise the peer has the target's own values.
    """
    cidr, node = of_family(target.pod_cidrs, spec.subnet), of_family(target.node, spec.subnet)
    for known in spec.known_peers:
        if known.pod_cidr == cidr and (not node or known.via in target.node or is_link_local(parse_address(known.via))):
            return known
    return Peer(cidr, node) if cidr and node and not _is_ours(spec, cidr) else None


def _is_ours(spec: NodeSpec, cidr: str) -> bool:
    return parse_cidr(spec.subnet).overlaps(parse_cidr(cidr))


def _look_into(silent: Sequence[_TargetPings], timeout: float, on_step: Callable[[str], None]) -> None:
    """Ping silent targets again, with the pings that distinguish causes, and judge those that stay silent."""
    on_step("looking for causes")
    capture = Capture()
    try:
        for target in silent:
            target.planned.series = Series(target.tries[0].sender, target.tries[0].to, _AGAIN)
            target.tries.append(target.planned.series)
        judged = _to_judge(silent)
        planned = [target.planned for target in judged]
        again = [target.tries[-1] for target in silent]
        start = time.monotonic()
        ping([*again, *companions(planned)], _INTERVAL, timeout, again)
        ask_on(
            [
                (plan.series, plan.at_peer)
                for plan in planned
                if plan.series and plan.at_peer and plan.at_peer.expiring and not plan.series.heard
            ],
            start,
            on_step,
        )
        for target in judged:
            if not target.answered:
                target.cause = judge(target.planned, target.part.pod, target.part.host, capture).cause
    finally:
        capture.close()


def _to_judge(silent: Sequence[_TargetPings]) -> list[_TargetPings]:
    """Return the failures to examine: the first of each host. No finder explains a ping from the node itself."""
    chosen: dict[tuple[str, bool], _TargetPings] = {}
    for target in silent:
        if target.check != NODE_POD:
            chosen.setdefault((target.host, is_ipv6(target.part.pod.address)), target)
    return list(chosen.values())[:_LOOKED_INTO]


def _reported(cause: FailureCause) -> ReportedCause:
    return ReportedCause(cause.name, cause.words, cause.name in OF_THIS_NODE, cause.hint)
