"""An unexpected file can't block a reader or fill its memory: each read is bounded, and its error names the file."""

import os
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cnictl.core import attachments, durable, locks, netns, odd, process
from cnictl.core.conf import resolv
from cnictl.core.errors import CniError, Problem
from cnictl.core.leases import lease_store
from cnictl.node.host import plugin_log


@contextmanager
def bounded(seconds: int = 10) -> Iterator[None]:
    """Fail if the block takes longer than this."""

    def late(*_: object) -> None:
        raise AssertionError("blocked")

    former = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _huge(path: Path) -> None:
    path.touch()
    os.truncate(path, durable.LARGEST + 1)


KINDS = [_pipe, _endless, _huge]
Kind = Callable[[Path], None]


@pytest.mark.parametrize("kind", KINDS)
def test_error_of_reading_names_the_file(tmp_path: Path, kind: Kind) -> None:
    kind(tmp_path / "file")
    with bounded(), pytest.raises(OSError, match="file"):
        durable.contents(str(tmp_path / "file"))


def test_file_of_the_largest_size_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 1000)
    assert len(durable.contents(str(tmp_path / "file"), 1000)) == 1000
    with pytest.raises(OSError, match="larger than the limit"):
        durable.contents(str(tmp_path / "file"), 999)


def test_endless_descriptor_is_read_up_to_the_limit() -> None:
    descriptor = os.open("/dev/zero", os.O_RDONLY)
    try:
        with bounded(), pytest.raises(OSError, match="larger than the limit"):
            durable.contents_of(descriptor)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["10.1.0.2", "last_reserved_ip.0", "lock"])
def test_store_does_not_hang_on_odd_files(tmp_path: Path, kind: Kind, name: str) -> None:
    store = lease_store.Store("net", str(tmp_path))
    (tmp_path / "net").mkdir()
    kind(tmp_path / "net" / name)
    with bounded():
        assert store._last(0) == b""
        with store.locked(wait=0):
            pass
        if name == "10.1.0.2":
            with pytest.raises(OSError, match=r"10\.1\.0\.2"):
                store.read(name)
            assert list(store.all()) == []  # the other leases are listed, and this one is reported
            assert [line for line in odd.failures() if f"/net/{name}: " in line]
        elif name == "last_reserved_ip.0" and kind is not _huge:
            with pytest.raises(OSError, match=r"last_reserved_ip\.0"):
                lease_store._overwrite(f"{store.folder}/last_reserved_ip.0", "10.1.0.3")


@pytest.mark.parametrize("kind", KINDS)
def test_reading_a_record_does_not_hang_on_odd_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    monkeypatch.setattr(attachments, "ATTACHMENTS_DIR", str(tmp_path))
    (tmp_path / "net").mkdir()
    kind(tmp_path / "net" / "c@eth0")
    with bounded():
        with pytest.raises(OSError, match="c@eth0"):
            attachments.read("net", "c", "eth0")
        assert attachments.in_flight(attachments.Record("net", "c", "eth0")) is False
        descriptor = attachments.seize("net", "c", "eth0", 0)
        os.close(descriptor)


@pytest.mark.parametrize("kind", [_pipe, _endless])
def test_unreadable_claim_mark_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Kind) -> None:
    monkeypatch.setattr(attachments, "ATTACHMENTS_DIR", str(tmp_path / "records"))
    for folder in ("records/net", "networks/net"):
        (tmp_path / folder).mkdir(parents=True)
    kind(Path(attachments.claim_mark("net")))
    store = lease_store.Store("net", str(tmp_path / "networks"))
    store._shared = False
    with bounded(), pytest.raises(OSError, match=r"net/\.claimed"):
        store.ensure_claimed()


@pytest.mark.parametrize("kind", KINDS)
def test_lock_resolv_conf_and_namespace_are_bounded(tmp_path: Path, kind: Kind) -> None:
    path = str(tmp_path / "file")
    kind(tmp_path / "file")
    with bounded():
        with locks.Locked(path, wait=0):
            pass
        with pytest.raises(CniError, match="file"):
            resolv.read_resolv_conf(path)
        with pytest.raises(CniError, match="file"):
            netns.Netns(path)


@pytest.mark.parametrize("kind", [_pipe, _endless])
def test_unreadable_log_has_no_calls(tmp_path: Path, kind: Kind) -> None:
    kind(tmp_path / "log")
    with bounded():
        assert list(plugin_log.calls(str(tmp_path / "log"))) == []


def test_latest_part_of_a_long_log_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = "2026-01-01T00:00:00Z info ADD 1.0ms container=c{} ifname=eth0 pod=- address=- outcome=ok\n"
    (tmp_path / "log").write_text("".join(line.format(number) for number in range(100)))
    monkeypatch.setattr(plugin_log, "LARGEST", 500)
    with bounded():
        read = [call.container for call in plugin_log.calls(str(tmp_path / "log"))]
    assert 3 <= len(read) <= 5 and read[-1] == "c99"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exec cat /dev/zero", "answered with over"),
        ("exec cat /dev/zero >&2", "answered with over"),
        ("exec sleep 60", "still running after"),
        ("exec >&- 2>&-; exec sleep 60", "still running after"),
    ],
)
def test_output_and_time_of_a_program_are_bounded(monkeypatch: pytest.MonkeyPatch, script: str, said: str) -> None:
    monkeypatch.setattr(process, "LARGEST_OUTPUT", 1 << 20)
    with bounded(30), pytest.raises(Problem, match=said):
        process.run(["sh", "-c", script], timeout=20 if "zero" in script else 0.2)


def test_program_gets_a_long_stdin_completely_and_its_two_outputs_are_read() -> None:
    text = "x" * 300_000
    with bounded():
        done = process.run(["sh", "-c", "tee /dev/stderr"], text)
    assert (done.stdout, done.stderr, done.status) == (text, text, 0)


def test_read_leaves_a_device_as_it_is() -> None:
    before = os.stat("/dev/zero").st_mode
    with pytest.raises(OSError):
        durable.contents("/dev/zero")
    assert os.stat("/dev/zero").st_mode == before and stat.S_ISCHR(before)
