"""`ipMasq`, judged by what the receiver sees: who a packet comes from, beside other tools' rules and after a flush."""

import subprocess

import pytest

from .plugin_client import Host, Pod

NODE = "10.0.0.210"
OUTSIDE = "192.0.2.10"
OTHER_NODES_POD = "10.244.1.2"
BEYOND = Pod("beyond", "/run/netns/beyond", "eth0")

_LISTENER = """
import socket, sys
listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
listener.bind((sys.argv[1], int(sys.argv[2])))
listener.settimeout(5)
print("ready", flush=True)
print(listener.recvfrom(64)[1][0], flush=True)
"""
_SENDER = """
import socket, sys
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"?", (sys.argv[1], int(sys.argv[2])))
"""

pytestmark = pytest.mark.usefixtures("underlay")
backends = pytest.mark.parametrize("backend", ["nftables", "iptables"])


@pytest.fixture
def underlay(host: Host) -> None:
    """One link to another node, that has a pod, and to a host outside, that knows the way to the nodes alone."""
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    host.run("ip", "netns", "add", "beyond")
    host.run("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "eth0", "netns", "beyond")
    host.run("ip", "link", "set", "uplink", "up")
    host.run("ip", "address", "add", f"{NODE}/20", "dev", "uplink")
    for line in (
        "link set lo up",
        "link set eth0 up",
        "address add 10.0.10.51/20 dev eth0",
        f"address add {OTHER_NODES_POD}/32 dev lo",
        f"address add {OUTSIDE}/32 dev lo",
        f"rule add from {OTHER_NODES_POD} lookup 100",
        f"route add 10.244.0.0/24 via {NODE} table 100",
    ):
        host.inside(BEYOND, "ip", *line.split())
    for destination in ("10.244.1.0/24", "192.0.2.0/24"):
        host.run("ip", "route", "add", destination, "via", "10.0.10.51")


def seen(host: Host, pod: Pod, address: str, port: int = 99, receiver: Pod | None = BEYOND) -> str:
    """The source that a datagram of the pod has where it arrives (on the host itself where no receiver is named)."""
    place = ["nsenter", f"--net={receiver.netns}"] if receiver else []
    listener = subprocess.Popen(
        [*host.enter, *place, "python3", "-c", _LISTENER, address, str(port)], stdout=subprocess.PIPE, text=True
    )
    assert listener.stdout is not None
    assert listener.stdout.readline() == "ready\n"
    host.inside(pod, "python3", "-c", _SENDER, address, str(port))
    return listener.communicate(timeout=10)[0].strip()


def foreign_masquerade(host: Host, place: str = "-A POSTROUTING") -> None:
    """What Docker, among others, adds for its networks: from the subnet, out of any link but the bridge."""
    host.run(*f"iptables -t nat {place} -s 10.244.0.0/16 ! -o cni0 -j MASQUERADE".split())


def masquerading(host: Host, backend: str) -> None:
    host.conf |= {"ipMasq": True, "ipMasqBackend": backend}


@backends
def test_outside_sees_the_node_and_other_nodes_pods_see_the_pod(host: Host, backend: str) -> None:
    masquerading(host, backend)
    pod, other = host.pods(2)
    host.add(pod)
    assert host.pings(pod, OUTSIDE)
    assert host.pings(pod, OTHER_NODES_POD)
    assert seen(host, pod, OUTSIDE) == NODE
    assert seen(host, pod, OTHER_NODES_POD) == "10.244.0.2"
    host.add(other)
    assert seen(host, pod, "10.244.0.3", receiver=other) == "10.244.0.2"
    assert seen(host, pod, "10.244.0.1", receiver=None) == "10.244.0.2"
    assert seen(host, pod, NODE, receiver=None) == "10.244.0.2"


@backends
@pytest.mark.parametrize("order", ["before", "after"])
def test_foreign_masquerade_does_not_take_pod_to_pod(host: Host, backend: str, order: str) -> None:
    masquerading(host, backend)
    pod = host.pod()
    if order == "before":
        foreign_masquerade(host)
    host.add(pod)
    if order == "after":
        foreign_masquerade(host)
    assert seen(host, pod, OTHER_NODES_POD) == "10.244.0.2"
    assert host.pings(pod, OTHER_NODES_POD)
    assert seen(host, pod, OUTSIDE) == NODE


@backends
def test_foreign_masquerade_put_first_gives_way_with_the_next_pod(host: Host, backend: str) -> None:
    masquerading(host, backend)
    pod, other = host.pods(2)
    host.add(pod)
    foreign_masquerade(host, "-I POSTROUTING 1")
    host.add(other)
    assert seen(host, pod, OTHER_NODES_POD) == "10.244.0.2"
    rules = host.traces()["rules"]
    host.add(host.pod("third"))
    assert host.traces()["rules"] == rules


def test_foreign_masquerade_takes_pod_to_pod_where_nothing_of_ours_stands(host: Host) -> None:
    """The counter-proof: the rule of the test above does what is said of it."""
    foreign_masquerade(host)
    pod = host.pod()
    host.add(pod)
    assert seen(host, pod, OTHER_NODES_POD) == NODE


@backends
@pytest.mark.parametrize("mark", ["0x4000", "0x2000"])
def test_packets_marked_for_masquerade_stay_kube_proxys_and_portmaps(host: Host, backend: str, mark: str) -> None:
    masquerading(host, backend)
    host.run(*f"iptables -t mangle -A PREROUTING -p udp --dport 77 -j MARK --set-mark {mark}".split())
    host.run(*f"iptables -t nat -A POSTROUTING -m mark --mark {mark}/{mark} -j MASQUERADE".split())
    pod = host.pod()
    host.add(pod)
    assert seen(host, pod, OTHER_NODES_POD, 77) == NODE
    assert seen(host, pod, OTHER_NODES_POD, 99) == "10.244.0.2"


def test_without_ip_masq_no_rule_is_loaded(host: Host) -> None:
    pod = host.pod()
    host.add(pod)
    assert host.traces()["rules"] == ""
    assert seen(host, pod, OUTSIDE) == "10.244.0.2"


@pytest.mark.parametrize(
    ("backend", "flush"),
    [
        ("nftables", "nft flush ruleset"),
        ("nftables", "nft delete table inet cnictl"),
        ("nftables", "nft flush chain inet cnictl masquerade-mynet"),
        ("nftables", "nft delete chain inet cnictl identity-mynet"),
        ("iptables", "nft flush ruleset"),
        ("iptables", "iptables -t nat -F"),
        ("iptables", "iptables -t nat -F POSTROUTING"),
    ],
)
def test_flushed_rules_are_back_with_the_next_pod(host: Host, backend: str, flush: str) -> None:
    masquerading(host, backend)
    pod, other = host.pods(2)
    host.add(pod)
    rules = sorted(host.traces()["rules"].splitlines())
    host.run(*flush.split())
    assert sorted(host.traces()["rules"].splitlines()) != rules
    host.add(other)
    assert sorted(host.traces()["rules"].splitlines()) == rules
    assert seen(host, pod, OUTSIDE) == NODE
    assert seen(host, other, OTHER_NODES_POD) == "10.244.0.3"


@backends
def test_rules_are_the_same_after_one_pod_and_after_many(host: Host, backend: str) -> None:
    masquerading(host, backend)
    pods = host.pods(4)
    host.add(pods[0])
    rules = host.traces()["rules"]
    for pod in pods[1:]:
        host.add(pod)
    for pod in pods[1:]:
        host.delete(pod)
    host.add(pods[1])
    assert host.traces()["rules"] == rules


@backends
def test_changed_network_replaces_the_rules(host: Host, backend: str) -> None:
    masquerading(host, backend)
    pod, other = host.pods(2)
    host.add(pod)
    host.conf["network"] = "10.244.0.0/24"  # what was pod to pod is outside from now on
    host.add(other)
    assert seen(host, pod, OTHER_NODES_POD) == NODE
    host.conf["network"] = "10.244.0.0/20"
    third = host.pod("third")
    host.add(third)
    assert seen(host, third, OTHER_NODES_POD) == "10.244.0.4"


@backends
def test_two_networks_masquerade_each_its_own(host: Host, backend: str) -> None:
    masquerading(host, backend)
    pod, other = host.pods(2)
    second = {**host.conf, "name": "second", "bridge": "cni1", "network": "10.99.0.0/16", "subnet": "10.99.0.0/24"}
    host.add(pod)
    host.add(other, second)
    assert seen(host, pod, OUTSIDE) == NODE
    assert seen(host, other, OUTSIDE) == NODE
    host.delete(other, second)
    assert seen(host, pod, OUTSIDE) == NODE


@backends
def test_foreign_rules_stay_as_they_are(host: Host, backend: str) -> None:
    masquerading(host, backend)
    foreign_masquerade(host)
    host.run("iptables", "-A", "FORWARD", "-s", "198.51.100.0/24", "-j", "DROP")
    host.run("nft", "add table inet theirs; add chain inet theirs c; add rule inet theirs c counter drop")
    before = host.traces()["rules"].splitlines()
    pod = host.pod()
    host.add(pod)
    host.delete(pod)
    after = host.traces()["rules"].splitlines()
    assert set(before) <= set(after)
