"""DEL succeeds in each case that the specification requires, and nothing is left when it returns."""

import errno
import json
import os
from typing import Any

import pytest

from tests.kernel.plugin.client import LEASES, RECORDS, REFERENCE, WALK_THROUGH, Host, Pod
from tests.waiting import wait_for

Json = dict[str, Any]


def nothing_of(host: Host, pod: Pod) -> bool:
    """Check that neither the host nor the pod has anything of the attachment."""
    owner = f"{pod.container}\r\n{pod.ifname}"
    assert owner not in host.leases().values()
    assert f"{pod.container}@{pod.ifname}" not in host.records()
    assert not [link for link in host.links().values() if link.get("linkinfo", {}).get("info_kind") == "veth"]
    if host.path(pod.netns).exists():
        assert host.pod_link(pod) is None
    return True


def test_everything_is_removed_when_del_returns(host: Host) -> None:
    pod = host.pod()
    result = host.add(pod)
    host.delete(pod, prev=result)
    assert result["interfaces"][1]["name"] not in host.links()  # gone when DEL returns, not soon after
    assert nothing_of(host, pod)
    assert "cni0" in host.links()


def test_another_pods_attachment_is_not_touched(host: Host) -> None:
    kept, pod = host.pods(2)
    host.add(kept)
    before = host.traces()
    host.delete(pod, prev=host.add(pod))
    assert host.traces() == before
    assert host.pings(kept, "10.244.0.1")


def test_second_del_and_del_of_an_unknown_attachment_succeed(host: Host) -> None:
    pod = host.pod()
    result = host.add(pod)
    for _ in range(3):
        host.delete(pod, prev=result)
    host.delete(Pod("stranger", ""))
    assert nothing_of(host, pod)


def test_succeeds_on_a_host_without_any_add(host: Host) -> None:
    before = host.traces()
    host.delete(host.pod())
    host.delete(Pod("gone", "/run/netns/gone"))
    assert host.traces() == before


@pytest.mark.parametrize("prev", ["with prevResult", "without prevResult"])
@pytest.mark.parametrize(
    "loss",
    ["nothing", "namespace", "interface", "host veth", "record", "lease", "bridge", "address", "store", "all state"],
)
def test_del_succeeds_with_any_part_already_gone(host: Host, loss: str, prev: str) -> None:
    pod = host.pod()
    result = host.add(pod)
    veth = result["interfaces"][1]["name"]
    if loss == "namespace":
        host.kill(pod)
        wait_for(lambda: veth not in host.links(), "the veth disappears with its namespace")
    elif loss == "interface":
        host.inside(pod, "ip", "link", "delete", "eth0")
    elif loss == "host veth":
        host.run("ip", "link", "delete", veth)
    elif loss == "record":
        host.path(f"{RECORDS}/mynet/{pod.container}@eth0").unlink()
    elif loss == "lease":
        host.path(f"{LEASES}/mynet/10.244.0.2").unlink()
    elif loss == "bridge":
        host.run("ip", "link", "delete", "cni0")
    elif loss == "address":
        host.inside(pod, "ip", "address", "flush", "dev", "eth0")
    elif loss == "store":
        host.run("rm", "-r", LEASES)
    elif loss == "all state":
        host.run("rm", "-r", "/var/lib/cni", "/var/lib/cnictl", "/run/cnictl")
    host.delete(pod, prev=result if prev == "with prevResult" else None)
    assert nothing_of(host, pod)


def test_without_netns_veth_and_address_are_gone_while_the_namespace_lives(host: Host) -> None:
    """The reference frees the lease but leaves the pod its address, so the next pod can get the same one."""
    pod, heir = host.pods(2)
    host.conf["subnet"] = "10.244.0.0/30"
    host.add(pod)
    host.delete(pod, CNI_NETNS="")
    assert nothing_of(host, pod)
    assert host.plugin("ADD", heir).address == "10.244.0.2"
    assert host.pings(heir, "10.244.0.1")


def test_netns_that_now_names_another_pod_is_not_touched(host: Host) -> None:
    pod = host.pod("old")
    host.add(pod)
    host.run("ip", "netns", "delete", "old")
    heir = Pod("heir", host.pod("old").netns)  # the path is the same, the pod is not
    host.add(heir)
    host.delete(pod)
    assert host.pings(heir, "10.244.0.1")
    assert host.records() == {"heir@eth0"}
    assert host.leases() == {"10.244.0.3": "heir\r\neth0"}


def test_netns_of_the_host_itself_is_not_touched(host: Host) -> None:
    pod = host.pod()
    host.add(pod)
    host.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0-peer")
    host.delete(Pod(pod.container, f"/proc/{host.pid}/ns/net"))
    assert host.leases() == {} and host.records() == set()
    assert "eth0" in host.links()


