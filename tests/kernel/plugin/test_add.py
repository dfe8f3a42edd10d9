"""ADD: what it creates, that traffic flows at once, and that a failed ADD leaves nothing."""

import itertools
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.plugin.client import LEASES, RECORDS, WALK_THROUGH, Host, Pod, finish, plugin_executable
from tests.waiting import wait_for

Json = dict[str, Any]


def test_walk_through_conf_attaches_the_pod(host: Host) -> None:
    pod = host.pod()
    result = host.add(pod)
    veth = result["interfaces"][1]["name"]

    links = host.links()
    assert links["cni0"]["linkinfo"]["info_kind"] == "bridge"
    assert links["cni0"]["ifalias"] == "cnictl:mynet"
    # if the kernel can pass bridged packets to iptables, it must: otherwise a pod can't reach its own Service
    seen_by_iptables = Path("/proc/sys/net/bridge").exists()
    assert links["cni0"]["linkinfo"]["info_data"]["nf_call_iptables"] == int(seen_by_iptables)
    assert "UP" in links["cni0"]["flags"]
    assert links[veth]["linkinfo"]["info_kind"] == "veth"
    assert links[veth]["master"] == "cni0"
    assert links[veth]["linkinfo"]["info_slave_data"]["state"] == "forwarding"
    assert "UP" in links[veth]["flags"]
    assert host.traces()["addresses"]["cni0"] == ["10.244.0.1"]

    inside = host.pod_link(pod)
    assert inside is not None
    assert "UP" in inside["flags"]
    addresses = [a for a in inside["addr_info"] if a["family"] == "inet"]
    assert [(a["local"], a["prefixlen"], a["broadcast"]) for a in addresses] == [("10.244.0.2", 24, "10.244.0.255")]
    assert host.routes(pod) == [{"dst": "default", "gateway": "10.244.0.1", "dev": "eth0", "flags": []}]
    assert host.leases() == {"10.244.0.2": "pod\r\neth0"}
    assert host.records() == {"pod@eth0"}


def test_first_packets_reach_gateway_and_other_pod(host: Host) -> None:
    pod, other = host.pods(2)
    host.add(pod)
    assert host.pings(pod, "10.244.0.1")
    host.add(other)
    assert host.pings(other, "10.244.0.2")
    assert host.pings(pod, "10.244.0.3")


SENDER = """
import os, socket, sys
gateway = sys.argv[1]
family = socket.AF_INET6 if ":" in gateway else socket.AF_INET
packed = socket.inet_pton(family, gateway)
seen = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
print("ready", flush=True)
os.read(0, 1)
to_gateway = socket.socket(family, socket.SOCK_DGRAM)
to_gateway.settimeout(30)
to_gateway.connect((gateway, 9))
to_gateway.send(b"?")
try:
    to_gateway.recv(1)
except ConnectionRefusedError:
    pass
seen.setblocking(False)
asked = 0
try:
    while True:
        frame = seen.recv(2048)
        if family == socket.AF_INET:
            asked += frame[12:14] == bytes((8, 6)) and frame[38:42] == packed
        else:
            asked += frame[12:14] == bytes((0x86, 0xDD)) and frame[54] == 135 and frame[62:78] == packed
except BlockingIOError:
    print(asked)
"""
"""Print how many ARP requests or neighbour solicitations it took to resolve the gateway."""


