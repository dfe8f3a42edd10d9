"""A call waits, up to a time limit, for another call on the same attachment."""

import fcntl
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kernel.addresses.test_ipam import cut_off
from tests.kernel.plugin.client import RECORDS, Host, Json, Pod, finish, plugin_executable
from tests.kernel.plugin.test_delegation import ANSWER, PATH, Odd
from tests.waiting import wait_for

pytestmark = pytest.mark.once


@contextmanager
def held(host: Host, pod: Pod) -> Iterator[None]:
    """Hold the record's lock, as the child of a killed DEL does."""
    descriptor = os.open(host.path(f"{RECORDS}/mynet/{pod.container}@{pod.ifname}"), os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def meets(started: "subprocess.Popen[bytes]", pod: Pod) -> None:
    """Wait until the call has opened the record whose lock it needs."""

    def waits() -> bool:
        for process in (started.pid, *children(started.pid)):
            try:
                opened = [os.readlink(descriptor) for descriptor in Path(f"/proc/{process}/fd").iterdir()]
            except OSError:
                continue
            if any(path.endswith(f"/{pod.container}@{pod.ifname}") for path in opened):
                return True
        assert started.poll() is None, started.communicate()
        return False

    wait_for(waits, "the call opens the record")


def children(process: int) -> list[int]:
    """Return a process's children; nsenter has one."""
    try:
        return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []


def test_a_del_waits_for_processes_that_a_killed_del_left(host: Host) -> None:
    pod = host.pod()
    host.add(pod)
    with held(host, pod):
        late = host.start("DEL", pod)
        meets(late, pod)
    assert finish(late).result == {}
    assert not host.records() and not host.leases() and host.pod_link(pod) is None


def test_an_add_waits_for_processes_that_a_killed_add_left_and_cleans_up(host: Host) -> None:
    pod = host.pod()
    cut_off(host, pod)
    with held(host, pod):
        late = host.start("ADD", pod)
        meets(late, pod)
    assert finish(late).result["ips"]
    assert host.pod_link(pod) is not None and len(host.leases()) == 1


def test_an_add_that_meets_a_del_succeeds_after_it_ends(host: Host) -> None:
    pod = host.pod()
    host.add(pod)
    with held(host, pod):
        first = host.start("DEL", pod)
        meets(first, pod)
        late = host.start("ADD", pod)
        meets(late, pod)
    assert finish(first).result == {}
    answer = finish(late)
    assert answer.status == 0 or answer.code == 102, answer  # the ADD may get the lock before the DEL


def test_a_second_add_waits_for_the_first_and_fails_with_already_attached(host: Host) -> None:
    pod = host.pod()
    calls = [host.start("ADD", pod) for _ in range(4)]
    answers = [finish(call) for call in calls]
    assert sorted(answer.status for answer in answers) == [0, 1, 1, 1]
    assert {answer.code for answer in answers if answer.status} == {102}
    assert len(host.leases()) == 1 and host.pod_link(pod) is not None


def start_check(host: Host, pod: Pod, result: Json) -> "subprocess.Popen[bytes]":
    """Start a CHECK."""
    with tempfile.TemporaryFile() as request:
        request.write(host.stdin(prev=result))
        request.seek(0)
        return subprocess.Popen(
            [*host.enter, plugin_executable()],
            stdin=request,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=host.environment("CHECK", pod),
        )


def test_a_check_reports_a_deviation_only_after_other_calls_have_ended(host: Host) -> None:
    pod = host.pod()
    result = host.add(pod)
    veth = result["interfaces"][1]["name"]
    host.run("ip", "link", "set", veth, "down")
    with held(host, pod):
        late = start_check(host, pod, result)
        meets(late, pod)
        host.run("ip", "link", "set", veth, "up")
    assert finish(late).result == {}
    with held(host, pod):  # a correct attachment needs no wait
        assert finish(start_check(host, pod, result)).result == {}


@pytest.mark.parametrize("words", [["--force"], ["--force", "--dry-run"]])
def test_a_release_waits_for_a_call_that_is_about_to_end(host: Host, words: list[str]) -> None:
    pod = host.pod()
    host.add(pod)
    with held(host, pod):
        late = subprocess.Popen(
            [*host.enter, sys.executable, "-m", "cnictl", "ipam", "release", pod.container, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        meets(late, pod)
    answer = finish(late)
    assert answer.status == 0, answer
    assert bool(host.leases()) == ("--dry-run" in words)


def test_gc_passes_the_runtimes_arguments_to_the_ipam_plugin(host: Host) -> None:
    odd, pod = Odd(host), host.pod()
    note = 'echo "$CNI_COMMAND $CNI_ARGS" >>/run/odd/args'
    odd.does(ADD=f"{note}; {ANSWER}", DEL=note, VERSION="exit 1", GC="exit 0")
    conf = {**odd.conf, "cniVersion": "1.0.0"}
    arguments = "IgnoreUnknown=1;K8S_POD_NAME=web;TOKEN=geheim"
    host.plugin("ADD", pod, conf, CNI_PATH=PATH, CNI_ARGS=arguments).result  # noqa: B018
    listed = subprocess.run(
        [*host.enter, sys.executable, "-m", "cnictl", "ipam", "list", "--name", "mynet", "-o", "json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "web" in listed.stdout and "geheim" not in listed.stdout + listed.stderr
    valid: Json = {"cni.dev/valid-attachments": []}
    host.plugin("GC", conf={**conf, "cniVersion": "1.1.0", **valid}, CNI_PATH=PATH).result  # noqa: B018
    said = host.path("/run/odd/args").read_text().splitlines()
    assert said == [f"ADD {arguments}", f"DEL {arguments}"]
    assert not host.records()


def test_a_record_without_the_arguments_is_read_as_before(host: Host) -> None:
    odd, pod = Odd(host), host.pod()
    odd.does(ADD=ANSWER, DEL='echo "DEL $CNI_ARGS" >>/run/odd/args', VERSION="exit 1", GC="exit 0")
    host.plugin("ADD", pod, odd.conf, CNI_PATH=PATH, CNI_ARGS="A=1").result  # noqa: B018
    path = host.path(f"{RECORDS}/mynet/{pod.container}@eth0")
    record = json.loads(path.read_text())
    assert record.pop("cni_args") == "A=1"
    path.write_text(json.dumps(record))
    valid: Json = {"cni.dev/valid-attachments": []}
    host.plugin("GC", conf={**odd.conf, "cniVersion": "1.1.0", **valid}, CNI_PATH=PATH).result  # noqa: B018
    assert host.path("/run/odd/args").read_text() == "DEL \n" and not host.records()
