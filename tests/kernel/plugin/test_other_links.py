"""The plugin never removes links that are not its own, whatever a name, a prevResult or a pod's interface suggests."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from cnictl.core.digest import former_host_veth_name, host_veth_name
from tests.kernel.plugin.client import RECORDS, REFERENCE, Host, Pod

Json = dict[str, Any]

PLAIN: Json = {"cniVersion": "0.4.0", "name": "mynet", "type": "cnictl-bridge", "bridge": "cni0"}
"""Without addresses, only links identify an attachment."""


def veth_of(result: Json) -> str:
    return str(result["interfaces"][1]["name"])


def names(pod: Pod) -> list[str]:
    """Return the possible names of the pod's host veth, in the order in which they are tried."""
    return [host_veth_name("mynet", pod.container, pod.ifname, turn) for turn in range(8)]


def take(host: Host, name: str, alias: str = "", kind: str = "veth") -> int:
    """Create a link of that name that is not the plugin's, and return its index."""
    host.run("ip", "link", "add", name, "type", kind)
    if alias:
        host.run("ip", "link", "set", name, "alias", alias)
    return int(host.links()[name]["ifindex"])


def test_a_name_uses_all_bits_that_fit(host: Host) -> None:
    pod = host.pod()
    name = veth_of(host.add(pod))
    assert name == names(pod)[0]
    assert len(name) == 15 and name.startswith("veth") and int(name[4:], 16) >= 0


@pytest.mark.parametrize("alias", ["", "cnictl:mynet/other", "cnictl:second/pod", "cni"])
@pytest.mark.parametrize("kind", ["veth", "bridge"])
def test_a_name_in_use_is_not_touched_and_another_is_recorded(host: Host, alias: str, kind: str) -> None:
    pod, kept = host.pods(2, "p")
    taken = names(pod)[0]
    index = take(host, taken, alias, kind)
    host.add(kept)
    before = host.traces()
    result = host.add(pod)
    name = veth_of(result)
    assert name == names(pod)[1] and host.pings(pod, "10.244.0.1")
    record = json.loads(host.path(f"{RECORDS}/mynet/{pod.container}@eth0").read_text())
    assert record["host_veth"] == name
    assert host.plugin("CHECK", pod, prev=result).result == {}
    assert host.links()[taken].get("ifalias", "") == alias
    host.delete(pod, prev=result)
    host.delete(pod, prev=result)
    assert host.traces() == before
    assert host.collect([kept]).result == {}
    assert (taken in host.links()) == (alias != "cnictl:mynet/other" or kind != "veth")  # GC removes one with our alias
    assert host.links().get(taken, {"ifindex": index})["ifindex"] == index


def test_add_fails_cleanly_if_every_name_is_in_use(host: Host) -> None:
    pod = host.pod()
    for name in names(pod):
        take(host, name, kind="bridge")
    host.add(host.pod("first"))
    before = host.traces()
    assert host.plugin("ADD", pod).code == 102
    host.delete(pod)
    assert host.traces() == before


@pytest.mark.parametrize("loss", ["nothing", "the record"])
def test_two_attachments_of_one_name_live_side_by_side(host: Host, loss: str) -> None:
    """The first attachment has the name that the second would get; the second's DEL removes only its own link."""
    first, second = host.pods(2)
    result = host.add(first)
    host.run("ip", "link", "set", veth_of(result), "down")
    host.run("ip", "link", "set", veth_of(result), "name", names(second)[0], "up")
    record = host.path(f"{RECORDS}/mynet/{first.container}@eth0")
    record.write_text(record.read_text().replace(veth_of(result), names(second)[0]))
    other = host.add(second)
    assert veth_of(other) == names(second)[1]
    if loss == "the record":
        host.path(f"{RECORDS}/mynet/{second.container}@eth0").unlink()
    for _ in range(2):
        host.delete(second, prev=other)
    assert host.pings(first, "10.244.0.1")
    assert host.ports() == {names(second)[0]}
    host.delete(first)
    assert host.ports() == set()


def test_a_name_taken_between_choice_and_use_is_not_touched(host: Host) -> None:
    pod = host.pod()
    host.add(host.pod("first"))
    slow = ["strace", "-qq", "-o", "/dev/null", "-e", "trace=linkat", "-e", "inject=linkat:delay_enter=400000:when=1"]
    adding = host.start("ADD", pod, slow)
    index = take(host, names(pod)[0])
    stdout, stderr = adding.communicate(timeout=60)
    assert adding.returncode == 0, stderr
    assert veth_of(json.loads(stdout)) in names(pod)
    taken = host.links()[names(pod)[0]]
    assert (taken["ifindex"], taken.get("ifalias"), taken.get("master")) == (index, None, None)
    assert host.pings(pod, "10.244.0.1")
    host.delete(pod)
    assert names(pod)[0] in host.links() and len(host.ports()) == 1


def test_attachments_of_a_former_release_keep_working(host: Host) -> None:
    """Former releases' names have 8 digits, and their records contain them."""
    pod, lost = host.pods(2)
    for attached in (pod, lost):
        result = host.add(attached)
        former = former_host_veth_name("mynet", attached.container, "eth0")
        host.run("ip", "link", "set", veth_of(result), "down")
        host.run("ip", "link", "set", veth_of(result), "name", former, "up")
        record = host.path(f"{RECORDS}/mynet/{attached.container}@eth0")
        record.write_text(record.read_text().replace(veth_of(result), former))
        result["interfaces"][1]["name"] = former
        assert host.plugin("CHECK", attached, prev=result).result == {}
        assert host.plugin("ADD", attached).code == 102
    host.path(f"{RECORDS}/mynet/{lost.container}@eth0").unlink()
    assert host.collect([pod, lost]).result == {}
    assert len(host.ports()) == 2
    for attached in (pod, lost):
        host.delete(attached)
    assert host.ports() == set() and host.leases() == {} and host.records() == set()


