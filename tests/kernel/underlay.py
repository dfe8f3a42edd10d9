"""Give a host an uplink to another node's pod and a host outside, and return the source addresses seen there.

Both have a route to the node. Only the other node's pod also has a route to the node's pods.
"""

import subprocess

import pytest

from tests.kernel.plugin.client import Host, Pod

backends = pytest.mark.parametrize("backend", ["nftables", "iptables"])

NODE, NODE6 = "10.0.0.210", "fd00:10::210"
OUTSIDE, OUTSIDE6 = "192.0.2.10", "2001:db8::10"
OTHER_NODES_POD, OTHER_NODES_POD6 = "10.244.1.2", "fd00:244:0:1::2"
DUAL = {"subnet": ["10.244.0.0/24", "fd00:244::/64"], "network": ["10.244.0.0/20", "fd00:244::/48"]}
BEYOND = Pod("beyond", "/run/netns/beyond", "eth0")

_LISTENER = """
import socket, sys
port, *addresses = sys.argv[1:]
listeners = [socket.socket(socket.AF_INET6 if ":" in one else socket.AF_INET, socket.SOCK_DGRAM) for one in addresses]
for listener, address in zip(listeners, addresses):
    listener.bind((address, int(port)))
    listener.settimeout(5)
print("ready", flush=True)
print(*(listener.recvfrom(64)[1][0] for listener in listeners), flush=True)
"""
_SENDER = """
import socket, sys
port, *addresses = sys.argv[1:]
for address in addresses:
    sender = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    sender.sendto(b"?", (address, int(port)))
"""


@pytest.fixture
def underlay(host: Host) -> None:
    """Create one link that connects the host with another node, which has a pod, and with a host outside."""
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    host.run("ip", "netns", "add", "beyond")
    host.run("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "eth0", "netns", "beyond")
    host.run("ip", "link", "set", "uplink", "up")
    host.run("ip", "address", "add", f"{NODE}/20", "dev", "uplink")
    host.run("ip", "address", "add", f"{NODE6}/64", "dev", "uplink", "nodad")
    for line in (
        "link set lo up",
        "link set eth0 up",
        "address add 10.0.10.51/20 dev eth0",
        f"address add {OTHER_NODES_POD}/32 dev lo",
        f"address add {OUTSIDE}/32 dev lo",
        f"rule add from {OTHER_NODES_POD} lookup 100",
        f"route add 10.244.0.0/24 via {NODE} table 100",
        "address add fd00:10::51/64 dev eth0 nodad",
        f"address add {OTHER_NODES_POD6}/128 dev lo nodad",
        f"address add {OUTSIDE6}/128 dev lo nodad",
        f"-6 rule add from {OTHER_NODES_POD6} lookup 100",
        f"-6 route add fd00:244::/64 via {NODE6} table 100",
    ):
        host.inside(BEYOND, "ip", *line.split())
    for destination in ("10.244.1.0/24", "192.0.2.0/24"):
        host.run("ip", "route", "add", destination, "via", "10.0.10.51")
    for destination in ("fd00:244:0:1::/64", "2001:db8::/64"):
        host.run("ip", "-6", "route", "add", destination, "via", "fd00:10::51")


def seen(host: Host, pod: Pod, address: str, port: int = 99, receiver: Pod | None = BEYOND) -> str:
    """Return the source address with which a pod's datagram arrives at the receiver, or at the host if that is None."""
    (source,) = sources(host, pod, address, port=port, receiver=receiver)
    return source


def sources(host: Host, pod: Pod, *addresses: str, port: int = 99, receiver: Pod | None = BEYOND) -> tuple[str, ...]:
    """Return the source addresses with which a pod's datagrams to several addresses arrive."""
    place = ["nsenter", f"--net={receiver.netns}"] if receiver else []
    listener = subprocess.Popen(
        [*host.enter, *place, "python3", "-IS", "-c", _LISTENER, str(port), *addresses],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert listener.stdout is not None
    assert listener.stdout.readline() == "ready\n"
    host.inside(pod, "python3", "-IS", "-c", _SENDER, str(port), *addresses)
    return tuple(listener.communicate(timeout=20)[0].split())


def foreign_masquerade(host: Host, place: str = "-A POSTROUTING") -> None:
    """Add the masquerade rules of Docker and others: from the networks' subnets, to any link but the bridge."""
    host.run(*f"iptables -t nat {place} -s 10.244.0.0/16 ! -o cni0 -j MASQUERADE".split())
    host.run(*f"ip6tables -t nat {place} -s fd00:244::/32 ! -o cni0 -j MASQUERADE".split())


def masquerading(host: Host, backend: str) -> None:
    host.conf |= {**DUAL, "ipMasq": True, "ipMasqBackend": backend}
