"""Run the checks of `test-connectivity`: ping all of a pod's targets together, and find the cause of each failure."""

import time
from collections.abc import Callable, Container, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from cnictl.core.counted import counted
from cnictl.node import hint
from cnictl.node.spec.node_spec import NodeSpec, by_family, is_ipv6
from cnictl.probe import service
from cnictl.probe.capture import Capture
from cnictl.probe.causes import most_likely
from cnictl.probe.failure import (
    EXTERNAL,
    OTHER_HOST,
    OTHER_HOST_POD,
    OWN_HOST,
    SAME_HOST_POD,
    Failure,
    FailureCause,
)
from cnictl.probe.follow_up import ask_on, ask_outside
from cnictl.probe.host import Host
from cnictl.probe.icmp import Series, echo_socket, ping
from cnictl.probe.pods import CheckedPod
from cnictl.probe.ports import PASSES, PROTOCOLS, REFUSED, SERVED_PORT, SILENT, Attempt, AttemptThread, Listener, listen
from cnictl.probe.stopped import CHOSEN, stopped_by
from cnictl.probe.targets import Planned, Targets, Wanted

CHECKS = (OWN_HOST, SAME_HOST_POD, OTHER_HOST, OTHER_HOST_POD, EXTERNAL)
OK, FAILED, UNCERTAIN, SKIPPED = "ok", "failed", "uncertain", "skipped"

_INTERVAL = 0.1

_GATEWAY_ONLY = FailureCause(
    "gateway-only",
    "only the gateway was tested, which answers even if its node's FORWARD chain drops pods' packets",
    hint.advice(
        "on the other host: cnictl test-connectivity --serve; here: --pod with the address that it prints",
        because="it takes commands on both hosts",
    ),
)

_SERVICE = FailureCause(
    "service-address",
    "this is a Service address, which does not answer pings",
    hint.advice(
        "name a host outside the cluster with --external; cnictl pod POD --to ADDRESS tries the Service's ports",
        because="the operator chose the address",
    ),
)


_RESTART = hint.advice(
    "restart the pod; if the new pod has no such address either, run cnictl apply to rewrite the CNI conf",
    because="a pod gets its addresses when it starts",
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
    """Shortest, mean and longest round trip."""
    cause: FailureCause | None = None
    family: str = ""
    """`ipv4` or `ipv6`; defaults to the source's family."""
    protocols: tuple[tuple[str, str], ...] = ()
    """The results of TCP and UDP, if they were tried: `passes`, `refused`, `silent`."""
    detail: str = ""
    """Further details of a cell, in words; empty for a check."""

    def __post_init__(self) -> None:
        if not self.family:
            object.__setattr__(self, "family", "ipv6" if is_ipv6(self.source) else "ipv4")

    @property
    def loss(self) -> int:
        """Requests without an answer, in percent."""
        return round(100 * (self.sent - self.received) / self.sent) if self.sent else 0

    def as_json(self) -> dict[str, Any]:
        """Return the check as `-o json` prints it; `hint` is as `hint.as_json` documents it."""
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
            "hint": hint.as_json(self.cause.hint) if self.cause else None,
            **({} if self.check in CHECKS else {"detail": self.detail}),
        }


@dataclass(frozen=True)
class Report:
    """The checks of one command, grouped by family, each group in the order of `CHECKS`, then of the cells."""

    checks: tuple[CheckResult, ...]

    @property
    def overall(self) -> str:
        """The worst state: `failed`, `uncertain` or `ok`; `failed` if no check ran."""
        states = {check.state for check in self.checks}
        return next((state for state in (FAILED, UNCERTAIN, OK) if state in states), FAILED)

    def as_json(self) -> dict[str, Any]:
        """Return the report as `-o json` prints it."""
        return {"overall": self.overall, "checks": [check.as_json() for check in self.checks]}


def report_from_json(form: dict[str, Any]) -> Report:
    """Return the report that `Report.as_json` turned into `form`. Raises KeyError if `form` is not a report."""
    return Report(tuple(_check_from_json(check) for check in form["checks"]))


def _check_from_json(form: dict[str, Any]) -> CheckResult:
    times, words = form["rtt_ms"], form["cause"]
    return CheckResult(
        check=form["check"],
        family=form["family"],
        source=form["from"],
        to=form["to"],
        state=form["state"],
        sent=form["sent"],
        received=form["received"],
        rtt_ms=(times["min"], times["avg"], times["max"]) if times else None,
        cause=FailureCause(form["cause_name"], words, hint.from_json(form["hint"])) if words else None,
        detail=form.get("detail", ""),
    )


