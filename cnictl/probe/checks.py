"""The checks of `test-connectivity`: what a pod should reach, all pinged at once, each failure traced to a cause."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from cnictl.node import hint
from cnictl.node.spec.node_spec import NodeSpec, by_family, is_ipv6
from cnictl.probe import service
from cnictl.probe.capture import Watch
from cnictl.probe.causes import most_likely
from cnictl.probe.failure import (
    EXTERNAL,
    OTHER_HOST,
    OTHER_HOST_POD,
    OWN_HOST,
    SAME_HOST_POD,
    Cause,
    Failure,
)
from cnictl.probe.follow_up import ask_on
from cnictl.probe.host import Host
from cnictl.probe.icmp import Series, echo_socket, ping
from cnictl.probe.pods import CheckedPod
from cnictl.probe.ports import PASSES, PROTOCOLS, REFUSED, SERVED_PORT, SILENT, Attempt, Listener, Trying, listen
from cnictl.probe.stopped import CHOSEN, stopped_by
from cnictl.probe.targets import Planned, Targets, Wanted

CHECKS = (OWN_HOST, SAME_HOST_POD, OTHER_HOST, OTHER_HOST_POD, EXTERNAL)
OK, FAILED, UNCERTAIN, SKIPPED = "ok", "failed", "uncertain", "skipped"

_INTERVAL = 0.1

_GATEWAY_ONLY = Cause(
    "gateway-only",
    "gateway only: it answers even where its node's FORWARD drops, so it proves nothing about pods there",
    hint.advice(
        "on the other host: cnictl test-connectivity --serve; here: --pod with the address it prints",
        because="it takes a person, or a script, on both hosts",
    ),
)

_SERVICE = Cause(
    "service-address",
    "a Service address, which answers no ping",
    hint.advice(
        "name a host outside the cluster with --external; cnictl pod POD --to ADDRESS tries the Service's ports",
        because="the operator chose the address",
    ),
)


_RESTART = hint.advice(
    "restart the pod; if the new one has none either, the CNI conf is at fault: cnictl apply",
    because="addresses are given to a pod when it starts",
)
_NO_ADDRESS = Planned(OWN_HOST, None)


@dataclass(frozen=True)
class CheckResult:
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
    family: str = ""
    """`ipv4` or `ipv6`; by default the source's."""
    protocols: tuple[tuple[str, str], ...] = ()
    """What TCP and UDP did, where they were tried too: `passes`, `refused`, `silent`."""

    def __post_init__(self) -> None:
        if not self.family:
            object.__setattr__(self, "family", "ipv6" if is_ipv6(self.source) else "ipv4")

    @property
    def loss(self) -> int:
        """Requests without an answer, in percent."""
        return round(100 * (self.sent - self.received) / self.sent) if self.sent else 0

    def as_json(self) -> dict[str, Any]:
        """The check as `-o json` prints it."""
        rtt = self.rtt_ms
        return {
            "check": self.check,
            "family": self.family,
            "from": self.source,
            "to": self.to,
            "state": self.state,
            "sent": self.sent,
            "received": self.received,
            "rtt_ms": dict(zip(("min", "avg", "max"), (round(t, 3) for t in rtt), strict=True)) if rtt else None,
            **{protocol: dict(self.protocols).get(protocol) for protocol in PROTOCOLS},
            "cause": self.cause.words if self.cause else None,
            "cause_name": self.cause.name if self.cause else None,
            "mend": str(self.cause.mend) if self.cause and self.cause.mend else None,
            "hint": hint.parts(self.cause.mend) if self.cause else {},
        }


@dataclass(frozen=True)
class Report:
    """A run's checks: one family after the other, each in the order of `CHECKS`."""

    checks: tuple[CheckResult, ...]

    @property
    def overall(self) -> str:
        """`failed` if any check is, else `uncertain` if any is, else `ok`; `failed` too if none was made."""
        states = {check.state for check in self.checks}
        return next((state for state in (FAILED, UNCERTAIN, OK) if state in states), FAILED)

    def as_json(self) -> dict[str, Any]:
        """The report as `-o json` prints it."""
        return {"overall": self.overall, "checks": [check.as_json() for check in self.checks]}


