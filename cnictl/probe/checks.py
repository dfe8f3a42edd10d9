"""The checks of `test-connectivity`: what a pod should reach, all pinged at once, each failure traced to a cause."""

import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from cnictl.core import attachments, liveness
from cnictl.core.attachments import Record
from cnictl.core.cidr import parse_address, parse_cidr
from cnictl.core.errors import Problem
from cnictl.node.spec import NodeSpec, Peer, of_family
from cnictl.probe.causes import most_likely
from cnictl.probe.failure import (
    EXTERNAL,
    OTHER_HOST,
    OTHER_HOST_POD,
    OWN_HOST,
    SAME_HOST_POD,
    Cause,
    Failure,
    PeerEvidence,
    gateway_of,
)
from cnictl.probe.host import Host
from cnictl.probe.icmp import Series, echo_socket, linger, ping
from cnictl.probe.pods import Pod
from cnictl.probe.watch import Watch

CHECKS = (OWN_HOST, SAME_HOST_POD, OTHER_HOST, OTHER_HOST_POD, EXTERNAL)
OK, FAILED, UNCERTAIN, SKIPPED = "ok", "failed", "uncertain", "skipped"
DEFAULT_EXTERNAL = "1.1.1.1"

_INTERVAL = 0.1
_ARP_GIVES_UP = 3.3
"""Seconds until a node reports that no pod has an address: three ARP requests a second apart, and some slack."""

_GATEWAY_ONLY = Cause(
    "gateway-only",
    "gateway only: it answers even where its node's FORWARD drops, so it proves nothing about pods there",
    "on the other host: cnictl test-connectivity --serve; here: --pod with the address it prints",
)


@dataclass(frozen=True)
class Wanted:
    """What to check, beside what node.toml says."""

    count: int = 3
    """Echo requests a check."""
    timeout: float = 1.0
    """Seconds to wait for each answer."""
    pods: tuple[str, ...] = ()
    """Addresses of pods on other hosts."""
    external: str = ""
    peers: tuple[Peer, ...] = ()
    """Peers to check that node.toml does not name."""


@dataclass(frozen=True)
class Check:
    """One check's outcome."""

    check: str
    source: str
    to: str
    state: str
    sent: int = 0
    received: int = 0
    rtt_ms: tuple[float, float, float] | None = None
    """Shortest, mean, longest."""
    cause: Cause | None = None

    @property
    def loss(self) -> int:
        """Requests without an answer, in percent."""
        return round(100 * (self.sent - self.received) / self.sent) if self.sent else 0

    def as_json(self) -> dict[str, Any]:
        """The check as `-o json` prints it."""
        rtt = self.rtt_ms
        return {
            "check": self.check,
            "from": self.source,
            "to": self.to,
            "state": self.state,
            "sent": self.sent,
            "received": self.received,
            "rtt_ms": dict(zip(("min", "avg", "max"), (round(t, 3) for t in rtt), strict=True)) if rtt else None,
            "cause": self.cause.words if self.cause else None,
            "cause_name": self.cause.name if self.cause else None,
            "mend": self.cause.mend if self.cause and self.cause.mend else None,
        }


@dataclass(frozen=True)
class Report:
    """A run's checks, in the order of `CHECKS`."""

    checks: tuple[Check, ...]

    @property
    def overall(self) -> str:
        """`failed` if any check is, else `uncertain` if any is, else `ok`."""
        states = {check.state for check in self.checks}
        return next((state for state in (FAILED, UNCERTAIN) if state in states), OK)

    def as_json(self) -> dict[str, Any]:
        """The report as `-o json` prints it."""
        return {"overall": self.overall, "checks": [check.as_json() for check in self.checks]}


@dataclass
class _Planned:
    """A check under way; one without a series is skipped, for the reason in `skip`."""

    check: str
    series: Series | None
    skip: str = ""
    from_host: Series | None = None
    at_peer: PeerEvidence | None = None
    gateway_only: bool = False


