"""Test doctor's findings about other tools' firewall rules and about bridge ports."""

import subprocess

import pytest

from cnictl.core.errors import Problem
from tests.kernel.commands import Lines, call, seen_source, start_pod

from ..hints import applies
from . import port_race
from .harness import Case, World, note, run
from .test_kernel import NO_WAY_OUT, no_way_out

pytestmark = pytest.mark.once

SOURCE_LOST = "a peer's pod sees the node's address instead of the pod's"
VIP = "10.96.0.1"
OPEN_TO_SSH_ALONE = (
    "iptables -A INPUT -p icmp -j ACCEPT; iptables -A INPUT -p tcp --dport 22 -j ACCEPT; iptables -A INPUT -j REJECT"
)


def source_lost(world: World) -> bool:
    return seen_source(world.pod, world.far) != world.pod.address


def refused_by_its_node(world: World) -> bool:
    try:
        seen_source(world.pod, world.here, "tcp")
    except Problem:
        return True
    return False


def no_service(world: World) -> bool:
    """Return whether the Service is unreachable."""
    return not connects(world)


def connects(world: World) -> bool:
    script = f"import socket; socket.create_connection(('{VIP}', 80), 2)"
    return world.pod.run("/usr/bin/python3", "-c", script, check=False).status == 0


CASES = (
    Case(
        "two-iptables", "iptables-legacy -P FORWARD DROP", NO_WAY_OUT, no_way_out,
        restore="iptables-legacy -F FORWARD; iptables-legacy -P FORWARD ACCEPT",
    ),
    Case(
        "leaked-chain",
        "iptables -t nat -N CNI-0123; iptables -t nat -A CNI-0123 ! -d 224.0.0.0/4 -j MASQUERADE; "
        "iptables -t nat -A POSTROUTING -s {pod} -m comment --comment 'name: \"mynet\" id: \"gone\"' -j CNI-0123",
        SOURCE_LOST, source_lost, also="cnictl nat disable", restore="cnictl nat enable",
        hint="doctor.firewall._remnant_chains: {}",
    ),
    Case(
        "pods-masqueraded", "iptables -t nat -A POSTROUTING -s {cidr} ! -o cni0 -j MASQUERADE",
        SOURCE_LOST, source_lost, also="cnictl nat disable",
        restore="iptables -t nat -F POSTROUTING; cnictl nat enable", hint="doctor.firewall._pods_masqueraded: {}",
    ),
    Case(
        "own-host", OPEN_TO_SSH_ALONE, "a pod's TCP and UDP to its own node are refused, its ping is answered",
        refused_by_its_node, by_hand="iptables -I INPUT -i cni0 -s {cidr} -j ACCEPT", restore="iptables -F INPUT",
    ),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_only_the_fault_is_reported_and_its_fix_works(world: World, case: Case) -> None:
    run(world, case)


_SERVE = """
import socket
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("0.0.0.0", 7008))
server.listen()
print("ready", flush=True)
while True:
    server.accept()[0].close()
"""
_SERVICE = f"iptables -t nat -A PREROUTING -d {VIP} -p tcp --dport 80 -j DNAT --to-destination {{endpoint}}:7008"


@applies("doctor.links._hairpin: bridge link set dev {} hairpin on")
@pytest.mark.parametrize(
    ("check", "endpoint", "fault", "symptom", "hint"),
    [
        (
            "bridge-hooks", "other",
            "ip link set cni0 type bridge nf_call_iptables 0; sysctl -qw net.bridge.bridge-nf-call-iptables=0",
            "a pod can't reach a Service whose endpoint is on its own node", "doctor.drift._find: cnictl apply",
        ),
        (
            "hairpin-off", "pod", "bridge link set dev {veth} hairpin off", "a pod can't reach itself by a Service",
            "doctor.links._hairpin: bridge link set dev {} hairpin on",
        ),
    ],
)  # fmt: skip
def test_services(world: World, check: str, endpoint: str, fault: str, symptom: str, hint: str) -> None:
    pod = world.pod if endpoint == "pod" else world.other
    server = world.here.popen(pod.command("/usr/bin/python3", "-c", _SERVE))
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        rule = _SERVICE.replace("{endpoint}", pod.address)
        if endpoint == "pod":
            # masquerade as kube-proxy does for hairpin traffic, because the pod would drop a packet from its own
            # address
            rule += f"; iptables -t nat -A POSTROUTING -s {pod.address} -d {pod.address} -j MASQUERADE"
        run(world, Case(check, fault, symptom, no_service, also=rule, restore="iptables -t nat -F", hint=hint))
    finally:
        server.kill()
        server.communicate()


def test_two_connections_with_the_same_source_port(world: World) -> None:
    """Two connections get the same source port because masquerade assigns ports in order."""
    server = world.outside.popen(["/usr/bin/python3", "-c", port_race.SERVE])
    assert server.stdout is not None and server.stdout.readline() == "ready\n"
    # some kernels lack nft's queue statement, and iptables has no hook this late
    world.sh(
        "cnictl nat disable; iptables -t mangle -N HOLD; iptables -t mangle -A HOLD -p tcp --dport 7009 --syn "
        "-m conntrack --ctorigsrc {pod} -j NFQUEUE --queue-num 7; "
        "nft add chain ip mangle late '{ type filter hook postrouting priority 200; }'; "
        "nft add rule ip mangle late jump HOLD"
    )
    rule = "iptables -t nat -%s POSTROUTING -s {cidr} ! -d 10.244.0.0/20 -j MASQUERADE"

    def loses(_: World) -> bool:
        connect = ("/usr/bin/python3", "-c", port_race.CONNECT, world.external)
        holding = world.here.popen(["/usr/bin/python3", "-c", port_race.HOLD], stdin=subprocess.PIPE)
        said = Lines(holding.stdout)
        assert holding.stdin is not None and said.next() == "ready"
        first = world.here.popen(world.pod.command(*connect), stdin=subprocess.PIPE)
        assert said.next() == "held"
        assert world.other.run(*connect).stdout == "connected\n"
        print(file=holding.stdin, flush=True)
        assert said.next() == "let go"
        lost = first.communicate("\n")[0] == "lost\n"
        holding.kill()
        holding.communicate()
        return lost

    random = (rule % "A") + " --random-fully"
    fault = "iptables -t nat -F POSTROUTING; " + rule % "A"
    fixed = "iptables -t nat -F POSTROUTING; " + random
    run(
        world,
        Case(
            "port-race", fault, "of two connections that begin at the same time, one waits a second and more",
            loses, fixed,
            also=random, restore="nft delete table ip mangle; iptables -t nat -F; cnictl nat enable",
        ),
    )  # fmt: skip
    server.kill()
    server.communicate()


FORGET = "doctor.firewall._stale_connections: cnictl doctor --fix --only stale-connection"


@applies(FORGET)
def test_connection_to_a_pod_that_is_gone(world: World) -> None:
    """A client's flow to a host port still goes to the pod that had the port, although the rule has changed."""
    old, new = start_pod(world.here, "old"), start_pod(world.here, "new")
    rule = "iptables -t nat -%s PREROUTING -p udp --dport 9999 -j DNAT --to-destination %s:7007"
    # the kernel forgets an unanswered flow after 30 s, and a busy machine may need longer
    world.sh("sysctl -qw net.netfilter.nf_conntrack_udp_timeout=600; " + rule % ("A", old.address))
    send = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 5555)); "
        f"s.sendto(b'x', ('{world.here.address}', 9999))"
    )
    world.there.run(["/usr/bin/python3", "-c", send])
    call(world.here, "DEL", "old")
    world.sh(rule % ("D", old.address) + "; " + rule % ("A", new.address))

    def lost(_: World) -> bool:
        hear = (
            "import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 7007)); "
            "s.settimeout(1); print('ready', flush=True); sys.stdin.readline(); s.recv(9)"
        )
        hearing = world.here.popen(new.command("/usr/bin/python3", "-c", hear), stdin=subprocess.PIPE)
        assert hearing.stdout is not None
        assert hearing.stdout.readline() == "ready\n"
        world.there.run(["/usr/bin/python3", "-c", send])
        hearing.communicate("\n")  # the packet waits in the socket, so a busy machine does not lose it
        return hearing.returncode != 0

    assert lost(world)
    assert world.doctor() == [("stale-connection", old.address)]
    world.follow("stale-connection", FORGET)
    assert not lost(world)
    world.sh("iptables -t nat -F PREROUTING; sysctl -qw net.netfilter.nf_conntrack_udp_timeout=30")
    call(world.here, "DEL", "new")
    assert world.doctor("--fix") == []
    note(
        "stale-connection",
        "a pod behind a host port is replaced",
        "a client's UDP flow goes on to the pod that is gone",
    )


