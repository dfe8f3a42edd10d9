"""Log paths that lead to files, devices and pipes that are not the plugin's: these stay unchanged."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kernel.plugin.client import WALK_THROUGH, Answer, Host, Pod, new_host, plugin_executable

pytestmark = pytest.mark.once

USER = 12345
STATUS = {**WALK_THROUGH, "cniVersion": "1.1.0"}


@pytest.fixture(scope="module")
def shared_host() -> Iterator[Host]:
    """A host for all tests here; each has its own folder under /var/lib."""
    with new_host() as host:
        yield host


@pytest.fixture
def folder(shared_host: Host, request: pytest.FixtureRequest) -> Path:
    """A folder of root's, as a path on the host."""
    inside = Path("/var/lib") / f"case-{abs(hash(request.node.name))}"
    shared_host.path(str(inside)).mkdir(mode=0o755)
    return inside


def call(host: Host, log: Path | str, verb: str = "STATUS") -> Answer:
    """Make a call that writes a line to that log, whether it succeeds or fails."""
    return host.plugin(verb, conf={**STATUS, "logFile": str(log)})


def state(path: Path) -> tuple[int, int, int, int, int]:
    """Return what must not change about a file that is not the plugin's."""
    status = path.stat()
    return status.st_mode, status.st_uid, status.st_gid, status.st_size, status.st_nlink


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes device nodes and files of other users")


@as_root
@pytest.mark.parametrize("minor", [3, 5, 7], ids=["null", "zero", "full"])
def test_log_device_keeps_its_mode(shared_host: Host, minor: int) -> None:
    path = f"/var/log/device{minor}"  # a device node on the test's host: a test must not change the machine's own
    node = shared_host.path(path)
    os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(1, minor))
    node.chmod(0o666)
    before = state(node)
    pod = shared_host.pod(f"device{minor}")
    conf = {**WALK_THROUGH, "logFile": path}
    shared_host.add(pod, conf)
    shared_host.delete(pod, conf)
    assert state(node) == before


