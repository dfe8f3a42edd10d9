"""Calls in any order and at the same time, and the cost of a full store."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnictl.core import attachments, durable, locks
from cnictl.core.cidr import format_address, parse_address, parse_cidr
from cnictl.core.leases import lease_store
from cnictl.core.leases.lease import Exhausted
from cnictl.core.leases.lease_store import Store
from cnictl.core.leases.pool import RangeSet
from tests.unit.stores import SMALL, add, add_all, by_hand, ranges, release_all
from tests.unit.stores import store as store
from tests.unit.test_pool import every_place


# --- many calls at once, many leases
@pytest.mark.parametrize("sets", [(SMALL,), (SMALL, ranges("fd00:9::/126"))], ids=["one set", "two sets"])
@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["add", "del", "theirs", "gone"]), st.integers(0, 6)), max_size=25))
def test_no_order_of_operations_gives_an_address_twice(
    tmp_path_factory: pytest.TempPathFactory, sets: tuple[RangeSet, ...], steps: list[tuple[str, int]]
) -> None:
    home = tmp_path_factory.mktemp("store")
    every = [format_address(packed) for range_set in sets for packed in every_place(range_set)[1:]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attachments, "ATTACHMENTS_DIR", f"{home}/attachments")
        patch.setattr(attachments, "SPARE_ATTACHMENTS_DIR", f"{home}/spare")
        store = Store("mynet", f"{home}/networks")
        held: dict[str, str] = {}
        for number, (step, which) in enumerate(steps):
            address, container = every[which % len(every)], f"c{number}"
            room = all(
                sum(range_set.holds(parse_address(taken)) for taken in held) < range_set.size for range_set in sets
            )
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


def test_simultaneous_processes_never_get_the_same_address(store: Store) -> None:
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
    """Count the system calls of the store's modules, by name."""

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
    """60,000 leases in one block for each family; the last addresses given are at the blocks' starts."""
    os.makedirs(store.folder)
    for number, subnet in enumerate(("10.244.0.0/16", "fd00:9::/64")):
        cidr = parse_cidr(subnet)
        first = Path(store.folder, format_address(cidr.nth(2)))
        first.write_bytes(b"block\r\neth0")
        for offset in range(3, 60_002):  # links to one file take a sixth of the time of as many files
            os.link(first, f"{store.folder}/{format_address(cidr.nth(offset))}")
        Path(store.folder, f"last_reserved_ip.{number}").write_text(first.name)
    yield store
    shutil.rmtree(store.folder)  # otherwise pytest keeps three of these folders


def test_60_000_leases_add_no_system_calls_to_add_and_del(
    crowded: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = (ranges("10.244.0.0/16"), ranges("fd00:9::/64"))
    empty = Store("empty", f"{tmp_path}/networks")
    assert add_all(empty, "first", wide) == ["10.244.0.2", "fd00:9::2"]
    # the address at offset 60,002; only this ADD reads the leases
    assert add_all(crowded, "first", wide) == ["10.244.234.98", "fd00:9::ea62"]
    calls = SystemCalls(monkeypatch)
    for name in ("mynet", "empty"):
        for number, last in enumerate(("10.244.0.2", "fd00:9::2")):
            Path(f"{tmp_path}/networks/{name}/last_reserved_ip.{number}").write_text(last)
    adding = calls.of(lambda: add_all(crowded, "second", wide))
    on_empty = calls.of(lambda: add_all(empty, "second", wide))
    assert adding == on_empty  # including the call that lists the folder
    assert sum(adding.values()) < 80, adding
    removing = calls.of(lambda: release_all(crowded, ["10.244.234.99", "fd00:9::ea63"], "second"))
    assert removing == calls.of(lambda: release_all(empty, ["10.244.0.3", "fd00:9::3"], "second"))
    assert sum(removing.values()) < 50, removing
    sys.stdout.write(f"ADD {adding}\nDEL {removing}\n")
