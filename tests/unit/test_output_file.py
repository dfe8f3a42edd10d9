"""An output file that is a device, pipe or link keeps its type."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cnictl.core.errors import Problem
from cnictl.node.plugin import output_file

USER = 12345
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes device nodes and files of other users")


def test_new_file_gets_the_mode_and_a_regular_one_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "out"
    for text in (b"one", b"two"):
        output_file.write(str(path), text, 0o600)
        assert path.read_bytes() == text and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_operators_mode_is_kept_if_requested(tmp_path: Path) -> None:
    path = tmp_path / "out.prom"
    path.touch(0o640)
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 0, USER)
    owner = path.stat().st_gid
    output_file.write(str(path), b"x", 0o644, keep_mode=True)
    assert (stat.S_IMODE(path.stat().st_mode), path.stat().st_gid) == (0o640, owner)


@as_root
@pytest.mark.parametrize("minor", [3, 7], ids=["null", "full"])
def test_device_stays_a_device(tmp_path: Path, minor: int) -> None:
    node = tmp_path / "node"
    os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(1, minor))
    node.chmod(0o666)
    before = node.stat()
    if minor == 7:
        with pytest.raises(Problem, match="No space left"):
            output_file.write(str(node), b"x", 0o600)
    else:
        output_file.write(str(node), b"x", 0o600)
    after = node.stat()
    assert (after.st_mode, after.st_ino, after.st_rdev) == (before.st_mode, before.st_ino, before.st_rdev)


def test_pipe_gets_the_whole_output_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe, data = tmp_path / "pipe", b"x" * 300_000
    os.mkfifo(pipe, 0o622)
    script = f"exec 9<>{pipe}; echo; head -c {len(data)} <&9 | wc -c"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None and reader.stdout.readline() == b"\n"
        output_file.write(str(pipe), data, 0o600)
        assert int(reader.stdout.read()) == len(data)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_pipe_that_nobody_reads_is_an_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Problem, match="pipe: No such device"):
        output_file.write(str(tmp_path / "pipe"), b"x", 0o600)


def test_operators_link_is_followed_and_stays(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "link"
    link.symlink_to("there/out")
    for text in (b"one", b"two"):
        output_file.write(str(link), text, 0o600)
        assert link.is_symlink() and (tmp_path / "there" / "out").read_bytes() == text


@as_root
@pytest.mark.parametrize("mode", [0o755, 0o777, 0o1777])
def test_users_link_is_refused(tmp_path: Path, mode: int) -> None:
    victim = tmp_path / "victim"
    victim.write_text("root's")
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(mode)
    (folder / "out").symlink_to(victim)
    os.lchown(folder / "out", USER, USER)
    with pytest.raises(Problem, match="is a link of user 12345"):
        output_file.write(str(folder / "out"), b"x", 0o600)
    assert victim.read_text() == "root's"


@pytest.mark.parametrize("path", ["/dev/stdout", "/proc/self/fd/1", "out"])
def test_stdout_gets_the_output_under_any_name(tmp_path: Path, path: str) -> None:
    program = (
        f"from cnictl.node.plugin import output_file as o; "
        f"o.write({path!r}, b'data', 0o600); print(o.is_stdout({path!r}))"
    )
    out = tmp_path / "out"
    with out.open("wb") as file:
        subprocess.run([sys.executable, "-c", program], stdout=file, check=True, cwd=tmp_path)
    assert out.read_bytes() == b"dataTrue\n" and list(tmp_path.iterdir()) == [out]
    if path != "out":
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
        assert done.stdout == b"dataTrue\n"
