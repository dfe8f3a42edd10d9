"""The environment of rootless podman: a user's own namespaces, where only /run and /var/lib/cni are writable."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cnictl.core.attachments import CLAIM_MARK
from tests.kernel.plugin.client import LEASES, RECORDS, Host, Json, new_host
from tests.waiting import wait_for

SPARE = "/var/lib/cni/cnictl/attachments"
_UID = 1000
_ENTER = "unshare --user --net --mount --pid --fork --kill-child=KILL --propagation=private"
_OWN = "for own in /run /var/lib/cni; do mount -t tmpfs -o mode=755 own $own; done; ip link set lo up"

CONF: Json = {
    "cniVersion": "1.1.0",
    "name": "mynet",
    "type": "cnictl-bridge",
    "isGateway": True,
    "ipMasq": True,
    "ipam": {"type": "host-local", "subnet": "10.88.0.0/28"},
}

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="it takes root to become another user")


@contextmanager
def rootless(outer: Host) -> Iterator[Host]:
    """Yield an unprivileged user's root environment on that host, as rootless podman creates for networks."""
    become = ["setpriv", f"--reuid={_UID}", f"--regid={_UID}", "--clear-groups"]
    # this process writes the uid and gid maps, so that root can enter as the user's root
    script = f"read go; set -e; {_OWN}; echo up; exec cat"
    started = subprocess.Popen(
        [*outer.enter, *become, *_ENTER.split(), "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert started.stdin is not None and started.stdout is not None
    try:
        children = Path(f"/proc/{started.pid}/task/{started.pid}/children")
        inner = wait_for(lambda: children.read_text().split(), "unshare's child")
        home = os.readlink("/proc/self/ns/user")
        wait_for(lambda: os.readlink(f"/proc/{inner[0]}/ns/user") != home, "the user namespace")
        for kind in ("uid_map", "gid_map"):
            Path(f"/proc/{inner[0]}/{kind}").write_text(f"0 {_UID} 1\n")
        started.stdin.write(b"go\n")
        started.stdin.flush()
        assert started.stdout.readline() == b"up\n"
        enter = ("nsenter", f"--target={inner[0]}", "--user", "--net", "--mount", "--")
        yield Host(int(inner[0]), enter, dict(CONF))
    finally:
        started.kill()
        started.communicate()


@pytest.fixture(params=["missing", "another root's"])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """A rootless host; the real root may have records there that the user can't read."""
    with new_host() as outer:
        outer.run("mkdir", "-p", "/var/lib/cni")
        if request.param != "missing":
            outer.run("mkdir", "-p", f"{RECORDS}/mynet", "/var/log/cnictl")
            outer.run("chmod", "700", RECORDS)
        with rootless(outer) as inner:
            yield inner


def records(host: Host) -> set[str]:
    """Return the names of the records under /var/lib/cni."""
    folder = host.path(f"{SPARE}/mynet")
    return {file.name for file in folder.iterdir() if file.name != CLAIM_MARK} if folder.is_dir() else set()


def test_every_verb_works_with_records_under_var_lib_cni(host: Host) -> None:
    pod, other = host.pods(2)
    result = host.add(pod)
    assert host.plugin("ADD", pod).code == 102
    host.add(other)
    assert records(host) == {"pod0@eth0", "pod1@eth0"}
    assert set(host.leases()) == {"10.88.0.2", "10.88.0.3"}
    kept = {file.name for file in host.path(f"{LEASES}/mynet").iterdir()}
    assert kept == {"10.88.0.2", "10.88.0.3", "last_reserved_ip.0", "lock"}  # host-local can take over from here
    assert host.plugin("CHECK", pod, prev=result).result == {}
    assert host.plugin("STATUS").status == 0
    host.delete(pod)
    host.delete(pod)
    assert records(host) == {"pod1@eth0"} and set(host.leases()) == {"10.88.0.3"}
    assert host.collect([]).result == {}
    assert records(host) == set() == set(host.leases())
    assert host.pod_link(other) is None


def test_addresses_of_pods_that_died_are_found_and_freed(host: Host) -> None:
    pods = host.pods(13)
    for pod in pods:
        host.add(pod)
    assert host.plugin("STATUS").code == 50
    host.kill(pods[0])
    assert host.plugin("STATUS").status == 0
    assert host.add(host.pod("new"))["ips"][0]["address"] == "10.88.0.2/28"


def test_a_record_is_still_found_after_the_usual_folder_becomes_writable() -> None:
    with new_host() as host:
        host.conf = dict(CONF)
        host.run("mkdir", "-p", "/var/lib/cnictl", "/var/lib/cni")
        host.run("mount", "--bind", "/var/lib/cnictl", "/var/lib/cnictl")
        host.run("mount", "-o", "remount,bind,ro", "/var/lib/cnictl")
        old, kept = host.pods(2)
        result = host.add(old)
        host.add(kept)
        host.run("mount", "-o", "remount,bind,rw", "/var/lib/cnictl")
        assert host.plugin("ADD", old).code == 102
        assert host.plugin("CHECK", old, prev=result).result == {}
        new = host.pod("new")
        host.add(new)
        assert (records(host), host.records()) == ({"pod0@eth0", "pod1@eth0"}, {"new@eth0"})
        host.delete(old)
        assert host.collect([new]).result == {}
        assert (records(host), host.records()) == (set(), {"new@eth0"})
        host.delete(new)
        assert host.leases() == {} == {name: link for name, link in host.links().items() if link.get("master")}


def test_records_on_a_disk_that_turned_read_only_are_still_read() -> None:
    with new_host() as host:
        host.conf = dict(CONF)
        pod, new = host.pods(2)
        result = host.add(pod)
        host.run("mount", "--bind", "/var/lib/cnictl", "/var/lib/cnictl")
        host.run("mount", "-o", "remount,bind,ro", "/var/lib/cnictl")
        assert host.plugin("CHECK", pod, prev=result).result == {}
        assert host.plugin("DEL", pod).code == 5
        assert json.loads(host.path(f"{RECORDS}/mynet/pod0@eth0").read_text())["complete"] == 1
        host.add(new)
        host.delete(new)
        host.run("mount", "-o", "remount,bind,rw", "/var/lib/cnictl")
        host.delete(pod)
        assert host.records() == set() == records(host)