def test_late_del_does_not_free_the_next_owners_address(host: Host) -> None:
    host.conf["subnet"] = "10.244.0.0/30"
    late, heir = host.pods(2)
    result = host.add(late)
    host.delete(late, prev=result)
    assert host.plugin("ADD", heir).address == "10.244.0.2"
    before = host.traces()
    host.delete(late, prev=result)
    assert host.traces() == before
    assert host.pings(heir, "10.244.0.1")


def test_del_after_a_refused_add_leaves_the_containers_own_interface(host: Host) -> None:
    """A runtime answers a failed ADD with DEL; the interface that was in the way belongs to another network."""
    pod = host.pod()
    second = {**WALK_THROUGH, "name": "second", "bridge": "cni1", "network": "10.99.0.0/16", "subnet": "10.99.0.0/24"}
    host.add(pod)
    assert host.plugin("ADD", pod, second).code == 102
    host.delete(pod, second)
    assert host.pings(pod, "10.244.0.1")
    assert host.records("second") == set() and host.leases("second") == {}


@pytest.mark.parametrize(
    "previous", [{}, {"interfaces": 5}, {"ips": ["x", {"address": 7}], "interfaces": [None]}, {"ips": {}}]
)
def test_prev_result_of_any_shape_is_accepted(host: Host, previous: Json) -> None:
    pod = host.pod()
    host.add(pod)
    host.delete(pod, prev=previous)
    assert nothing_of(host, pod)


def test_read_only_disk_is_an_error_and_a_later_del_completes(host: Host) -> None:
    pod = host.pod()
    host.add(pod)
    host.run("mount", "-o", "remount,bind,ro", "/var/lib")
    assert host.plugin("DEL", pod).code == 5
    host.run("mount", "-o", "remount,bind,rw", "/var/lib")
    host.delete(pod)
    assert nothing_of(host, pod)


def test_del_works_on_a_full_disk(host: Host) -> None:
    host.run("mount", "-t", "tmpfs", "-o", "size=256k", "small", "/var/lib")
    pod = host.pod()
    host.add(pod)
    with open(host.path("/var/lib/fill"), "wb") as fill:
        try:
            while os.write(fill.fileno(), bytes(4096)):
                pass
        except OSError as error:
            assert error.errno == errno.ENOSPC
    host.delete(pod)
    assert nothing_of(host, pod)


@pytest.mark.parametrize(
    ("loss", "netns", "backend"),
    [
        ("nothing", "with netns", "nftables"),
        ("nothing", "without netns", "iptables"),
        ("rules", "without netns", "nftables"),
        ("namespace", "with netns", "nftables"),
        ("all of it", "without netns", "nftables"),
        ("all of it", "with netns", "iptables"),
    ],
)
def test_del_removes_rules_and_guard_of_both_families_with_any_part_already_gone(
    host: Host, loss: str, netns: str, backend: str
) -> None:
    """The reference plugin fails forever after a flush, and leaks rules after the namespace is gone."""
    ranges = [[{"subnet": "10.244.0.0/24"}], [{"subnet": "fd00:244::/64"}]]
    conf = {**REFERENCE, "type": "cnictl-bridge", "ipMasq": True, "ipMasqBackend": backend, "macspoofchk": True,
            "ipam": {"type": "host-local", "ranges": ranges}}  # fmt: skip
    pod, kept = host.pods(2)
    answer = host.plugin("ADD", pod, conf)
    if answer.status and answer.code == 2:
        print(f"not on this kernel: {answer.error['msg']}")
        conf["macspoofchk"] = False
        answer = host.plugin("ADD", pod, conf)
    result = answer.result
    veth = result["interfaces"][1]["name"]
    host.add(kept, conf)
    assert set(host.leases()) == {"10.244.0.2", "10.244.0.3", "fd00:244::2", "fd00:244::3"}
    if loss in ("rules", "all of it"):
        host.run("nft", "flush", "ruleset")
        for program in ("iptables", "ip6tables"):
            host.run(program, "-t", "nat", "-F")
    if loss in ("namespace", "all of it"):
        host.kill(pod)
        wait_for(lambda: veth not in host.links(), "the veth disappears with its namespace")
    if loss == "all of it":
        host.run("ip", "link", "delete", "cni0")
    for prev in (result, None):
        host.delete(pod, conf, prev, **({"CNI_NETNS": ""} if netns == "without netns" else {}))
    assert veth not in host.links() and host.records() == {f"{kept.container}@eth0"}
    assert set(host.leases()) == {"10.244.0.3", "fd00:244::3"}
    assert veth not in host.run("nft", "list", "ruleset")
    host.delete(kept, conf)
    assert "cnictl" not in host.run("nft", "list", "tables", "bridge", check=False)


def test_ipam_configuration_is_not_needed_for_the_undo(host: Host) -> None:
    """The subnet has changed since ADD; what ADD made is removed all the same."""
    pod = host.pod()
    host.add(pod)
    host.delete(pod, {**WALK_THROUGH, "subnet": "10.244.3.0/24", "bridge": "other0"})
    assert nothing_of(host, pod)