def pod_of(host: Host, how: str) -> tuple[Pod, Json]:
    """Return a living pod of the plugin, of the plugin without its record, or of the reference."""
    pod = host.pod("living")
    if how == "the reference's":
        return pod, host.reference("bridge", "ADD", pod, REFERENCE).result
    result = host.add(pod)
    if how == "ours without a record":
        host.path(f"{RECORDS}/mynet/{pod.container}@eth0").unlink()
    return pod, result


@pytest.mark.parametrize("how", ["ours", "ours without a record", "the reference's"])
@pytest.mark.parametrize("where", ["no namespace", "its own namespace", "the living pod's", "the host's"])
def test_a_foreign_link_named_in_prev_result_is_not_deleted(host: Host, how: str, where: str) -> None:
    living, result = pod_of(host, how)
    netns = {"no namespace": "", "the living pod's": living.netns, "the host's": f"/proc/{host.pid}/ns/net"}
    stranger = Pod("stranger", netns[where] if where in netns else host.pod("own").netns)
    host.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0-peer")
    host.run("ip", "link", "set", "eth0", "master", "cni0")
    before = host.traces()
    host.delete(stranger, {**host.conf, "bridge": "cni0"}, prev=result)
    after = host.traces()
    assert after["links"] == before["links"] and set(after["files"]) >= set(before["files"])
    assert host.pings(living, "10.244.0.1")
    assert list(host.leases()) == ["10.244.0.2"]


def test_the_uplink_of_a_nested_host_stays(host: Host) -> None:
    """The uplink is a veth on the bridge whose peer is on another host, as in a container that is a node itself."""
    host.add(host.pod("first"))
    host.run("ip", "netns", "add", "outer")
    host.run("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "eth0", "netns", "outer")
    host.run("ip", "link", "set", "uplink", "master", "cni0", "up")
    mac = host.links()["uplink"]["address"]
    before = host.traces()
    previous = {"cniVersion": "0.4.0", "interfaces": [{"name": "cni0"}, {"name": "uplink", "mac": mac}],
                "ips": [{"version": "4", "address": "10.244.0.77/24"}]}  # fmt: skip
    host.delete(Pod("stranger", ""), prev=previous)
    host.delete(Pod("stranger", host.pod().netns), {**host.conf, "ipam": {}} | PLAIN, prev=previous)
    assert host.collect([Pod("first", "")]).result == {}
    assert host.traces()["links"] == before["links"]


@pytest.mark.parametrize("lease", ["with its lease", "without its lease"])
def test_neighbours_veth_survives_a_hostile_pod_of_the_reference(host: Host, lease: str) -> None:
    """A pod can choose its interface's index and its peer's, so that the peer seems to be the neighbour's veth."""
    neighbour, hostile = host.pods(2)
    theirs = host.reference("bridge", "ADD", neighbour, REFERENCE).result
    host.reference("bridge", "ADD", hostile, REFERENCE).result  # noqa: B018 (raises unless it succeeded)
    port = host.links()[veth_of(theirs)]
    inside = host.pod_link(neighbour)
    assert inside is not None
    host.inside(hostile, "ip", "link", "delete", "eth0")
    peer, own = str(port["ifindex"]), str(inside["ifindex"])
    host.run("ip", "netns", "add", "deeper")
    host.inside(hostile, *f"ip link add eth0 index {own} type veth peer name x index {peer} netns deeper".split())
    if lease == "without its lease":
        host.run("rm", "/var/lib/cni/networks/mynet/10.244.0.3")
    link = host.pod_link(hostile)
    assert link is not None and str(link["link_index"]) == peer
    host.delete(hostile, {**REFERENCE, "type": "cnictl-bridge"})
    assert host.pings(neighbour, "10.244.0.1")
    assert list(host.leases()) == ["10.244.0.2"]


def rename(host: Host, name: str) -> None:
    host.run("ip", "link", "set", name, "alias", "somebody's note")


def unmark(host: Host, name: str) -> None:
    host.run("ip", "link", "set", name, "alias", "")


@pytest.mark.parametrize("change", [rename, unmark])
@pytest.mark.parametrize("verb", ["DEL", "GC"])
def test_a_link_with_a_changed_mark_is_recognised_by_its_namespace(
    host: Host, change: Callable[[Host, str], None], verb: str
) -> None:
    pod = host.pod()
    change(host, veth_of(host.add(pod)))
    if verb == "DEL":
        host.delete(pod)
    else:
        assert host.collect([]).result == {}
    assert (host.ports(), host.leases(), host.records()) == (set(), {}, set())


def test_a_foreign_link_with_a_recorded_name_stays(host: Host) -> None:
    pod = host.pod()
    name = veth_of(host.add(pod))
    host.run("ip", "link", "delete", name)
    index = take(host, name)
    host.delete(pod)
    assert host.links()[name]["ifindex"] == index
    assert (host.leases(), host.records()) == ({}, set())


def test_layer_2_pod_of_the_reference_is_found_by_its_namespace(host: Host) -> None:
    pod, other = host.pods(2)
    plain = {**PLAIN, "type": "bridge"}
    result = host.reference("bridge", "ADD", pod, plain).result
    host.reference("bridge", "ADD", other, plain).result  # noqa: B018 (raises unless it succeeded)
    host.delete(Pod(pod.container, ""), PLAIN, prev=result)
    assert len(host.ports()) == 2  # only the first pod's result names it
    host.delete(pod, PLAIN, prev=result)
    assert host.pod_link(pod) is None and host.pod_link(other) is not None
