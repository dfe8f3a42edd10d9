"""GC removes exactly those of its network's attachments that are not in the valid list, and nothing else."""

import json
from typing import Any

import pytest

from tests.kernel.plugin.client import LEASES, RECORDS, VALID, WALK_THROUGH, Host, Pod, finish
from tests.waiting import wait_for

Json = dict[str, Any]
CONF: Json = {**WALK_THROUGH, "cniVersion": "1.1.0"}
OTHER: Json = {**CONF, "name": "other", "bridge": "cni1", "network": "10.99.0.0/16", "subnet": "10.99.0.0/24"}


def test_gc_removes_exactly_the_invalid_attachments(host: Host) -> None:
    pods = host.pods(6)
    for pod in pods:
        host.add(pod)
    kept, dropped = pods[:3], pods[3:]
    host.kill(pods[5])
    assert host.collect(kept).result == {}
    assert host.records() == {f"{pod.container}@eth0" for pod in kept}
    assert set(host.leases().values()) == {f"{pod.container}\r\neth0" for pod in kept}
    assert len(host.ports()) == 3
    assert all(host.pings(pod, "10.244.0.1") for pod in kept)
    assert host.pod_link(dropped[0]) is None and host.pod_link(dropped[1]) is None


def test_gc_compares_container_and_interface(host: Host) -> None:
    pod = host.pod()
    second = Pod(pod.container, pod.netns, "eth1")
    host.add(pod)
    host.add(second)
    assert host.collect([second]).result == {}
    assert host.records() == {"pod@eth1"}
    assert host.pod_link(pod) is None
    assert host.pod_link(second) is not None


def test_gc_with_an_empty_list_removes_all_and_can_be_repeated(host: Host) -> None:
    for pod in host.pods(3):
        host.add(pod)
    for _ in range(2):
        assert host.collect([]).result == {}
        assert host.records() == set() and host.leases() == {} and host.ports() == set()


def test_succeeds_on_a_host_without_any_add(host: Host) -> None:
    before = host.traces()
    assert host.collect([]).result == {}
    assert host.traces() == before


def test_other_networks_are_not_touched(host: Host) -> None:
    pod, other = host.pods(2)
    host.add(pod, CONF)
    host.add(other, OTHER)
    host.run("ip", "link", "add", "veth12345678", "type", "veth", "peer", "name", "foreign")
    host.run("ip", "link", "set", "veth12345678", "master", "cni0")
    assert host.collect([], CONF).result == {}
    assert host.records("other") == {"pod1@eth0"}
    assert host.leases("other") == {"10.99.0.2": "pod1\r\neth0"}
    assert host.pings(other, "10.99.0.1")
    assert host.ports() == {"veth12345678"}  # a link on our bridge that is not ours


def test_network_whose_name_begins_alike_is_not_touched(host: Host) -> None:
    pod, other = host.pods(2)
    longer = {**OTHER, "name": "mynet-2"}
    host.add(pod, CONF)
    host.add(other, longer)
    assert host.collect([], CONF).result == {}
    assert host.pings(other, "10.99.0.1")


def test_attachment_of_another_runtime_is_removed_only_once_it_is_stale(host: Host) -> None:
    """The valid list has only the caller's own attachments: two runtimes on one network don't know each other's."""
    own, alive, dead, unknown = pods = host.pods(4)
    veths = {}
    for pod in pods:
        runtime = "" if pod is own else "podman"
        veths[pod] = host.call(host.environment("ADD", pod), host.stdin(CONF), through=called_by(runtime)).result
    forget = host.path(f"{RECORDS}/mynet/{unknown.container}@eth0")
    record = json.loads(forget.read_text())
    assert record["runtime"] == "podman"
    del record["runtime"]  # as in older records, which don't have it
    forget.write_text(json.dumps(record))
    host.kill(dead)
    wait_for(lambda: veths[dead]["interfaces"][1]["name"] not in host.links(), "the veth disappears with its namespace")
    assert host.collect([]).result == {}
    assert host.records() == {f"{alive.container}@eth0"}
    assert list(host.leases().values()) == [f"{alive.container}\r\neth0"] and host.pings(alive, "10.244.0.1")
    request = host.stdin({**CONF, VALID: []})
    assert host.call(host.environment("GC"), request, through=called_by("podman")).result == {}
    assert host.records() == set() and host.leases() == {} and host.ports() == set()


def called_by(runtime: str) -> tuple[str, ...]:
    """Return a command prefix that runs a command as a child of a process with this name; () if the name is empty."""
    named = "open('/proc/self/comm', 'w').write(sys.argv[1])"
    script = f"import subprocess, sys; {named}; sys.exit(subprocess.call(sys.argv[2:]))"
    return ("python3", "-ISc", script, runtime) if runtime else ()


