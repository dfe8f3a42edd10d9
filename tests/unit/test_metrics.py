"""Count each plugin call in the log once, across rotations and interrupted readers."""

import itertools
from pathlib import Path

import pytest

from cnictl.node.host import plugin_log
from cnictl.views import tally

_NUMBERS = itertools.count()


def line(verb: str = "ADD", level: str = "info", ms: float = 20.0, outcome: str = "ok") -> str:
    return (
        f"2026-11-25T06:00:00.{next(_NUMBERS)}Z {level} {verb} {ms:.1f}ms container=abc ifname=eth0 pod=default/web "
        f"address=10.244.0.2 fd00::2 outcome={outcome}\n"
    )


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tally, "STATE_DIR", str(tmp_path))
    monkeypatch.setattr(tally, "METRICS_FILE", str(tmp_path / "metrics.json"))
    return tmp_path / "plugin.log"


def count(log: Path, key: str = "ADD ok") -> int:
    return int(tally.totals(str(log)).get(key, {"count": 0})["count"])


def test_each_call_is_counted_once(log: Path) -> None:
    assert count(log) == 0
    log.write_text(line() * 3 + line("DEL", "error", 300, "full: no space left"))
    assert (count(log), count(log), count(log, "DEL error")) == (3, 3, 1)
    with log.open("a") as file:
        file.write(line() + line()[:40])  # the second line is incomplete
    assert count(log) == 4
    with log.open("a") as file:
        file.write(line()[40:])
    assert count(log) == 5
    total = tally.totals(str(log))["DEL error"]
    assert (total["sum"], total["buckets"]) == (0.3, [0, 0, 0, 0, 0, 1, 1, 1, 1])


def test_rotated_log_is_read_to_its_end_and_the_new_one_from_its_beginning(log: Path) -> None:
    log.write_text(line() * 2)
    assert count(log) == 2
    with log.open("a") as file:
        file.write(line())
    log.rename(f"{log}.1")
    assert count(log) == 3
    log.write_text(line())
    assert (count(log), count(log)) == (4, 4)
    log.write_text("")  # the log is truncated in place
    log.write_text(line())
    assert count(log) >= 4


def test_first_reading_of_a_rotated_log_without_a_new_one(log: Path) -> None:
    Path(f"{log}.1").write_text(line() * 2)
    assert (count(log), count(log)) == (2, 2)
    log.write_text(line())
    assert count(log) == 3


def test_log_rotated_twice_between_readings(log: Path) -> None:
    log.write_text(line())
    log.rename(f"{log}.1")
    assert count(log) == 1
    log.write_text(line() * 2)
    log.replace(f"{log}.1")
    log.write_text(line())
    assert (count(log), count(log)) == (4, 4)
    log.unlink()  # the operator deletes the log: earlier rotated calls stay counted once
    log.write_text(line())
    assert count(log) == 5


def test_torn_state_is_counted_again_from_the_log(log: Path) -> None:
    log.write_text(line() * 2)
    assert count(log) == 2
    (log.parent / "metrics.json").write_text("{")
    assert count(log) == 2


@pytest.mark.parametrize("who", ["default/web", "web", "abc", "10.244.0.2", "fd00::2"])
def test_call_is_found_by_each_of_its_names(who: str) -> None:
    call = plugin_log.parse(line().rstrip())
    assert call is not None
    assert call.is_of(who)
    assert not call.is_of("other") and not call.is_of("ab")


def test_debug_line_and_torn_line() -> None:
    debug = line().rstrip().replace(" outcome=", " netns=/run/netns/x args={'A': 'b c'} outcome=")
    call = plugin_log.parse(debug)
    assert call is not None
    assert (call.address, call.outcome, call.milliseconds) == ("10.244.0.2 fd00::2", "ok", 20.0)
    assert plugin_log.parse(debug[:50]) is None