def run_checks(spec: NodeSpec, pod: Pod, other: Pod | None, wanted: Wanted, on_step: Callable[[str], None]) -> Report:
    """Check what `pod` reaches; `other` is a second pod of this node, or None to skip that check."""
    with ExitStack() as stack:
        inside = stack.enter_context(echo_socket(pod.netns))
        outside = stack.enter_context(echo_socket(""))
        watch = Watch()
        stack.callback(watch.close)
        host = Host(spec)
        with_peers = replace(spec, peers=spec.peers + wanted.peers)
        planned = _Plan(with_peers, host, other, wanted, inside, outside).everything()
        mains = [one.series for one in planned if one.series]
        start = time.monotonic()
        on_step(f"pinging {len(mains)} targets from pod {pod.address}")
        ping([*mains, *_companions(planned)], _INTERVAL, wanted.timeout, mains)
        _ask_peers(planned, start, on_step)
        on_step("looking for causes")
        return Report(tuple(_judge(one, pod, host, watch, inside) for one in planned))


def _companions(planned: Sequence[_Planned]) -> list[Series]:
    """The pings beside the checks that tell causes apart, each once."""
    found: list[Series | None] = []
    for one in planned:
        found.append(one.from_host)
        if one.at_peer:
            at = one.at_peer
            found += [at.node, at.gateway, at.gateway_from_pod, at.expiring]
    mains = [one.series for one in planned]
    return [one for one in dict.fromkeys(found) if one is not None and one not in mains]


def _ask_peers(planned: Sequence[_Planned], start: float, on_step: Callable[[str], None]) -> None:
    """Where a peer forwards and its pod does not answer: does it still have its bridge, and is there such a pod?"""
    asked = [(one.series, one.at_peer.pod_from_node) for one in planned if _forwarded_in_vain(one) and one.at_peer]
    from_node = [second for _, second in asked if second]
    if not from_node:
        return
    ping(from_node, _INTERVAL, 0.2)
    patient = [first for first, second in asked if first and second and not second.refusals and not second.answered]
    if patient:
        on_step("waiting for the other host to say whether it has the pod")
        linger(patient, start + _ARP_GIVES_UP)


def _forwarded_in_vain(one: _Planned) -> bool:
    series, at = one.series, one.at_peer
    if series is None or at is None or at.expiring is None or series.answered or series.refusals:
        return False
    return bool(at.expiring.refusals)


def _judge(one: _Planned, pod: Pod, host: Host, watch: Watch, inside: socket.socket) -> Check:
    if one.series is None:
        return Check(one.check, pod.address, "", SKIPPED, cause=Cause("skipped", one.skip, ""))
    series = one.series
    done = Check(one.check, pod.address, series.to, OK, len(series.sent), series.received, series.rtt_ms)
    if series.whole:
        return replace(done, state=UNCERTAIN, cause=_GATEWAY_ONLY) if one.gateway_only else done
    if series.answered:
        lost = Cause("loss", f"{len(series.sent) - series.received} of {len(series.sent)} requests lost", "")
        return replace(done, state=UNCERTAIN, cause=lost)

    def resend() -> None:
        ping([Series(inside, series.to, 1)], _INTERVAL, 0.1)

    seen = [sighting for sighting in watch.sightings() if sighting.series == series.number]
    failure = Failure(one.check, pod, series, host, seen, resend, one.from_host, one.at_peer)
    return replace(done, state=FAILED, cause=most_likely(failure))


