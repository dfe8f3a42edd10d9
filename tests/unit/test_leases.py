"""The lease store: host-local's layout on disk, whoever else changes it, and the cost of a full one."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnictl.core import attachments, durable, locks
from cnictl.core.cidr import format_address, parse_address, parse_cidr
from cnictl.core.errors import ADDRESS_CONFLICT, ADDRESS_EXHAUSTED, TRY_AGAIN, CniError
from cnictl.core.leases import lease_store, shared_store
from cnictl.core.leases.lease import Duplicate, Exhausted
from cnictl.core.leases.lease_store import Store
from cnictl.core.leases.pool import Range, RangeSet


def ranges(*subnets: str) -> RangeSet:
    return RangeSet([Range(parse_cidr(subnet)) for subnet in subnets])


SMALL = ranges("10.244.0.0/29")
"""Pods get .2 to .6."""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A network's store and records in folders of the test's own."""
    monkeypatch.setattr(attachments, "ATTACHMENTS_DIR", f"{tmp_path}/attachments")
    monkeypatch.setattr(attachments, "SPARE_ATTACHMENTS_DIR", f"{tmp_path}/spare")
    for module in (lease_store, shared_store):
        monkeypatch.setattr(module, "NETWORKS_DIR", f"{tmp_path}/networks")  # the default store, of this node alone
    return Store("mynet", f"{tmp_path}/networks")


def add_all(store: Store, container: str, sets: Sequence[RangeSet], *wanted: str, ifname: str = "eth0") -> list[str]:
    """Lease as ADD does: the record is written before the lease appears."""

    def before(addresses: list[str]) -> None:
        record = attachments.Record(store.network, container, ifname)
        record.addresses, record.host_veth = addresses, "veth0"
        os.close(record.write())

    leased = store.allocate(sets, container, ifname, before, [parse_address(one) for one in wanted])
    assert all(one.holds(packed) for packed, one in leased)
    return [format_address(packed) for packed, _ in leased]


def add(store: Store, container: str, among: RangeSet = SMALL, wanted: str = "", ifname: str = "eth0") -> str:
    (address,) = add_all(store, container, [among], *filter(None, [wanted]), ifname=ifname)
    return address


def release(store: Store, address: str, container: str) -> bool:
    attachments.remove(store.network, container, "eth0")
    return store.release(address, container, "eth0")


def release_all(store: Store, addresses: list[str], container: str) -> None:
    attachments.remove(store.network, container, "eth0")
    assert store.release_all(addresses, container, "eth0") == addresses


def files(store: Store) -> set[str]:
    return set(os.listdir(store.folder))


def by_hand(store: Store, address: str, container: str, ifname: str = "eth0") -> None:
    """What host-local's ADD leaves in the store."""
    os.makedirs(store.folder, exist_ok=True)
    Path(store.folder, address).write_bytes(f"{container}\r\n{ifname}".encode())
    Path(store.folder, "last_reserved_ip.0").write_text(address)


class SameTick:
    """A change of the store that leaves its modification time as it was: both fell into one tick of the clock."""

    def __init__(self, store: Store) -> None:
        self.folder = store.folder

    def __enter__(self) -> None:
        self.before = os.stat(self.folder).st_mtime_ns

    def __exit__(self, *_: object) -> None:
        os.utime(self.folder, ns=(self.before, self.before))
        assert os.stat(self.folder).st_mtime_ns == self.before


def test_a_lease_is_what_host_local_writes(store: Store) -> None:
    assert add(store, "c1") == "10.244.0.2"
    lease = Path(store.folder, "10.244.0.2")
    assert lease.read_bytes() == b"c1\r\neth0"
    assert lease.stat().st_mode & 0o777 == 0o600
    assert Path(store.folder, "last_reserved_ip.0").read_bytes() == b"10.244.0.2"
    assert files(store) == {"10.244.0.2", "last_reserved_ip.0", "lock"}


def test_addresses_are_given_round_robin_and_skip_network_gateway_and_broadcast(store: Store) -> None:
    given_out = [add(store, f"c{n}") for n in range(3)]
    assert given_out == ["10.244.0.2", "10.244.0.3", "10.244.0.4"]
    assert release(store, "10.244.0.2", "c0")
    assert [add(store, "c3"), add(store, "c4"), add(store, "c5")] == ["10.244.0.5", "10.244.0.6", "10.244.0.2"]


