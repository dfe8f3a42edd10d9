"""Output to a closed pipe and to a narrow terminal."""

import os
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cnictl.cli import main, output, status_screen, steps
from cnictl.node.resources.sysctl import Forwarding
from cnictl.node.runs.engine import Report
from cnictl.node.runs.live_pods import AttachedPod
from cnictl.node.spec import node_file
from cnictl.node.spine import Change, Plan, Step

MAIN = [sys.executable, "-m", "cnictl"]


@pytest.mark.parametrize("words", [["--help"], ["plugin", "list", "--help"], ["plugin", "list", "-o", "json"]])
def test_closed_pipe_ends_without_output(words: list[str]) -> None:
    """As in `cnictl … | true`: the interpreter's final flush would print an error and exit with status 120."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*MAIN, *words], stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("words", [["--help"], ["plugin", "list", "-o", "json"]])
def test_full_disk_is_reported_in_one_line(words: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*MAIN, *words], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "No space left on device" in done.stderr


def test_closed_output_is_not_an_error() -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" >&-', "sh", *MAIN, "plugin", "list", "-o", "json"],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_interrupt_is_reported_with_the_shells_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(node_file, "load", interrupted)
    monkeypatch.setattr("sys.argv", ["cnictl", "route", "list"])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 130
    assert capsys.readouterr().err.strip() == "cnictl: interrupted"


def test_preview_names_the_pods_that_force_would_detach(capsys: pytest.CaptureFixture[str]) -> None:
    pod = AttachedPod("mynet", "c1", "eth0", "default/web", ("10.244.0.7",), "live", "")
    steps.Terminal(output.Format.TABLE).preview(Plan(()), [pod])
    assert "would delete the attachment of default/web (10.244.0.7, live)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("now", "wanted", "seen", "due"),
    [
        (None, {"via": "10.0.10.51"}, "missing", "via 10.0.10.51"),
        ({"at": []}, {"at": ["FORWARD"]}, "missing", "at FORWARD"),
        ({"files": {"/etc/x": "a"}}, {"files": {"/etc/x": "b"}}, "files /etc/x: other content", "files /etc/x"),
        ({"up": False, "mtu": 1500}, {"up": True, "mtu": 1500}, "up false", "up true"),
        ({"via": "10.0.10.51"}, None, "via 10.0.10.51", "absent"),
    ],
)
def test_drift_is_readable(
    now: dict[str, object] | None, wanted: dict[str, object] | None, seen: str, due: str
) -> None:
    row = {"resource": "x", "state": "drifted", "now": now, "wanted": wanted}
    assert status_screen.status_cells(row) == ("x", "drifted", seen, due)


def test_table_without_headings_starts_with_its_first_row(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(("", ""), [("name", "cni0"), ("mtu", "1500")])
    assert capsys.readouterr().out == "name  cni0\nmtu   1500\n"


def test_running_step_is_shown_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = [Change(f"link/{name}", None, {}, f"make {name}", "") for name in ("br0", "br1")]
    plan = Plan(tuple(Step(Forwarding(), None, change.summary, change) for change in changes))
    ours, theirs = os.openpty()
    monkeypatch.setenv("TERM", "xterm")
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        with output.working("looking") as tell:
            note = Report(plan).follow(tell)
            _read_until(ours, "1 of 2: make br0")
            note(changes[0], "changed")
            _read_until(ours, "2 of 2: make br1")
            note(changes[1], "failed")
            note(changes[0], "undone")
            _read_until(ours, "reverted: make br0")
    os.close(ours)


def _read_until(terminal: int, text: str) -> None:
    shown, end = "", time.monotonic() + 10
    while text not in shown:
        assert select.select([terminal], [], [], max(0, end - time.monotonic()))[0], shown
        shown += os.read(terminal, 4096).decode(errors="replace")


def test_no_progress_is_shown_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    with output.working("looking") as tell:
        tell("1 of 2: make br0")
    assert capsys.readouterr() == ("", "")
