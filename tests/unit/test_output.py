"""Output to a closed pipe and to a narrow terminal."""

import os
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cnictl.cli import main, output, script, status_screen, steps
from cnictl.core.errors import Problem
from cnictl.node.resources.bridge import Bridge
from cnictl.node.resources.sysctl import Forwarding
from cnictl.node.runs import engine
from cnictl.node.runs.engine import Report
from cnictl.node.runs.live_pods import AttachedPod
from cnictl.node.spec import node_file
from cnictl.node.spec.node_spec import NodeSpec
from cnictl.node.spine import Change, Plan, Step

SPEC = NodeSpec(("10.244.0.0/24",), ("10.244.0.0/20",))
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


@pytest.mark.parametrize(
    ("words", "formats"), [(["version"], "'table', 'json'"), (["logs"], "'table', 'wide', 'name', 'json'")]
)
def test_error_lists_the_formats_that_the_command_has(words: list[str], formats: str) -> None:
    done = subprocess.run([*MAIN, *words, "-o", "jsonn"], stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert f"'jsonn' is not one of {formats}. (see: " in done.stderr


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


def test_outcomes_of_a_run_are_one_column(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A step's sentence may be longer than a screen or the widest column, so it comes last."""
    long = (
        "masquerade packets from 10.244.0.0/24,fd00:244::/64 to destinations outside 10.244.0.0/20,fd00:244::/48 (nft)"
    )
    changes = [Change(f"id/{text}", None, {}, text, "") for text in (long, "add cni0")]
    steps_of_run = tuple(Step(Forwarding(), None, change.summary, change) for change in changes)
    for width in (None, 80):
        monkeypatch.setattr(output, "screen_width", lambda width=width: width)
        steps.Terminal(output.Format.TABLE).report(
            Report(Plan(steps_of_run), dict.fromkeys(("id/add cni0",), "changed"))
        )
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "OUTCOME      STEP"
        assert [line[13:] for line in lines[1:] if not line.startswith(" ")][1:] == ["add cni0"]
        assert width is None or max(map(len, lines)) <= width


def test_refused_preview_shows_the_script_and_the_refusal_as_a_comment(capsys: pytest.CaptureFixture[str]) -> None:
    pod = AttachedPod("mynet", "c1", "eth0", "default/web", ("10.244.0.7",), "live", "")
    change = Change("bridge/cni0", None, {"up": True}, "bring cni0 up", "ip link set cni0 up")
    plan = Plan((Step(Forwarding(), None, change.summary, change),))
    terminal = steps.Terminal(output.Format.TABLE, exit_code=True)
    with pytest.raises(Problem, match="cnictl init-node would cut off 1 pod") as refused:
        engine.preview("init-node", plan, [pod], engine.Options(dry_run=True), terminal)
    assert refused.value.exit_status == 1
    shown = capsys.readouterr()
    assert shown.out.startswith("# refused without --force: cnictl init-node would cut off 1 pod: default/web")
    assert "\nip link set cni0 up\n" in shown.out
    assert "would delete" not in shown.err


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


def test_run_that_changes_nothing_is_one_line_and_a_count(capsys: pytest.CaptureFixture[str]) -> None:
    done = Report(Plan((Step(Bridge(SPEC), {"mtu": 1500}, "make the bridge cni0", None),)))
    steps.Terminal(output.Format.TABLE).report(done)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "nothing to change: the node is as it should be (1 resource checked)\n"


def test_script_counts_what_is_unchanged_and_no_line_ends_in_a_blank() -> None:
    change = Change("forward/iptables", None, {"jumps": {"FORWARD": [""]}}, "accept packets", "iptables -w -N X")
    plan = Plan((Step(Bridge(SPEC), {}, "make the bridge cni0", None), Step(Bridge(SPEC), None, "x", change)))
    lines = [line for _, text in script.of_plan(plan) for line in text.split("\n")]
    assert "# unchanged: 1 resource" in lines and not any("make the bridge" in line for line in lines)
    assert all(line == line.rstrip() for line in lines)


def test_script_says_why_the_bridge_gets_its_mtu_in_two_steps() -> None:
    _, command = Bridge(SPEC).describe(None, {"mtu": 1500, "owner": "cnictl:mynet", "up": True})
    lines = command.split("\n")
    assert lines[1].startswith("# two steps: ") and [line.split()[5] for line in lines[2:4]] == ["1499", "1500"]
