"""Write files that may be an operator's: links are followed, and files that cnictl doesn't own stay unchanged."""

import os
import stat
from pathlib import Path

import pytest

from cnictl.core.errors import Problem
from cnictl.node.plugin import files


def write(path: Path, text: str = "new") -> None:
    files.write(str(path), text.encode(), 0o644)


def test_new_file_gets_the_mode_and_an_old_one_keeps_its_own(tmp_path: Path) -> None:
    write(tmp_path / "file")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644
    (tmp_path / "file").chmod(0o600)
    write(tmp_path / "file", "newer")
    assert (tmp_path / "file").read_text() == "newer"
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("target", ["repository/file", "../{}/repository/file", "{}/repository/file", "over"])
def test_link_is_followed_and_stays(tmp_path: Path, target: str) -> None:
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository/file").write_text("old")
    (tmp_path / "over").symlink_to("repository/file")
    said = target.format(tmp_path.name if target.startswith("..") else tmp_path)
    (tmp_path / "link").symlink_to(said)
    write(tmp_path / "link")
    assert os.readlink(tmp_path / "link") == said
    assert (tmp_path / "repository/file").read_text() == "new"
    assert os.listdir(tmp_path / "repository") == ["file"]
    files.remove(str(tmp_path / "link"))
    assert os.readlink(tmp_path / "link") == said
    assert os.listdir(tmp_path / "repository") == []
    write(tmp_path / "link", "again")  # the link's target does not exist
    assert (tmp_path / "repository/file").read_text() == "again"


def test_link_loops_and_links_into_no_folder_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    with pytest.raises(Problem, match="is part of a symbolic link loop"):
        write(tmp_path / "one")
    (tmp_path / "link").symlink_to("missing/file")
    with pytest.raises(Problem) as refused:
        write(tmp_path / "link")
    assert f"there is no folder {tmp_path}/missing" in refused.value.message
    assert f"rm {tmp_path}/link" in refused.value.hint
    assert sorted(os.listdir(tmp_path)) == ["link", "one", "two"]


def test_device_pipe_and_folder_are_refused_and_not_changed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "null").symlink_to("/dev/null")
    for name, kind in (("pipe", "a pipe"), ("folder", "a folder"), ("null", "a device")):
        with pytest.raises(Problem, match=f"is {kind}, not a file"):
            write(tmp_path / name)
        files.remove(str(tmp_path / name))
    assert sorted(os.listdir(tmp_path)) == ["folder", "null", "pipe"]
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert files.is_masked(str(tmp_path / "null"))
    assert not files.is_masked(str(tmp_path / "pipe"))


@pytest.mark.parametrize("text", ["x", "longer than what was there before"])
def test_every_name_of_a_file_with_several_has_the_new_content(tmp_path: Path, text: str) -> None:
    (tmp_path / "file").write_text("what was there")
    os.link(tmp_path / "file", tmp_path / "other")
    write(tmp_path / "file", text)
    assert (tmp_path / "other").read_text() == text
    assert (tmp_path / "file").stat().st_nlink == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file or a link to another user")
def test_owner_stays_and_another_users_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    os.chown(tmp_path / "file", 1000, 1001)
    (tmp_path / "link").symlink_to("file")
    write(tmp_path / "link")
    status = (tmp_path / "file").stat()
    assert (status.st_uid, status.st_gid, (tmp_path / "file").read_text()) == (1000, 1001, "new")
    os.lchown(tmp_path / "link", 1000, 1000)
    with pytest.raises(Problem, match="is a link of user 1000, not of root"):
        write(tmp_path / "link", "led")
    assert (tmp_path / "file").read_text() == "new"


def test_attributes_of_a_file_stay(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    os.setxattr(tmp_path / "file", "user.origin", b"git")
    write(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "new"
    assert os.getxattr(tmp_path / "file", "user.origin") == b"git"