@pytest.mark.parametrize(("subnet", "gateway"), [("10.244.0.0/24", "10.244.0.1"), ("fd00:9::/64", "fd00:9::1")])
def test_packet_sent_the_moment_the_result_appears_is_not_lost(host: Host, subnet: str, gateway: str) -> None:
    """If a packet or answer is lost, the pod sends a second ARP request or solicitation. The first pod is hardest."""
    host.conf |= {"network": subnet, "subnet": subnet}
    for pod in host.pods(8):
        reader, writer = os.pipe()
        waiting = subprocess.Popen(
            [*host.enter, "nsenter", f"--net={pod.netns}", "python3", "-ISc", SENDER, gateway],
            stdin=reader,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert waiting.stdout is not None and waiting.stdout.readline() == "ready\n"
        subprocess.run(
            [*host.enter, plugin_executable()],
            input=host.stdin(),
            stdout=writer,
            env=host.environment("ADD", pod),
            check=True,
        )
        os.close(reader)
        os.close(writer)
        assert waiting.communicate(timeout=60)[0] == "1\n"
        host.delete(pod)
        host.run("ip", "link", "delete", "cni0")


def test_veth_is_created_with_its_peer_in_the_pod(host: Host) -> None:
    """Another program that watches the host's links never sees the pod's interface."""
    seen = host.path("/run/seen")
    with open(seen, "wb") as file:
        watcher = subprocess.Popen([*host.enter, "ip", "-o", "monitor", "link"], stdout=file)
    try:
        serial = itertools.count()
        wait_for(
            lambda: host.run(*f"ip link add b{next(serial)} type bridge".split()) or seen.read_text(), "the watcher"
        )
        pod = Pod("pod", host.pod().netns, "poddev0")
        veth = host.add(pod)["interfaces"][1]["name"]
        host.run("ip", "link", "add", "after", "type", "bridge")
        wait_for(lambda: " after:" in seen.read_text(), "the watcher has seen all events")
    finally:
        watcher.kill()
        watcher.wait()
    assert f" {veth}@" in seen.read_text()
    assert "poddev0" not in seen.read_text()


def test_host_veth_carries_its_owners_mark(host: Host) -> None:
    veth = host.add(host.pod(), CNI_ARGS="K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0")["interfaces"][1]["name"]
    assert host.links()[veth]["ifalias"] == "cnictl:mynet/shop/web-0"


def test_mark_too_long_for_the_kernel_is_truncated(host: Host) -> None:
    name = "ä" * 200
    veth = host.add(host.pod(), CNI_ARGS=f"K8S_POD_NAME={name}")["interfaces"][1]["name"]
    alias = host.links()[veth]["ifalias"]
    assert alias.startswith("cnictl:mynet/ää")
    assert 250 < len(alias.encode()) <= 255


def test_bridge_keeps_its_mac_when_a_port_with_a_lower_one_joins(host: Host) -> None:
    pod, other = host.pods(2)
    mac = host.add(pod)["interfaces"][0]["mac"]
    host.run("ip", "link", "add", "low", "address", "02:00:00:00:00:01", "type", "veth", "peer", "name", "low-peer")
    host.run("ip", "link", "set", "low", "master", "cni0", "up")
    host.delete(pod)
    host.add(other)
    host.delete(other)
    assert host.links()["cni0"]["address"] == mac


@pytest.mark.parametrize("conf", [{}, {"subnet": "fd00:10:244::/64", "network": "fd00:10::/32"}], ids=["IPv4", "IPv6"])
def test_recreated_bridge_has_its_former_mac(host: Host, conf: Json) -> None:
    pod, other = host.pods(2)
    mac = host.add(pod, {**WALK_THROUGH, **conf})["interfaces"][0]["mac"]
    host.run("ip", "link", "delete", "cni0")
    assert host.add(other, {**WALK_THROUGH, **conf})["interfaces"][0]["mac"] == mac == host.links()["cni0"]["address"]


def test_bridge_keeps_its_mtu_when_a_smaller_port_joins(host: Host) -> None:
    pod, other = host.pods(2)
    host.add(pod)
    host.run("ip", "link", "add", "small", "mtu", "1400", "type", "veth", "peer", "name", "small-peer")
    host.run("ip", "link", "set", "small", "master", "cni0")
    veth = host.add(other)["interfaces"][1]["name"]
    links = host.links()
    assert (links["cni0"]["mtu"], links[veth]["mtu"]) == (1500, 1500)


def test_mtu_of_the_conf_holds_for_bridge_and_pair(host: Host) -> None:
    pod = host.pod()
    result = host.add(pod, {**WALK_THROUGH, "cniVersion": "1.1.0", "mtu": 1400})
    assert [interface["mtu"] for interface in result["interfaces"]] == [1400, 1400, 1400]
    inside = host.pod_link(pod)
    assert inside is not None and inside["mtu"] == 1400
    assert host.links()["cni0"]["mtu"] == 1400


def test_hairpin_mode_lets_a_pod_reach_itself_through_the_bridge(host: Host) -> None:
    plain, hairpin = host.pods(2)
    veths = [host.add(plain)["interfaces"][1]["name"]]
    veths.append(host.add(hairpin, {**WALK_THROUGH, "hairpinMode": True})["interfaces"][1]["name"])
    links = host.links()
    assert [links[veth]["linkinfo"]["info_slave_data"]["hairpin"] for veth in veths] == [False, True]


def test_manually_created_bridge_with_the_right_address_is_used_unchanged(host: Host) -> None:
    host.run("ip", "link", "add", "cni0", "type", "bridge")
    host.run("ip", "address", "add", "10.244.0.1/24", "dev", "cni0")
    index = host.links()["cni0"]["ifindex"]
    pod = host.pod()
    host.add(pod)
    cni0 = host.links()["cni0"]
    assert (cni0["ifindex"], cni0.get("ifalias")) == (index, None)
    assert host.pings(pod, "10.244.0.1")


def test_bridge_of_another_name(host: Host) -> None:
    result = host.add(host.pod(), {**WALK_THROUGH, "bridge": "pods-br0"})
    assert result["interfaces"][0]["name"] == "pods-br0"
    assert "cni0" not in host.links()


def test_reference_ipam_object_is_accepted(host: Host) -> None:
    conf = {
        "cniVersion": "1.0.0",
        "name": "ranged",
        "type": "cnictl-bridge",
        "isGateway": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": "10.9.0.0/24", "rangeStart": "10.9.0.20", "gateway": "10.9.0.254"}]],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "198.51.100.0/24", "gw": "10.9.0.9"}],
        },
    }
    pod = host.pod()
    result = host.add(pod, conf)
    assert result["ips"] == [{"address": "10.9.0.20/24", "gateway": "10.9.0.254", "interface": 2}]
    routes = {(route["dst"], route["gateway"]) for route in host.routes(pod)}
    assert routes == {("default", "10.9.0.254"), ("198.51.100.0/24", "10.9.0.9")}
    assert host.leases("ranged") == {"10.9.0.20": "pod\r\neth0"}


