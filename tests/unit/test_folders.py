"""Folders that cnictl makes for a file are recorded as its own until they are removed."""

import os
from pathlib import Path

import pytest

from cnictl.core.errors import Problem
from cnictl.node.state import folders


@pytest.fixture(autouse=True)
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(folders, "RECORD", str(tmp_path / "state/folders.json"))


def test_created_folders_are_removed_and_existing_ones_stay(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    folders.make(str(tmp_path / "etc/cni/net.d"))
    assert folders.remembered() == [str(tmp_path / "etc/cni/net.d"), str(tmp_path / "etc/cni")]
    folders.unmake(str(tmp_path / "etc/cni/net.d"))
    assert os.listdir(tmp_path) == ["etc"] and os.listdir(tmp_path / "etc") == []


def test_folder_that_another_process_creates_meanwhile_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = os.mkdir

    def beaten(path: str, mode: int = 0o777) -> None:
        if path.endswith("/cni"):
            made(path)
        made(path, mode)

    monkeypatch.setattr(os, "mkdir", beaten)
    folders.make(str(tmp_path / "cni/net.d"))
    assert folders.remembered() == [str(tmp_path / "cni/net.d")]


def test_a_file_in_the_way_is_an_error_and_nothing_is_recorded(tmp_path: Path) -> None:
    (tmp_path / "cni").write_text("a file")
    with pytest.raises(Problem, match="cni"):
        folders.make(str(tmp_path / "cni/net.d"))
    assert folders.remembered() == []
    assert (tmp_path / "cni").read_text() == "a file"
