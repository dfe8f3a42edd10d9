"""Where programs are looked for."""

import os
from pathlib import Path

import pytest

from cnictl.core import programs


def _with(monkeypatch: pytest.MonkeyPatch, path: str | None) -> None:
    if path is None:
        monkeypatch.delenv("PATH", raising=False)
    else:
        monkeypatch.setenv("PATH", path)


@pytest.mark.parametrize("path", [None, "", ":", ".", "bin:../sbin", "::/usr/bin:"])
def test_only_whole_paths_are_searched_and_roots_folders_always(
    monkeypatch: pytest.MonkeyPatch, path: str | None
) -> None:
    _with(monkeypatch, path)
    found = programs.folders()
    assert all(folder.startswith("/") for folder in found)
    assert set(programs.FOLDERS) <= set(found)
    assert len(found) == len(set(found))


def test_path_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tool = tmp_path / "nft"
    tool.write_text("#!/bin/sh\n")
    _with(monkeypatch, f"{tmp_path}:/bin")
    assert programs.find("nft") != str(tool)  # may not be executed
    tool.chmod(0o755)
    assert programs.find("nft") == str(tool)
    assert programs.find("sh").endswith("/sh")


def test_a_folder_or_a_name_that_is_nowhere_is_no_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "nft-folder").mkdir()
    _with(monkeypatch, str(tmp_path))
    assert programs.find("nft-folder") == ""
    assert programs.find("no-such-program-anywhere") == ""
    assert programs.find("odd\0name") == ""
    assert programs.find(os.fspath(tmp_path)) == ""


def test_a_path_without_any_usual_folder_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _with(monkeypatch, str(tmp_path))
    assert programs.folders() == [str(tmp_path)]
    assert programs.find("sh") == ""