def test_addresses_are_given_in_turn_before_a_freed_one_is_reused(host: Host) -> None:
    former, other, third = host.pods(3)
    first = host.plugin("ADD", former).address
    host.delete(former)
    assert first == "10.244.0.2"
    assert [host.plugin("ADD", pod).address for pod in (other, third)] == ["10.244.0.3", "10.244.0.4"]


def test_second_interface_keeps_the_first_ones_default_route(host: Host) -> None:
    pod = host.pod()
    host.add(pod)
    second = {**WALK_THROUGH, "name": "second", "bridge": "cni1", "network": "10.99.0.0/16", "subnet": "10.99.0.0/24"}
    result = host.add(Pod(pod.container, pod.netns, "eth1"), second)
    assert result["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.99.0.1"}]
    assert host.routes(pod) == [
        {"dst": "default", "gateway": "10.244.0.1", "dev": "eth0", "flags": []},
        {"dst": "default", "gateway": "10.99.0.1", "dev": "eth1", "metric": 1, "flags": []},
    ]
    assert host.pings(pod, "10.99.0.1")
    host.delete(Pod(pod.container, pod.netns, "eth1"), second)
    assert host.routes(pod) == [{"dst": "default", "gateway": "10.244.0.1", "dev": "eth0", "flags": []}]
    assert host.pings(pod, "10.244.0.1")


def test_address_and_mac_can_be_requested(host: Host) -> None:
    pod = host.pod()
    result = host.add(pod, CNI_ARGS="IgnoreUnknown=1;IP=10.244.0.77;MAC=02:11:22:33:44:55")
    assert result["ips"][0]["address"] == "10.244.0.77/24"
    inside = host.pod_link(pod)
    assert inside is not None and inside["address"] == "02:11:22:33:44:55"


@pytest.mark.parametrize("wanted", ["10.244.0.2", "10.244.0.1", "10.244.0.0", "10.244.0.255", "10.244.1.7"])
def test_address_that_is_not_available_is_a_conflict_and_nothing_is_left(host: Host, wanted: str) -> None:
    host.add(host.pod("holder"))
    pod = host.pod()
    before = host.traces()
    error = host.plugin("ADD", pod, CNI_ARGS=f"IP={wanted}").error
    assert error["code"] == 101
    assert wanted in error["msg"]
    assert host.traces() == before
    assert host.pod_link(pod) is None


def test_existing_interface_name_is_refused_and_everything_undone(host: Host) -> None:
    pod = host.pod()
    host.inside(pod, "ip", "link", "add", "eth0", "type", "bridge")
    before = host.traces()
    error = host.plugin("ADD", pod).error
    assert error["code"] == 102
    assert "eth0" in error["msg"]
    assert host.traces() == before
    inside = host.pod_link(pod)
    assert inside is not None and inside["addr_info"] == []


