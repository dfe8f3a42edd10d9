"""The verdict of `cnictl status`, and how much of its output fits a terminal."""

from typing import Any

import pytest

from cnictl.cli import status_screen
from cnictl.cli.layout import Segment, text_of, width_of
from cnictl.views import status

PEER = {"pod_cidr": "10.244.1.0/24", "via": "10.0.10.51", "fault": "", "answers": True}
WELL: dict[str, Any] = {
    "drifted": 0, "unknown": 0, "strays": [], "source": None, "peers": [PEER], "resources": [{}, {}],
    "confs": {"/etc/cni/net.d": ["10-cnictl.conflist"]}, "conf": "10-cnictl.conflist", "watch": None,
}  # fmt: skip
SOURCE = {"conflict": "", "trouble": ""}


def test_node_is_healthy_if_everything_was_checked_and_works() -> None:
    assert status.verdict(WELL) == ("healthy", [])
    assert status.verdict({**WELL, "peers": []}) == ("healthy", [])


@pytest.mark.parametrize(
    ("seen", "word", "reason"),
    [
        ({"drifted": 1}, "faulty", "1 of 2 resources drifted"),
        ({"strays": [{}]}, "faulty", "pods' packets go elsewhere (1)"),
        ({"peers": [{**PEER, "fault": "no pods"}]}, "faulty", "fault of peer 10.0.10.51"),
        ({"source": {**SOURCE, "conflict": "x"}}, "faulty", "the source of peers contradicts this node"),
        ({"unknown": 2}, "not known", "2 resources could not be checked"),
        ({"peers": [{**PEER, "answers": False}]}, "in doubt", "no answer from peer 10.0.10.51"),
        ({"peers": [{**PEER, "answers": None, "via": ""}]}, "in doubt", "peer 10.244.1.0/24 was not asked"),
        ({"confs": {"d": ["05-x.conf"]}}, "in doubt", "runtimes use 05-x.conf, not 10-cnictl.conflist"),
        ({"confs": {"d": []}}, "in doubt", "no conf in d"),
        ({"watch": {"given_up": {"bridge/cni0": ""}}}, "in doubt", "watch no longer repairs bridge/cni0"),
        ({"source": {**SOURCE, "trouble": "x"}}, "in doubt", "the source of peers could not be read"),
    ],
)
def test_node_with_anything_unchecked_is_not_healthy(seen: dict[str, Any], word: str, reason: str) -> None:
    assert status.verdict({**WELL, **seen}) == (word, [reason])


def test_fault_comes_first_and_unknown_results_are_named_too() -> None:
    peers = [{**PEER, "answers": False, "via": f"10.0.0.{number}"} for number in range(1, 6)]
    said, reasons = status.verdict({**WELL, "drifted": 2, "peers": peers})
    assert said == "faulty"
    assert reasons == ["2 of 2 resources drifted", "no answer from peer 10.0.0.1, 10.0.0.2, 10.0.0.3 and 2 more"]


@pytest.mark.parametrize("rows", [1, 2, 5, 24, 200])
@pytest.mark.parametrize("columns", [20, 80, 140])
def test_screen_is_never_longer_than_the_terminal(rows: int, columns: int) -> None:
    lines = [[Segment("x" * length)] for length in (0, 10, 79, 80, 81, 300, 5, 5, 5)]
    fitted = status_screen.fitted(lines, columns, rows, "12:00:00")
    taken = sum(max(1, -(-sum(width_of(segment.text) for segment in line) // columns)) for line in fitted)
    assert taken <= max(rows, 2)
    missing = len(lines) - (len(fitted) - 1)
    last = f"12:00:00; {missing} more lines: cnictl status" if missing else "12:00:00"
    assert text_of(fitted[-1]) == last[:columns].rstrip()
