"""The plugin in a list with reference plugins: before portmap, firewall, bandwidth, tuning and sbr, or after others."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.kernel.plugin.chain import Chain, Failed
from tests.kernel.plugin.client import VALID, Host, Pod, plugin_executable
from tests.waiting import wait_for

Json = dict[str, Any]

NODE, OUTSIDE = "10.0.0.210", "10.0.0.1"
OURS: Json = {
    "type": "cnictl-bridge",
    "bridge": "cni0",
    "isDefaultGateway": True,
    "ipam": {"type": "host-local", "subnet": "10.244.0.0/24"},
}
IPERF3 = ("env", "TMPDIR=/run", "iperf3")
"""iperf3 keeps what it sends in a temporary file, and a host's /tmp may be read-only."""
PORTMAP: Json = {"type": "portmap", "capabilities": {"portMappings": True}}
PUBLISHED: Json = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}


def conflist(*plugins: Json, version: str = "1.0.0") -> Json:
    """Return a list with these plugins."""
    return {"cniVersion": version, "name": "mynet", "plugins": list(plugins)}


@pytest.fixture
def node(host: Host) -> Host:
    """A host that forwards, with an uplink to another host outside."""
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    host.run("ip", "netns", "add", "outside")
    host.run("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "eth0", "netns", "outside")
    host.run("ip", "address", "add", f"{NODE}/20", "dev", "uplink")
    host.run("ip", "link", "set", "uplink", "up")
    for line in (f"address add {OUTSIDE}/20 dev eth0", "link set eth0 up", "link set lo up"):
        host.run("ip", "-n", "outside", *line.split())
    host.run("ip", "-n", "outside", "route", "add", "10.244.0.0/24", "via", NODE)
    return host


@contextmanager
def server(host: Host, pod: Pod, *argv: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in the pod's network namespace until the block ends."""
    running = subprocess.Popen(
        [*host.enter, "nsenter", f"--net={pod.netns}", *argv], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield running
    finally:
        running.kill()
        running.wait()


def fetch(host: Host, pod: Pod, address: str, port: int) -> str:
    """Return what a client in the pod reads from that address and port."""
    script = f"import socket; print(socket.create_connection(({address!r}, {port}), 2).recv(99).decode())"
    return host.inside(pod, "python3", "-ISc", script, check=False)


def rules(host: Host) -> list[str]:
    """Return the firewall's rules, without the base chains that plugins keep for the next pod."""
    return [line for line in host.run("nft", "-s", "list", "ruleset").splitlines() if "10.244.0." in line]


def test_portmap_leads_from_the_nodes_address_to_the_pod_until_del(node: Host) -> None:
    chain = Chain(node, conflist({**OURS, "ipMasq": True, "hairpinMode": True}, PORTMAP))
    pod, neighbour = node.pods(2)
    result = chain.add(pod, PUBLISHED)
    chain.add(neighbour)
    answer = (
        "import socket; s = socket.create_server(('', 80)); c = [s.accept()[0].sendall(b'hello') for _ in iter(int, 1)]"
    )
    outside = Pod("outside", "/run/netns/outside")
    with server(node, pod, "python3", "-ISc", answer):
        wait_for(lambda: fetch(node, neighbour, "10.244.0.2", 80) == "hello\n", "the server in the pod")
        for client in (outside, neighbour, pod, Pod("node", f"/proc/{node.pid}/ns/net")):
            assert fetch(node, client, NODE, 8080) == "hello\n", client
    chain.delete(pod, PUBLISHED)
    assert rules(node) and result["interfaces"][1]["name"] not in node.links()  # the masquerade belongs to the network
    chain.delete(neighbour)
    assert not [line for line in rules(node) if "8080" in line or "10.244.0.2" in line]
    assert node.leases() == {} and node.ports() == set() and node.records() == set()


def test_firewall_plugin_accepts_the_pod_if_forwarding_is_dropped(node: Host) -> None:
    chain = Chain(node, conflist(OURS, {"type": "firewall"}))
    node.run("iptables", "-P", "FORWARD", "DROP")
    open_, closed = node.pods(2)
    chain.add(open_)
    Chain(node, conflist(OURS)).add(closed)
    assert node.pings(open_, OUTSIDE) and not node.pings(closed, OUTSIDE)
    chain.check(open_)
    chain.delete(open_)
    assert "10.244.0.2" not in node.run("iptables", "-S")


def test_bandwidth_limits_what_iperf3_measures(node: Host) -> None:
    pods = {}
    for name, extra in (
        ("free", ()),
        ("bound", ({"type": "bandwidth", "ingressRate": 20_000_000, "ingressBurst": 1_000_000},)),
    ):
        pods[name] = node.pod(name)
        chain = Chain(node, conflist(OURS, *extra))
        address = chain.add(pods[name])["ips"][0]["address"].partition("/")[0]
        with server(node, pods[name], *IPERF3, "--server", "--one-off"):

            def measured(at: str = address) -> Json | None:
                said = node.run(*IPERF3, "--json", "--client", at, "--time", "1", check=False)
                answer: Json = json.loads(said)
                return answer if "error" not in answer else None

            report = wait_for(measured, "iperf3's server")
        assert report is not None
        rate = report["end"]["sum_received"]["bits_per_second"]
        print(f"{name}: {rate / 1e6:.0f} Mbit/s")
        assert (1e6 < rate < 40e6) if name == "bound" else rate > 60e6
        chain.check(pods[name])
        chain.delete(pods[name])
    assert node.ports() == set() and not [name for name in node.links() if name.startswith("bwp")]


def test_check_uses_the_result_that_tuning_changed(node: Host) -> None:
    mac = "02:11:11:11:11:11"
    chain = Chain(node, conflist(OURS, {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}, "mac": mac}))
    pod = node.pod()
    assert chain.add(pod)["interfaces"][2]["mac"] == mac
    link = node.pod_link(pod)
    assert link is not None and link["address"] == mac
    assert node.inside(pod, "sysctl", "-n", "net.core.somaxconn").strip() == "500"
    chain.check(pod)
    assert node.pings(pod, OUTSIDE)
    chain.delete(pod)
    assert node.leases() == {} and node.ports() == set()


def test_sbr_gives_each_interface_of_a_pod_its_own_routes(node: Host) -> None:
    pod = node.pod()
    first = Chain(node, conflist(OURS, {"type": "sbr"}))
    other = {**OURS, "bridge": "cni1", "ipam": {"type": "host-local", "subnet": "10.245.0.0/24"}}
    second = Chain(node, {**conflist(other, {"type": "sbr"}), "name": "other"})
    twin = Pod(pod.container, pod.netns, "net1")
    first.add(pod)
    second.add(twin)
    for attached, source in ((pod, "10.244.0.2"), (twin, "10.245.0.2")):
        route = json.loads(node.inside(pod, "ip", "-j", "route", "get", OUTSIDE, "from", source))[0]
        assert route["dev"] == attached.ifname
    first.check(pod)
    second.check(twin)
    second.delete(twin)
    node.inside(pod, "ping", "-n", "-c1", "-W2", "-I", "10.244.0.2", OUTSIDE)
    first.delete(pod)
    assert node.leases() == node.leases("other") == {} and node.ports() == node.ports("cni1") == set()


def test_all_plugins_in_one_list_leave_nothing(node: Host) -> None:
    limits = {"type": "bandwidth", "capabilities": {"bandwidth": True}}
    plugins = (OURS, PORTMAP, {"type": "firewall"}, limits, {"type": "tuning", "mtu": 1400})
    chain = Chain(node, conflist(*plugins))
    wishes = {**PUBLISHED, "bandwidth": {"ingressRate": 10_000_000, "ingressBurst": 1_000_000}}
    pods = node.pods(3)
    chain.add(pods[0], wishes)
    for pod in pods[1:]:
        chain.add(pod)
    link = node.pod_link(pods[0])
    assert link is not None and link["mtu"] == 1400
    assert " tbf " in node.run("tc", "qdisc")
    # Debian's portmap fails its own CHECK, and its bandwidth crashes in CHECK if the pod has no limits
    chain.check(pods[1], but=("portmap", "bandwidth"))
    node.kill(pods[2])  # after that, DEL must pass through the whole list too
    for pod in pods:
        chain.delete(Pod(pod.container, "" if pod is pods[2] else pod.netns), wishes if pod is pods[0] else None)
    assert node.leases() == {} and node.records() == set() and node.ports() == set()
    assert rules(node) == []


def test_failure_of_a_later_plugin_undoes_our_attachment(node: Host) -> None:
    chain = Chain(node, conflist(OURS, {"type": "tuning", "sysctl": {"net.no_such_setting": "1"}}))
    pod = node.pod()
    with pytest.raises(Failed) as failed:
        chain.add(pod)
    assert failed.value.kind == "tuning"
    assert node.leases() == {} and node.records() == set() and node.pod_link(pod) is None


def test_result_of_an_earlier_plugin_is_kept_in_ours(node: Host) -> None:
    chain = Chain(node, conflist({"type": "loopback"}, OURS, PORTMAP))
    pod = node.pod()
    result = chain.add(pod, PUBLISHED)
    names = [interface["name"] for interface in result["interfaces"]]
    assert (names[0], names[2:]) == ("cni0", ["eth0", "lo"])
    places = {ip["address"]: names[ip["interface"]] for ip in result["ips"]}
    assert next(iter(places.items())) == ("10.244.0.2/24", "eth0")
    assert places["127.0.0.1/8"] == "lo"
    chain.check(pod, PUBLISHED, but=("portmap",))
    chain.delete(pod, PUBLISHED)
    assert node.leases() == {} and node.ports() == set()


def test_gc_and_status_of_a_list_of_the_newest_version(node: Host) -> None:
    chain = Chain(node, conflist(OURS, version="1.1.0"))
    kept, lost = node.pods(2)
    chain.add(kept)
    chain.add(lost)
    chain.status()
    chain.collect([kept])
    assert list(node.leases().values()) == [f"{kept.container}\r\neth0"]
    chain.check(kept)


def test_several_networks_on_one_node_and_several_interfaces_in_one_pod(node: Host) -> None:
    """A pod has one interface in one network and two in another; each can be deleted without affecting the others."""
    other = {**OURS, "bridge": "cni1", "isDefaultGateway": False, "isGateway": True,
             "ipam": {"type": "host-local", "subnet": "10.245.0.0/24"}}  # fmt: skip
    nets = (Chain(node, conflist(OURS)), Chain(node, {**conflist(other), "name": "other"}))
    pod, neighbour = node.pods(2)
    interfaces = [(nets[0], pod), (nets[0], Pod(pod.container, pod.netns, "net0")),
                  (nets[1], Pod(pod.container, pod.netns, "net1"))]  # fmt: skip
    for net, attached in interfaces:
        net.add(attached)
    nets[1].add(neighbour)
    assert sorted(node.leases().values()) == ["pod0\r\neth0", "pod0\r\nnet0"]
    assert sorted(node.leases("other").values()) == ["pod0\r\nnet1", "pod1\r\neth0"]
    assert node.pings(pod, OUTSIDE) and node.pings(pod, "10.245.0.3")
    for net, attached in interfaces:
        net.check(attached)
    nets[0].delete(interfaces[1][1])
    for net, attached in (interfaces[0], interfaces[2]):
        net.check(attached)
    nets[1].delete(interfaces[2][1])
    nets[0].check(pod)
    nets[1].check(neighbour)
    assert node.pings(pod, OUTSIDE)
    nets[0].delete(pod)
    nets[1].delete(neighbour)
    assert node.leases() == node.leases("other") == {} and node.ports() == node.ports("cni1") == set()


def test_the_runner_itself_follows_the_specification(host: Host) -> None:
    """A plugin that records its requests shows that the runner follows section 3."""
    scribe = "#!/bin/sh\ncat >>/run/scribe/$CNI_COMMAND-$(basename $0); [ $CNI_COMMAND != ADD ] || echo '{}'\n"
    host.run("mkdir", "-p", "/run/scribe/bin")
    for name in ("first", "second"):
        host.path(f"/run/scribe/bin/{name}").write_text(scribe)
        host.run("chmod", "755", f"/run/scribe/bin/{name}")
    plugins = ({"type": "first", "capabilities": {"ips": True, "mac": False}}, {"type": "second", "name": "wrong"})
    chain = Chain(host, conflist(*plugins), ("/run/scribe/bin",))
    pod = Pod("c1", "/run/netns/c1")
    chain.add(pod, {"ips": ["10.0.0.1"], "mac": "02:00:00:00:00:01"})
    chain.delete(pod)
    chain.collect([pod])

    def seen(verb: str, kind: str) -> Json:
        request: Json = json.loads(host.path(f"/run/scribe/{verb}-{kind}").read_text())
        return request

    base = {"cniVersion": "1.0.0", "name": "mynet"}
    assert seen("ADD", "first") == {**base, "type": "first", "runtimeConfig": {"ips": ["10.0.0.1"]}}
    assert seen("ADD", "second") == {**base, "type": "second", "prevResult": {}}
    assert seen("DEL", "first") == {**base, "type": "first", "prevResult": {}}
    assert seen("GC", "second") == {**base, "type": "second", VALID: [{"containerID": "c1", "ifname": "eth0"}]}
    assert chain.cache == {} and plugin_executable()
