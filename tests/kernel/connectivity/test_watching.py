"""`test-connectivity --watch` prints changes as lines, and redraws its table at a terminal."""

import os
import select
import signal
import subprocess
from collections.abc import Iterator

import pytest

from cnictl.lab.lab import Lab
from tests.kernel.cluster import shell, traces
from tests.kernel.commands import Lines
from tests.kernel.connectivity.cells import NO_GUARD, World, guard
from tests.schemas import checked

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with Lab(nodes=2) as lab:
        yield World(lab)


def test_watch_prints_changes_and_ends_with_the_last_rounds_status(world: World) -> None:
    world.test("own-host")
    before = traces(world.here)
    watch = ["env", "cnictl", "test-connectivity", "--watch", "--only", "tcp", "--interval", "0.2", "--timeout", "1.5"]
    process = world.here.popen(watch)
    lines = Lines(process.stdout)
    first = [lines.next(20.0) or "" for _ in range(3)]
    assert first[0].split()[:4] == ["CHECK", "FROM", "TO", "STATE"]
    assert [line.split()[0] for line in first[1:]] == ["tcp", "tcp"]
    with world.broken(guard("tcp dport 443 drop"), NO_GUARD):
        line = lines.next(20.0) or ""
        assert "→ 192.0.2.10:443  ok → failed: TCP to 192.0.2.10:443 does not pass: dropped on this node" in line
    assert (lines.next(20.0) or "").rstrip().endswith("→ 192.0.2.10:443  failed → ok")
    shell(world.here, f"pkill -{int(signal.SIGINT)} -f '[t]est-connectivity --watch'")
    process.communicate(timeout=20)
    assert process.returncode == 0
    assert traces(world.here) == before


def test_watch_in_json_has_a_report_on_each_line(world: World) -> None:
    watch = ["cnictl", "test-connectivity", "--watch", "--only", "tcp", "--interval", "0.2", "--timeout", "0.3"]
    with world.broken(guard("tcp dport 443 drop"), NO_GUARD):
        process = world.here.popen([*watch, "-o", "json"])
        lines = Lines(process.stdout)
        documents = [checked("test-connectivity", lines.next(20.0) or "") for _ in range(2)]
        process.terminate()
        process.communicate(timeout=20)
    assert [document["overall"] for document in documents] == ["failed", "failed"]
    assert set(documents[0]) == {"version", "time", "overall", "checks"}
    assert process.returncode == 1


def test_watch_redraws_a_table_at_a_terminal(world: World) -> None:
    ours, its = os.openpty()
    watch = ["cnictl", "test-connectivity", "--watch", "--only", "own-host", "--interval", "0.2"]
    process = world.here.popen(watch, {"TERM": "xterm", "COLUMNS": "120"}, stdout=its, stderr=subprocess.PIPE)
    os.close(its)
    shown = b""
    try:
        while shown.count(b"until Ctrl-C") < 2:
            assert select.select([ours], [], [], 10.0)[0], shown
            shown += os.read(ours, 4096)
    finally:
        process.terminate()
        process.communicate(timeout=20)
        os.close(ours)
    assert shown.count(b"\x1b[H\x1b[2J") >= 2
    assert shown.split(b"\x1b[2J")[2].count(b"own-host") == 1, "the second table, which may be followed by a third"