def test_second_add_of_an_attachment_is_refused_and_the_first_keeps_working(host: Host) -> None:
    pod = host.pod()
    host.add(pod)
    before = host.traces()
    error = host.plugin("ADD", pod).error
    assert error["code"] == 102
    assert "10.244.0.2" in error["msg"]
    assert host.traces() == before
    assert host.pings(pod, "10.244.0.1")


def test_missing_namespace_is_error_3_and_nothing_is_created(host: Host) -> None:
    before = host.traces()
    error = host.plugin("ADD", Pod("pod", "/run/netns/gone")).error
    assert error["code"] == 3
    assert "/run/netns/gone" in error["msg"]
    assert host.traces() == before


@pytest.mark.parametrize("netns", ["/proc/self/ns/mnt", "/proc/version", "/run", "/proc/self/ns/net", "/proc/1/ns/net"])
def test_path_that_is_not_a_pod_namespace_is_error_4(host: Host, netns: str) -> None:
    """One of them is the host's own namespace: a pod's address there would cut the node off from the network."""
    before = host.traces()
    if netns == "/proc/1/ns/net":
        netns = f"/proc/{host.pid}/ns/net"
    assert host.plugin("ADD", Pod("pod", netns)).code == 4
    assert host.traces() == before


@pytest.mark.parametrize("masquerade", [False, True])
def test_exhausted_subnet_is_a_clean_error_and_nothing_is_left(host: Host, masquerade: bool) -> None:
    host.conf |= {"subnet": "10.244.0.0/30", "ipMasq": masquerade}
    holder, pod = host.pods(2)
    host.add(holder)
    before = host.traces()
    error = host.plugin("ADD", pod).error
    assert error["code"] == 100
    assert "10.244.0.0/30" in error["msg"]
    assert host.traces() == before
    assert host.pod_link(pod) is None
    host.delete(holder)
    assert host.plugin("ADD", pod).address == "10.244.0.2"


@pytest.mark.parametrize("masquerade", [False, True])
def test_failed_first_add_removes_its_bridge_and_rules(host: Host, masquerade: bool) -> None:
    host.conf |= {"ipMasq": masquerade}
    pod = host.pod()
    host.inside(pod, "ip", "link", "add", "eth0", "type", "bridge")
    before = host.traces()
    assert host.plugin("ADD", pod).code == 102
    assert host.traces() == before
    assert "cni0" not in host.links()


def test_add_in_a_full_subnet_first_frees_provably_stale_leases(host: Host) -> None:
    host.conf["subnet"] = "10.244.0.0/29"
    pods = host.pods(5)
    addresses = [host.plugin("ADD", pod).address for pod in pods]
    newcomer, late = host.pods(2, "new")
    assert host.plugin("ADD", newcomer).code == 100
    host.kill(pods[2])
    wait_for(lambda: len(host.ports()) == 4, "the dead pod's veth disappears")
    assert host.plugin("ADD", newcomer).address == addresses[2]
    assert host.records() == {f"{pod.container}@eth0" for pod in [*pods[:2], *pods[3:], newcomer]}
    assert host.plugin("ADD", late).code == 100
    assert host.pings(newcomer, addresses[0])


def test_add_in_a_full_subnet_frees_leases_from_before_the_last_boot(host: Host) -> None:
    host.conf["subnet"] = "10.244.0.0/30"
    old, new = host.pods(2)
    host.add(old)
    record = host.path(f"{RECORDS}/mynet/{old.container}@eth0")
    document = json.loads(record.read_text())
    host.run("ip", "link", "delete", document["host_veth"])
    document["boot_id"] = "00000000-0000-4000-8000-000000000000"
    record.write_text(json.dumps(document))
    assert host.plugin("ADD", new).address == "10.244.0.2"


def test_bridge_with_another_address_is_an_error_that_names_both(host: Host) -> None:
    host.run("ip", "link", "add", "cni0", "type", "bridge")
    host.run("ip", "address", "add", "10.50.0.1/24", "dev", "cni0")
    pod = host.pod()
    before = host.traces()
    error = host.plugin("ADD", pod).error
    assert error["code"] == 105
    assert "10.50.0.1/24" in error["msg"] and "10.244.0.1/24" in error["msg"]
    assert host.traces() == before


