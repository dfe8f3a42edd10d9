"""Disks, permissions, locks and clocks that fail: the answer, what is left, and the repair (docs/dev/faults.md).

All tests share a host; each has its own network, bridge and pods.
"""

import fcntl
import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kernel.plugin.client import LEASES, RECORDS, VALID, Host, Json, Pod
from tests.kernel.plugin.nets import ALL, FULL, Net
from tests.kernel.plugin.nets import ground as ground
from tests.kernel.plugin.nets import net as net

pytestmark = pytest.mark.once


NODE_LOCK = "/run/cnictl/node.lock"


@contextmanager
def disk(net: Net, folder: str, options: str) -> Iterator[str]:
    """Mount a separate file system on one of the network's folders."""
    path = f"{folder}/{net.name}"
    net.host.run("mkdir", "-p", path)
    net.host.run("mount", "-t", "tmpfs", "-o", options, "disk", path)
    try:
        yield path
    finally:
        net.host.run("umount", "-l", path)


def fill_space(folder: Path) -> None:
    with pytest.raises(OSError), (folder / ".filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def fill_inodes(folder: Path) -> None:
    with pytest.raises(OSError):
        for number in itertools.count():
            (folder / f".filler{number}").touch()


@pytest.mark.parametrize("folder", [LEASES, RECORDS])
@pytest.mark.parametrize(("options", "fill"), [("size=128k", fill_space), ("nr_inodes=24", fill_inodes)])
def test_full_disk_refuses_add_and_nothing_else(
    net: Net, folder: str, options: str, fill: Callable[[Path], None]
) -> None:
    with disk(net, folder, options) as path:
        attached, other, new = net.pod(), net.pod(), net.pod()
        result = net.add(attached)
        net.add(other)
        fill(net.host.path(path))
        error = net.call("ADD", new).error
        assert error["code"] == FULL
        assert path in error["msg"] and "No space left" in error["msg"]
        assert net.call("STATUS").code == 50
        assert net.left() == net.of((attached, 2), (other, 3))
        assert net.host.pod_link(new) is None
        assert net.call("CHECK", attached, result).result == {}
        assert net.call("DEL", attached).result == {}
        assert net.collect().result == {}
        assert net.left() == ([], [], [])
        for file in net.host.path(path).glob(".filler*"):
            file.unlink()
        assert net.call("STATUS").result == {}
        assert net.add(new)


@pytest.mark.parametrize("folder", [LEASES, RECORDS])
def test_read_only_store_keeps_address_and_record_until_it_is_writable(net: Net, folder: str) -> None:
    with disk(net, folder, "size=1m") as path:
        attached, new = net.pod(), net.pod()
        result = net.add(attached)
        net.host.run("mount", "-o", "remount,bind,ro", path)
        assert net.call("CHECK", attached, result).result == {}
        for verb, pod in (("ADD", new), ("DEL", attached)):
            error = net.call(verb, pod).error
            assert error["code"] == FULL
            assert "Read-only file system" in error["msg"] and path in error["msg"]
        assert net.collect().code in (FULL, 11)
        assert net.call("STATUS").code == 50
        assert net.left()[:2] == net.of((attached, 2))[:2]
        net.host.run("mount", "-o", "remount,bind,rw", path)
        assert net.call("DEL", attached).result == {}
        assert net.left() == ([], [], [])


def test_without_permission_every_verb_names_the_refused_operation(net: Net) -> None:
    """Simulate a runtime that is not root: no capabilities, and no access to the store."""
    attached, new = net.pod(), net.pod()
    result = net.add(attached)
    before = net.left()
    powerless = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", "--"]
    net.store.chmod(0)
    try:
        for verb, pod, prev in (
            ("ADD", new, None),
            ("DEL", attached, result),
            ("CHECK", attached, result),
            ("GC", None, None),
        ):
            conf = {**net.conf, VALID: []}
            request = net.host.environment(verb, pod), net.host.stdin(conf, prev)
            error = net.host.call(*request, through=powerless).error
            assert error["code"] in (4, FULL, 103), error
            assert "ermi" in error["msg"] or "ermi" in error.get("details", ""), error  # "permitted" or "permission"
    finally:
        net.store.chmod(0o755)
    assert net.left() == before
    assert net.call("CHECK", attached, result).result == {}


@contextmanager
def stuck(path: Path) -> Iterator[None]:
    """Hold a file's lock, as a stuck process does."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("lock", "waiting"),
    [("store", {"ADD", "DEL", "GC"}), ("node", {"ADD", "DEL", "CHECK", "GC", "STATUS"}), ("record", {"DEL"})],
)
def test_waiting_for_the_lock_of_a_stuck_process_is_bounded(net: Net, lock: str, waiting: set[str]) -> None:
    attached, new = net.pod(), net.pod()
    result = net.add(attached)
    before = net.left()
    paths = {"store": net.store / "lock", "node": net.host.path(NODE_LOCK), "record": net.record(attached)}
    calls: Sequence[tuple[str, Pod | None, Json | None]] = (
        ("ADD", new, None), ("CHECK", attached, result), ("DEL", attached, result), ("GC", None, None),
        ("STATUS", None, None),
    )  # fmt: skip
    with stuck(paths[lock]):
        answers = {verb: net.call(verb, pod, prev, {VALID: []}) for verb, pod, prev in calls}
        if lock == "node":
            assert net.left() == before
    refused = {verb for verb, answer in answers.items() if answer.status}
    assert refused == waiting, answers
    assert {answers[verb].code for verb in refused} == {11}
    assert net.call("DEL", attached).result == net.call("DEL", new).result == {}
    assert net.left() == ([], [], [])


def test_store_of_another_subnet_gives_new_addresses_and_frees_the_old_ones(net: Net) -> None:
    """The node has a new pod CIDR; pods of the former one still run."""
    old, gone = net.pod(), net.pod()
    net.add(old)
    net.add(gone)
    net.conf |= {"subnet": f"10.245.{net.number}.0/28", "bridge": f"new{net.number}"}
    new = net.pod()
    assert net.call("ADD", new).address == f"10.245.{net.number}.2"
    assert net.call("STATUS").result == {}
    net.host.kill(gone)
    status, listing = net.ipam("list")
    assert (status, sorted(row["state"] for row in listing["items"])) == (0, ["live", "live", "stale"])
    assert net.ipam("gc")[0] == 0
    assert sorted(net.leases()) == sorted([net.address(2), f"10.245.{net.number}.2"])
    assert net.call("DEL", old).result == {}
    assert list(net.leases()) == [f"10.245.{net.number}.2"]


@contextmanager
def reboot(host: Host) -> Iterator[None]:
    """Simulate a reboot: /run is empty and the boot id is another; the caller has removed the links."""
    host.run("sh", "-c", "rm -rf /run/cnictl; echo 5ca1ab1e-0000-4000-8000-000000000000 > /run/boot_id")
    host.run("mount", "--bind", "/run/boot_id", "/proc/sys/kernel/random/boot_id")
    try:
        yield
    finally:
        host.run("umount", "/proc/sys/kernel/random/boot_id")


def power_off(net: Net, pods: Sequence[Pod]) -> None:
    for pod in pods:
        net.host.kill(pod)
    net.host.run("ip", "link", "delete", f"cni{net.number}", check=False)


def test_after_a_reboot_former_pods_block_no_address(net: Net) -> None:
    pods = [net.pod() for _ in range(ALL)]
    results = [net.add(pod) for pod in pods]
    power_off(net, pods)
    with reboot(net.host):
        assert net.call("STATUS").result == {}  # stale leases count as free
        again = net.host.pod(pods[0].container)  # a static pod has the same name after each boot
        assert net.call("ADD", again).address
        assert net.call("ADD", net.pod()).address
        assert len(net.leases()) == 2  # the full subnet made ADD free all stale leases
        assert net.call("DEL", pods[1], results[1]).result == {}


def test_after_a_reboot_gc_and_ipam_gc_free_former_attachments(net: Net) -> None:
    pods = [net.pod() for _ in range(4)]
    for pod in pods:
        net.add(pod)
    power_off(net, pods)
    with reboot(net.host):
        assert net.ipam("gc") == (0, ["freed"] * 4)
        assert net.left() == ([], [], [])


def test_clock_set_back_makes_no_live_pod_stale_and_no_dead_one_permanent(net: Net) -> None:
    """All files are dated a year ahead, including a host-local lease, whose age only its file shows."""
    first, other = net.pod(), net.pod()
    result = net.add(first)
    (net.store / net.address(9)).write_bytes(b"theirs\r\neth0")
    net.add(other)
    record = json.loads(net.record(first).read_bytes())
    next_year = record["created"] + 365 * 86400
    net.record(first).write_text(net.record(first).read_text().replace(str(record["created"]), str(next_year)))
    for path in [*net.store.iterdir(), *net.records.iterdir(), net.store]:
        os.utime(path, (next_year, next_year))
    assert net.call("CHECK", first, result).result == {}
    new = net.pod()
    assert net.call("ADD", new).address == net.address(4)
    assert net.ipam("gc") == (0, ["left"] * 4)
    assert net.call("DEL", new).result == {}
    power_off(net, [first, other, new])
    with reboot(net.host):
        assert net.ipam("gc")[0] == 0
        assert net.left() == ([], [], [])
