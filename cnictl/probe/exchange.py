"""Send requests of any protocol at an interval, and pass on each outcome as soon as it is known.

`Requests` is one protocol's part: `probe.echo_requests` (ICMP) and `probe.port_requests` (TCP, UDP).
"""

import select
import socket
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from cnictl.probe.answer import SILENT, Answer


class Requests(Protocol):
    """The requests of one protocol from one namespace to one target."""

    def send(self, sequence: int) -> Answer | None:
        """Send a request. Return an Answer if the outcome is known at once."""
        ...

    def waiting(self) -> Iterable[tuple[socket.socket, int]]:
        """Return the sockets on which answers may come, each with the events of poll(2) to wait for."""
        ...

    def read(self) -> list[Answer]:
        """Return the outcomes since the last call, without waiting."""
        ...

    def give_up(self, sequence: int) -> None:
        """Stop waiting for the answer to a request."""
        ...

    def close(self) -> None:
        """Close every socket."""
        ...


class Exchange:
    """Some requests of one protocol and their answers."""

    def __init__(self, requests: Requests, count: int, interval: float, timeout: float) -> None:
        """`interval` is between requests, `timeout` for each answer, both in seconds."""
        self._requests, self._count, self._interval, self._timeout = requests, count, interval, timeout
        self._open: dict[int, float] = {}
        self.answers: dict[int, Answer] = {}
        """The outcome of each request, by sequence number. Requests that still wait for one are missing."""

    @property
    def all_came(self) -> bool:
        """Whether at least one request was sent, and every request was answered."""
        return bool(self.answers) and all(answer.came for answer in self.answers.values())

    def run(self, on_answer: Callable[[Answer], None]) -> None:
        """Send all requests and wait for their answers. An interrupted run keeps the answers so far."""
        start = time.monotonic()
        sent = 0
        while sent < self._count or self._open:
            now = time.monotonic()
            if sent < self._count and now >= start + sent * self._interval:
                self._open[sent] = now
                self._take([self._requests.send(sent)], on_answer)
                sent += 1
                continue
            overdue = [sequence for sequence, at in self._open.items() if now - at >= self._timeout]
            for sequence in overdue:
                self._requests.give_up(sequence)
            self._take([Answer(sequence, SILENT) for sequence in overdue], on_answer)
            self._wait(self._next_event(start, sent, now) - now)
            self._take(self._requests.read(), on_answer)

    def _next_event(self, start: float, sent: int, now: float) -> float:
        """Return when the next request is due or the next answer is overdue; `now` if neither is."""
        due = [start + sent * self._interval] if sent < self._count else []
        return min([*due, *(at + self._timeout for at in self._open.values())], default=now)

    def _wait(self, seconds: float) -> None:
        poll = select.poll()
        for waiting, events in self._requests.waiting():
            poll.register(waiting, events)
        poll.poll(max(0.0, seconds) * 1000)

    def _take(self, answers: Iterable[Answer | None], on_answer: Callable[[Answer], None]) -> None:
        for answer in answers:
            if answer is not None and self._open.pop(answer.sequence, None) is not None:
                self.answers[answer.sequence] = answer
                on_answer(answer)
