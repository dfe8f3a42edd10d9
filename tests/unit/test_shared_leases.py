"""Lease stores that other nodes may use: which leases are claimed, and which file systems are supported."""

import errno
import os
from pathlib import Path

import pytest

from cnictl.core import attachments, durable, locks
from cnictl.core.cidr import format_address, parse_cidr
from cnictl.core.errors import IO_FAILURE, TRY_AGAIN, CniError
from cnictl.core.leases import lease_store, shared_store
from cnictl.core.leases.lease_store import Store
from cnictl.core.leases.pool import Range, RangeSet

SMALL = RangeSet([Range(parse_cidr("10.244.0.0/29"))])
"""Pods get .2 to .6."""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The default store and the records, in the test's own folders."""
    monkeypatch.setattr(attachments, "ATTACHMENTS_DIR", f"{tmp_path}/attachments")
    monkeypatch.setattr(attachments, "SPARE_ATTACHMENTS_DIR", f"{tmp_path}/spare")
    for module in (lease_store, shared_store):
        monkeypatch.setattr(module, "NETWORKS_DIR", f"{tmp_path}/networks")
    return Store("mynet", f"{tmp_path}/networks")


def add(store: Store, container: str) -> str:
    """Lease as ADD does: the record is written before the lease appears."""

    def before(addresses: list[str]) -> None:
        record = attachments.Record(store.network, container, "eth0")
        record.addresses, record.host_veth = addresses, "veth0"
        os.close(record.write())

    ((packed, _),) = store.allocate([SMALL], container, "eth0", before)
    return format_address(packed)


def by_hand(store: Store, address: str, container: str) -> None:
    """Write what host-local's ADD leaves in the store."""
    os.makedirs(store.folder, exist_ok=True)
    Path(store.folder, address).write_bytes(f"{container}\r\neth0".encode())
    Path(store.folder, "last_reserved_ip.0").write_text(address)


def test_an_address_leased_by_another_node_at_the_same_time_is_retried(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(store, "c1")
    give = durable.give_name

    def late(descriptor: int, name: str, path: str) -> None:
        Path(path).write_bytes(b"theirs\r\neth0")
        give(descriptor, name, path)

    monkeypatch.setattr(durable, "give_name", lambda d, n, p: late(d, n, p) if "networks" in p else give(d, n, p))
    with pytest.raises(CniError, match=r"10\.244\.0\.3 was leased by another process") as caught:
        add(store, "c2")
    assert caught.value.code == TRY_AGAIN
    assert Path(store.folder, "10.244.0.3").read_bytes() == b"theirs\r\neth0"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_store_without_locks_is_named(store: Store, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def none(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(locks, "flock", none)
    with pytest.raises(CniError, match=r"mynet/lock: its file system has no locks") as caught:
        add(store, "c1")
    assert caught.value.code == IO_FAILURE and "dataDir" in caught.value.hint
    assert store.count() == 0


def test_in_a_store_elsewhere_only_the_named_owners_leases_are_claimed(store: Store, tmp_path: Path) -> None:
    other = Store("mynet", f"{tmp_path}/elsewhere")
    assert (store.shared, other.shared) == (False, True)
    for address, container in (("10.244.0.2", "theirs"), ("10.244.0.3", "mine"), ("10.244.0.4", "mine")):
        by_hand(other, address, container)
    other.ensure_claimed()
    assert attachments.owners("mynet") == set()
    other.ensure_claimed(("mine", "eth0"))
    record = attachments.read("mynet", "mine", "eth0")
    assert attachments.owners("mynet") == {("mine", "eth0")}
    assert record is not None and sorted(record.addresses) == ["10.244.0.3", "10.244.0.4"]
    assert add(other, "c1") == "10.244.0.5"
    assert attachments.owners("mynet") == {("mine", "eth0"), ("c1", "eth0")}
    assert not Path(attachments.claim_mark("mynet")).exists()


@pytest.mark.parametrize(
    ("kind", "shared"),
    [("ext4", False), ("tmpfs", False), ("overlay", False), ("fuse.fuse-overlayfs", False), ("nfs4", True),
     ("nfs", True), ("cifs", True), ("smb3", True), ("9p", True), ("virtiofs", True), ("ceph", True),
     ("fuse.glusterfs", True), ("fuse.whatever", True), ("fuse", True), ("lustre", True), ("gfs2", True),
     ("ocfs2", True), ("afs", True), ("", True)],
)  # fmt: skip
def test_the_default_store_is_private_to_this_node_on_a_local_file_system(
    store: Store, monkeypatch: pytest.MonkeyPatch, kind: str, shared: bool
) -> None:
    monkeypatch.setattr(shared_store, "file_system", lambda _: kind)
    by_hand(store, "10.244.0.2", "theirs")
    add(store, "c1")
    assert store.shared == shared
    assert (("theirs", "eth0") in attachments.owners("mynet")) != shared


def test_processes_with_one_pid_on_two_nodes_use_different_temporary_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the file system has no unnamed files, as on NFS, the temporary name is in the folder that both nodes see."""
    real = os.open

    def without_tmpfile(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "no O_TMPFILE")
        return real(path, flags, mode)

    monkeypatch.setattr(durable, "open", without_tmpfile)
    first = durable.unnamed(str(tmp_path), b"one", 0o600)
    second = durable.unnamed(str(tmp_path), b"other", 0o600)
    for (descriptor, name), path in ((first, tmp_path / "a"), (second, tmp_path / "b")):
        durable.give_name(descriptor, name, str(path))
        durable.discard(descriptor, "")
    assert ((tmp_path / "a").read_bytes(), (tmp_path / "b").read_bytes()) == (b"one", b"other")
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
