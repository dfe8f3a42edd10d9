"""Find programs in PATH and in root's usual folders."""

import os
from pathlib import Path

import pytest

from cnictl.core import programs
from cnictl.core.errors import MissingProgram, ProgramError
from cnictl.core.process import run


def _with(monkeypatch: pytest.MonkeyPatch, path: str | None) -> None:
    if path is None:
        monkeypatch.delenv("PATH", raising=False)
    else:
        monkeypatch.setenv("PATH", path)


@pytest.mark.parametrize("path", [None, "", ":", ".", "bin:../sbin", "::/usr/bin:"])
def test_only_absolute_paths_and_always_roots_folders_are_searched(
    monkeypatch: pytest.MonkeyPatch, path: str | None
) -> None:
    _with(monkeypatch, path)
    folders = programs.folders()
    assert all(folder.startswith("/") for folder in folders)
    assert set(programs.FOLDERS) <= set(folders)
    assert len(folders) == len(set(folders))


def test_path_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tool = tmp_path / "nft"
    tool.write_text("#!/bin/sh\n")
    _with(monkeypatch, f"{tmp_path}:/bin")
    assert programs.find("nft") != str(tool)  # it is not executable
    tool.chmod(0o755)
    assert programs.find("nft") == str(tool)
    assert programs.find("sh").endswith("/sh")


def test_a_folder_or_an_unknown_name_is_not_a_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "nft-folder").mkdir()
    _with(monkeypatch, str(tmp_path))
    assert programs.find("nft-folder") == ""
    assert programs.find("no-such-program-anywhere") == ""
    assert programs.find("odd\0name") == ""
    assert programs.find(os.fspath(tmp_path)) == ""


def test_a_path_without_any_usual_folder_is_used_unchanged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _with(monkeypatch, str(tmp_path))
    assert programs.folders() == [str(tmp_path)]
    assert programs.find("sh") == ""


@pytest.mark.parametrize(
    ("script", "reason"),
    [("echo 'table: not there' >&2; exit 3", "table: not there"), ("exec cat /dev/zero", "answered with over 1 MiB")],
)
def test_failure_separates_its_reason_from_the_command_line(script: str, reason: str) -> None:
    with pytest.raises(ProgramError) as failed:
        run(["sh", "-c", script], most=1 << 20)
    assert failed.value.reason == reason
    assert failed.value.message == f"sh -c {script}: {reason}"


def test_program_that_was_not_started_has_no_reason() -> None:
    with pytest.raises(MissingProgram) as missing:
        run(["no-such-program"])
    assert missing.value.reason == ""
