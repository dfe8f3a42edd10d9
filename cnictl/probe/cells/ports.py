"""The cells `tcp` and `udp`: the ports of pods, which the ping checks also try, and one port of an external address.

At the external address, a closed port counts as an answer, because a reset (TCP) or port unreachable (UDP) came back.
If this host gets no answer from it either, the cell says nothing about the pod.
"""

import select
from collections.abc import Callable, Sequence

from cnictl.node import hint
from cnictl.probe.answer import REFUSED as CLOSED
from cnictl.probe.cells.cell import Asked, Evidence, Part, Row, failed, of_answers
from cnictl.probe.cells.names import TCP, UDP
from cnictl.probe.cells.stops import dropped
from cnictl.probe.checks import FAILED, OK, CheckResult
from cnictl.probe.failure import OTHER_HOST_POD, SAME_HOST_POD, FailureCause
from cnictl.probe.ports import PASSES, REFUSED, SILENT

OUTSIDE_PORTS = {True: 443, False: 53}
"""The external port to try, by whether the protocol is TCP. The default external addresses serve both."""
_NEXT_ERROR = 1.1
"""Seconds until a host that has reached its limit of ICMP errors sends the next one, plus some slack."""


class PortsCell:
    """TCP or UDP from the pod to other pods and to an outside host."""

    def __init__(self, check: str, part: Part) -> None:
        self._part, self._check = part, check
        port = OUTSIDE_PORTS[check == TCP]
        self._asked = Asked(check, part.pod.netns, part.external, port, part.wanted)
        self._from_host = Asked(check, "", part.external, port, part.wanted)

    def tasks(self) -> Sequence[Callable[[], None]]:
        """Return the pod's requests and, if none is answered, this host's for comparison."""
        return (self._try,)

    def _try(self) -> None:
        self._asked.run()
        if self._asked.answered(refusals=True):
            return
        self._from_host.run()
        if any(answer.state == CLOSED for answer in self._from_host.answers) and self._check == UDP:
            select.select([], [], [], _NEXT_ERROR)
            self._asked.run()

    def results(self, evidence: Evidence) -> list[CheckResult]:
        """Return a row for each pod that was tried, and one for an outside host."""
        pods = [r for check in (SAME_HOST_POD, OTHER_HOST_POD) for r in evidence.of(self._part, check)]
        rows = [self._of_pod(result, dict(result.protocols).get(self._check, "")) for result in pods]
        return [*filter(None, rows), self._outside(evidence)]

    def _of_pod(self, result: CheckResult, state: str) -> CheckResult | None:
        """Return the row of a pod that the ping check tried, with the cause that it found."""
        if state not in (PASSES, REFUSED, SILENT):
            return None
        passes = state == PASSES
        cause = None if passes else result.cause
        return CheckResult(
            self._check, result.source, result.to, OK if passes else FAILED, 1, int(passes), None, cause, result.family
        )

    def _outside(self, evidence: Evidence) -> CheckResult:
        part, asked = self._part, self._asked
        row = Row(self._check, part.family, part.pod.address, asked.place)
        answered = of_answers(row, asked, refusals=True)
        if answered is not None:
            return answered
        inherited = evidence.cause_to(asked.to)
        cause = inherited or dropped(part.host, part.pod.address, asked)
        if cause is not None:
            return failed(row, asked, cause)
        if not self._from_host.answered(refusals=True):
            return row.skipped(
                f"{asked.place} does not answer this host either ({self._from_host.words}): "
                "--external names another address"
            )
        return failed(row, asked, self._unexplained())

    def _unexplained(self) -> FailureCause:
        asked = self._asked
        words = f"{asked.protocol.upper()} to {asked.place} passes from this host, but not from the pod ({asked.words})"
        return FailureCause(
            "ports-dropped", words, hint.advice("cnictl doctor", because="it reads and changes nothing")
        )
