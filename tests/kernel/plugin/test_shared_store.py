"""Nodes that share a lease store: a lease without a record on this node belongs to another node and is kept."""

import json
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import cnictl as package
from tests.kernel.addresses.test_ipam import LONG_AGO, as_json, cnictl
from tests.kernel.plugin.client import RECORDS, Host, Pod, new_host

Json = dict[str, Any]

STORE = "/var/lib/shared"
CONF: Json = {
    "cniVersion": "1.1.0",
    "name": "mynet",
    "type": "cnictl-bridge",
    "bridge": "cni0",
    "isGateway": True,
    "ipam": {"type": "host-local", "subnet": "10.244.0.0/29", "dataDir": STORE},
}
"""Pods get .2 to .6."""
REFERENCE: Json = {**CONF, "cniVersion": "1.0.0", "type": "bridge"}


@dataclass
class Two:
    """Two nodes that share a store."""

    first: Host
    second: Host
    store: Path

    def leases(self) -> dict[str, str]:
        """Return the owner of each leased address."""
        files = [file for file in (self.store / "mynet").iterdir() if file.name[0].isdigit()]
        return {file.name: file.read_bytes().decode() for file in files}

    def reboot_second(self) -> None:
        """Simulate a reboot of the second node: another boot id, and leases that are older than the boot."""
        for address in self.leases():
            self.first.run("touch", "-d", LONG_AGO, f"{STORE}/mynet/{address}")
        self.second.path("/run/boot_id").write_text(f"{uuid.uuid4()}\n")
        self.second.run("mount", "--bind", "/run/boot_id", "/proc/sys/kernel/random/boot_id")


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    with ExitStack() as hosts:
        pair = [hosts.enter_context(new_host()) for _ in range(2)]
        for host in pair:
            host.conf = dict(CONF)
            host.run("mkdir", STORE)
            host.run("mount", "--bind", str(tmp_path), STORE)
            host.run("mount", "-o", "remount,bind,rw", STORE)
        yield Two(pair[0], pair[1], tmp_path)


@pytest.fixture
def full(two: Two) -> Two:
    """A store that the first node has filled: four pods of the plugin's and one of the reference's."""
    for pod in two.first.pods(4, "a"):
        two.first.add(pod)
    assert two.first.reference("bridge", "ADD", two.first.pod("reference"), REFERENCE).status == 0
    assert len(two.leases()) == 5
    return two


def claimed_by_a_former_release(host: Host, leases: dict[str, str]) -> None:
    """Write records without a link, as releases up to 0.1.0 did for each lease without a record."""
    folder = host.path(f"{RECORDS}/mynet")
    folder.mkdir(parents=True, exist_ok=True)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    for address, owner in leases.items():
        container, _, ifname = owner.partition("\r\n")
        record = {"complete": 1, "version": 1, "network": "mynet", "container": container, "ifname": ifname,
                  "addresses": [address], "host_veth": "", "boot_id": boot, "created": 978307200.0,
                  "data_dir": STORE}  # fmt: skip
        (folder / f"{container}@{ifname}").write_text(json.dumps(record) + "\n")


@pytest.mark.parametrize("claimed", ["without records", "with a former release's records"])
def test_leases_of_other_nodes_survive_a_reboot(full: Two, claimed: str) -> None:
    second, before = full.second, full.leases()
    if claimed != "without records":
        claimed_by_a_former_release(second, before)
    full.reboot_second()
    pod = second.pod("b")
    assert second.plugin("ADD", pod).code == 100
    assert second.plugin("ADD", pod, CNI_ARGS="IP=10.244.0.3").code == 101
    second.delete(pod)
    assert second.plugin("STATUS").code == 50
    assert second.collect([]).result == {}
    words = ("--name", "mynet", "--data-dir", STORE)
    listed = as_json(second, "list", *words)
    assert {row["state"] for row in listed["items"]} == {"unknown"}
    assert all("another node" in row["reason"] for row in listed["items"])
    assert {outcome["action"] for outcome in as_json(second, "gc", *words)["items"][0]["outcomes"]} == {"left"}
    refused = cnictl(second, "ipam", "release", "10.244.0.2", *words)
    assert refused.returncode == 1 and "another node" in refused.stderr
    checked = cnictl(second, "ipam", "check", *words)
    assert (checked.returncode, "stale" in checked.stdout) == (0, False), checked.stdout
    assert full.leases() == before
    for number in range(4):
        assert full.first.pings(Pod(f"a{number}", f"/run/netns/a{number}"), "10.244.0.1")


