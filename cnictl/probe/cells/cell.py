"""Define a cell of `test-connectivity`: what it sends, and its results. All cells send at the same time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cnictl.node import hint
from cnictl.probe.answer import REFUSED, REPLY, Answer
from cnictl.probe.checks import FAILED, OK, SKIPPED, UNCERTAIN, CheckResult, Report
from cnictl.probe.exchange import Exchange
from cnictl.probe.failure import FailureCause
from cnictl.probe.host import Host
from cnictl.probe.place import as_target
from cnictl.probe.pods import CheckedPod
from cnictl.probe.port_requests import PortRequests
from cnictl.probe.ports import UDP
from cnictl.probe.targets import Wanted, external_address, own_address

_INTERVAL, _MOST = 0.1, 3
"""Seconds between the requests of a cell, and the largest number that it sends."""


@dataclass(frozen=True)
class Part:
    """One address family of the node, as cells need it."""

    host: Host
    pod: CheckedPod
    """The pod that is checked; without an address if it has none of this family."""
    other: CheckedPod | None
    """Another pod of this node."""
    wanted: Wanted

    @property
    def family(self) -> str:
        """`ipv4` or `ipv6`."""
        return self.host.family.lower()

    @property
    def external(self) -> str:
        """The address outside the cluster."""
        return external_address(self.host.spec, self.wanted.externals)

    @property
    def own(self) -> str:
        """This node's own address."""
        return own_address(self.host.spec, self.host, self.external)


@dataclass(frozen=True)
class Evidence:
    """What the pings of the same round showed."""

    report: Report

    def of(self, part: Part, check: str) -> list[CheckResult]:
        """Return the results of a check in one family."""
        return [result for result in self.report.checks if (result.family, result.check) == (part.family, check)]

    def cause_to(self, address: str) -> FailureCause | None:
        """Return why pings to an address failed; None if they did not, or if it was not pinged."""
        return next((r.cause for r in self.report.checks if r.to == address and r.state == FAILED and r.cause), None)


class Cell(Protocol):
    """Something that a pod needs, and how to test it."""

    def tasks(self) -> Sequence[Callable[[], None]]:
        """Return the functions that send and wait. The tasks of all cells run at the same time, each in a thread."""
        ...

    def results(self, evidence: Evidence) -> list[CheckResult]:
        """Return the rows, once the tasks and the pings are over."""
        ...


@dataclass(frozen=True)
class Row:
    """The first columns of a row."""

    check: str
    family: str
    source: str
    to: str

    def result(self, state: str, cause: FailureCause | None = None, detail: str = "") -> CheckResult:
        """Return the row without figures."""
        return CheckResult(self.check, self.source, self.to, state, cause=cause, family=self.family, detail=detail)

    def skipped(self, reason: str) -> CheckResult:
        """Return the row of a cell that can't apply."""
        return self.result(SKIPPED, FailureCause("skipped", reason, hint.NONE))


@dataclass(frozen=True)
class Skipped:
    """A cell that can't apply, with the reason."""

    row: Row
    reason: str

    def tasks(self) -> Sequence[Callable[[], None]]:
        """Return nothing."""
        return ()

    def results(self, _evidence: Evidence) -> list[CheckResult]:
        """Return the one row with the reason."""
        return [self.row.skipped(self.reason)]


@dataclass
class Asked:
    """TCP connections or datagrams from the namespace at path `netns` to a port, and their answers."""

    protocol: str
    netns: str
    to: str
    port: int
    wanted: Wanted
    answers: list[Answer] = field(default_factory=list)

    def run(self) -> None:
        """Send the requests and wait for their answers.

        With UDP, the first answer is enough. It may be an ICMP error. A host sends six of these at once to an address,
        and then one a second (linux ip-sysctl.rst, icmp_ratelimit).
        """
        most = min(self.wanted.count, _MOST)
        if self.protocol != UDP:
            self.answers = self._exchange(most, self.wanted.timeout)
            return
        self.answers = []
        while len(self.answers) < most and not self.answered(refusals=True):
            self.answers += self._exchange(1, self.wanted.timeout / 2)

    def send(self) -> None:
        """Send one more request, for the firewall to trace."""
        self._exchange(1, _INTERVAL)

    def answered(self, refusals: bool) -> list[Answer]:
        """Return the answers that count; `refusals`: whether a closed port counts as one."""
        return [answer for answer in self.answers if answer.state == REPLY or (refusals and answer.state == REFUSED)]

    @property
    def place(self) -> str:
        """Address and port as one word."""
        return as_target(self.to, self.port)

    @property
    def words(self) -> str:
        """What arrived instead of a reply."""
        answer = next((answer for answer in self.answers if answer.state != REPLY), None)
        if answer is None or not (answer.by or answer.words):
            return "no answer"
        return f"{answer.by} answers: {answer.words}" if answer.by else answer.words

    def _exchange(self, count: int, timeout: float) -> list[Answer]:
        requests = PortRequests(self.protocol, self.netns, self.to, self.port)
        exchange = Exchange(requests, count, _INTERVAL, timeout)
        try:
            exchange.run(lambda _: None)
        finally:
            requests.close()
        return list(exchange.answers.values())


def of_answers(row: Row, asked: Asked, refusals: bool, detail: str = "") -> CheckResult | None:
    """Return the row of requests that were answered, all or some; None if none was."""
    came = [answer.seconds * 1000 for answer in asked.answered(refusals)]
    sent = len(asked.answers)
    if not came:
        return None
    lost = FailureCause("loss", f"{sent - len(came)} of {sent} requests lost", hint.NONE)
    whole = len(came) == sent or asked.protocol == UDP
    return CheckResult(
        row.check, row.source, row.to, OK if whole else UNCERTAIN, sent, len(came),
        (min(came), sum(came) / len(came), max(came)), None if whole else lost, row.family, detail=detail,
    )  # fmt: skip


def failed(row: Row, asked: Asked, cause: FailureCause, state: str = FAILED) -> CheckResult:
    """Return the row of requests that were not answered."""
    return CheckResult(row.check, row.source, row.to, state, len(asked.answers), 0, None, cause, row.family)
