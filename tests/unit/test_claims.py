"""Leases that host-local wrote get records, and the claim mark shows whether every lease has one."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from cnictl.core import attachments
from cnictl.core.leases.lease import Duplicate
from cnictl.core.leases.lease_store import Store
from tests.unit.stores import SameTick, add, by_hand
from tests.unit.stores import store as store


# --- what host-local and operators do to the store meanwhile
@pytest.mark.parametrize("same_tick", [False, True])
def test_a_lease_that_host_local_adds_is_respected(store: Store, same_tick: bool) -> None:
    add(store, "c1")
    if same_tick:
        with SameTick(store):
            by_hand(store, "10.244.0.3", "theirs")
    else:
        by_hand(store, "10.244.0.3", "theirs")
    assert add(store, "c2") == "10.244.0.4"
    theirs = attachments.read("mynet", "theirs", "eth0")
    assert theirs is not None and theirs.addresses == ["10.244.0.3"] and not theirs.host_veth


def test_manually_added_leases_without_the_last_address_are_respected_in_the_same_tick(store: Store) -> None:
    add(store, "c1")
    with SameTick(store):
        for last in (3, 4, 5):
            Path(store.folder, f"10.244.0.{last}").write_bytes(b"theirs\r\neth0")
    assert add(store, "c2") == "10.244.0.6"


@pytest.mark.parametrize("same_tick", [False, True])
def test_a_lease_that_host_local_removes_is_free_again(store: Store, same_tick: bool) -> None:
    for n in range(5):
        add(store, f"c{n}")
    if same_tick:
        with SameTick(store):
            os.unlink(f"{store.folder}/10.244.0.4")
    else:
        os.unlink(f"{store.folder}/10.244.0.4")
    assert add(store, "next") == "10.244.0.4"


@pytest.mark.parametrize("same_tick", [False, True])
def test_the_del_of_a_lease_that_host_local_added_finds_it(store: Store, same_tick: bool) -> None:
    add(store, "c1")
    store.ensure_claimed()
    if same_tick:
        with SameTick(store):
            by_hand(store, "10.244.0.3", "theirs")
    else:
        by_hand(store, "10.244.0.3", "theirs")
    store.ensure_claimed()
    assert attachments.owners("mynet") == {("c1", "eth0"), ("theirs", "eth0")}


def test_two_addresses_of_one_owner_get_one_record(store: Store) -> None:
    by_hand(store, "10.244.0.2", "theirs")
    by_hand(store, "10.244.0.4", "theirs")
    by_hand(store, "10.244.0.3", "theirs", "net1")
    store.ensure_claimed()
    both = attachments.read("mynet", "theirs", "eth0")
    assert both is not None and sorted(both.addresses) == ["10.244.0.2", "10.244.0.4"]
    assert both.data_dir == store.data_dir and both.complete
    assert both.created == pytest.approx(os.stat(f"{store.folder}/10.244.0.2").st_mtime, abs=5)
    other = attachments.read("mynet", "theirs", "net1")
    assert other is not None and other.addresses == ["10.244.0.3"]


def test_lease_that_no_record_can_name_is_not_claimed(store: Store) -> None:
    by_hand(store, "10.244.0.2", "../../escape")
    by_hand(store, "10.244.0.3", "a/b")
    by_hand(store, "10.244.0.4", "")
    store.ensure_claimed()
    assert attachments.owners("mynet") == set()


def test_an_add_of_a_container_that_host_local_serves_already_is_a_duplicate(store: Store) -> None:
    by_hand(store, "10.244.0.3", "theirs")
    with pytest.raises(Duplicate, match=r"theirs eth0 already holds 10\.244\.0\.3"):
        add(store, "theirs")
    assert store.count() == 1


def test_claiming_again_writes_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(4):
        by_hand(store, f"10.244.0.{n + 2}", f"c{n}")
    store.ensure_claimed()
    Path(store.folder, "10.244.0.5").unlink()  # the store has changed: all of it is read again

    def refuse(*_: object) -> None:
        raise AssertionError("a record was written")

    monkeypatch.setattr(attachments.Record, "write", refuse)
    store.ensure_claimed()
    store.ensure_claimed()


def claims(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that gets an entry each time all leases are searched for those without a record."""
    looked: list[str] = []
    real = store._claim

    def counted(*only: Any) -> None:
        looked.append("all")
        real(*only)

    monkeypatch.setattr(store, "_claim", counted)
    return looked


def test_leases_are_scanned_once_and_not_after_our_own_calls(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    by_hand(store, "10.244.0.2", "theirs")
    looked = claims(store, monkeypatch)
    add(store, "c1")
    assert looked == ["all"] and attachments.owners("mynet") == {("theirs", "eth0"), ("c1", "eth0")}
    add(store, "c2")
    assert store.release("10.244.0.3", "c1", "eth0")
    store.ensure_claimed()
    assert store.release_all(["10.244.0.4"], "c2", "eth0") == ["10.244.0.4"]
    add(store, "c3")
    assert looked == ["all"]
    Path(store.folder, "10.244.0.6").write_bytes(b"late\r\neth0")
    store.ensure_claimed()
    assert looked == ["all"] * 2 and ("late", "eth0") in attachments.owners("mynet")


@pytest.mark.parametrize("damage", [b"", b"garbage", b"\xff" * 200, b"9" * 5000, None])
def test_a_torn_or_missing_claim_mark_causes_a_scan_of_all_leases(
    store: Store, monkeypatch: pytest.MonkeyPatch, damage: bytes | None
) -> None:
    mark = Path(attachments.claim_mark("mynet"))
    add(store, "c1")
    Path(store.folder, "10.244.0.5").write_bytes(b"theirs\r\neth0")
    if damage is None:
        mark.unlink()
    else:
        mark.write_bytes(damage)
    looked = claims(store, monkeypatch)
    store.ensure_claimed()
    assert looked == ["all"] and ("theirs", "eth0") in attachments.owners("mynet")
    store.ensure_claimed()
    assert looked == ["all"]
    assert mark.read_text() == str(os.stat(store.folder).st_mtime_ns)


def test_an_add_killed_after_its_lease_leaves_an_invalid_claim_mark(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(store, "c1")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, "_mark_claimed", die)
        with pytest.raises(KeyboardInterrupt):
            add(store, "c2")
    os.utime(store.folder)  # the clock's next tick
    attachments.remove("mynet", "c2", "eth0")  # whoever undid the ADD did not remove its lease
    store.ensure_claimed()
    assert ("c2", "eth0") in attachments.owners("mynet")


def test_the_claim_mark_is_removed_with_the_records(store: Store) -> None:
    by_hand(store, "10.244.0.3", "theirs")
    add(store, "c1")
    shutil.rmtree(os.path.dirname(attachments.claim_mark("mynet")))
    add(store, "c2")
    assert {("theirs", "eth0"), ("c1", "eth0"), ("c2", "eth0")} == attachments.owners("mynet")