def test_the_one_after_host_local_s_last_comes_next(store: Store) -> None:
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


def test_a_full_store_is_exhausted_and_keeps_what_it_has(store: Store) -> None:
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


def test_a_wanted_address_is_given_or_refused_with_its_holder(store: Store) -> None:
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


def test_release_of_what_is_gone_is_no_error(store: Store) -> None:
    assert not store.release("10.244.0.3", "c1", "eth0")
    assert not os.path.exists(store.folder)
    add(store, "c1")
    assert not store.release("10.244.0.3", "c1", "eth0")


def test_a_failing_record_leaves_no_lease(store: Store) -> None:
    def before(_: list[str]) -> None:
        raise CniError(TRY_AGAIN, "another ADD is at work on it")

    with pytest.raises(CniError):
        store.allocate([SMALL], "c1", "eth0", before)
    assert files(store) <= {"lock"}
    assert add(store, "c2") == "10.244.0.2"


def test_a_held_lock_is_waited_for_with_a_bound(store: Store) -> None:
    add(store, "c1")
    with store.locked(), pytest.raises(CniError, match="locked by another process") as refused:
        store.release("10.244.0.2", "c1", "eth0", wait=0.05)
    assert refused.value.code == TRY_AGAIN
    assert store.read("10.244.0.2") is not None


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


def test_leases_added_by_hand_without_the_last_address_are_respected_in_the_same_tick(store: Store) -> None:
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


def test_what_can_name_no_record_is_not_claimed(store: Store) -> None:
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


def test_claiming_what_is_claimed_writes_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(4):
        by_hand(store, f"10.244.0.{n + 2}", f"c{n}")
    store.ensure_claimed()
    Path(store.folder, "10.244.0.5").unlink()  # the store changed: all of it is looked at again

    def refuse(*_: object) -> None:
        raise AssertionError("a record was written")

    monkeypatch.setattr(attachments.Record, "write", refuse)
    store.ensure_claimed()
    store.ensure_claimed()


def test_a_foreign_file_in_the_store_is_no_lease(store: Store) -> None:
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