def test_log_pipe_keeps_its_mode_and_gets_the_lines(shared_host: Host, folder: Path) -> None:
    pipe = shared_host.path(f"{folder}/pipe")
    os.mkfifo(pipe, 0o622)
    before = state(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        call(shared_host, folder / "pipe")
        assert b" STATUS " in os.read(reader, 4096)
    finally:
        os.close(reader)
    assert state(pipe) == before


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_rotated_empty_log_of_the_operators_keeps_its_mode(shared_host: Host, folder: Path, mode: int) -> None:
    log = shared_host.path(f"{folder}/x.log")
    log.touch()
    log.chmod(mode)
    call(shared_host, folder / "x.log")
    assert stat.S_IMODE(log.stat().st_mode) == mode
    assert log.read_text().count("\n") == 1


@pytest.mark.parametrize(
    "path",
    ["/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/fd/1", "/proc/self/fd/1", "/proc/thread-self/fd/2"],
)
def test_result_stays_readable_with_any_log_path(shared_host: Host, path: str) -> None:
    pod = shared_host.pod(f"standard{path.replace('/', '-')}")
    conf = {**WALK_THROUGH, "logFile": path}
    assert shared_host.add(pod, conf)["ips"]
    shared_host.delete(pod, conf)


@pytest.mark.parametrize("target", ["/dev/stdout", "/proc/self/fd/2"])
def test_result_stays_readable_if_a_link_leads_to_it(shared_host: Host, folder: Path, target: str) -> None:
    shared_host.path(f"{folder}/link").symlink_to(target)
    answer = call(shared_host, folder / "link")
    assert answer.stdout == b"" or answer.document
    assert answer.stderr == b""


def test_result_stays_readable_in_the_very_file_that_is_the_log(shared_host: Host, folder: Path) -> None:
    result = shared_host.path(f"{folder}/result")
    script = f'exec "$0" >{folder}/result 2>{folder}/errors'
    for name in ("result", "errors"):
        conf = {**WALK_THROUGH, "logFile": f"{folder}/{name}"}
        shared_host.call(
            shared_host.environment("ADD", Pod("none", "/run/netns/none")),
            shared_host.stdin(conf),
            "-c",
            through=["sh", "-c", script, plugin_executable()],
        )
        assert result.read_text().startswith("{") and result.read_text().count("\n") == 1
        assert shared_host.path(f"{folder}/errors").read_text() == ""


def _link(host: Host, folder: Path, victim: Path) -> None:
    host.path(f"{folder}/x.log").symlink_to(victim)
    os.lchown(host.path(f"{folder}/x.log"), USER, USER)


def _roots_link_in_a_folder_of_all(host: Host, folder: Path, victim: Path) -> None:
    host.path(f"{folder}/x.log").symlink_to(victim)
    host.path(str(folder)).chmod(0o777)


def _link_in_a_sticky_folder(host: Host, folder: Path, victim: Path) -> None:
    _link(host, folder, victim)
    host.path(str(folder)).chmod(0o1777)


def _hard_link_in_a_sticky_folder(host: Host, folder: Path, victim: Path) -> None:
    os.link(host.path(str(victim)), host.path(f"{folder}/x.log"))
    host.path(str(folder)).chmod(0o1777)


def _roots_link_in_a_users_folder(host: Host, folder: Path, victim: Path) -> None:
    host.path(f"{folder}/x.log").symlink_to(victim)
    os.chown(host.path(str(folder)), USER, USER)


def _roots_link_in_a_groups_folder(host: Host, folder: Path, victim: Path) -> None:
    host.path(f"{folder}/x.log").symlink_to(victim)
    os.chown(host.path(str(folder)), 0, USER)
    host.path(str(folder)).chmod(0o775)


@as_root
@pytest.mark.parametrize(
    "place",
    [
        _link,
        _roots_link_in_a_folder_of_all,
        _link_in_a_sticky_folder,
        _hard_link_in_a_sticky_folder,
        _roots_link_in_a_users_folder,
        _roots_link_in_a_groups_folder,
    ],
)
def test_users_link_to_a_file_of_root_is_not_followed(
    shared_host: Host, folder: Path, place: Callable[[Host, Path, Path], None]
) -> None:
    victim = folder.with_name(f"{folder.name}.victim")
    shared_host.path(str(victim)).write_text("root's\n")
    place(shared_host, folder, victim)
    assert call(shared_host, folder / "x.log").status in (0, 1)
    assert shared_host.path(str(victim)).read_text() == "root's\n"


@as_root
def test_users_link_to_a_folder_is_not_followed(shared_host: Host, folder: Path) -> None:
    target = folder.with_name(f"{folder.name}.target")
    shared_host.path(str(target)).mkdir()
    shared_host.path(str(folder)).chmod(0o1777)
    shared_host.path(f"{folder}/logs").symlink_to(target)
    os.lchown(shared_host.path(f"{folder}/logs"), USER, USER)
    call(shared_host, folder / "logs" / "x.log")
    assert list(shared_host.path(str(target)).iterdir()) == []


@pytest.mark.parametrize("target", ["there/real.log", "../there/real.log"])
def test_operators_own_link_is_followed_and_stays(shared_host: Host, folder: Path, target: str) -> None:
    shared_host.path(f"{folder}/there").mkdir()
    inside = shared_host.path(f"{folder}/here")
    inside.mkdir()
    link = inside / "x.log" if target.startswith("..") else shared_host.path(f"{folder}/x.log")
    link.symlink_to(target)
    log = Path(str(folder)) / ("here/x.log" if target.startswith("..") else "x.log")
    for _ in range(2):
        call(shared_host, log)
    assert link.is_symlink()
    assert shared_host.path(f"{folder}/there/real.log").read_text().count("\n") == 2


def test_operators_own_absolute_link_to_a_folder_is_followed(shared_host: Host, folder: Path) -> None:
    shared_host.path(f"{folder}/there").mkdir()
    shared_host.path(f"{folder}/logs").symlink_to(f"{folder}/there")
    call(shared_host, f"{folder}/logs/x.log")
    assert shared_host.path(f"{folder}/there/x.log").read_text().count("\n") == 1


@as_root
@pytest.mark.parametrize("mode", [0o775, 0o777, 0o1777])
def test_log_in_a_folder_that_others_can_write_is_written(shared_host: Host, folder: Path, mode: int) -> None:
    os.chown(shared_host.path(str(folder)), 0, USER)
    shared_host.path(str(folder)).chmod(mode)
    for _ in range(2):
        call(shared_host, folder / "x.log")
    log = shared_host.path(f"{folder}/x.log")
    assert log.read_text().count("\n") == 2
    assert stat.S_IMODE(log.stat().st_mode) == 0o640
