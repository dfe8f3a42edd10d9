"""Files appear completely or not at all, on file systems with and without unnamed files."""

import errno
import os
import posix
from pathlib import Path

import pytest

from cnictl.core import durable

Refuse = type[BaseException]


@pytest.fixture(params=["O_TMPFILE", "named temporary file"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on a file system with unnamed files, or on one for which the kernel returns EOPNOTSUPP."""
    if request.param != "O_TMPFILE":
        real = posix.open

        def refusing(path: str, flags: int, *rest: int) -> int:
            if flags & posix.O_TMPFILE == posix.O_TMPFILE:
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), path)
            return real(path, flags, *rest)

        monkeypatch.setattr(durable, "open", refusing)
    return tmp_path


def create(path: str, data: bytes, mode: int) -> int:
    descriptor, name = durable.unnamed(os.path.dirname(path), data, mode)
    durable.give_name(descriptor, name, path)
    return descriptor


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_create_gives_the_file_its_mode_with_any_umask(folder: Path) -> None:
    before = os.umask(0o077)
    try:
        descriptor = create(f"{folder}/lease", b"content", 0o644)
    finally:
        os.umask(before)
    os.close(descriptor)
    assert names(folder) == ["lease"]
    assert (folder / "lease").read_bytes() == b"content"
    assert (folder / "lease").stat().st_mode & 0o777 == 0o644
    assert (folder / "lease").stat().st_nlink == 1


def test_create_refuses_an_existing_name_and_does_not_change_it(folder: Path) -> None:
    (folder / "lease").write_bytes(b"another's")
    with pytest.raises(FileExistsError):
        create(f"{folder}/lease", b"mine", 0o600)
    assert names(folder) == ["lease"]
    assert (folder / "lease").read_bytes() == b"another's"


def test_nothing_has_a_name_in_the_store_before_it_is_given_one(folder: Path) -> None:
    descriptor, name = durable.unnamed(str(folder), b"content", 0o600)
    assert all(entry.startswith(".cnictl-new-") for entry in names(folder))
    durable.give_name(descriptor, name, f"{folder}/10.244.0.2")
    durable.discard(descriptor, name)
    assert names(folder) == ["10.244.0.2"]


def test_discarded_file_leaves_nothing(folder: Path) -> None:
    descriptor, name = durable.unnamed(str(folder), b"content", 0o600)
    durable.discard(descriptor, name)
    assert names(folder) == []


@pytest.mark.parametrize("step", ["write", "fsync", "fchmod"])
def test_a_full_disk_leaves_no_file(folder: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(durable, step, full)
    open_before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="No space left"):
        create(f"{folder}/lease", b"content", 0o600)
    with pytest.raises(OSError, match="No space left"):
        durable.replace(f"{folder}/conf", b"content", 0o600)
    assert names(folder) == []
    assert len(os.listdir("/proc/self/fd")) == open_before


def test_a_temporary_file_of_a_dead_process_with_our_pid_is_replaced(folder: Path) -> None:
    (folder / f".cnictl-new-{os.getpid()}").write_bytes(b"left by a kill")
    os.close(create(f"{folder}/lease", b"content", 0o600))
    (folder / f".cnictl-new-{os.getpid()}").write_bytes(b"left by a kill")
    durable.replace(f"{folder}/conf", b"new", 0o644)
    assert (folder / "lease").read_bytes() == b"content"
    assert (folder / "conf").read_bytes() == b"new"
    assert f".cnictl-new-{os.getpid()}" not in names(folder)


def test_replace_gives_new_content_and_mode_in_one_step(folder: Path) -> None:
    conf = folder / "10-cnictl.conflist"
    conf.write_bytes(b"old")
    reader = os.open(conf, os.O_RDONLY)
    durable.replace(str(conf), b"new", 0o644)
    assert os.read(reader, 10) == b"old"
    os.close(reader)
    assert conf.read_bytes() == b"new"
    assert conf.stat().st_mode & 0o777 == 0o644
    assert names(folder) == ["10-cnictl.conflist"]


def test_replace_that_cannot_rename_keeps_the_old_file_and_leaves_no_temporary(folder: Path) -> None:
    (folder / "conf").mkdir()
    (folder / "conf" / "kept").write_bytes(b"")
    with pytest.raises(OSError):
        durable.replace(f"{folder}/conf", b"new", 0o644)
    assert names(folder) == ["conf"]


def test_a_short_write_is_continued(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = posix.write
    monkeypatch.setattr(durable, "write", lambda descriptor, data: real(descriptor, data[:3]))
    os.close(create(f"{folder}/lease", b"0123456789", 0o600))
    assert durable.contents(f"{folder}/lease") == b"0123456789"


def test_contents_of_a_file_larger_than_one_read(folder: Path) -> None:
    (folder / "large").write_bytes(b"x" * 300_000)
    assert len(durable.contents(f"{folder}/large")) == 300_000


def test_make_folder_creates_parents_and_accepts_existing_folders(folder: Path) -> None:
    for _ in range(2):
        durable.make_folder(f"{folder}/a/b/c", 0o700)
    assert (folder / "a" / "b" / "c").is_dir()


def test_a_temporary_file_is_removed_once_nobody_holds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "O_TMPFILE", 0)
    (tmp_path / ".cnictl-new-1").write_bytes(b"left by a kill")
    (tmp_path / "10.244.0.2").write_bytes(b"a lease")
    descriptor, name = durable.unnamed(str(tmp_path), b"content", 0o600)
    durable.clear_temporary(str(tmp_path))
    assert names(tmp_path) == [os.path.basename(name), "10.244.0.2"]
    durable.give_name(descriptor, name, f"{tmp_path}/10.244.0.3")
    durable.discard(descriptor, name)
    durable.clear_temporary(str(tmp_path))
    durable.clear_temporary(f"{tmp_path}/missing")
    assert names(tmp_path) == ["10.244.0.2", "10.244.0.3"]


def test_a_file_in_the_working_folder_is_replaced_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    seen = []

    def rename(old: str, new: str) -> None:
        seen.append(old)
        os.rename(old, new)

    monkeypatch.setattr(durable, "rename", rename)
    durable.replace("bundle.tar.gz", b"content", 0o600)
    assert os.path.dirname(seen[0]) == "." and names(folder) == ["bundle.tar.gz"]


def test_folders_pipes_and_links_named_like_temporary_files_stay_and_block_nobody(folder: Path) -> None:
    (folder / ".cnictl-new-1").mkdir()
    os.mkfifo(folder / ".cnictl-new-2")
    (folder / ".cnictl-new-3").symlink_to("/etc/hostname")
    durable.clear_temporary(str(folder))
    durable.clear_temporary(str(folder / ".cnictl-new-3"))
    assert {".cnictl-new-1", ".cnictl-new-3"} <= set(names(folder))
    assert os.path.exists("/etc/hostname")


def test_a_writer_keeps_its_next_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = folder / ".cnictl-new-1"
    temporary.write_bytes(b"first")

    def locked(*_: int) -> None:  # between the sweep's open(2) and its lock
        temporary.rename(folder / "conf")
        temporary.write_bytes(b"second")

    monkeypatch.setattr(durable, "flock", locked)
    durable.clear_temporary(str(folder))
    assert temporary.read_bytes() == b"second"


def test_files_are_written_on_a_file_system_without_locks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(durable, "flock", refused)
    durable.replace(f"{folder}/cnictl.prom", b"content", 0o644)
    assert names(folder) == ["cnictl.prom"]