@pytest.mark.parametrize("prev", ["with prevResult", "without prevResult"])
@pytest.mark.parametrize("netns", ["with netns", "without netns", "netns gone"])
def test_pod_of_the_reference_plugin_is_deleted_after_take_over(host: Host, netns: str, prev: str) -> None:
    pod, own = host.pods(2)
    result = host.reference("bridge", "ADD", pod, REFERENCE).result
    assert host.leases() == {"10.244.0.2": "pod0\r\neth0"}
    host.conf |= {"bridge": "cni0"}
    assert host.plugin("ADD", own).address == "10.244.0.3"
    before = host.traces()
    assert host.pings(own, "10.244.0.2")
    if netns == "netns gone":
        host.kill(pod)
    given = Pod(pod.container, "" if netns == "without netns" else pod.netns)
    host.delete(given, prev=result if prev == "with prevResult" else None)
    assert host.leases() == {"10.244.0.3": "pod1\r\neth0"}
    assert host.records() == {"pod1@eth0"}
    if netns == "netns gone":  # the kernel removes an unnamed namespace in its own time
        wait_for(lambda: len(host.links()) < len(before["links"]), "the pair disappears with its namespace")
    # without netns and prevResult, the plugin finds the pod by the address in its lease
    assert len(host.links()) == len(before["links"]) - 1
    assert host.pings(own, "10.244.0.1")
    host.delete(own)


def test_netns_that_now_names_another_pod_of_the_reference_is_not_touched(host: Host) -> None:
    old, heir = host.pods(2)
    for pod in (old, heir):
        assert host.reference("bridge", "ADD", pod, REFERENCE).result
    host.delete(Pod(old.container, heir.netns))
    assert host.pod_link(heir) is not None and host.leases() == {"10.244.0.3": "pod1\r\neth0"}
    assert host.pod_link(old) is None  # its interface was found by its address


@pytest.mark.parametrize("prev", ["with prevResult", "without prevResult"])
def test_a_lease_that_names_no_interface_is_freed_as_host_local_frees_it(host: Host, prev: str) -> None:
    """host-local before 0.8 wrote only the container."""
    pod, other, own = host.pods(3)
    results = [host.reference("bridge", "ADD", owner, REFERENCE).result for owner in (pod, other)]
    for address, owner in (("10.244.0.2", pod), ("10.244.0.3", other)):
        host.path(f"{LEASES}/mynet/{address}").write_text(owner.container)
    host.add(own)
    host.collect([pod, other, own])
    host.delete(Pod(pod.container, ""), prev=results[0] if prev == "with prevResult" else None)
    assert host.leases() == {"10.244.0.3": "pod1", "10.244.0.4": "pod2\r\neth0"}
    assert len(host.ports()) == 2 and host.pod_link(pod) is None
    host.collect([own])
    assert set(host.leases()) == {"10.244.0.4"}


def test_masquerade_of_the_reference_plugin_is_removed_with_its_pod(host: Host) -> None:
    pod, other = host.pods(2)
    conf = {**REFERENCE, "ipMasq": True}
    host.reference("bridge", "ADD", other, conf).result  # noqa: B018 (raises unless it succeeded)
    before = host.traces()
    result = host.reference("bridge", "ADD", pod, conf).result
    host.delete(pod, prev=result)
    after = host.traces()
    assert after["rules"] == before["rules"]
    assert after["links"] == before["links"]
    assert set(host.leases().values()) == {"pod1\r\neth0"}


def test_leases_of_ours_are_released_by_host_local(host: Host) -> None:
    pod, other = host.pods(2)
    host.add(pod)
    conf = {**REFERENCE, "type": "host-local"}
    host.reference("host-local", "DEL", pod, conf).result  # noqa: B018 (raises unless it succeeded)
    assert host.leases() == {}
    host.delete(pod)
    assert nothing_of(host, pod)
    given = host.reference("host-local", "ADD", other, conf).result
    assert given["ips"][0]["address"] == "10.244.0.3/24"
    host.delete(other)
    assert host.leases() == {}


def test_record_without_an_owner_of_the_same_name_elsewhere(host: Host) -> None:
    """The same container and interface are on two networks: one DEL removes one of the attachments."""
    pod = host.pod()
    second = {**WALK_THROUGH, "name": "second", "bridge": "cni1", "network": "10.99.0.0/16", "subnet": "10.99.0.0/24"}
    host.add(pod)
    other = Pod(pod.container, host.pod("elsewhere").netns)
    host.add(other, second)
    host.delete(pod)
    assert host.records("second") == {f"{pod.container}@eth0"}
    assert host.pings(other, "10.99.0.1")
    record = json.loads(host.path(f"{RECORDS}/second/{pod.container}@eth0").read_text())
    assert record["addresses"] == ["10.99.0.2"]