def claims(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each time from now on that all leases are looked through for those without a record."""
    looked: list[str] = []
    real = store._claim

    def counted(*only: Any) -> None:
        looked.append("all")
        real(*only)

    monkeypatch.setattr(store, "_claim", counted)
    return looked


def test_leases_are_looked_through_once_and_not_after_our_own_calls(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
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
def test_a_torn_or_missing_claim_mark_has_all_leases_looked_through(
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


def test_an_add_that_is_killed_after_its_lease_leaves_a_mark_that_says_nothing(
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
    attachments.remove("mynet", "c2", "eth0")  # and whoever undid it lost its lease
    store.ensure_claimed()
    assert ("c2", "eth0") in attachments.owners("mynet")


def test_the_mark_goes_with_the_records(store: Store) -> None:
    by_hand(store, "10.244.0.3", "theirs")
    add(store, "c1")
    shutil.rmtree(os.path.dirname(attachments.claim_mark("mynet")))
    add(store, "c2")
    assert {("theirs", "eth0"), ("c1", "eth0"), ("c2", "eth0")} == attachments.owners("mynet")


def test_another_subnet_for_the_same_network_is_searched_from_its_start(store: Store) -> None:
    add(store, "c1")
    moved = ranges("10.244.9.0/29")
    assert add(store, "c2", moved) == "10.244.9.2"
    assert add(store, "c3") == "10.244.0.3"
    assert release(store, "10.244.9.2", "c2")
    assert add(store, "c4", moved) == "10.244.9.2"


# --- several range sets


BOTH = (ranges("10.9.0.0/29"), ranges("fd00:9::/64"))


def test_each_set_gives_one_address_and_remembers_its_own_last(store: Store) -> None:
    assert add_all(store, "c1", BOTH) == ["10.9.0.2", "fd00:9::2"]
    assert add_all(store, "c2", BOTH, "fd00:9::ff") == ["10.9.0.3", "fd00:9::ff"]
    assert add_all(store, "c3", BOTH) == ["10.9.0.4", "fd00:9::100"]
    assert Path(store.folder, "last_reserved_ip.0").read_bytes() == b"10.9.0.4"
    assert Path(store.folder, "last_reserved_ip.1").read_bytes() == b"fd00:9::100"
    assert {Path(store.folder, name).read_bytes() for name in ("10.9.0.2", "fd00:9::2")} == {b"c1\r\neth0"}
    record = attachments.read("mynet", "c2", "eth0")
    assert record is not None and record.addresses == ["10.9.0.3", "fd00:9::ff"]
    assert [store.count(one) for one in BOTH] == [3, 3]


def test_ranges_of_a_set_are_taken_in_turn(store: Store) -> None:
    pair = ranges("10.9.0.0/30", "10.8.0.0/30")
    assert [add(store, f"c{number}", pair) for number in range(2)] == ["10.9.0.2", "10.8.0.2"]
    assert release(store, "10.9.0.2", "c0")
    assert add(store, "c2", pair) == "10.9.0.2"
    with pytest.raises(Exhausted, match=r"10\.9\.0\.0/30, 10\.8\.0\.0/30 of network mynet: all 2 are leased"):
        add(store, "c3", pair)


def test_a_set_that_is_full_leaves_nothing_leased_of_the_others(store: Store) -> None:
    for number in range(5):
        add_all(store, f"c{number}", BOTH[::-1])
    before = files(store)
    with pytest.raises(Exhausted, match=r"no address left in 10\.9\.0\.0/29"):
        add_all(store, "c5", BOTH[::-1])
    assert files(store) == before


def test_a_link_that_fails_takes_the_leases_before_it_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(lease_store, "link", full)
        with pytest.raises(OSError, match="No space left"):
            add_all(store, "c1", BOTH)
    assert files(store) <= {"lock"}


def test_an_address_asked_for_is_of_one_set_and_free(store: Store) -> None:
    assert add_all(store, "c1", BOTH, "fd00:9::7", "10.9.0.5") == ["10.9.0.5", "fd00:9::7"]
    with pytest.raises(CniError, match=r"10\.9\.0\.5 is already leased to c1 eth0"):
        add_all(store, "c2", BOTH, "10.9.0.5")
    with pytest.raises(CniError, match=r"not available: 10\.9\.0\.1"):
        add_all(store, "c2", BOTH, "10.9.0.1")
    assert store.count() == 2


def test_an_attachment_s_addresses_go_together_but_for_one_that_is_another_s(store: Store) -> None:
    add_all(store, "c1", BOTH)
    for address, content in (("10.9.0.2", b"other\r\neth0"), ("fd00:9::2", b"")):  # a power cut emptied it
        Path(store.folder, address).unlink()
        Path(store.folder, address).write_bytes(content)
    assert store.release_all(["10.9.0.2", "fd00:9::2", "10.9.0.6"], "c1", "eth0") == ["fd00:9::2"]
    assert add_all(store, "c2", BOTH, "fd00:9::2") == ["10.9.0.3", "fd00:9::2"]


def test_more_sets_later_keep_what_is_leased(store: Store) -> None:
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


def test_a_folder_where_a_lease_should_be_is_never_given_out(store: Store) -> None:
    add(store, "c1")
    Path(store.folder, "10.244.0.3").mkdir()
    assert add(store, "c2") == "10.244.0.4"
    with pytest.raises(CniError, match=r"10\.244\.0\.3 is already leased to an unknown owner"):
        add(store, "c3", wanted="10.244.0.3")
    assert not store.release("10.244.0.3", "c1", "eth0") and not store.release_torn("10.244.0.3")
    assert [lease.address for lease in store.all()] == ["10.244.0.2", "10.244.0.4"]


# --- many at once, many leases


@pytest.mark.parametrize("sets", [(SMALL,), (SMALL, ranges("fd00:9::/126"))], ids=["one set", "two sets"])
@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["add", "del", "theirs", "gone"]), st.integers(0, 6)), max_size=25))
def test_whatever_happens_in_whatever_order_no_address_is_given_twice(
    tmp_path_factory: pytest.TempPathFactory, sets: tuple[RangeSet, ...], steps: list[tuple[str, int]]
) -> None:
    home = tmp_path_factory.mktemp("store")
    every = [format_address(one.nth(place)) for one in sets for place in range(1, one.places)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attachments, "ATTACHMENTS_DIR", f"{home}/attachments")
        patch.setattr(attachments, "SPARE_ATTACHMENTS_DIR", f"{home}/spare")
        store = Store("mynet", f"{home}/networks")
        held: dict[str, str] = {}
        for number, (step, which) in enumerate(steps):
            address, container = every[which % len(every)], f"c{number}"
            room = all(sum(one.holds(parse_address(taken)) for taken in held) < one.size for one in sets)
            if step == "add" and room:
                fresh = add_all(store, container, sets)
                assert not held.keys() & set(fresh)
                held.update(dict.fromkeys(fresh, container))
            elif step == "add":
                with pytest.raises(Exhausted):
                    add_all(store, container, sets)
            elif step == "theirs" and address not in held:
                by_hand(store, address, container)
                held[address] = container
            elif step == "gone" and address in held:
                os.unlink(f"{store.folder}/{address}")
                del held[address]
            elif step == "del" and address in held:
                gone = [taken for taken, holder in held.items() if holder == held[address]]
                release_all(store, gone, held[address])
                held = {taken: holder for taken, holder in held.items() if taken not in gone}
            assert {lease.address: lease.container for lease in store.all()} == held


def test_processes_at_once_never_get_one_address(store: Store) -> None:
    wide = ranges("10.244.0.0/24")

    def fifteen(worker: int) -> None:
        for number in range(15):
            add(store, f"w{worker}-{number}", wide)

    workers = [fork(partial(fifteen, worker)) for worker in range(8)]
    assert [os.waitpid(worker, 0)[1] for worker in workers] == [0] * 8
    owners = {lease.address: lease.container for lease in store.all()}
    assert len(owners) == 120 == len(set(owners.values()))
    for container in owners.values():
        assert attachments.read("mynet", container, "eth0") is not None


def fork(work: Callable[[], Any]) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    finally:
        os._exit(status)


class SystemCalls:
    """How many system calls the store's modules make, by name."""

    NAMES = ("open", "open_descriptor", "read", "pread", "pwrite", "write", "stat", "lstat", "listdir", "unlink",
             "link", "close", "ftruncate", "flock", "fsync", "fstat", "fchmod")  # fmt: skip

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.counts: dict[str, int] = {}
        for module in (lease_store, durable, locks, attachments):
            for name in self.NAMES:
                if hasattr(module, name):
                    patch.setattr(module, name, self._counting(name, getattr(module, name)))

    def _counting(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.counts[name] = self.counts.get(name, 0) + 1
            return real(*args, **kwargs)

        return call

    def of(self, work: Callable[[], Any]) -> dict[str, int]:
        self.counts = {}
        work()
        return dict(self.counts)


@pytest.fixture
def crowded(store: Store) -> Iterator[Store]:
    """60,000 leases in one block of each family, and the last addresses given are those of the blocks' starts."""
    os.makedirs(store.folder)
    for number, subnet in enumerate(("10.244.0.0/16", "fd00:9::/64")):
        cidr = parse_cidr(subnet)
        first = Path(store.folder, format_address(cidr.nth(2)))
        first.write_bytes(b"block\r\neth0")
        for offset in range(3, 60_002):  # links of one file: a sixth of the time that as many files take
            os.link(first, f"{store.folder}/{format_address(cidr.nth(offset))}")
        Path(store.folder, f"last_reserved_ip.{number}").write_text(first.name)
    yield store
    shutil.rmtree(store.folder)  # or pytest keeps three of them


def test_60_000_leases_cost_an_add_and_a_del_the_system_calls_of_none(
    crowded: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = (ranges("10.244.0.0/16"), ranges("fd00:9::/64"))
    empty = Store("empty", f"{tmp_path}/networks")
    assert add_all(empty, "first", wide) == ["10.244.0.2", "fd00:9::2"]
    # offset 60,002; the one ADD that reads the leases
    assert add_all(crowded, "first", wide) == ["10.244.234.98", "fd00:9::ea62"]
    calls = SystemCalls(monkeypatch)
    for name in ("mynet", "empty"):
        for number, last in enumerate(("10.244.0.2", "fd00:9::2")):
            Path(f"{tmp_path}/networks/{name}/last_reserved_ip.{number}").write_text(last)
    adding = calls.of(lambda: add_all(crowded, "second", wide))
    on_empty = calls.of(lambda: add_all(empty, "second", wide))
    assert adding == on_empty  # one of them lists the folder
    assert sum(adding.values()) < 80, adding
    removing = calls.of(lambda: release_all(crowded, ["10.244.234.99", "fd00:9::ea63"], "second"))
    assert removing == calls.of(lambda: release_all(empty, ["10.244.0.3", "fd00:9::3"], "second"))
    assert sum(removing.values()) < 50, removing
    sys.stdout.write(f"ADD {adding}\nDEL {removing}\n")