DELETE_PORT = "doctor.links._remnant_veths: ip link delete {}"


@applies(DELETE_PORT)
@pytest.mark.parametrize("by_hint", [False, True], ids=["by --fix", "by the hint"])
def test_port_without_its_record(world: World, by_hint: bool) -> None:
    """A repeated ADD of that pod fails because its host veth exists."""
    name = "lost2" if by_hint else "lost"
    pod = start_pod(world.here, name)
    pod.run("ip", "address", "flush", "dev", "eth0")
    world.sh(f"rm /var/lib/cnictl/attachments/mynet/{name}@eth0 /var/lib/cni/networks/mynet/" + pod.address)

    def fails(_: World) -> bool:
        try:
            call(world.here, "ADD", name)
        except Exception as failure:
            assert "exists" in str(failure), failure
            return True
        return False

    assert fails(world)
    assert [check for check, _ in world.doctor()] == ["orphan-veth"]
    if by_hint:
        world.follow("orphan-veth", DELETE_PORT)
    else:
        assert world.doctor("--fix") == []
    assert not fails(world)
    call(world.here, "DEL", name)
    note("orphan-veth", "a pod's record and lease are lost", "that pod can't be started anew")


def test_address_in_use_that_nobody_leased(world: World) -> None:
    """The reference's DEL without CNI_NETNS leaves such an address.

    A pod that gets the address takes over its traffic.
    """
    stranger = "10.244.0.200"
    world.sh(
        "ip netns add stranger; ip link add vstranger type veth peer name eth0 netns stranger; "
        "ip link set vstranger master cni0 up; ip -n stranger link set eth0 up; "
        f"ip -n stranger address add {stranger}/24 dev eth0"
    )
    ping = "ip netns exec stranger ping -q -c1 -W1 10.244.0.1"
    world.sh(ping)
    assert world.doctor() == [("unleased-address", stranger)]
    world.sh("ip netns add heir")
    assert call(world.here, "ADD", "heir", world.request(ip=stranger))["ips"][0]["address"] == f"{stranger}/24"
    world.sh("ip neigh flush dev cni0")
    assert world.here.run(["sh", "-c", ping + " && " + ping.replace("stranger", "heir")], check=False).status != 0
    world.sh("ip link delete vstranger; ip netns delete stranger")
    world.sh(ping.replace("stranger", "heir"))
    assert world.doctor() == []
    call(world.here, "DEL", "heir")
    note(
        "unleased-address", "a veth with an address that nobody leased", "two pods have one address, and one loses",
        "ip link delete VETH",
    )  # fmt: skip