def run_checks(
    spec: NodeSpec,
    pod: CheckedPod,
    other: CheckedPod | None,
    wanted: Wanted,
    on_step: Callable[[str], None],
    chosen: Container[str] = CHECKS,
) -> Report:
    """Check what `pod` reaches, in each address family of the node. `chosen` are the checks to run.

    `other` is a second pod of this node; None skips the check between two pods.
    """
    with ExitStack() as stack:
        capture = Capture()
        stack.callback(capture.close)
        families = []
        for family_spec, extended in zip(
            by_family(spec), by_family(replace(spec, peers=spec.peers + wanted.peers)), strict=True
        ):
            host = Host(family_spec, spec)
            family_pod = pod.in_family_of(family_spec.subnet)
            if not family_pod.address:
                families.append((family_pod, host, [_NO_ADDRESS]))
                continue
            inside = stack.enter_context(echo_socket(pod.netns, host.ipv6))
            outside = stack.enter_context(echo_socket("", host.ipv6))
            neighbour = other.in_family_of(family_spec.subnet) if other else None
            targets = Targets(extended, host, neighbour, wanted, inside, outside)
            planned_here = [planned for planned in targets.all_checks() if planned.check in chosen]
            families.append((family_pod, host, planned_here))
        listeners: list[Listener] = []
        for family_pod, _, family_planned in families:
            _plan_ports(family_planned, family_pod, other, listeners)
        planned = [check for *_, family_planned in families for check in family_planned]
        mains = [check.series for check in planned if check.series]
        start = time.monotonic()
        on_step(f"pinging {counted(len(mains), 'target')} from pod {' '.join(pod.addresses)}")
        attempts = [attempt for check in planned for attempt in check.attempts]
        trying = AttemptThread(attempts, listeners, wanted.timeout)
        stack.callback(trying.wait)
        if mains:
            ping([*mains, *companions(planned)], _INTERVAL, wanted.timeout, mains)
        trying.wait()
        unheard = [
            (check.series, check.at_peer)
            for check in planned
            if check.series and check.at_peer and not check.series.heard
        ]
        ask_on([pair for pair in unheard if pair[1].expiring], start, on_step)
        silent = [check.series for check in planned if check.check == EXTERNAL and check.series]
        ask_outside([series for series in silent if not series.heard], on_step)
        on_step("looking for causes")
        return Report(
            tuple(
                judge(check, family_pod, host, capture)
                for family_pod, host, family_planned in families
                for check in family_planned
            )
        )


def _plan_ports(
    planned: Sequence[Planned], pod: CheckedPod, other: CheckedPod | None, listeners: list[Listener]
) -> None:
    """Add TCP and UDP to the checks that target this node or a pod."""
    for check in planned:
        if check.series is None or check.gateway_only or check.check not in (OWN_HOST, SAME_HOST_POD, OTHER_HOST_POD):
            continue
        ours = check.check == OWN_HOST or (other is not None and check.series.to in other.addresses)
        where = other.netns if other is not None and check.check == SAME_HOST_POD else ""
        listener = listen(where, check.series.to) if ours else None
        if ours and listener is None:
            continue
        if listener is not None:
            listeners.append(listener)
        port = listener.port if listener is not None else SERVED_PORT
        check.attempts = tuple(
            Attempt(protocol, pod.netns, check.series.to, port, listener is not None) for protocol in PROTOCOLS
        )


def companions(planned: Sequence[Planned]) -> list[Series]:
    """Return the additional pings that distinguish causes, each once."""
    companions: list[Series | None] = []
    for check in planned:
        companions.append(check.from_host)
        if check.at_peer:
            at = check.at_peer
            companions += [at.node, at.gateway, at.gateway_from_pod, at.expiring]
    mains = [check.series for check in planned]
    return [series for series in dict.fromkeys(companions) if series is not None and series not in mains]


def judge(planned: Planned, pod: CheckedPod, host: Host, capture: Capture) -> CheckResult:
    """Return the outcome of a check whose pings are over, with the cause if it failed. `capture` saw its packets."""
    if planned is _NO_ADDRESS:
        words = f"pod {pod.name} has no {host.family} address, but its node has an {host.family} subnet"
        return CheckResult(
            planned.check, "", "", FAILED, cause=FailureCause("no-address", words, _RESTART), family=host.family.lower()
        )
    if planned.series is None:
        return CheckResult(
            planned.check, pod.address, "", SKIPPED, cause=FailureCause("skipped", planned.skip, hint.NONE)
        )
    series = planned.series
    done = CheckResult(planned.check, pod.address, series.to, OK, len(series.sent), series.received, series.rtt_ms)
    done = replace(done, protocols=tuple((attempt.protocol, attempt.state) for attempt in planned.attempts))
    stopped = [attempt for attempt in planned.attempts if attempt.state in (REFUSED, SILENT)]
    if series.answered and stopped:
        cause = stopped_by(planned.check, pod, host, stopped)
        return replace(done, state=UNCERTAIN if cause.name == CHOSEN else FAILED, cause=cause)
    if series.whole:
        return replace(done, state=UNCERTAIN, cause=_GATEWAY_ONLY) if planned.gateway_only else done
    if series.answered:
        lost = FailureCause(
            "loss", f"{len(series.sent) - series.received} of {len(series.sent)} requests lost", hint.NONE
        )
        return replace(done, state=UNCERTAIN, cause=lost)

    if planned.check == EXTERNAL and service.find(series.to) is not None:
        return replace(done, state=UNCERTAIN, cause=_SERVICE)

    def resend() -> None:
        ping([Series(series.sender, series.to, 1)], _INTERVAL, 0.1)

    sightings = [sighting for sighting in capture.sightings() if sighting.series == series.number]
    failure = Failure(
        planned.check, pod, series, host, sightings, resend, planned.from_host, planned.at_peer, planned.pod
    )
    cause = most_likely(failure)
    if planned.attempts and all(attempt.state == PASSES for attempt in planned.attempts):
        words = f"TCP and UDP pass, but ping does not: {cause.words}"
        return replace(done, state=UNCERTAIN, cause=replace(cause, words=words))
    return replace(done, state=FAILED, cause=cause)