class _Plan:
    """Which series of pings a run takes."""

    def __init__(
        self,
        spec: NodeSpec,
        host: Host,
        other: Pod | None,
        wanted: Wanted,
        inside: socket.socket,
        outside: socket.socket,
    ) -> None:
        self._spec, self._host, self._other, self._wanted = spec, host, other, wanted
        self._inside, self._outside = inside, outside
        self._evidence = {peer: self._peer_evidence(peer) for peer in spec.peers}

    def everything(self) -> list[_Planned]:
        """Every check, in the order of `CHECKS`."""
        return [
            _Planned(OWN_HOST, self._main(self._own_address())),
            *self._same_host(),
            *self._other_hosts(),
            *self._other_host_pods(),
            self._external(),
        ]

    def _own_address(self) -> str:
        """This node's address towards its peers, else towards the outside, else its bridge's."""
        for to in (*(peer.via for peer in self._spec.peers), self._external_address()):
            source = self._host.route(to).source
            if source:
                return source
        return gateway_of(self._spec.subnet)

    def _same_host(self) -> list[_Planned]:
        own = parse_cidr(self._spec.subnet)
        named = [address for address in self._wanted.pods if own.holds(parse_address(address))]
        addresses = named or ([self._other.address] if self._other else [])
        if not addresses:
            return [_Planned(SAME_HOST_POD, None, "this node has no other pod to ping")]
        return [_Planned(SAME_HOST_POD, self._main(address)) for address in addresses]

    def _other_hosts(self) -> list[_Planned]:
        if not self._evidence:
            return [_Planned(OTHER_HOST, None, "no peer in node.toml: cnictl route add-peer, or --peer CIDR=VIA")]
        return [
            _Planned(OTHER_HOST, self._main(peer.via), "", evidence.node, evidence)
            for peer, evidence in self._evidence.items()
        ]

    def _other_host_pods(self) -> list[_Planned]:
        own = parse_cidr(self._spec.subnet)
        planned = []
        visited = set()
        for address in self._wanted.pods:
            if own.holds(parse_address(address)):
                continue
            peer = next((p for p in self._evidence if parse_cidr(p.pod_cidr).holds(parse_address(address))), None)
            evidence = None
            if peer is not None:
                visited.add(peer)
                expiring = Series(self._inside, address, 2, ttl=2)
                from_node = Series(self._outside, address, 1, ttl=2)
                evidence = replace(self._evidence[peer], expiring=expiring, pod_from_node=from_node)
            planned.append(_Planned(OTHER_HOST_POD, self._main(address), at_peer=evidence))
        for peer, evidence in self._evidence.items():
            if peer not in visited:
                main = self._main(evidence.gateway.to)
                evidence = replace(evidence, gateway_from_pod=main)
                planned.append(_Planned(OTHER_HOST_POD, main, "", evidence.gateway, evidence, gateway_only=True))
        if not planned:
            return [_Planned(OTHER_HOST_POD, None, "no peer in node.toml, and no --pod given")]
        return planned

    def _external(self) -> _Planned:
        address = self._external_address()
        return _Planned(EXTERNAL, self._main(address), "", Series(self._outside, address, 2))

    def _external_address(self) -> str:
        return self._wanted.external or of_family(self._spec.externals, self._spec.subnet) or DEFAULT_EXTERNAL

    def _main(self, to: str) -> Series:
        return Series(self._inside, to, self._wanted.count)

    def _peer_evidence(self, peer: Peer) -> PeerEvidence:
        gateway = gateway_of(peer.pod_cidr)
        return PeerEvidence(
            peer,
            Series(self._outside, peer.via, 2),
            Series(self._outside, gateway, 2),
            Series(self._inside, gateway, 2),
        )


def existing_pod(text: str) -> Pod:
    """The live pod with an address or a container id (or an unambiguous start of one), of any network of ours.

    Raises Problem if there is none, several, or it is not live.
    """
    records = [record for network in attachments.networks() for record in attachments.all_records(network)]
    found = [one for one in records if text in one.addresses or one.container == text]
    found = found or [one for one in records if len(text) >= 4 and one.container.startswith(text)]
    if not found:
        raise Problem(f"no attachment has the address or container id {text}", "cnictl ipam list shows them")
    if len({one.container for one in found}) > 1:
        raise Problem(f"{text}: {len(found)} containers start so", "give more of the container id")
    verdict = liveness.judge(found[0])
    if verdict.state != liveness.LIVE or not found[0].netns:
        raise Problem(f"{text}: the attachment is {verdict.state}: {verdict.reason}", "cnictl ipam list")
    return _as_pod(found[0])


def neighbour_of(pod: Pod, network: str) -> Pod | None:
    """Another live pod of the network on this node, or None."""
    for record in attachments.all_records(network):
        if record.host_veth != pod.host_veth and liveness.judge(record).state == liveness.LIVE:
            return _as_pod(record)
    return None


def _as_pod(record: Record) -> Pod:
    address = next((one for one in record.addresses if ":" not in one), "")
    if not address:
        raise Problem(f"container {record.container} has no IPv4 address", "cnictl ipam list")
    return Pod(record.pod or record.container, record.netns, address, record.host_veth)
