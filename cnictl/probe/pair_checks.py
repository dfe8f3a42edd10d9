"""Ping other hosts' pods and nodes from a probe pod and from this node, and find the cause of each failure.

All are pinged at once. Only what stays silent is pinged again, with the pings that tell causes apart.
"""

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from cnictl.core.cidr import parse_address, parse_cidr
from cnictl.node.hint import Hint
from cnictl.node.spec.node_spec import NodeSpec, Peer, by_family, is_ipv6, of_family
from cnictl.node.spec.peers import is_link_local
from cnictl.probe.capture import Watch
from cnictl.probe.causes import OF_THIS_NODE
from cnictl.probe.checks import companions, judge
from cnictl.probe.failure import EXTERNAL, OTHER_HOST, OTHER_HOST_POD, Cause
from cnictl.probe.follow_up import ask_on
from cnictl.probe.host import Host
from cnictl.probe.icmp import Series, echo_socket, ping
from cnictl.probe.pair_reports import (
    NODE_POD,
    POD_EXTERNAL,
    POD_NODE,
    POD_POD,
    Advice,
    Found,
    Ping,
    Request,
    Target,
)
from cnictl.probe.pods import CheckedPod
from cnictl.probe.targets import Planned, Targets, Wanted

_INTERVAL = 0.1
_AGAIN = 2
"""Requests of the second try."""
_LOOKED_INTO = 16
"""Failures whose cause is searched: more than that have few causes between them."""
_KINDS = {OTHER_HOST_POD: POD_POD, OTHER_HOST: POD_NODE, EXTERNAL: POD_EXTERNAL}


@dataclass
class _Asked:
    """One target's requests: the first try and, where that stayed silent, the second."""

    check: str
    host: str
    planned: Planned
    tries: list[Series]
    part: "_Part"
    via: str = ""
    cause: Cause | None = None

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
            _found(self.cause) if self.cause else None,
            self.planned.skip,
        )


@dataclass
class _Part:
    """This node in one address family."""

    host: Host
    pod: CheckedPod
    inside: socket.socket
    outside: socket.socket
    asked: list[_Asked] = field(default_factory=list)


def run_pairs(spec: NodeSpec, pod: CheckedPod, request: Request, on_step: Callable[[str], None]) -> list[Ping]:
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
            part.asked = list(_plan(part, request))
        everything = [asked for part in parts for asked in part.asked]
        first = [series for asked in everything for series in asked.tries]
        on_step(f"pinging {len(first)} targets from pod {' '.join(pod.addresses)}")
        if first:
            ping(list(dict.fromkeys(first)), _INTERVAL, request.timeout)
        silent = [asked for asked in everything if asked.tries and not asked.answered]
        if silent:
            _look_into(silent, request.timeout, on_step)
        return [asked.as_ping() for asked in everything]


def _plan(part: _Part, request: Request) -> Iterator[_Asked]:
    """Yield what is sent in one family: to each target's pod from pod and node, to its node from the pod, outside."""
    targets = [target for target in request.targets if of_family(target.pod, part.pod.address)]
    peers = {target.name: _peer(part.host.spec, target) for target in targets}
    pods = dict.fromkeys(of_family(target.pod, part.pod.address) for target in targets)
    extended = replace(part.host.spec, peers=tuple(dict.fromkeys(filter(None, peers.values()))), learned=())
    wanted = Wanted(request.count, request.timeout, tuple(pods))
    planned = Targets(extended, part.host, None, wanted, part.inside, part.outside).everything()
    to_pods = {plan.series.to: plan for plan in planned if plan.check == OTHER_HOST_POD and plan.series}
    to_nodes = {plan.series.to: plan for plan in planned if plan.check == OTHER_HOST and plan.series}
    for target in targets:
        address, peer = of_family(target.pod, part.pod.address), peers[target.name]
        via = next((known.via for known in part.host.spec.known_peers if known.pod_cidr in target.pod_cidrs), "")
        if address in to_pods:  # one in our own pod CIDR is no other host's
            yield _asked(to_pods[address], target.name, part, via)
            from_node = Series(part.outside, address, request.count)
            yield _Asked(NODE_POD, target.name, Planned(OTHER_HOST_POD, from_node), [from_node], part, via)
        if peer is not None and peer.via in to_nodes:
            yield _asked(to_nodes[peer.via], target.name, part, via)
    yield from (_asked(plan, "", part) for plan in planned if plan.check == EXTERNAL)


def _asked(planned: Planned, host: str, part: _Part, via: str = "") -> _Asked:
    return _Asked(_KINDS[planned.check], host, planned, [planned.series] if planned.series else [], part, via)


def _peer(spec: NodeSpec, target: Target) -> Peer | None:
    """Return the peer by which the target should be reached: the known one if it leads there, else as it says itself.

    None if the target has no pod CIDR or no address in the family.
    """
    cidr, node = of_family(target.pod_cidrs, spec.subnet), of_family(target.node, spec.subnet)
    for known in spec.known_peers:
        if known.pod_cidr == cidr and (not node or known.via in target.node or is_link_local(parse_address(known.via))):
            return known
    return Peer(cidr, node) if cidr and node and not _is_ours(spec, cidr) else None


def _is_ours(spec: NodeSpec, cidr: str) -> bool:
    return parse_cidr(spec.subnet).overlaps(parse_cidr(cidr))


def _look_into(silent: Sequence[_Asked], timeout: float, on_step: Callable[[str], None]) -> None:
    """Ping again what stayed silent, together with what tells causes apart, and judge what stays silent still."""
    on_step("looking for causes")
    watch = Watch()
    try:
        for asked in silent:
            asked.planned.series = Series(asked.tries[0].sender, asked.tries[0].to, _AGAIN)
            asked.tries.append(asked.planned.series)
        judged = _to_judge(silent)
        planned = [asked.planned for asked in judged]
        again = [asked.tries[-1] for asked in silent]
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
        for asked in judged:
            if not asked.answered:
                asked.cause = judge(asked.planned, asked.part.pod, asked.part.host, watch).cause
    finally:
        watch.close()


def _to_judge(silent: Sequence[_Asked]) -> list[_Asked]:
    """Return the failures to look into: of each target the first, and none from the node, which no finder explains."""
    chosen: dict[tuple[str, bool], _Asked] = {}
    for asked in silent:
        if asked.check != NODE_POD:
            chosen.setdefault((asked.host, is_ipv6(asked.part.pod.address)), asked)
    return list(chosen.values())[:_LOOKED_INTO]


def _found(cause: Cause) -> Found:
    return Found(cause.name, cause.words, cause.name in OF_THIS_NODE, advice_of(cause.hint))


def advice_of(what: Hint) -> Advice | None:
    """Return a hint in its parts; None if there is none."""
    return Advice(str(what), what.command, what.option, what.on) if what else None
