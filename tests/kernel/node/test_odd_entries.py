"""Odd entries among leases, records, confs and cnictl's own files are reported once each, and stop nothing."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.plugin.client import LEASES, RECORDS, Host, new_host

pytestmark = pytest.mark.once

PLAIN = ("lost+found", ".hidden", "mynet~", "#mynet#", "my net", "line\nend", "\x1b[31mred", "n" * 201, "b\udcff")
"""Folder names that no network can have."""


def cnictl(host: Host, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run a cnictl command on the host."""
    return subprocess.run(
        [*host.enter, sys.executable, "-m", "cnictl", *words],
        capture_output=True, text=True, timeout=60, check=False, errors="surrogateescape",
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "COLUMNS": "200", "LANG": "C.UTF-8"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def littered() -> Iterator[Host]:
    """Yield a host with a live pod, and with every kind of odd entry beside its lease and its record."""
    with new_host() as host:
        host.add(host.pod())
        leases, records = (host.path(folder) for folder in (LEASES, RECORDS))
        for folder in (leases, records):
            for name in PLAIN:
                (folder / name).mkdir()
            (folder / "a-file").write_text("")
            (folder / "circle").symlink_to("circle")
            os.mkfifo(folder / "pipe")
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(short(folder / "sock"))
        for folder in (leases / "mynet", records / "mynet"):
            for name in PLAIN[:5]:
                (folder / name).mkdir()
        copy = (records / "mynet/pod@eth0").read_bytes()
        (records / "mynet/pod@eth0.bak").write_bytes(copy)
        (records / "mynet/pod@eth0~").write_bytes(copy)
        confs = host.path("/etc/cni/net.d")
        confs.mkdir(parents=True)
        (confs / "05-folder.conf").mkdir()
        (confs / "06-broken.conflist").write_text("{")
        (confs / "07-circle.conf").symlink_to("07-circle.conf")
        os.mkfifo(confs / "08-pipe.conf")
        journal = host.path("/var/lib/cnictl/journal")
        journal.mkdir(parents=True)
        (journal / "lost+found").mkdir()
        (journal / "000007.jsonl").mkdir()
        (journal / "000008.jsonl~").write_text("{}")
        yield host


def short(path: Path) -> str:
    """Return a path that fits into a socket address, through the folder's descriptor."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    return f"/proc/self/fd/{folder}/{path.name}"


@pytest.mark.parametrize(
    "words",
    [
        ["ipam", "list"],
        ["ipam", "list", "--name", "mynet"],
        ["ipam", "show", "10.244.0.2"],
        ["ipam", "check"],
        ["ipam", "gc", "--yes"],
        ["ipam", "gc", "--all", "--yes"],
        ["history"],
        ["metrics", "--no-doctor"],
        ["support-bundle", "/run/bundle.tar.gz"],
    ],
    ids=" ".join,
)
def test_each_odd_entry_is_reported_once_and_the_command_succeeds(littered: Host, words: list[str]) -> None:
    done = cnictl(littered, *words)
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if "skipped: " in line]
    assert len(told) == len(set(told)) and "\x1b" not in done.stderr
    if "history" not in words:
        assert any("lost+found" in line for line in told), done.stderr
    if words == ["ipam", "list"]:
        assert "10.244.0.2" in done.stdout and "live" in done.stdout
        assert any("a-file" in line and "file" in line for line in told)
        assert any("pod@eth0~" in line and "copy" in line for line in told)
        assert any("\\x1b[31mred" in line for line in told)


def test_gc_keeps_a_pod_whose_record_has_a_copy(littered: Host) -> None:
    pods = [name for name in littered.records() if name == "pod@eth0"]
    before = littered.ports()
    kept = [{"containerID": "pod", "ifname": "eth0"}]
    answer = littered.plugin("GC", conf={**littered.conf, "cniVersion": "1.1.0", "cni.dev/valid-attachments": kept})
    assert answer.result == {} and littered.ports() == before and pods


def test_the_plugin_works_despite_odd_entries(littered: Host) -> None:
    pod = littered.pod("second")
    result = littered.add(pod)
    assert littered.plugin("CHECK", pod, prev=result).result == {}
    assert littered.plugin("STATUS", conf={**littered.conf, "cniVersion": "1.1.0"}).status in (0, 1)
    littered.delete(pod, prev=result)
    assert {name for name in littered.records() if name.startswith("second")} == set()


def test_an_unreadable_lease_is_reported_with_status_1(host: Host) -> None:
    host.add(host.pod())
    os.mkfifo(host.path(f"{LEASES}/mynet/10.244.0.9"))
    host.path(f"{LEASES}/mynet/10.244.0.8").symlink_to("10.244.0.8")
    for words in (["ipam", "list"], ["ipam", "gc", "--all", "--yes"], ["ipam", "check"]):
        done = cnictl(host, *words)
        assert done.returncode == 1, done
        assert sum("mynet/10.244.0.9: is not a regular file" in line for line in done.stderr.splitlines()) == 1
        assert sum("mynet/10.244.0.8" in line for line in done.stderr.splitlines()) == 1
    listed = json.loads(cnictl(host, "ipam", "list", "-o", "json").stdout)
    assert [row["address"] for row in listed["items"]] == ["10.244.0.2"]
    assert host.path(f"{LEASES}/mynet/10.244.0.9").is_fifo()
    assert host.add(host.pod("more"))["ips"][0]["address"].startswith("10.244.0.3")


def test_a_lease_folder_with_an_impossible_network_name_gives_status_1(host: Host) -> None:
    host.add(host.pod())
    odd = host.path(f"{LEASES}/my net")
    odd.mkdir()
    (odd / "10.9.0.2").write_text("c1\r\neth0")
    done = cnictl(host, "ipam", "gc", "--all", "--yes")
    assert done.returncode == 1 and done.stderr.count("my net") == 1, done.stderr
    assert "mynet: " in done.stderr and (odd / "10.9.0.2").exists()
