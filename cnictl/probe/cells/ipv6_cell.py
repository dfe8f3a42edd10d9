"""The cell `ipv6`: the pod's IPv6 address is in use, and its gateway answers neighbour solicitations and pings."""

from collections.abc import Callable, Sequence
from contextlib import suppress

from cnictl.core.cidr import parse_address
from cnictl.node import hint
from cnictl.node.spec.node_spec import NodeSpec
from cnictl.probe import trace
from cnictl.probe.cells.cell import Cell, Evidence, Part, Row, Skipped
from cnictl.probe.cells.names import IPV6
from cnictl.probe.checks import FAILED, OK, UNCERTAIN, CheckResult
from cnictl.probe.drop_hint import for_drop
from cnictl.probe.echo_requests import EchoRequests
from cnictl.probe.exchange import Exchange
from cnictl.probe.failure import OWN_HOST, FailureCause, gateway_of
from cnictl.probe.netns_thread import inside
from cnictl.probe.pods import CheckedPod

_INTERVAL, _MOST = 0.1, 3
_TENTATIVE, _DUPLICATE = 0x40, 0x08  # linux/if_addr.h, IFA_F_TENTATIVE and IFA_F_DADFAILED
_RESTART = hint.advice("restart the pod", because="a pod gets its addresses when it starts")


def plan(part: Part | None, spec: NodeSpec, pod: CheckedPod) -> Cell:
    """Return the cell of `pod`; `part` is None on a node without IPv6."""
    if part is None:
        reason = f"the pods of this node have no IPv6: node.toml's subnet is {' '.join(spec.subnets)}"
        return Skipped(Row(IPV6, "ipv6", pod.address, ""), reason)
    return Ipv6Cell(part)


class Ipv6Cell:
    """Pings from the pod to its IPv6 gateway."""

    def __init__(self, part: Part) -> None:
        self._part, self._gateway = part, gateway_of(part.host.spec.subnet)
        self._rtts: list[float] = []
        self._sent = 0
        self._flags: int | None = None

    def tasks(self) -> Sequence[Callable[[], None]]:
        """Return the pings."""
        return (self._measure,)

    def _measure(self) -> None:
        pod = self._part.pod
        self._flags = inside(pod.netns, lambda: flags_of(pod.address))
        answers = self._ping(min(self._part.wanted.count, _MOST), self._part.wanted.timeout)
        self._sent = len(answers.answers)
        self._rtts = [answer.seconds * 1000 for answer in answers.answers.values() if answer.came]

    def _ping(self, count: int, timeout: float) -> Exchange:
        requests = EchoRequests(self._part.pod.netns, self._gateway)
        exchange = Exchange(requests, count, _INTERVAL, timeout)
        try:
            exchange.run(lambda _: None)
        finally:
            requests.close()
        return exchange

    def results(self, evidence: Evidence) -> list[CheckResult]:
        """Return the one row."""
        rtts, sent = self._rtts, self._sent
        state, cause = OK, self._address_fault()
        if cause is not None or not rtts:
            state, cause = FAILED, cause or self._cause(evidence)
        elif len(rtts) < sent:
            state = UNCERTAIN
            cause = FailureCause("loss", f"{sent - len(rtts)} of {sent} requests lost", hint.NONE)
        times = (min(rtts), sum(rtts) / len(rtts), max(rtts)) if rtts else None
        address = self._part.pod.address
        return [CheckResult(IPV6, address, self._gateway, state, sent, len(rtts), times, cause, self._part.family)]

    def _address_fault(self) -> FailureCause | None:
        pod = self._part.pod
        if self._flags is None:
            return FailureCause("no-address", f"pod {pod.name} no longer has its address {pod.address}", _RESTART)
        if self._flags & _DUPLICATE:
            words = f"another host on the bridge has {pod.address} too: duplicate address detection failed in the pod"
            return FailureCause("duplicate-address", words, _RESTART)
        if self._flags & _TENTATIVE:
            words = f"{pod.address} is still tentative: the pod can't use it until duplicate address detection is over"
            return FailureCause("tentative", words, hint.NONE)
        return None

    def _cause(self, evidence: Evidence) -> FailureCause:
        own = next((result.cause for result in evidence.of(self._part, OWN_HOST) if result.state == FAILED), None)
        if own is not None:
            return own
        address = self._part.pod.address

        def resend() -> None:
            self._ping(1, _INTERVAL)

        drop = trace.find_drop(address, self._gateway, resend)
        if drop is not None:
            words = f"pings to the gateway {self._gateway} are dropped on this node by {drop.words}"
            return FailureCause("dropped-here", words, for_drop(drop, f"ICMPv6 from {address}"))
        words = f"the gateway {self._gateway} does not answer the pod's neighbour solicitations or pings"
        return FailureCause("gateway-silent", words, hint.advice("cnictl doctor", because="the cause is not known"))


def flags_of(address: str) -> int | None:
    """Return the flags of an IPv6 address in this thread's network namespace; None if no link has it."""
    wanted = parse_address(address).hex()
    with suppress(OSError), open("/proc/thread-self/net/if_inet6", encoding="ascii") as file:
        for line in file:
            packed, _, _, _, flags, _ = line.split()
            if packed == wanted:
                return int(flags, 16)
    return None
