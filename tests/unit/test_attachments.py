"""Attachment records: their content and order, and what remains after a crash or a power failure."""

import json
import os
from pathlib import Path

import pytest

from cnictl.core import attachments, liveness
from cnictl.core.attachments import Record
from cnictl.core.errors import TRY_AGAIN, CniError


@pytest.fixture(autouse=True)
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of records, in the test's own folder."""
    monkeypatch.setattr(attachments, "ATTACHMENTS_DIR", f"{tmp_path}/attachments")
    monkeypatch.setattr(attachments, "SPARE_ATTACHMENTS_DIR", f"{tmp_path}/spare")
    return tmp_path / "attachments"


def full_record() -> Record:
    record = Record("mynet", "c1", "eth0")
    record.addresses, record.bridge, record.host_veth = ["10.244.0.2"], "cni0", "veth1234abcd"
    record.mac, record.netns, record.netns_dev, record.netns_ino = "02:00:00:00:00:01", "/run/netns/a", 4, 4026532000
    record.pod_namespace, record.pod_name, record.pod_uid = "default", "web-0", "7d1f"
    record.boot_id, record.created, record.data_dir = "b", 1000.5, "/var/lib/cni/networks"
    return record


def test_a_record_is_read_back_unchanged(records: Path) -> None:
    record = full_record()
    os.close(record.write())
    read_back = attachments.read("mynet", "c1", "eth0")
    assert read_back is not None
    assert vars(read_back) == vars(record)
    assert read_back.pod == "default/web-0"
    file = records / "mynet" / "c1@eth0"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o077 == 0
    assert json.loads(file.read_text())["version"] == attachments.VERSION


def test_an_interface_name_with_an_at_sign_reads_back() -> None:
    os.close(Record("mynet", "c1", "a@b").write())
    assert attachments.owners("mynet") == {("c1", "a@b")}
    assert [(record.container, record.ifname) for record in attachments.all_records("mynet")] == [("c1", "a@b")]


def test_a_record_is_marked_complete_in_place() -> None:
    descriptor = full_record().write()
    before = attachments.read("mynet", "c1", "eth0")
    attachments.mark_complete(descriptor)
    after = attachments.read("mynet", "c1", "eth0")
    os.close(descriptor)
    assert before is not None and after is not None
    assert (before.complete, after.complete) == (False, True)
    assert {**vars(before), "complete": True} == vars(after)


def test_a_second_record_of_an_attachment_is_refused_and_the_first_is_kept(records: Path) -> None:
    os.close(full_record().write())
    with pytest.raises(FileExistsError):
        Record("mynet", "c1", "eth0").write()
    record = attachments.read("mynet", "c1", "eth0")
    assert record is not None and record.addresses == ["10.244.0.2"]
    assert os.listdir(records / "mynet") == ["c1@eth0"]


def test_a_record_is_in_flight_while_its_writer_runs() -> None:
    record = full_record()
    descriptor = record.write()
    assert attachments.in_flight(record)
    assert liveness.judge(record).state == liveness.IN_FLIGHT
    os.close(descriptor)
    assert not attachments.in_flight(record)


def test_a_reader_of_a_record_is_not_in_flight() -> None:
    record = full_record()
    os.close(record.write())
    import fcntl

    with open(record.path, "rb") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        assert not attachments.in_flight(record)


def test_a_record_that_is_gone_is_not_in_flight() -> None:
    assert not attachments.in_flight(Record("mynet", "gone", "eth0"))
    assert attachments.read("mynet", "gone", "eth0") is None
    assert attachments.seize("mynet", "gone", "eth0", wait=0) == -1
    assert not attachments.remove("mynet", "gone", "eth0")
    assert attachments.all_records("nonet") == [] and attachments.networks() == []


def test_seizing_a_record_in_use_fails_after_its_timeout() -> None:
    descriptor = full_record().write()
    with pytest.raises(CniError, match="another call is working on c1 eth0") as refused:
        attachments.seize("mynet", "c1", "eth0", wait=0.05)
    assert refused.value.code == TRY_AGAIN
    os.close(descriptor)
    seized = attachments.seize("mynet", "c1", "eth0", wait=0)
    assert attachments.in_flight(full_record())
    os.close(seized)


def test_seizing_a_record_that_its_holder_removes_finds_none() -> None:
    record = full_record()
    descriptor = record.write()
    child = os.fork()
    if not child:
        status = 1
        try:
            os.close(descriptor)
            status = 0 if attachments.seize("mynet", "c1", "eth0", wait=10) == -1 else 2
        finally:
            os._exit(status)
    attachments.remove("mynet", "c1", "eth0")
    os.close(descriptor)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("torn", [b"", b"\0" * 200, b'{"complete": 1, "ver', b"\xff\xfe", b"[1, 2]", b"null", b"5"])
def test_a_torn_record_still_names_its_attachment(records: Path, torn: bytes) -> None:
    os.close(full_record().write())
    (records / "mynet" / "c1@eth0").write_bytes(torn)
    record = attachments.read("mynet", "c1", "eth0")
    assert record is not None
    assert (record.network, record.container, record.ifname, record.addresses) == ("mynet", "c1", "eth0", [])
    assert not record.complete
    assert liveness.judge(record).state != liveness.LIVE


def test_a_torn_record_from_before_the_boot_is_stale(records: Path) -> None:
    os.close(full_record().write())
    (records / "mynet" / "c1@eth0").write_bytes(b"")
    os.utime(records / "mynet" / "c1@eth0", (1000, 1000))
    record = attachments.read("mynet", "c1", "eth0")
    assert record is not None and liveness.judge(record).state == liveness.STALE


def test_values_of_another_type_are_ignored(records: Path) -> None:
    os.close(full_record().write())
    file = records / "mynet" / "c1@eth0"
    document = json.loads(file.read_text())
    document.update({"addresses": "10.244.0.2", "netns_ino": "x", "created": None, "later": {"version": 2}})
    file.write_text(json.dumps(document))
    record = attachments.read("mynet", "c1", "eth0")
    assert record is not None
    assert (record.addresses, record.netns_ino, record.created) == ([], 0, 0.0)
    assert record.host_veth == "veth1234abcd"


def test_temporary_and_foreign_files_are_not_records(records: Path) -> None:
    os.close(full_record().write())
    for name in (".tmp-5", ".c2@eth0", "README"):
        (records / "mynet" / name).write_text("x")
    assert attachments.owners("mynet") == {("c1", "eth0")}
    assert attachments.networks() == ["mynet"]


def judged(**changes: object) -> str:
    record = full_record()
    record.boot_id, record.complete = liveness.boot_id(), True
    for name, value in changes.items():
        setattr(record, name, value)
    return liveness.judge(record).state


def test_an_attachment_is_stale_only_with_proof() -> None:
    assert judged(boot_id="of another boot") == liveness.STALE
    assert judged(complete=False) == liveness.STALE
    assert judged(host_veth="veth0notthere") == liveness.STALE
    assert judged(host_veth="lo") == liveness.LIVE
    assert judged(host_veth="", created=liveness.boot_time() - 10) == liveness.STALE
    assert judged(host_veth="", created=liveness.boot_time() + 10) == liveness.UNKNOWN
    assert judged(host_veth="", created=0.0) == liveness.UNKNOWN


def test_device_node_of_this_boot_is_not_older_than_the_boot() -> None:
    assert liveness.boot_time() <= os.stat("/dev/null").st_mtime
