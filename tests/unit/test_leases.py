"""The lease store: host-local's layout on disk, and which addresses it gives."""

import os
from contextlib import nullcontext
from pathlib import Path

import pytest

from cnictl.core import attachments
from cnictl.core.errors import ADDRESS_CONFLICT, ADDRESS_EXHAUSTED, TRY_AGAIN, CniError
from cnictl.core.leases import lease_store
from cnictl.core.leases.lease import Exhausted
from cnictl.core.leases.lease_store import Store
from tests.unit.stores import BOTH, SMALL, SameTick, add, add_all, by_hand, files, ranges, release
from tests.unit.stores import store as store


def test_a_lease_is_what_host_local_writes(store: Store) -> None:
    assert add(store, "c1") == "10.244.0.2"
    lease = Path(store.folder, "10.244.0.2")
    assert lease.read_bytes() == b"c1\r\neth0"
    assert lease.stat().st_mode & 0o777 == 0o600
    assert Path(store.folder, "last_reserved_ip.0").read_bytes() == b"10.244.0.2"
    assert files(store) == {"10.244.0.2", "last_reserved_ip.0", "lock"}


def test_addresses_are_given_in_turn_without_network_gateway_and_broadcast(store: Store) -> None:
    given_out = [add(store, f"c{n}") for n in range(3)]
    assert given_out == ["10.244.0.2", "10.244.0.3", "10.244.0.4"]
    assert release(store, "10.244.0.2", "c0")
    assert [add(store, "c3"), add(store, "c4"), add(store, "c5")] == ["10.244.0.5", "10.244.0.6", "10.244.0.2"]


def test_the_next_address_follows_host_local_s_last(store: Store) -> None:
    by_hand(store, "10.244.0.4", "theirs")
    assert add(store, "ours") == "10.244.0.5"


@pytest.mark.parametrize("torn", [b"", b"10.244.", b"\xff\xfe", b"not an address", b"10.99.0.1", b"10.244.0.1\n"])
def test_a_torn_or_foreign_last_address_is_only_a_hint(store: Store, torn: bytes) -> None:
    os.makedirs(store.folder)
    Path(store.folder, "last_reserved_ip.0").write_bytes(torn)
    assert add(store, "c1") == "10.244.0.2"


def test_a_shorter_last_address_leaves_no_rest_of_the_longer(store: Store) -> None:
    wide = ranges("10.244.0.0/16")
    add(store, "c1", wide, wanted="10.244.100.100")
    add(store, "c2", wide, wanted="10.244.0.2")
    assert Path(store.folder, "last_reserved_ip.0").read_bytes() == b"10.244.0.2"


def test_a_full_store_is_exhausted_and_keeps_its_leases(store: Store) -> None:
    for n in range(5):
        add(store, f"c{n}")
    before = files(store)
    with pytest.raises(Exhausted, match=r"no address left in 10\.244\.0\.0/29 of network mynet: all 5") as refused:
        add(store, "c5")
    assert refused.value.code == ADDRESS_EXHAUSTED
    assert files(store) == before
    assert attachments.read("mynet", "c5", "eth0") is None
    assert release(store, "10.244.0.4", "c2")
    assert add(store, "c6") == "10.244.0.4"


def test_a_requested_address_is_given_or_refused_with_its_holder(store: Store) -> None:
    assert add(store, "c1", wanted="10.244.0.5") == "10.244.0.5"
    with pytest.raises(CniError, match=r"10\.244\.0\.5 is already leased to c1 eth0") as refused:
        add(store, "c2", wanted="10.244.0.5")
    assert refused.value.code == ADDRESS_CONFLICT
    assert add(store, "c3") == "10.244.0.6"


def test_release_is_by_owner_never_by_address(store: Store) -> None:
    add(store, "first", wanted="10.244.0.3")
    assert release(store, "10.244.0.3", "first")
    add(store, "second", wanted="10.244.0.3")
    assert not store.release("10.244.0.3", "first", "eth0")
    assert not store.release("10.244.0.3", "second", "eth1")
    lease = store.read("10.244.0.3")
    assert lease is not None and (lease.container, lease.ifname) == ("second", "eth0")


