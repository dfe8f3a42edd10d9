"""`portIsolation`: isolated pods can't reach each other, neither over the bridge nor through the node."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.kernel.plugin.client import Host, Pod, new_host

Json = dict[str, Any]

CONF: Json = {
    "cniVersion": "1.1.0",
    "name": "apart",
    "type": "cnictl-bridge",
    "isDefaultGateway": True,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.9.0.0/24"}], [{"subnet": "fd00:9::/64"}]]},
}
APART: Json = {**CONF, "portIsolation": True}
BACKENDS = {"nft": "nftables", "iptables": "iptables"}
NODE, OUTSIDE = ("192.0.2.1", "2001:db8::1"), ("192.0.2.2", "2001:db8::2")
GATEWAY = ("10.9.0.1", "fd00:9::1")


class World:
    """A host with two isolated pods and an open one on cni0, and another host outside."""

    def __init__(self, host: Host, backend: str) -> None:
        self.host = host
        self.conf = {**APART, "ipMasqBackend": BACKENDS[backend]}
        self.one, self.other, self.open = host.pods(3)
        self.results = {}
        for pod, conf in ((self.one, self.conf), (self.other, self.conf), (self.open, CONF)):
            self.results[pod] = host.add(pod, conf)

    def addresses(self, pod: Pod) -> list[str]:
        return [ip["address"].partition("/")[0] for ip in self.results[pod]["ips"]]

    def route(self, pod: Pod, target: Pod) -> None:
        """Route a pod's packets for another pod through the gateway."""
        for family, gateway, address in zip(("-4", "-6"), GATEWAY, self.addresses(target), strict=True):
            self.host.inside(pod, "ip", family, "route", "replace", address, "via", gateway)


