"""Requests are sent in turn, each has one outcome, and the figures come from the answers that arrived."""

import errno
import os
import socket
import struct
from collections.abc import Iterable

import pytest

from cnictl.probe import port_requests
from cnictl.probe.answer import REFUSED, REJECTED, REPLY, SILENT, UNSENT, Answer, percentile, times
from cnictl.probe.error_queue import read_error
from cnictl.probe.exchange import Exchange
from cnictl.probe.icmp import Refusal


class Scripted:
    """Requests with predefined answers."""

    def __init__(self, at_once: dict[int, Answer], later: dict[int, Answer]) -> None:
        self._at_once, self._later = at_once, later
        self._sent: list[int] = []
        self.given_up: list[int] = []

    def send(self, sequence: int) -> Answer | None:
        self._sent.append(sequence)
        return self._at_once.get(sequence)

    def waiting(self) -> Iterable[tuple[socket.socket, int]]:
        return []

    def read(self) -> list[Answer]:
        return [answer for sequence in self._sent if (answer := self._later.pop(sequence, None)) is not None]

    def give_up(self, sequence: int) -> None:
        self.given_up.append(sequence)

    def close(self) -> None:
        pass


def test_each_request_has_one_outcome_reported_once_it_is_known() -> None:
    requests = Scripted(
        {1: Answer(1, UNSENT, words="Network is unreachable")},
        {0: Answer(0, REPLY, 0.001, "10.244.0.5"), 3: Answer(3, REJECTED, by="10.0.10.50")},
    )
    told: list[Answer] = []
    exchange = Exchange(requests, 4, 0.001, 0.02)
    exchange.run(told.append)
    assert [exchange.answers[n].state for n in range(4)] == [REPLY, UNSENT, SILENT, REJECTED]
    assert sorted(answer.sequence for answer in told) == [0, 1, 2, 3]
    assert requests.given_up == [2]
    assert not exchange.all_came


def test_all_came_requires_an_answer_to_every_request() -> None:
    exchange = Exchange(Scripted({}, {0: Answer(0, REPLY, 0.1), 1: Answer(1, REFUSED, 0.1)}), 2, 0.0, 1.0)
    assert not exchange.all_came
    exchange.run(lambda _: None)
    assert exchange.all_came


def test_an_interrupted_run_keeps_the_answers_so_far() -> None:
    exchange = Exchange(Scripted({}, {0: Answer(0, REPLY, 0.1)}), 5, 10.0, 1.0)

    def interrupt(_: Answer) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        exchange.run(interrupt)
    assert list(exchange.answers) == [0]


@pytest.mark.parametrize(
    ("percent", "wanted"), [(50, 50), (95, 95), (99, 99), (100, 100), (0, 1)],
)  # fmt: skip
def test_percentiles_use_the_nearest_rank(percent: float, wanted: int) -> None:
    assert percentile(range(1, 101), percent) == wanted


def test_times_include_refusals_and_exclude_losses() -> None:
    answers = [Answer(0, REPLY, 0.004), Answer(1, REFUSED, 0.001), Answer(2, SILENT), Answer(3, REPLY, 0.002)]
    figures = times(answers)
    assert figures is not None
    assert figures.in_ms == {"min": 1.0, "p50": 2.0, "p95": 4.0, "p99": 4.0, "max": 4.0}
    assert times([Answer(0, SILENT)]) is None


def _error(origin: int, kind: int, code: int, info: int, number: int, sender: bytes) -> bytes:
    return struct.pack("=IBBBBII", number, origin, kind, code, 0, info, 0) + sender


_SENDER4 = struct.pack("=H", socket.AF_INET) + bytes(2) + bytes([10, 0, 10, 50]) + bytes(8)
_SENDER6 = struct.pack("=H", socket.AF_INET6) + bytes(6) + socket.inet_pton(socket.AF_INET6, "fd00::1") + bytes(4)


def test_an_icmp_error_names_its_sender_and_the_mtu() -> None:
    assert read_error(_error(2, 3, 4, 1400, 90, _SENDER4)) == Refusal("10.0.10.50", 3, 4, 1400)
    assert read_error(_error(2, 3, 3, 0, 111, _SENDER4)) == Refusal("10.0.10.50", 3, 3)
    assert read_error(_error(3, 2, 0, 1280, 90, _SENDER6)) == Refusal("fd00::1", 3, 4, 1280)
    assert read_error(_error(3, 1, 4, 0, 111, _SENDER6)) == Refusal("fd00::1", 3, 3)


def test_a_packet_too_big_for_our_own_link_has_no_sender() -> None:
    assert read_error(_error(1, 0, 0, 1500, 90, bytes(16))) == Refusal("", 3, 4, 1500)


@pytest.mark.parametrize("data", [b"", bytes(8), _error(0, 0, 0, 0, 111, _SENDER4), _error(2, 3, 3, 0, 111, b"")])
def test_packet_that_is_not_an_icmp_error_is_ignored(data: bytes) -> None:
    assert read_error(data) is None


def test_request_that_finds_no_socket_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(port_requests, "inside", none_left)
    requests = port_requests.PortRequests("tcp", "", "10.244.0.5", 80)
    assert requests.send(3) == Answer(3, UNSENT, words="Too many open files")
    assert list(requests.waiting()) == []
