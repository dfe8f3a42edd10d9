"""Disks, files, locks and clocks that fail: for each the answer, what is left, and what mends it (docs/dev/faults.md).

One host for all; each test has a network, a bridge and pods of its own there.
"""

import fcntl
import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from cnictl.core.attachments import CLAIM_MARK
from cnictl.core.digest import host_veth_name
from tests.faults.inside import Inside, cnictl_inside, plugin_inside
from tests.kernel.plugin.client import LEASES, RECORDS, VALID, Answer, Host, Json, Pod, new_host

pytestmark = pytest.mark.once

NODE_LOCK = "/run/cnictl/node.lock"
PATIENCE = 0.5
"""Seconds that the plugin waits for a lock here, in place of its twenty."""
FULL, ALL = 5, 13
"""CNI code of an I/O failure; addresses of a /28 that pods can have."""


class Net:
    """A network on the host, and what there is of it."""

    def __init__(self, host: Host, plugin: Inside, cnictl: Inside, number: int) -> None:
        self.host, self._plugin, self._cnictl, self.number = host, plugin, cnictl, number
        self.name = f"net{number}"
        self.conf: Json = {
            "cniVersion": "1.1.0",
            "name": self.name,
            "type": "cnictl-bridge",
            "bridge": f"cni{number}",
            "subnet": f"10.244.{number}.0/28",
        }
        self._pods = itertools.count()

    def pod(self) -> Pod:
        return self.host.pod(f"{self.name}-pod{next(self._pods)}")

    def call(self, verb: str, pod: Pod | None = None, prev: Json | None = None, keys: Json | None = None) -> Answer:
        conf = {**self.conf, **(keys or {})}
        return self._plugin.call(self.host.environment(verb, pod), self.host.stdin(conf, prev))

    def add(self, pod: Pod) -> Json:
        return self.call("ADD", pod).result

    def address(self, last: int) -> str:
        return f"10.244.{self.number}.{last}"

    def collect(self, *valid: Pod) -> Answer:
        """GC with these as what is left."""
        listed = [{"containerID": pod.container, "ifname": pod.ifname} for pod in valid]
        return self.call("GC", keys={VALID: listed})

    def ipam(self, *words: str) -> tuple[int, Any]:
        """Exit status and answer of `cnictl ipam …`; of gc what became of each row."""
        command = ["cnictl", "ipam", *words, "--name", self.name, "-o", "json"]
        answer = self._cnictl.call({"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, b"", command)
        told: Any = json.loads(answer.stdout) if answer.stdout else answer.stderr.decode()
        return answer.status, [row["action"] for row in told[0]["outcomes"]] if words == ("gc",) else told

    @property
    def store(self) -> Path:
        return self.host.path(f"{LEASES}/{self.name}")

    @property
    def records(self) -> Path:
        return self.host.path(f"{RECORDS}/{self.name}")

    @property
    def mark(self) -> Path:
        """The claim mark."""
        return self.records / CLAIM_MARK

    def record(self, pod: Pod) -> Path:
        return self.records / f"{pod.container}@{pod.ifname}"

    def leases(self) -> dict[str, bytes]:
        """Address to what its lease file holds; of a folder nothing."""
        there = [file for file in self.store.iterdir() if file.name[0].isdigit()]
        return {file.name: file.read_bytes() if file.is_file() else b"" for file in there}

    def left(self) -> tuple[list[str], list[str], list[str]]:
        """Addresses that are leased, names of the records, links on the bridge."""
        there = self.records.iterdir() if self.records.is_dir() else iter(())
        records = [file.name for file in there if not file.name.startswith(".")]
        return sorted(self.leases()), sorted(records), sorted(self.host.ports(f"cni{self.number}"))

    def of(self, *pods: tuple[Pod, int]) -> tuple[list[str], list[str], list[str]]:
        """What `left` says where exactly these pods are attached, with these last octets."""
        return (
            sorted(self.address(last) for _, last in pods),
            sorted(self.record(pod).name for pod, _ in pods),
            sorted(self.veth(pod) for pod, _ in pods),
        )

    def veth(self, pod: Pod) -> str:
        return host_veth_name(self.name, pod.container, pod.ifname)


class Ground:
    """The host, and networks on it."""

    def __init__(self, host: Host, plugin: Inside, cnictl: Inside) -> None:
        self.host, self._plugin, self._cnictl = host, plugin, cnictl
        self._numbers = itertools.count(1)

    def net(self) -> Net:
        return Net(self.host, self._plugin, self._cnictl, next(self._numbers))


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with ExitStack() as stack:
        host = stack.enter_context(new_host())
        host.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        plugin = stack.enter_context(plugin_inside(host, PATIENCE))
        yield Ground(host, plugin, stack.enter_context(cnictl_inside(host)))


@pytest.fixture
def net(ground: Ground) -> Net:
    return ground.net()


@contextmanager
def disk(net: Net, folder: str, options: str) -> Iterator[str]:
    """A file system of its own for one of the network's folders."""
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
        one, other, new = net.pod(), net.pod(), net.pod()
        result = net.add(one)
        net.add(other)
        fill(net.host.path(path))
        error = net.call("ADD", new).error
        assert error["code"] == FULL
        assert path in error["msg"] and "No space left" in error["msg"]
        assert net.call("STATUS").code == 50
        assert net.left() == net.of((one, 2), (other, 3))
        assert net.host.pod_link(new) is None
        assert net.call("CHECK", one, result).result == {}
        assert net.call("DEL", one).result == {}
        assert net.collect().result == {}
        assert net.left() == ([], [], [])
        for file in net.host.path(path).glob(".filler*"):
            file.unlink()
        assert net.call("STATUS").result == {}
        assert net.add(new)


@pytest.mark.parametrize("folder", [LEASES, RECORDS])
def test_read_only_store_keeps_address_and_record_until_it_is_writable(net: Net, folder: str) -> None:
    with disk(net, folder, "size=1m") as path:
        one, new = net.pod(), net.pod()
        result = net.add(one)
        net.host.run("mount", "-o", "remount,bind,ro", path)
        assert net.call("CHECK", one, result).result == {}
        for verb, pod in (("ADD", new), ("DEL", one)):
            error = net.call(verb, pod).error
            assert error["code"] == FULL
            assert "Read-only file system" in error["msg"] and path in error["msg"]
        assert net.collect().code in (FULL, 11)
        assert net.call("STATUS").code == 50
        assert net.left()[:2] == net.of((one, 2))[:2]
        net.host.run("mount", "-o", "remount,bind,rw", path)
        assert net.call("DEL", one).result == {}
        assert net.left() == ([], [], [])


def test_without_permission_every_verb_says_what_it_was_refused(net: Net) -> None:
    """As of a runtime that isn't root: no capability, and a store that it may not enter."""
    one, new = net.pod(), net.pod()
    result = net.add(one)
    before = net.left()
    powerless = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", "--"]
    net.store.chmod(0)
    try:
        for verb, pod, prev in (("ADD", new, None), ("DEL", one, result), ("CHECK", one, result), ("GC", None, None)):
            conf = {**net.conf, VALID: []}
            request = net.host.environment(verb, pod), net.host.stdin(conf, prev)
            error = net.host.call(*request, through=powerless).error
            assert error["code"] in (4, FULL, 103), error
            assert "ermi" in error["msg"] or "ermi" in error.get("details", ""), error  # permitted, permission
    finally:
        net.store.chmod(0o755)
    assert net.left() == before
    assert net.call("CHECK", one, result).result == {}


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
def test_lease_file_without_an_owner_holds_up_nobody_and_is_taken_back(net: Net, content: bytes) -> None:
    one, new = net.pod(), net.pod()
    result = net.add(one)
    (net.store / net.address(3)).write_bytes(content)
    assert net.call("ADD", new).address == net.address(4)
    assert net.call("CHECK", one, result).result == {}
    assert net.call("DEL", new).result == {}
    assert net.call("STATUS").result == {}
    assert [row["state"] for row in net.ipam("list")[1]["leases"]] == ["live", "torn"]
    assert net.ipam("gc")[0] == 0
    assert net.left() == net.of((one, 2))
    (net.store / net.address(3)).write_bytes(content)
    assert net.collect(one).result == {}
    assert net.left() == net.of((one, 2))


def test_full_subnet_takes_torn_leases_back_by_itself(net: Net) -> None:
    net.add(net.pod())
    for last in range(3, 15):
        (net.store / net.address(last)).write_bytes(b"")
    assert net.call("STATUS").result == {}
    assert net.call("ADD", net.pod()).address in {net.address(last) for last in range(3, 15)}


@pytest.mark.parametrize("content", [b"", b"\0" * 20])
def test_a_pods_own_lease_that_was_emptied_fails_its_check_and_goes_with_its_del(net: Net, content: bytes) -> None:
    one, other = net.pod(), net.pod()
    result = net.add(one)
    net.add(other)
    (net.store / net.address(2)).write_bytes(content)
    error = net.call("CHECK", one, result).error
    assert (error["code"], net.address(2) in error["msg"]) == (104, True)
    assert net.ipam("gc")[0] == 0
    assert net.address(2) in net.leases()  # the record says that a pod lives there
    assert net.call("DEL", one).result == {}
    assert net.left() == net.of((other, 3))


def test_a_folder_in_place_of_a_lease_is_an_address_less_and_no_more(net: Net) -> None:
    one = net.pod()
    result = net.add(one)
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
    assert net.call("CHECK", one, result).code == 104
    assert net.call("DEL", one).result == {}
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
def test_a_folder_in_place_of_a_file_of_the_store_is_named_and_mended_by_removing_it(net: Net, what: str) -> None:
    one, new = net.pod(), net.pod()
    result = net.add(one)
    path = net.mark if what == "mark" else net.store / what
    path.unlink()
    path.mkdir()
    error = net.call("ADD", new).error
    assert error["code"] == FULL
    assert f"{path.parent.name}/{path.name}" in error["msg"] and (
        "Is a directory" in error["msg"] or "is a folder" in error["msg"]
    )
    assert net.left() == net.of((one, 2))
    assert net.call("CHECK", one, result).result == {}
    path.rmdir()
    assert net.call("DEL", one).result == {}
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
    (net.store / "last_reserved_ip.0").unlink()  # or the search would begin after those that are taken
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
    one, other, third = net.pod(), net.pod(), net.pod()
    for pod in (one, other, third):
        net.add(pod)
    for pod in (one, other):
        net.record(pod).write_bytes(content)
    assert net.ipam("list")[0] == 0
    assert net.call("ADD", one).code == 102
    assert net.call("DEL", one).result == {}
    assert net.left() == net.of((other, 3), (third, 4))
    assert net.collect(third).result == {}
    assert net.left() == net.of((third, 4))
    assert net.host.pod_link(one) is net.host.pod_link(other) is None


def test_a_folder_in_place_of_a_record_holds_up_nobody_else(net: Net) -> None:
    one, other, third = net.pod(), net.pod(), net.pod()
    for pod in (one, other):
        net.add(pod)
    net.record(one).unlink()
    net.record(one).mkdir()
    assert net.call("ADD", third).address == net.address(4)
    assert net.ipam("list")[0] == 0
    error = net.call("DEL", one).error
    assert error["code"] == FULL and net.record(one).name in error["msg"]
    error = net.collect(third).error
    assert error["code"] == 11 and one.container in error["details"]
    assert net.left() == ([net.address(4)], sorted([net.record(one).name, net.record(third).name]), [net.veth(third)])
    net.record(one).rmdir()
    assert net.call("DEL", one).result == {}
    assert net.left() == net.of((third, 4))


@contextmanager
def stuck(path: Path) -> Iterator[None]:
    """A process that holds a file's lock and goes nowhere."""
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
def test_lock_of_a_stuck_process_is_waited_for_with_a_bound(net: Net, lock: str, waiting: set[str]) -> None:
    one, new = net.pod(), net.pod()
    result = net.add(one)
    before = net.left()
    paths = {"store": net.store / "lock", "node": net.host.path(NODE_LOCK), "record": net.record(one)}
    calls: Sequence[tuple[str, Pod | None, Json | None]] = (
        ("ADD", new, None), ("CHECK", one, result), ("DEL", one, result), ("GC", None, None), ("STATUS", None, None)
    )  # fmt: skip
    with stuck(paths[lock]):
        answers = {verb: net.call(verb, pod, prev, {VALID: []}) for verb, pod, prev in calls}
        if lock == "node":
            assert net.left() == before
    refused = {verb for verb, answer in answers.items() if answer.status}
    assert refused == waiting, answers
    assert {answers[verb].code for verb in refused} == {11}
    assert net.call("DEL", one).result == net.call("DEL", new).result == {}
    assert net.left() == ([], [], [])


def test_store_of_another_subnet_serves_the_new_one_and_gives_the_old_one_back(net: Net) -> None:
    """The node got another pod CIDR; pods of the former still run."""
    old, gone = net.pod(), net.pod()
    net.add(old)
    net.add(gone)
    net.conf |= {"subnet": f"10.245.{net.number}.0/28", "bridge": f"new{net.number}"}
    new = net.pod()
    assert net.call("ADD", new).address == f"10.245.{net.number}.2"
    assert net.call("STATUS").result == {}
    net.host.kill(gone)
    status, listing = net.ipam("list")
    assert (status, sorted(row["state"] for row in listing["leases"])) == (0, ["live", "live", "stale"])
    assert net.ipam("gc")[0] == 0
    assert sorted(net.leases()) == sorted([net.address(2), f"10.245.{net.number}.2"])
    assert net.call("DEL", old).result == {}
    assert list(net.leases()) == [f"10.245.{net.number}.2"]


@contextmanager
def reboot(host: Host) -> Iterator[None]:
    """/run is empty and the kernel says another boot id; the caller has taken the links away."""
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


def test_after_a_reboot_former_pods_hold_nothing_for_long(net: Net) -> None:
    pods = [net.pod() for _ in range(ALL)]
    results = [net.add(pod) for pod in pods]
    power_off(net, pods)
    with reboot(net.host):
        assert net.call("STATUS").result == {}  # stale ones count as free
        again = net.host.pod(pods[0].container)  # a static pod has the same name every time
        assert net.call("ADD", again).address
        assert net.call("ADD", net.pod()).address
        assert len(net.leases()) == 2  # the full subnet took all back
        assert net.call("DEL", pods[1], results[1]).result == {}


def test_after_a_reboot_gc_and_ipam_gc_free_what_is_from_before(net: Net) -> None:
    pods = [net.pod() for _ in range(4)]
    for pod in pods:
        net.add(pod)
    power_off(net, pods)
    with reboot(net.host):
        assert net.ipam("gc") == (0, ["freed"] * 4)
        assert net.left() == ([], [], [])


def test_clock_set_back_makes_nobody_stale_and_nothing_eternal(net: Net) -> None:
    """Everything on disk is from next year; host-local's lease, that only its age tells of, too."""
    one, other = net.pod(), net.pod()
    result = net.add(one)
    (net.store / net.address(9)).write_bytes(b"theirs\r\neth0")
    net.add(other)
    record = json.loads(net.record(one).read_bytes())
    next_year = record["created"] + 365 * 86400
    net.record(one).write_text(net.record(one).read_text().replace(str(record["created"]), str(next_year)))
    for path in [*net.store.iterdir(), *net.records.iterdir(), net.store]:
        os.utime(path, (next_year, next_year))
    assert net.call("CHECK", one, result).result == {}
    new = net.pod()
    assert net.call("ADD", new).address == net.address(4)
    assert net.ipam("gc") == (0, ["left"] * 4)
    assert net.call("DEL", new).result == {}
    power_off(net, [one, other, new])
    with reboot(net.host):
        assert net.ipam("gc")[0] == 0
        assert net.left() == ([], [], [])
