"""Torn, wrong and missing files in the store and among the records (docs/dev/faults.md).

All tests share a host; each has its own network, bridge and pods.
"""

import os
from collections.abc import Callable

import pytest

from tests.kernel.plugin.nets import ALL, FULL, Net
from tests.kernel.plugin.nets import ground as ground
from tests.kernel.plugin.nets import net as net

pytestmark = pytest.mark.once


NOBODYS = [
    b"",
    b"\n",
    b"\0" * 64,
    b"\xff\xfe garbage \0",
    b"..\r\neth0",
    b"../../../../etc/passwd\r\neth0",
    b"a" * 5000,
    b"c1\r\n../eth0",
    b"x" * (1 << 20),
]


@pytest.mark.parametrize("content", NOBODYS, ids=lambda content: repr(content[:12]))
def test_lease_file_without_an_owner_blocks_nobody_and_is_freed(net: Net, content: bytes) -> None:
    attached, new = net.pod(), net.pod()
    result = net.add(attached)
    (net.store / net.address(3)).write_bytes(content)
    assert net.call("ADD", new).address == net.address(4)
    assert net.call("CHECK", attached, result).result == {}
    assert net.call("DEL", new).result == {}
    assert net.call("STATUS").result == {}
    assert [row["state"] for row in net.ipam("list")[1]["items"]] == ["live", "torn"]
    assert net.ipam("gc")[0] == 0
    assert net.left() == net.of((attached, 2))
    (net.store / net.address(3)).write_bytes(content)
    assert net.collect(attached).result == {}
    assert net.left() == net.of((attached, 2))


def test_add_in_a_full_subnet_frees_torn_leases(net: Net) -> None:
    net.add(net.pod())
    for last in range(3, 15):
        (net.store / net.address(last)).write_bytes(b"")
    assert net.call("STATUS").result == {}
    assert net.call("ADD", net.pod()).address in {net.address(last) for last in range(3, 15)}


@pytest.mark.parametrize("content", [b"", b"\0" * 20])
def test_an_emptied_lease_of_a_live_pod_fails_check_and_is_removed_by_del(net: Net, content: bytes) -> None:
    first, other = net.pod(), net.pod()
    result = net.add(first)
    net.add(other)
    (net.store / net.address(2)).write_bytes(content)
    error = net.call("CHECK", first, result).error
    assert (error["code"], net.address(2) in error["msg"]) == (104, True)
    assert net.ipam("gc")[0] == 0
    assert net.address(2) in net.leases()  # the record shows that a pod has this address
    assert net.call("DEL", first).result == {}
    assert net.left() == net.of((other, 3))


def test_a_folder_in_place_of_a_lease_only_costs_its_address(net: Net) -> None:
    attached = net.pod()
    result = net.add(attached)
    (net.store / net.address(3)).mkdir()
    pods = [net.pod() for _ in range(ALL - 2)]
    given = [net.call("ADD", pod).address for pod in pods]
    assert sorted(given) == sorted(net.address(last) for last in range(4, 15))
    assert net.call("ADD", net.pod()).code == 100
    assert net.call("STATUS").code == 50
    for pod in pods:
        assert net.call("DEL", pod).result == {}
    (net.store / net.address(2)).unlink()
    (net.store / net.address(2)).mkdir()
    assert net.call("CHECK", attached, result).code == 104
    assert net.call("DEL", attached).result == {}
    assert net.collect().result == {}
    assert net.ipam("gc")[0] == 0
    assert net.left() == (sorted([net.address(2), net.address(3)]), [], [])


@pytest.mark.parametrize("torn", [b"", b"10.24", b"\xff\0", b"10.99.0.1", b"x" * (1 << 20)])
def test_torn_last_address_is_only_a_hint(net: Net, torn: bytes) -> None:
    net.add(net.pod())
    (net.store / "last_reserved_ip.0").write_bytes(torn)
    assert net.call("ADD", net.pod()).address == net.address(3)
    assert (net.store / "last_reserved_ip.0").read_bytes() == net.address(3).encode()