def run_checks(
    spec: NodeSpec, pod: CheckedPod, other: CheckedPod | None, wanted: Wanted, on_step: Callable[[str], None]
) -> Report:
    """Check what `pod` reaches in each family of the node's; `other`: a second pod of it, None to skip that check."""
    with ExitStack() as stack:
        watch = Watch()
        stack.callback(watch.close)
        families = []
        for one, extended in zip(
            by_family(spec), by_family(replace(spec, peers=spec.peers + wanted.peers)), strict=True
        ):
            host = Host(one, spec)
            seen = pod.in_family_of(one.subnet)
            if not seen.address:
                families.append((seen, host, [_NO_ADDRESS]))
                continue
            inside = stack.enter_context(echo_socket(pod.netns, host.ipv6))
            outside = stack.enter_context(echo_socket("", host.ipv6))
            neighbour = other.in_family_of(one.subnet) if other else None
            targets = Targets(extended, host, neighbour, wanted, inside, outside)
            families.append((seen, host, targets.everything()))
        listeners: list[Listener] = []
        for seen, _, ones in families:
            _plan_ports(ones, seen, other, listeners)
        planned = [one for *_, ones in families for one in ones]
        mains = [one.series for one in planned if one.series]
        start = time.monotonic()
        on_step(f"pinging {len(mains)} targets from pod {' '.join(pod.addresses)}")
        attempts = [attempt for one in planned for attempt in one.attempts]
        trying = Trying(attempts, listeners, wanted.timeout)
        stack.callback(trying.wait)
        if mains:
            ping([*mains, *_companions(planned)], _INTERVAL, wanted.timeout, mains)
        trying.wait()
        unheard = [(one.series, one.at_peer) for one in planned if one.series and one.at_peer and not one.series.heard]
        ask_on([pair for pair in unheard if pair[1].expiring], start, on_step)
        on_step("looking for causes")
        return Report(tuple(_judge(one, seen, host, watch) for seen, host, ones in families for one in ones))


def _plan_ports(
    planned: Sequence[Planned], pod: CheckedPod, other: CheckedPod | None, listeners: list[Listener]
) -> None:
    """Add TCP and UDP to the checks of which an answer, or its lack, tells something about this node or a pod."""
    for one in planned:
        if one.series is None or one.gateway_only or one.check not in (OWN_HOST, SAME_HOST_POD, OTHER_HOST_POD):
            continue
        ours = one.check == OWN_HOST or (other is not None and one.series.to in other.addresses)
        where = other.netns if other is not None and one.check == SAME_HOST_POD else ""
        listener = listen(where, one.series.to) if ours else None
        if ours and listener is None:
            continue
        if listener is not None:
            listeners.append(listener)
        port = listener.port if listener is not None else SERVED_PORT
        one.attempts = tuple(
            Attempt(protocol, pod.netns, one.series.to, port, listener is not None) for protocol in PROTOCOLS
        )


def _companions(planned: Sequence[Planned]) -> list[Series]:
    """The pings beside the checks that tell causes apart, each once."""
    found: list[Series | None] = []
    for one in planned:
        found.append(one.from_host)
        if one.at_peer:
            at = one.at_peer
            found += [at.node, at.gateway, at.gateway_from_pod, at.expiring]
    mains = [one.series for one in planned]
    return [one for one in dict.fromkeys(found) if one is not None and one not in mains]


def _judge(one: Planned, pod: CheckedPod, host: Host, watch: Watch) -> CheckResult:
    if one is _NO_ADDRESS:
        words = f"pod {pod.name} has no {host.family} address, and its node has a {host.family} subnet"
        return CheckResult(
            one.check, "", "", FAILED, cause=Cause("no-address", words, _RESTART), family=host.family.lower()
        )
    if one.series is None:
        return CheckResult(one.check, pod.address, "", SKIPPED, cause=Cause("skipped", one.skip, hint.NONE))
    series = one.series
    done = CheckResult(one.check, pod.address, series.to, OK, len(series.sent), series.received, series.rtt_ms)
    done = replace(done, protocols=tuple((one.protocol, one.state) for one in one.attempts))
    stopped = [attempt for attempt in one.attempts if attempt.state in (REFUSED, SILENT)]
    if series.answered and stopped:
        cause = stopped_by(one.check, pod, host, stopped)
        return replace(done, state=UNCERTAIN if cause.name == CHOSEN else FAILED, cause=cause)
    if series.whole:
        return replace(done, state=UNCERTAIN, cause=_GATEWAY_ONLY) if one.gateway_only else done
    if series.answered:
        lost = Cause("loss", f"{len(series.sent) - series.received} of {len(series.sent)} requests lost", hint.NONE)
        return replace(done, state=UNCERTAIN, cause=lost)

    if one.check == EXTERNAL and service.find(series.to) is not None:
        return replace(done, state=UNCERTAIN, cause=_SERVICE)

    def resend() -> None:
        ping([Series(series.sender, series.to, 1)], _INTERVAL, 0.1)

    seen = [sighting for sighting in watch.sightings() if sighting.series == series.number]
    failure = Failure(one.check, pod, series, host, seen, resend, one.from_host, one.at_peer)
    cause = most_likely(failure)
    if one.attempts and all(attempt.state == PASSES for attempt in one.attempts):
        words = f"TCP and UDP pass, ping alone does not: {cause.words}"
        return replace(done, state=UNCERTAIN, cause=replace(cause, words=words))
    return replace(done, state=FAILED, cause=cause)