def test_release_of_a_missing_lease_succeeds(store: Store) -> None:
    assert not store.release("10.244.0.3", "c1", "eth0")
    assert not os.path.exists(store.folder)
    add(store, "c1")
    assert not store.release("10.244.0.3", "c1", "eth0")


def test_a_failing_record_leaves_no_lease(store: Store) -> None:
    def before(_: list[str]) -> None:
        raise CniError(TRY_AGAIN, "another ADD is working on it")

    with pytest.raises(CniError):
        store.allocate([SMALL], "c1", "eth0", before)
    assert files(store) <= {"lock"}
    assert add(store, "c2") == "10.244.0.2"


def test_waiting_for_a_held_lock_is_bounded(store: Store) -> None:
    add(store, "c1")
    with store.locked(), pytest.raises(CniError, match="locked by another process") as refused:
        store.release("10.244.0.2", "c1", "eth0", wait=0.05)
    assert refused.value.code == TRY_AGAIN
    assert store.read("10.244.0.2") is not None


def test_a_foreign_file_in_the_store_is_not_a_lease(store: Store) -> None:
    add(store, "c1")
    for name in ("README", "10.244.0.3.bak", "010.244.0.4", ".tmp-1"):
        Path(store.folder, name).write_text("x")
    assert [lease.address for lease in store.all()] == ["10.244.0.2"]
    assert store.count() == 1
    assert add(store, "c2") == "10.244.0.3"


@pytest.mark.parametrize("content", [b"", b"\r\n", b"  \r\n"])
def test_a_torn_lease_keeps_its_address_until_it_is_released_as_torn(store: Store, content: bytes) -> None:
    add(store, "c1")
    Path(store.folder, "10.244.0.3").write_bytes(content)
    assert add(store, "c2") == "10.244.0.4"
    assert not store.release("10.244.0.3", "c9", "eth0")
    assert not store.release_torn("10.244.0.2")
    assert store.release_torn("10.244.0.3")
    assert not store.release_torn("10.244.0.3")
    assert files(store) == {"10.244.0.2", "10.244.0.4", "last_reserved_ip.0", "lock"}


def test_another_subnet_for_the_same_network_is_searched_from_its_start(store: Store) -> None:
    add(store, "c1")
    moved = ranges("10.244.9.0/29")
    assert add(store, "c2", moved) == "10.244.9.2"
    assert add(store, "c3") == "10.244.0.3"
    assert release(store, "10.244.9.2", "c2")
    assert add(store, "c4", moved) == "10.244.9.2"


def test_each_set_gives_one_address_and_remembers_its_own_last(store: Store) -> None:
    assert add_all(store, "c1", BOTH) == ["10.9.0.2", "fd00:9::2"]
    assert add_all(store, "c2", BOTH, "fd00:9::ff") == ["10.9.0.3", "fd00:9::ff"]
    assert add_all(store, "c3", BOTH) == ["10.9.0.4", "fd00:9::100"]
    assert Path(store.folder, "last_reserved_ip.0").read_bytes() == b"10.9.0.4"
    assert Path(store.folder, "last_reserved_ip.1").read_bytes() == b"fd00:9::100"
    assert {Path(store.folder, name).read_bytes() for name in ("10.9.0.2", "fd00:9::2")} == {b"c1\r\neth0"}
    record = attachments.read("mynet", "c2", "eth0")
    assert record is not None and record.addresses == ["10.9.0.3", "fd00:9::ff"]
    assert [store.count(range_set) for range_set in BOTH] == [3, 3]