def test_link_that_is_not_a_bridge_is_not_modified(host: Host) -> None:
    host.run("ip", "link", "add", "cni0", "type", "veth", "peer", "name", "cni1")
    before = host.traces()
    error = host.plugin("ADD", host.pod()).error
    assert error["code"] == 105
    assert "not a bridge but a veth" in error["msg"]
    assert host.traces() == before


@pytest.mark.parametrize("inodes", range(1, 9))
@pytest.mark.parametrize("folder", ["cni", "cnictl"])
def test_full_disk_at_any_point_fails_cleanly(host: Host, folder: str, inodes: int) -> None:
    """With each number of inodes, another step is the first to find the disk full."""
    host.run("mkdir", f"/var/lib/{folder}")
    host.run("mount", "-t", "tmpfs", "-o", f"nr_inodes={inodes}", "small", f"/var/lib/{folder}")
    pod = host.pod()
    before = host.traces()
    answer = host.plugin("ADD", pod)
    if answer.status:
        assert answer.code == 5
        assert "No space left" in answer.error["msg"]
        assert host.traces() == before
        assert host.pod_link(pod) is None
    else:
        assert inodes > 3
        assert host.pings(pod, "10.244.0.1")


def test_read_only_disk_fails_cleanly(host: Host) -> None:
    host.run("mount", "-o", "remount,bind,ro", "/var/lib")
    before = host.traces()
    error = host.plugin("ADD", host.pod()).error
    assert error["code"] == 5
    assert "Read-only" in error["msg"]
    assert host.traces() == before


def test_result_that_nobody_reads_undoes_the_attachment(host: Host) -> None:
    """A runtime that has died does not know the pod and will never delete it."""
    pod = host.pod()
    before = host.traces()
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*host.enter, plugin_executable()],
        input=host.stdin(),
        env=host.environment("ADD", pod),
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    assert done.returncode == 1
    assert done.stderr == b"cnictl-bridge: can't write the answer to stdout: Broken pipe\n"
    assert host.traces() == before


def test_leases_are_in_the_data_dir_of_the_conf(host: Host) -> None:
    conf = {
        "cniVersion": "1.1.0",
        "name": "mynet",
        "type": "cnictl-bridge",
        "ipam": {"type": "host-local", "subnet": "10.244.0.0/24", "dataDir": "/var/lib/elsewhere"},
    }
    pod, other = host.pods(2)
    folder = host.path("/var/lib/elsewhere/mynet")
    host.add(pod, conf)
    host.add(other, conf)
    assert (folder / "10.244.0.2").read_bytes() == b"pod0\r\neth0"
    host.delete(pod)  # the conf may have changed since: the record has the lease's folder
    assert not (folder / "10.244.0.2").exists()
    assert host.collect([], conf).result == {}
    assert not (folder / "10.244.0.3").exists()
    assert host.leases() == {}


def test_two_networks_on_one_host_share_nothing(host: Host) -> None:
    other = {**WALK_THROUGH, "name": "other", "bridge": "cni1", "network": "10.99.0.0/16", "subnet": "10.99.0.0/24"}
    pod, second = host.pods(2)
    host.add(pod)
    host.add(second, other)
    assert host.leases() == {"10.244.0.2": "pod0\r\neth0"}
    assert host.leases("other") == {"10.99.0.2": "pod1\r\neth0"}
    before = host.traces()
    third = host.pod("third")
    host.add(third, other)
    host.delete(third, other)
    assert host.traces() == before


def test_simultaneous_adds_of_one_attachment_attach_once(host: Host) -> None:
    pod = host.pod()
    host.add(host.pod("first"))  # the bridge already exists: neither call is delayed by creating it
    answers = [finish(started) for started in [host.start("ADD", pod) for _ in range(6)]]
    assert sorted(answer.status for answer in answers) == [0, 1, 1, 1, 1, 1]
    assert {answer.code for answer in answers if answer.status} <= {11, 102}
    assert len(host.leases()) == len(host.records()) == len(host.ports()) == 2
    assert host.pings(pod, "10.244.0.1")


def test_leases_are_where_host_local_looks_for_them(host: Host) -> None:
    host.add(host.pod())
    assert host.path(f"{LEASES}/mynet/10.244.0.2").read_bytes() == b"pod\r\neth0"
    assert host.path(f"{LEASES}/mynet/last_reserved_ip.0").read_bytes() == b"10.244.0.2"
