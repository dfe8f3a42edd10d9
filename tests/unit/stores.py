"""A lease store in the test's own folders, and what ADD, DEL and host-local do to it."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from cnictl.core import attachments
from cnictl.core.cidr import format_address, parse_address, parse_cidr
from cnictl.core.leases import lease_store, shared_store
from cnictl.core.leases.lease_store import Store
from cnictl.core.leases.pool import Range, RangeSet


def ranges(*subnets: str) -> RangeSet:
    return RangeSet([Range(parse_cidr(subnet)) for subnet in subnets])


SMALL = ranges("10.244.0.0/29")
"""Pods get .2 to .6."""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A network's store and records in the test's own folders."""
    monkeypatch.setattr(attachments, "ATTACHMENTS_DIR", f"{tmp_path}/attachments")
    monkeypatch.setattr(attachments, "SPARE_ATTACHMENTS_DIR", f"{tmp_path}/spare")
    for module in (lease_store, shared_store):
        monkeypatch.setattr(module, "NETWORKS_DIR", f"{tmp_path}/networks")  # the default store, used only by this node
    return Store("mynet", f"{tmp_path}/networks")


def add_all(store: Store, container: str, sets: Sequence[RangeSet], *wanted: str, ifname: str = "eth0") -> list[str]:
    """Lease as ADD does: the record is written before the lease appears."""

    def before(addresses: list[str]) -> None:
        record = attachments.Record(store.network, container, ifname)
        record.addresses, record.host_veth = addresses, "veth0"
        os.close(record.write())

    leased = store.allocate(sets, container, ifname, before, [parse_address(address) for address in wanted])
    assert all(leased_range.holds(packed) for packed, leased_range in leased)
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
    """Write what host-local's ADD leaves in the store."""
    os.makedirs(store.folder, exist_ok=True)
    Path(store.folder, address).write_bytes(f"{container}\r\n{ifname}".encode())
    Path(store.folder, "last_reserved_ip.0").write_text(address)


class SameTick:
    """Change the store without changing its modification time: both changes are in the same tick of the clock."""

    def __init__(self, store: Store) -> None:
        self.folder = store.folder

    def __enter__(self) -> None:
        self.before = os.stat(self.folder).st_mtime_ns

    def __exit__(self, *_: object) -> None:
        os.utime(self.folder, ns=(self.before, self.before))
        assert os.stat(self.folder).st_mtime_ns == self.before


# --- several range sets
BOTH = (ranges("10.9.0.0/29"), ranges("fd00:9::/64"))