def test_ranges_of_a_set_are_used_in_order(store: Store) -> None:
    pair = ranges("10.9.0.0/30", "10.8.0.0/30")
    assert [add(store, f"c{number}", pair) for number in range(2)] == ["10.9.0.2", "10.8.0.2"]
    assert release(store, "10.9.0.2", "c0")
    assert add(store, "c2", pair) == "10.9.0.2"
    with pytest.raises(Exhausted, match=r"10\.9\.0\.0/30, 10\.8\.0\.0/30 of network mynet: all 2 are leased"):
        add(store, "c3", pair)


def test_a_full_set_leaves_no_lease_in_the_others(store: Store) -> None:
    for number in range(5):
        add_all(store, f"c{number}", BOTH[::-1])
    before = files(store)
    with pytest.raises(Exhausted, match=r"no address left in 10\.9\.0\.0/29"):
        add_all(store, "c5", BOTH[::-1])
    assert files(store) == before


def test_a_failed_hard_link_undoes_the_leases_before_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(lease_store, "link", full)
        with pytest.raises(OSError, match="No space left"):
            add_all(store, "c1", BOTH)
    assert files(store) <= {"lock"}


def test_a_requested_address_must_be_in_a_set_and_free(store: Store) -> None:
    assert add_all(store, "c1", BOTH, "fd00:9::7", "10.9.0.5") == ["10.9.0.5", "fd00:9::7"]
    with pytest.raises(CniError, match=r"10\.9\.0\.5 is already leased to c1 eth0"):
        add_all(store, "c2", BOTH, "10.9.0.5")
    with pytest.raises(CniError, match=r"not available: 10\.9\.0\.1"):
        add_all(store, "c2", BOTH, "10.9.0.1")
    assert store.count() == 2


def test_an_attachment_s_addresses_are_freed_together_except_a_foreign_one(store: Store) -> None:
    add_all(store, "c1", BOTH)
    for address, content in (("10.9.0.2", b"other\r\neth0"), ("fd00:9::2", b"")):  # emptied by a power failure
        Path(store.folder, address).unlink()
        Path(store.folder, address).write_bytes(content)
    assert store.release_all(["10.9.0.2", "fd00:9::2", "10.9.0.6"], "c1", "eth0") == ["fd00:9::2"]
    assert add_all(store, "c2", BOTH, "fd00:9::2") == ["10.9.0.3", "fd00:9::2"]


def test_adding_sets_keeps_existing_leases(store: Store) -> None:
    add(store, "c1", BOTH[0])
    assert add_all(store, "c2", BOTH) == ["10.9.0.3", "fd00:9::2"]
    assert add_all(store, "c3", BOTH[::-1]) == ["fd00:9::3", "10.9.0.4"]
    assert add(store, "c4", BOTH[1]) == "fd00:9::4"


@pytest.mark.parametrize("same_tick", [False, True])
def test_host_local_s_lease_in_any_set_is_respected(store: Store, same_tick: bool) -> None:
    add_all(store, "c1", BOTH)
    with SameTick(store) if same_tick else nullcontext():
        for number, address in enumerate(("10.9.0.3", "fd00:9::3")):
            Path(store.folder, address).write_bytes(b"theirs\r\neth0")
            Path(store.folder, f"last_reserved_ip.{number}").write_text(address)
    assert add_all(store, "c2", BOTH) == ["10.9.0.4", "fd00:9::4"]
    theirs = attachments.read("mynet", "theirs", "eth0")
    assert theirs is not None and sorted(theirs.addresses) == ["10.9.0.3", "fd00:9::3"]


def test_address_with_a_folder_in_place_of_its_lease_is_never_given(store: Store) -> None:
    add(store, "c1")
    Path(store.folder, "10.244.0.3").mkdir()
    assert add(store, "c2") == "10.244.0.4"
    with pytest.raises(CniError, match=r"10\.244\.0\.3 is already leased to an unknown owner"):
        add(store, "c3", wanted="10.244.0.3")
    assert not store.release("10.244.0.3", "c1", "eth0") and not store.release_torn("10.244.0.3")
    assert [lease.address for lease in store.all()] == ["10.244.0.2", "10.244.0.4"]