def test_own_stale_leases_are_freed_beside_those_of_other_nodes(two: Two) -> None:
    first, second = two.first.pods(3, "a"), two.second.pods(2, "b")
    for pod in first:
        two.first.add(pod)
    for pod in second:
        two.second.add(pod)
    before = {address: owner for address, owner in two.leases().items() if owner.startswith("a")}
    two.reboot_second()
    assert two.second.plugin("ADD", two.second.pod("new")).address in set(two.leases()) - set(before)
    assert {address: owner for address, owner in two.leases().items() if owner.startswith("a")} == before
    assert not any(owner.startswith("b") for owner in two.leases().values())


@pytest.mark.parametrize("content", [b"", b"\r\n"])
def test_a_torn_lease_may_be_one_that_another_node_is_writing(two: Two, content: bytes) -> None:
    for pod in two.first.pods(4, "a"):
        two.first.add(pod)
    (two.store / "mynet" / "10.244.0.6").write_bytes(content)
    second, words = two.second, ("--name", "mynet", "--data-dir", STORE)
    two.reboot_second()
    assert second.plugin("ADD", second.pod("b")).code == 100
    assert second.collect([]).result == {}
    assert {outcome["action"] for outcome in as_json(second, "gc", *words)["items"][0]["outcomes"]} == {"left"}
    assert cnictl(second, "ipam", "release", "10.244.0.6", *words).returncode == 1
    assert len(two.leases()) == 5
    assert cnictl(second, "ipam", "release", "10.244.0.6", "--force", *words).returncode == 0
    assert len(two.leases()) == 4


def test_del_frees_by_owner_what_the_reference_leased_here(two: Two) -> None:
    pod = two.second.pod("b")
    two.first.add(two.first.pod("a"))
    result = two.second.reference("bridge", "ADD", pod, REFERENCE).result
    result["cniVersion"] = "1.1.0"
    assert two.second.plugin("CHECK", pod, prev=result).result == {}
    assert two.second.collect([pod]).result == {}
    two.second.delete(pod, prev=result)
    assert list(two.leases().values()) == ["a\r\neth0"]
    assert two.second.pod_link(pod) is None and two.second.records() == set()


def test_gc_frees_only_the_nodes_own_leases(two: Two) -> None:
    kept, gone = two.second.pods(2, "b")
    two.first.add(two.first.pod("a"))
    for pod in (kept, gone):
        two.second.add(pod)
    assert two.second.collect([kept]).result == {}
    assert set(two.leases().values()) == {"a\r\neth0", "b0\r\neth0"}
    assert two.first.collect([]).result == {}
    assert set(two.leases().values()) == {"b0\r\neth0"}


def test_simultaneous_adds_of_two_nodes_share_no_address(two: Two) -> None:
    two.first.conf["ipam"] = two.second.conf["ipam"] = {**CONF["ipam"], "subnet": "10.244.0.0/25"}
    started = []
    for number in range(8):
        for letter, host in (("a", two.first), ("b", two.second)):
            started.append(host.start("ADD", host.pod(f"{letter}{number}")))
    given = []
    for process in started:
        stdout, _ = process.communicate(timeout=60)
        assert process.returncode == 0, stdout
        given.append(json.loads(stdout)["ips"][0]["address"])
    assert len(set(given)) == len(given) == len(two.leases()) == 16


_MOUNTED = """
import ctypes, os, sys
sys.path.insert(0, sys.argv[1])
from cnictl.core.leases import shared_store
libc = ctypes.CDLL(None, use_errno=True)
os.mkdir("/run/kind"); os.mkdir("/run/kind/u"); os.mkdir("/run/kind/w")
fuse = os.open("/dev/fuse", os.O_RDWR)
options = {"tmpfs": "", "ramfs": "", "overlay": "lowerdir=/etc,upperdir=/run/kind/u,workdir=/run/kind/w",
           "fuse": f"fd={fuse},rootmode=40000,user_id=0,group_id=0"}
for kind in options:
    folder = f"/run/{kind}"
    os.mkdir(folder)
    if libc.mount(b"none", folder.encode(), kind.encode(), 0, options[kind].encode()):
        raise OSError(ctypes.get_errno(), kind)
    found = shared_store.file_system(folder)
    if kind != "fuse":  # no process serves that mount, so it would not answer
        found = shared_store.file_system(f"{folder}/not/made/yet")
    print(found, found in shared_store.LOCAL_TYPES)
print(shared_store.may_be_shared(""), shared_store.may_be_shared("/run/tmpfs"))
"""


@pytest.mark.once  # an ordinary user may not open /dev/fuse
def test_a_store_on_a_possibly_shared_file_system_is_reported_without_accessing_it(two: Two) -> None:
    """If a network file system's server is unreachable, calls must not hang."""
    source = str(Path(package.__file__).parent.parent)
    said = two.first.run(sys.executable, "-c", _MOUNTED, source)
    assert said.split("\n")[:-1] == ["tmpfs True", "ramfs True", "overlay True", "fuse False", "False True"]