def test_missing_list_is_an_error_and_not_an_empty_list(host: Host) -> None:
    pod = host.pod()
    host.add(pod)
    answer = host.plugin("GC", conf=CONF)
    assert answer.code == 7
    assert VALID in answer.error["msg"]
    assert host.pings(pod, "10.244.0.1")


def test_null_is_an_empty_list_as_the_go_library_writes_it(host: Host) -> None:
    host.add(host.pod())
    assert host.plugin("GC", conf={**CONF, VALID: None}).result == {}
    assert host.records() == set()


@pytest.mark.parametrize(
    "given", [5, "all", {}, [5], [{}], [{"containerID": "pod"}], [{"containerID": 1, "ifname": 2}]]
)
def test_malformed_list_is_an_error_and_nothing_is_removed(host: Host, given: object) -> None:
    pod = host.pod()
    host.add(pod)
    assert host.plugin("GC", conf={**CONF, VALID: given}).code == 7
    assert host.pings(pod, "10.244.0.1")


def test_add_in_flight_is_not_touched(host: Host) -> None:
    """strace delays the ADD for two seconds between its lease and its end."""
    host.add(host.pod("first"))
    pod = host.pod()
    slow = host.start("ADD", pod, through=["strace", "-qq", "-o", "/dev/null", "-e", "inject=setns:delay_exit=2000000"])
    wait_for(lambda: len(host.ports()) == 2, "the link of the ADD in flight")
    assert host.collect([]).result == {}
    assert finish(slow).address == "10.244.0.3"
    assert host.records() == {"pod@eth0"}
    assert host.pings(pod, "10.244.0.1")


def test_add_that_was_cut_off_is_undone(host: Host) -> None:
    pod = host.pod()
    cut = host.start("ADD", pod, through=["strace", "-qq", "-o", "/dev/null", "-e", "inject=setns:signal=KILL"])
    assert finish(cut).status != 0
    assert host.records() == {"pod@eth0"} and len(host.ports()) == 1
    assert host.collect([]).result == {}
    assert host.records() == set() and host.leases() == {} and host.ports() == set()


def test_torn_leases_are_removed_and_torn_records_are_undone(host: Host) -> None:
    pod, kept = host.pods(2)
    host.add(pod)
    host.add(kept)
    host.path(f"{LEASES}/mynet/10.244.0.77").write_bytes(b"")
    host.path(f"{LEASES}/mynet/10.244.0.78").write_bytes(b"\r\n")
    host.path(f"{RECORDS}/mynet/{pod.container}@eth0").write_bytes(b'{"comple')
    assert host.collect([kept]).result == {}
    assert host.leases() == {"10.244.0.3": "pod1\r\neth0"}
    assert host.records() == {"pod1@eth0"}
    assert len(host.ports()) == 1


def test_lease_and_link_without_a_record_are_removed(host: Host) -> None:
    pod, kept = host.pods(2)
    host.add(pod)
    host.add(kept)
    host.path(f"{RECORDS}/mynet/{pod.container}@eth0").unlink()
    assert host.collect([kept]).result == {}
    assert host.leases() == {"10.244.0.3": "pod1\r\neth0"}
    assert len(host.ports()) == 1


def test_leases_that_host_local_wrote_are_removed_unless_valid(host: Host) -> None:
    conf = {"cniVersion": "0.4.0", "name": "mynet", "ipam": {"type": "host-local", "subnet": "10.244.0.0/24"}}
    gone, kept = Pod("gone", "/run/netns/gone"), Pod("kept", "/run/netns/kept")
    for pod in (gone, kept):
        host.reference("host-local", "ADD", pod, {**conf, "type": "bridge"}).result  # noqa: B018 (raises on failure)
    assert host.collect([kept]).result == {}
    assert host.leases() == {"10.244.0.3": "kept\r\neth0"}
    assert host.collect([]).result == {}
    assert host.leases() == {}


def test_files_that_are_not_leases_stay(host: Host) -> None:
    host.add(host.pod())
    stranger = host.path(f"{LEASES}/mynet/notes.txt")
    stranger.write_text("kept")
    assert host.collect([]).result == {}
    assert stranger.read_text() == "kept"
    assert host.path(f"{LEASES}/mynet/last_reserved_ip.0").exists()


def test_container_ids_of_the_list_are_not_used_as_paths(host: Host) -> None:
    pod = host.pod()
    host.add(pod)
    listed = [{"containerID": "../../../x", "ifname": "a/b"}, {"containerID": "pod", "ifname": "eth0"}]
    assert host.plugin("GC", conf={**CONF, VALID: listed}).result == {}
    assert host.pings(pod, "10.244.0.1")