@pytest.fixture(scope="module", params=BACKENDS)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with new_host() as host:
        host.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        host.run("ip", "netns", "add", "outside")
        host.run("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "eth0", "netns", "outside")
        host.run("ip", "link", "set", "uplink", "up")
        host.run("ip", "-n", "outside", "link", "set", "eth0", "up")
        for near, far in zip(NODE, OUTSIDE, strict=True):
            prefix = "64" if ":" in near else "24"
            host.run("ip", "address", "add", f"{near}/{prefix}", "dev", "uplink", *(["nodad"] if ":" in near else []))
            more = ["nodad"] if ":" in near else []
            host.run("ip", "-n", "outside", "address", "add", f"{far}/{prefix}", "dev", "eth0", *more)
            family = "-6" if ":" in near else "-4"
            host.run("ip", "-n", "outside", family, "route", "add", "default", "via", near)
        yield World(host, request.param)


@contextmanager
def capture(host: Host, pod: Pod) -> Iterator[list[str]]:
    """Collect the sources of UDP datagrams to port 7 that the pod receives, up to the node's final datagram."""
    script = (
        "import socket\n"
        "s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.bind(('::', 7)); print('ready', flush=True)\n"
        "while True:\n"
        "    said, peer = s.recvfrom(99); print(peer[0].removeprefix('::ffff:'), said.decode(), flush=True)\n"
        "    if said == b'last': break\n"
    )
    listening = subprocess.Popen(
        [*host.enter, "nsenter", f"--net={pod.netns}", "python3", "-ISc", script], stdout=subprocess.PIPE, text=True
    )
    assert listening.stdout is not None and listening.stdout.readline() == "ready\n"
    sources: list[str] = []
    try:
        yield sources
    finally:
        sources += [line.split()[0] for line in listening.communicate(timeout=20)[0].splitlines()]


SEND = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
socket.socket(family, socket.SOCK_DGRAM).sendto(sys.argv[2].encode(), (sys.argv[1], 7))
"""


def send(host: Host, sender: Pod | None, address: str, word: str = "hello") -> None:
    command = ("python3", "-ISc", SEND, address, word)
    if sender is None:
        host.run(*command)
    else:
        host.inside(sender, *command)


def reached(world: World, sender: Pod, target: Pod) -> set[str]:
    """Return the sources of the datagrams that `target` receives when `sender` sends to its addresses.

    All MAC addresses on the way are resolved first: no datagram is still waiting when the node's last one arrives.
    """
    host, addresses = world.host, world.addresses(target)
    assert all(host.pings(sender, gateway) for gateway in GATEWAY)
    assert all(" 1 received" in host.run("ping", "-n", "-c1", "-W2", address) for address in addresses)
    with capture(host, target) as sources:
        for address in addresses:
            send(host, sender, address)
        send(host, None, addresses[0], "last")
    return set(sources) - set(GATEWAY)


def test_isolated_pods_do_not_reach_each_other_through_the_node(world: World) -> None:
    for sender, other in ((world.one, world.other), (world.other, world.one)):
        world.route(sender, other)
        world.route(other, sender)
        assert reached(world, sender, other) == set()
    assert not any(world.host.pings(world.one, address) for address in world.addresses(world.other))


def test_proxy_arp_on_the_host_does_not_break_isolation(world: World) -> None:
    """The bridge has proxy_arp for its own subnet, as a router with private VLANs has, and sends ICMP redirects."""
    host = world.host
    for key in ("proxy_arp", "proxy_arp_pvlan", "send_redirects"):
        host.run("sysctl", "-qw", f"net.ipv4.conf.cni0.{key}=1")
    host.inside(world.one, "ip", "neigh", "flush", "all")
    host.inside(world.one, "ip", "route", "flush", "cache")
    assert reached(world, world.one, world.other) == set()
    for key in ("proxy_arp", "proxy_arp_pvlan"):
        host.run("sysctl", "-qw", f"net.ipv4.conf.cni0.{key}=0")


def test_a_pod_with_a_forged_source_is_still_isolated(world: World) -> None:
    host = world.host
    host.inside(world.one, "ip", "address", "add", "10.9.0.200/32", "dev", "eth0")
    host.inside(world.one, "ip", "route", "replace", world.addresses(world.other)[0], "via", GATEWAY[0],
                "src", "10.9.0.200")  # fmt: skip
    assert reached(world, world.one, world.other) == set()
    world.route(world.one, world.other)
    host.inside(world.one, "ip", "address", "delete", "10.9.0.200/32", "dev", "eth0")


def test_gateway_node_outside_and_open_pods_stay_reachable(world: World) -> None:
    host = world.host
    for address in (*GATEWAY, *NODE, *OUTSIDE, *world.addresses(world.open)):
        assert host.pings(world.one, address), address
    for address in world.addresses(world.one):
        assert host.pings(world.open, address), address
        assert host.pings(Pod("outside", "/run/netns/outside"), address), address
        assert " 1 received" in host.run("ping", "-n", "-c1", "-W2", address), address
    world.route(world.one, world.open)
    for address in world.addresses(world.open):
        assert host.pings(world.one, address), address
    for family, address in zip(("-4", "-6"), world.addresses(world.open), strict=True):
        host.inside(world.one, "ip", family, "route", "delete", address)


def test_a_published_port_of_an_isolated_pod_is_reachable_for_everybody(world: World) -> None:
    """It is reachable at the node's address, both from outside and from a neighbour.

    A neighbour can't reach it if br_netfilter passes the bridge's frames to iptables: the kernel then bridges a packet
    whose new destination is on the same bridge (net/bridge/br_netfilter_hooks.c, br_nf_pre_routing_finish), and the
    port's isolation applies.
    """
    host = world.host
    shown = host.links()["cni0"]["linkinfo"]["info_data"]
    hooks = {key: shown[key] for key in ("nf_call_iptables", "nf_call_ip6tables")}
    host.run("ip", "link", "set", "cni0", "type", "bridge", *(word for key in hooks for word in (key, "0")))
    for key in ("iptables", "ip6tables"):
        host.run("sysctl", "-qw", f"net.bridge.bridge-nf-call-{key}=0", check=False)
    rules: list[tuple[str, ...]] = []
    assert all(host.pings(pod, node) for node in NODE for pod in (world.one, Pod("outside", "/run/netns/outside")))
    assert all(
        " 1 received" in host.run("ping", "-n", "-c1", "-W2", address) for address in world.addresses(world.other)
    )
    for program, node, pod in zip(("iptables", "ip6tables"), NODE, world.addresses(world.other), strict=True):
        target = f"[{pod}]:7" if ":" in pod else f"{pod}:7"
        rules.append((program, "PREROUTING", "-d", node, "-p", "udp", "--dport", "7", "-j", "DNAT", "--to", target))
        rules.append((program, "POSTROUTING", "-d", pod, "-p", "udp", "--dport", "7", "-j", "MASQUERADE"))
    with ExitStack() as stack:
        for program, *rule in rules:
            host.run(program, "-t", "nat", "-A", *rule)
            stack.callback(host.run, program, "-t", "nat", "-D", *rule)
        with capture(host, world.other) as sources:
            for address in NODE:
                send(host, world.one, address)
                send(host, Pod("outside", "/run/netns/outside"), address)
            send(host, None, world.addresses(world.other)[0], "last")
    host.run("ip", "link", "set", "cni0", "type", "bridge", *(str(w) for hook in hooks.items() for w in hook))
    assert sorted(sources) == sorted([*GATEWAY] * 2 + [GATEWAY[0]])


@pytest.mark.parametrize("tags", ["8100e000", "8100e00081006000", "88a8000081000000"])
def test_a_vlan_0_tag_does_not_bypass_isolation(world: World, tags: str) -> None:
    """The node removes such tags and would route the packet behind them."""
    host, (address, _) = world.host, world.addresses(world.other)
    script = f"""
import socket
def checksum(data):
    total = sum(int.from_bytes(data[i:i + 2], "big") for i in range(0, len(data), 2))
    return (0xFFFF - (total + (total >> 16) & 0xFFFF) ).to_bytes(2, "big")
head = bytes.fromhex("4500001d000000004011") + b"\\0\\0" + socket.inet_aton({world.addresses(world.one)[0]!r})
head += socket.inet_aton({address!r})
head = head[:10] + checksum(head) + head[12:]
frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
frames.bind(("eth0", 0))
mac = bytes.fromhex({host.links()["cni0"]["address"].replace(":", "")!r})
own = frames.getsockname()[4]
frames.send(mac + own + bytes.fromhex({tags + "0800"!r}) + head + bytes.fromhex("00070007000900006f") + bytes(30))
"""
    with capture(host, world.other) as sources:
        host.inside(world.one, "python3", "-ISc", script)
        send(host, None, address, "last")
    assert set(sources) == {GATEWAY[0]}
    with capture(host, world.open) as sources:  # without isolation, the same frame arrives
        target = script.replace(repr(address), repr(world.addresses(world.open)[0]))
        host.inside(world.one, "python3", "-ISc", target)
        send(host, None, world.addresses(world.open)[0], "last")
    expected = {GATEWAY[0], world.addresses(world.one)[0]}
    dropped = world.conf["ipMasqBackend"] == "nftables" and len(tags) > 8
    assert set(sources) == ({GATEWAY[0]} if dropped else expected)


def test_check_reports_flushed_rules_and_the_next_add_restores_them(world: World) -> None:
    host = world.host
    result, pod = world.results[world.one], world.one
    assert host.plugin("CHECK", pod, world.conf, result).result == {}
    if world.conf["ipMasqBackend"] == "nftables":
        host.run("sh", "-c", "nft list tables | grep cnictl-isolated | xargs -n3 nft delete")
    else:
        for program in ("iptables", "ip6tables"):
            host.run(program, "-t", "mangle", "-F")
            host.run(program, "-t", "mangle", "-X")
    error = host.plugin("CHECK", pod, world.conf, result).error
    assert error["code"] == 104 and error["msg"].startswith("portIsolation: the rules for veth")
    for sender, other in ((world.one, world.other), (world.other, world.one)):
        world.route(sender, other)
        # without the rules, the pods reach each other
        assert reached(world, sender, other) == set(world.addresses(sender))
    third = host.pod("third")
    host.add(third, world.conf)
    assert host.plugin("CHECK", pod, world.conf, result).result == {}
    world.route(world.one, world.other)
    assert reached(world, world.one, world.other) == set()
    host.delete(third, world.conf)


def rules(host: Host) -> str:
    """Return the isolation rules in both backends."""
    tables = [line for line in host.run("nft", "list", "tables").splitlines() if "cnictl-isolated" in line]
    saved = [host.run(f"{program}-save", "-t", "mangle", check=False) for program in ("iptables", "ip6tables")]
    return "\n".join([*tables, *(line for text in saved for line in text.splitlines() if "CNICTL" in line)])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("way", ["DEL", "DEL without netns", "GC", "failed ADD", "DEL without record"])
def test_isolation_leaves_nothing_behind(backend: str, way: str) -> None:
    with new_host() as host:
        conf = {**APART, "ipMasqBackend": BACKENDS[backend]}
        if way == "failed ADD":
            conf["ipam"] = {**conf["ipam"], "routes": [{"dst": "192.0.2.0/24", "gw": "203.0.113.1"}]}
            assert host.plugin("ADD", host.pod("fails"), conf).code == 103
            assert rules(host) == ""
            return
        first, other = host.pods(2)
        results = [host.add(pod, conf) for pod in (first, other)]
        assert rules(host)
        if way == "GC":
            assert host.plugin("GC", conf={**conf, "cni.dev/valid-attachments": []}).result == {}
        for pod, result in zip((first, other), results, strict=True):
            if way == "DEL without record" and backend == "nft":
                host.path(f"/var/lib/cnictl/attachments/apart/{pod.container}@eth0").unlink()
            host.delete(Pod(pod.container, "" if "netns" in way else pod.netns), conf, result)
        assert rules(host) == "" and host.ports() == set()


def test_a_host_without_nft_uses_iptables_and_one_without_both_is_an_error() -> None:
    with new_host() as host:
        pod = host.pod()
        before = host.traces()
        failed = host.plugin("ADD", pod, APART, PATH="/nonexistent")
        assert failed.code == 2 and failed.error["msg"].startswith("portIsolation: neither nft nor iptables")
        assert host.traces() == before
        host.run("mkdir", "-p", "/run/only")
        for program in ("iptables", "ip6tables"):
            host.run("sh", "-c", f"ln -s $(command -v {program}) /run/only/{program}")
        result = host.add(pod, APART, PATH="/run/only")
        assert "CNICTL-ISO-" in rules(host) and "cnictl-isolated" not in rules(host)
        assert host.plugin("CHECK", pod, APART, result, PATH="/run/only").result == {}
        host.delete(pod, APART, result, PATH="/run/only")
        assert rules(host) == ""


def test_layer_2_needs_no_firewall() -> None:
    with new_host() as host:
        conf = {"cniVersion": "1.0.0", "name": "wire", "type": "cnictl-bridge", "portIsolation": True}
        pod = host.pod()
        result = host.add(pod, conf, PATH="/nonexistent")
        assert rules(host) == "" and result["ips"] == []
        assert host.plugin("CHECK", pod, conf, result).result == {}
        host.delete(pod, conf, result)
