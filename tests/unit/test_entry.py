"""The entry point itself prints --version, in the same form as the whole program."""

import subprocess
import sys
from pathlib import Path

import pytest

from cnictl import __version__
from cnictl.cli import entry

PROGRAM = (sys.executable, "-I", "-c", "import sys; sys.argv[0] = 'cnictl'; from cnictl.cli.entry import main; main()")


def test_version_is_printed_without_loading_the_rest(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["cnictl", "--version"])
    assert entry._prints_version()
    assert capfd.readouterr().out == f"cnictl {__version__}\n"


@pytest.mark.parametrize("words", [[], ["--version", "--help"], ["status", "--version"], ["-v"]])
def test_anything_else_is_left_to_the_whole_program(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["cnictl", *words])
    assert not entry._prints_version()


def test_run_that_waits_for_its_confirmation_is_left_to_the_whole_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["cnictl", "--version"])
    (tmp_path / "confirm.json").touch()
    monkeypatch.setattr(entry, "CONFIRM_FILE", str(tmp_path / "confirm.json"))
    assert not entry._prints_version()


def test_version_that_cannot_be_written_is_a_failure() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*PROGRAM, "--version"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "cnictl: the output could not be written: No space left on device\n"
