"""Each program's listing is read once per pass and again after it; commands that change something always run."""

import os
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cnictl.core.errors import Problem
from cnictl.core.process import run
from cnictl.node.host import reading


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs in PATH that record their calls."""
    diary = tmp_path / "diary"
    diary.write_text("")
    for name in ("nft", "iptables", "ip", "containerd"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >>{diary}\n[ "$1" != fails ] && echo listed\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return diary


LISTING = (
    ["nft", "-j", "list", "ruleset"],
    ["iptables", "-w", "-S", "FORWARD"],
    ["ip", "-j", "route"],
    ["containerd", "config", "dump"],
)


@pytest.mark.parametrize("argv", LISTING, ids=lambda argv: argv[0])
def test_a_listing_is_read_once_per_pass(counted: Path, argv: list[str]) -> None:
    with reading.once():
        assert [run(argv).stdout for _ in range(3)] == ["listed\n"] * 3
        with reading.once():
            run(argv)
    assert len(counted.read_text().splitlines()) == 1
    run(argv)
    run(argv)
    assert len(counted.read_text().splitlines()) == 3


@pytest.mark.parametrize("argv", [["nft", "-f", "-"], ["iptables", "-A", "FORWARD"], ["ip", "link", "set", "lo", "up"]])
def test_commands_that_change_something_run_each_time(counted: Path, argv: list[str]) -> None:
    with reading.once():
        run(argv)
        run(argv)
    assert len(counted.read_text().splitlines()) == 2


def test_a_failed_listing_is_read_again(counted: Path) -> None:
    argv = ["ip", "fails", "-j"]
    with reading.once():
        for _ in range(2):
            with pytest.raises(Problem):
                run(argv)
    assert len(counted.read_text().splitlines()) == 2


def test_each_key_is_read_once_per_pass() -> None:
    asked: list[list[int]] = []

    def read(keys: Sequence[int]) -> list[str]:
        asked.append(list(keys))
        return [str(key) for key in keys]

    with reading.once():
        assert reading.known_each("numbers", [1, 2, 1], read) == {1: "1", 2: "2"}
        assert reading.known_each("numbers", [2, 3], read)[3] == "3"
        assert asked == [[1, 2], [3]]
    reading.known_each("numbers", [1], read)
    assert asked[-1] == [1]


def test_a_pass_belongs_to_its_thread(counted: Path) -> None:
    """Another thread reads later, perhaps in another network namespace, so it gets no earlier readings."""
    values = iter(range(10))
    with ThreadPoolExecutor(1) as other, reading.once():
        assert reading.known("number", lambda: next(values)) == 0
        run(LISTING[0])
        assert other.submit(reading.known, "number", lambda: next(values)).result() == 1
        other.submit(run, LISTING[0]).result()
        assert len(counted.read_text().splitlines()) == 2
        with reading.once():
            other.submit(_look, lambda: next(values)).result()
        assert reading.known("number", lambda: next(values)) == 0


def _look(read: Callable[[], int]) -> None:
    with reading.once():
        assert reading.known("number", read) == 2


def test_a_worker_joins_the_pass_of_its_thread(counted: Path) -> None:
    values = iter(range(10))
    with reading.once(), ThreadPoolExecutor(1, initializer=reading.joining()) as pool:
        run(LISTING[0])
        pool.submit(run, LISTING[0]).result()
        assert len(counted.read_text().splitlines()) == 1
        assert reading.known("number", lambda: next(values)) == 0
        assert pool.submit(reading.known, "number", lambda: next(values)).result() == 0
