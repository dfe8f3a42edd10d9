"""The node commands refuse a wrong user or wrong options before they read the host."""

import os

import pytest

from cnictl.cli import main
from cnictl.node.spec import node_file
from cnictl.node.spec.node_spec import NodeSpec
from cnictl.node.state import original_state

INIT = ("init-node", "--subnet", "10.244.0.0/24", "--network", "10.244.0.0/20")


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Run the command line in this process and return its exit status."""
    monkeypatch.setattr("sys.argv", ["cnictl", *words])
    with pytest.raises(SystemExit) as ended:
        main.main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    "words",
    [
        INIT,
        (*INIT, "--dry-run"),
        ("apply",),
        ("status",),
        ("reset-node", "--yes"),
        ("bridge", "up", "--subnet", "10.244.0.0/24", "--network", "10.244.0.0/20"),
        ("bridge", "down"),
        ("nat", "enable"),
        ("nat", "disable"),
        ("nat", "show"),
        ("route", "add-peer", "10.244.1.0/24", "10.0.10.51"),
        ("route", "del-peer", "10.244.1.0/24"),
    ],
)
def test_without_root_one_line_says_which_command_needs_it(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(node_file, "load", lambda: None)
    assert run(monkeypatch, *words) == 1
    said = capsys.readouterr()
    command = " ".join(words[:2] if words[0] in ("bridge", "nat", "route") else words[:1])
    assert said.err.splitlines()[0].startswith(f"cnictl: cnictl {command} needs root: it ")
    assert said.err.splitlines()[1:] == [f"  hint: sudo cnictl {command}"]
    assert said.out == ""


def test_read_only_commands_need_no_root(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    spec = NodeSpec(("10.244.0.0/24",), ("10.244.0.0/20",), bridge="no-such-link")
    monkeypatch.setattr(node_file, "load", lambda: spec)
    monkeypatch.setattr(original_state, "specs", list)
    assert run(monkeypatch, "route", "list") == 0
    assert "no peers" in capsys.readouterr().err


def test_bad_value_is_reported_before_missing_root(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert run(monkeypatch, "init-node", "--subnet", "10.244.0.1/24", "--network", "10.244.0.0/20") == 2
    assert "did you mean 10.244.0.0/24" in capsys.readouterr().err


@pytest.mark.parametrize("command", [("nat", "enable", "--backend", "ipfw"), ("bridge", "up", "--mtu", "9")])
def test_bad_options_are_usage_errors(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(node_file, "load", lambda: NodeSpec(("10.244.0.0/24",), ("10.244.0.0/20",)))
    assert run(monkeypatch, *command) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
