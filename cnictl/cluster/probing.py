"""Talk to all hosts of `cluster test` at the same time: start the probe pods, ping, and ask what the pods received.

One thread for each host reads and writes its messages. A host that does not answer in time is disconnected and left
out.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from cnictl.cluster.transport import Session, Transport
from cnictl.core import untrusted_text
from cnictl.core.errors import Problem
from cnictl.node.runs import converge
from cnictl.probe import pair_reports
from cnictl.probe.pair_reports import PairRequest, Ping, Ready, SeenRequests

_UNKNOWN_COMMAND = "No such command"
COMMAND = ("cnictl", "cluster-probe")


@dataclass(frozen=True)
class Limits:
    """Seconds that each step may take, for all hosts together."""

    ready: float = 60.0
    each: float = 0.1
    """Additional seconds for each host in the first step, because only a few connections are opened at a time."""
    pings: float = 120.0
    seen: float = 15.0
    end: float = 30.0


LIMITS = Limits()


@dataclass
class HostReport:
    """What one host has reported so far."""

    name: str
    ready: Ready | None = None
    pings: tuple[Ping, ...] | None = None
    seen: tuple[SeenRequests, ...] | None = None
    fault: str = ""
    """Why the host stopped reporting; empty if it reported everything."""
    hint: str = ""


def gather(
    hosts: Sequence[str],
    transport: Transport,
    choose: Callable[[Sequence[str]], Mapping[str, Sequence[str]]],
    on_step: Callable[[str], None],
    limits: Limits = LIMITS,
    count: int = 3,
    timeout: float = 1.0,
    externals: tuple[str, ...] = (),
) -> list[HostReport]:
    """Return every host's report, in order. `externals`: the addresses outside to ping, instead of node.toml's.

    `choose` takes the hosts whose pod is up, and returns the partners that each of them pings.
    """
    talks = [_Conversation(host, transport) for host in hosts]
    try:
        on_step(f"making a pod on each of {len(talks)} hosts")
        _await(talks, lambda report: report.ready, limits.ready + len(talks) * limits.each, "did not start its pod")
        ready = {talk.report.name: talk.report.ready for talk in talks if talk.report.ready and not talk.report.fault}
        partners = choose(list(ready))
        on_step(f"pinging between {len(ready)} hosts")
        for talk in talks:
            names = partners.get(talk.report.name, ())
            targets = tuple(host.as_target(name) for name in names if (host := ready.get(name)) is not None)
            talk.answer(pair_reports.request_line(PairRequest(targets, count, timeout, externals)))
        _await(talks, lambda report: report.pings, limits.pings, "did not finish pinging")
        on_step("asking what each pod received")
        for talk in talks:
            talk.answer(pair_reports.FINISH)
        _await(talks, lambda report: report.seen, limits.seen, "did not report what its pod received")
        on_step("removing the pods")
        _await(talks, lambda _: None, limits.end, "did not remove its pod")
    finally:
        _end(talks)
    return [talk.report for talk in talks]


def _await(talks: "Sequence[_Conversation]", part: Callable[[HostReport], object], seconds: float, late: str) -> None:
    """Wait until each host has sent this part of its report or has ended. Disconnect the hosts that are late."""
    deadline = time.monotonic() + seconds
    late_talks = [talk for talk in talks if not talk.wait_for(deadline, part)]
    for talk in late_talks:
        talk.fail(f"{late} within {seconds:g} s")
    _end(late_talks)


def _end(talks: "Sequence[_Conversation]") -> None:
    """Close the open sessions, all at the same time, because a session that hangs takes seconds to close."""
    with ThreadPoolExecutor(len(talks) or 1) as pool:
        list(pool.map(_Conversation.end, talks))


@dataclass(eq=False)
class _Conversation:
    """The conversation with one host."""

    name: str
    transport: Transport
    report: HostReport = field(init=False)
    changed: threading.Condition = field(default_factory=threading.Condition)
    """Notified at each part of the report and at the end."""
    ended: bool = False
    session: Session | None = None
    _closing: bool = False
    _answers: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.report = HostReport(self.name)
        threading.Thread(target=self._run, daemon=True).start()

    def wait_for(self, deadline: float, part: Callable[[HostReport], object]) -> bool:
        """Wait until the monotonic time `deadline` for a part of the report or the end. Return whether either came."""
        with self.changed:
            return self.changed.wait_for(
                lambda: self.ended or part(self.report) is not None, max(0.0, deadline - time.monotonic())
            )

    def answer(self, line: str) -> None:
        """Send a line to the host if it is still connected."""
        with self.changed:
            self._answers.append(line)
            self.changed.notify_all()

    def end(self) -> None:
        """Close the session, if it is still open."""
        with self.changed:
            self._closing = True
            self.changed.notify_all()
            session = None if self.ended else self.session
        if session is not None:
            session.close()

    def _run(self) -> None:
        try:
            session = self.transport.start(self.name, COMMAND)
            with self.changed:
                self.session = session
            try:
                if not self._closing:
                    self._talk(session)
            finally:
                session.close()
        except Problem as problem:
            self.fail(problem.message, problem.hint)
        except OSError as error:
            self.fail(str(error.strerror or error))
        finally:
            with self.changed:
                self.ended = True
                self.changed.notify_all()

    def _talk(self, session: Session) -> None:
        lines = session.lines()
        ready = pair_reports.read_ready(self._next(lines))
        self._store("ready", ready)
        session.send(self._answer())
        self._store("pings", pair_reports.read_pings(self._next(lines)))
        session.send(self._answer())
        self._store("seen", pair_reports.read_seen(self._next(lines)))
        for _ in lines:  # ends when the pod is gone
            pass

    @staticmethod
    def _next(lines: Iterator[str]) -> str:
        line = next(lines, None)
        if line is None:
            raise Problem("cnictl on that host ended before the test was over")
        return line

    def _answer(self) -> str:
        with self.changed:
            self.changed.wait_for(lambda: self._answers or self._closing)
            if not self._answers:
                raise Problem("the test ended")
            return self._answers.pop(0)

    def _store(self, part: str, value: object) -> None:
        with self.changed:
            setattr(self.report, part, value)
            self.changed.notify_all()

    def fail(self, message: str, hint: str = "") -> None:
        """Note why the host reports no more. The first reason is kept."""
        if _UNKNOWN_COMMAND in message:
            message = "cnictl on that host is too old for the test"
            hint = "cnictl cluster upgrade installs this version there"
        if converge.NO_NODE[0] in message:
            hint = f"cnictl cluster apply --limit {self.name}"
        with self.changed:
            self.report.fault = self.report.fault or untrusted_text.line(message)
            self.report.hint = self.report.hint or untrusted_text.line(hint)