@pytest.mark.parametrize("what", ["last_reserved_ip.0", "lock", "mark"])
def test_a_folder_in_place_of_a_file_of_the_store_is_named_and_fixed_by_removing_it(net: Net, what: str) -> None:
    attached, new = net.pod(), net.pod()
    result = net.add(attached)
    path = net.mark if what == "mark" else net.store / what
    path.unlink()
    path.mkdir()
    error = net.call("ADD", new).error
    assert error["code"] == FULL
    assert f"{path.parent.name}/{path.name}" in error["msg"] and (
        "Is a directory" in error["msg"] or "is a folder" in error["msg"]
    )
    assert net.left() == net.of((attached, 2))
    assert net.call("CHECK", attached, result).result == {}
    path.rmdir()
    assert net.call("DEL", attached).result == {}
    assert net.call("ADD", new).address
    assert net.call("DEL", new).result == {}
    assert net.left() == ([], [], [])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _: b"",
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole + b"rest",
        lambda whole: bytes(255 - byte for byte in whole),
        lambda whole: os.urandom(len(whole)),
    ],
    ids=["empty", "cut", "longer", "inverted", "random"],
)
def test_corrupt_claim_mark_costs_no_address_and_no_record(net: Net, spoil: Callable[[bytes], bytes]) -> None:
    pods = [net.pod() for _ in range(ALL - 1)]
    given = [net.call("ADD", pod).address for pod in pods[:4]]
    (net.store / "last_reserved_ip.0").unlink()  # otherwise the search begins after the leased addresses
    theirs = net.pod()
    (net.store / net.address(9)).write_bytes(f"{theirs.container}\r\neth0".encode())
    net.mark.write_bytes(spoil(net.mark.read_bytes()))
    net.call("DEL", pods[0])
    given = given[1:] + [net.call("ADD", pod).address for pod in [*pods[4:], pods[0]]]
    assert sorted([*given, net.address(9)]) == sorted(net.address(last) for last in range(2, 15))
    assert net.call("ADD", net.pod()).code == 100
    assert net.record(theirs).exists()
    assert net.call("DEL", theirs).result == {} and not (net.store / net.address(9)).exists()


TORN_RECORDS = [
    b"",
    b'{"complete": 1, "version": 1, "netw',
    b"\0" * 300,
    b"[]",
    b'{"complete": 1, "version": 1, "addresses": [5, null, "../../x"], "host_veth": 7, "masqueraded": [1]}',
    b'{"complete": 1, "version": 99, "addresses": {"v4": "10.244.0.2"}, "new": true}',
]


@pytest.mark.parametrize("content", TORN_RECORDS, ids=lambda content: repr(content[:40]))
def test_torn_record_names_enough_to_undo_its_attachment(net: Net, content: bytes) -> None:
    first, other, third = net.pod(), net.pod(), net.pod()
    for pod in (first, other, third):
        net.add(pod)
    for pod in (first, other):
        net.record(pod).write_bytes(content)
    assert net.ipam("list")[0] == 0
    assert net.call("ADD", first).code == 102
    assert net.call("DEL", first).result == {}
    assert net.left() == net.of((other, 3), (third, 4))
    assert net.collect(third).result == {}
    assert net.left() == net.of((third, 4))
    assert net.host.pod_link(first) is net.host.pod_link(other) is None


def test_a_folder_in_place_of_a_record_affects_no_other_attachment(net: Net) -> None:
    first, other, third = net.pod(), net.pod(), net.pod()
    for pod in (first, other):
        net.add(pod)
    net.record(first).unlink()
    net.record(first).mkdir()
    assert net.call("ADD", third).address == net.address(4)
    assert net.ipam("list")[0] == 0
    error = net.call("DEL", first).error
    assert error["code"] == FULL and net.record(first).name in error["msg"]
    error = net.collect(third).error
    assert error["code"] == 11 and first.container in error["details"]
    assert net.left() == ([net.address(4)], sorted([net.record(first).name, net.record(third).name]), [net.veth(third)])
    net.record(first).rmdir()
    assert net.call("DEL", first).result == {}
    assert net.left() == net.of((third, 4))
