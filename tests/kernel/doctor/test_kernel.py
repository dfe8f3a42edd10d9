"""Test doctor's findings about kernel settings and about differences from the node file."""

import json
from itertools import count

import pytest

from ..cluster import GUARD
from ..hints import applies
from . import full_table
from .harness import Case, World, note, run

pytestmark = pytest.mark.once

NO_WAY_OUT = "a pod can't reach outside hosts"


def no_way_out(world: World) -> bool:
    return not world.reaches("external")


def no_way_to_peer(world: World) -> bool:
    return not world.reaches("far")


def no_gateway(world: World) -> bool:
    return not world.reaches("10.244.0.1")


def no_start(world: World) -> bool:
    return not world.starts()


def called_faulty(world: World) -> bool:
    return "faulty" in world.here.run(["cnictl", "status"], check=False).stdout


def too_large_for_the_bridge(world: World) -> bool:
    world.far.run("ip", "route", "flush", "cache")  # discard the learned path MTU
    ping = ("ping", "-n", "-q", "-c1", "-W1", "-M", "do", "-s", "1400", world.pod.address)
    return world.far.run(*ping, check=False).status != 0


def no_new_network(world: World) -> bool:
    """Return whether a pod of a network whose rules are not loaded yet can't be started."""
    request = world.request(ip="10.77.0.2")
    assert request is not None
    name = f"other{next(_NUMBERS)}"
    other = {**request, "name": name, "bridge": "cni7", "subnet": "10.77.0.0/24", "network": "10.77.0.0/24"}
    try:
        return not world.starts(request=other)
    finally:
        world.sh("ip link del cni7; rm -rf /var/lib/cni/networks/other* /var/lib/cnictl/attachments/other*")


_NUMBERS = count()


_DETOUR = (
    "ip link add vx0 type vxlan id 7 remote {there} local {here} dstport 4789 dev {dev} && "
    "ip address add {here}/32 dev vx0 && ip link set vx0 up && ip route add {external}/32 dev vx0 && "
    "ip neigh add {external} lladdr 02:00:00:00:00:99 dev vx0 && "
    "sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.{dev}.rp_filter=1"
)

APPLY = "doctor.drift._find: cnictl apply"

CASES = (
    Case("forwarding", "sysctl -w net.ipv4.ip_forward=0", NO_WAY_OUT, no_way_out, hint=APPLY),
    Case(
        "forwarding-at-boot",
        "echo net.ipv4.ip_forward=0 > /etc/sysctl.d/99-zz.conf; sysctl -p /etc/sysctl.d/99-zz.conf",
        NO_WAY_OUT, no_way_out, "rm /etc/sysctl.d/99-zz.conf; cnictl apply", subject="/etc/sysctl.d/99-zz.conf",
        restore="rm -f /etc/sysctl.d/99-zz.conf", hint="doctor.kernel._without_line: sed -i -E {} {}; cnictl apply",
    ),
    Case("masquerade", "nft delete table inet cnictl", NO_WAY_OUT, no_way_out),
    Case(
        "forward-drop", "iptables -P FORWARD DROP; iptables -F FORWARD", NO_WAY_OUT, no_way_out,
        restore="iptables -P FORWARD ACCEPT", hint=APPLY,
    ),
    Case(
        "forward-drop-nft",
        GUARD,
        NO_WAY_OUT, no_way_out, restore="nft delete table ip guard",
    ),
    Case(
        "forward-off",
        "sed -i '1i forward = false' /etc/cnictl/node.toml; cnictl apply; iptables -P FORWARD DROP",
        NO_WAY_OUT, no_way_out, "sed -i '/^forward/d' /etc/cnictl/node.toml; cnictl apply",
        subject="iptables FORWARD",
        restore="sed -i '/^forward/d' /etc/cnictl/node.toml; iptables -P FORWARD ACCEPT; cnictl apply",
        hint="doctor.firewall: cnictl init-node --forward",
    ),
    Case("bridge", "ip link set cni0 down", "a pod can't reach its own host", no_gateway),
    Case(
        "bridge", "ip link del cni0", "a pod can't reach its own host", no_gateway, hint=APPLY,
    ),
    Case(
        "bridge", "ip link set cni0 mtu 1280", "large packets from a peer's pod are refused", too_large_for_the_bridge,
    ),
    Case(
        "bridge",
        "ip link del cni0; ip link add cni0 type bridge; ip link set cni0 up; ip address add {gateway} dev cni0; "
        "for p in {veth} {veth2}; do ip link set $p master cni0; bridge link set dev $p hairpin on; done; "
        "ip link add low address 02:00:00:00:00:01 type veth peer name low2; ip link set low master cni0; "
        "ip netns exec {pod_name} ip neigh flush dev eth0; ip netns exec {pod_name} ping -c1 -W1 10.244.0.1; "
        "ip link del low",
        "the gateway's MAC changes when a port leaves the bridge", no_gateway,
    ),
    Case("bridge-address", "ip address flush dev cni0", "a pod can't reach its own host", no_gateway),
    Case("peer-route", "ip route del {far_cidr}", "a pod can't reach a pod of a peer", no_way_to_peer),
    Case(
        "kernel-lacks", "mount --bind /dev/null /usr/sbin/nft", "no pod of a new network can start", no_new_network,
        "umount /usr/sbin/nft", subject="nft",
    ),
    Case("plugin", "rm /opt/cni/bin/cnictl-bridge", "no pod can start", no_start),
    Case("cni-conf", "rm /etc/cni/net.d/10-cnictl.conflist", "no pod can start", no_start),
    Case(
        "sysctl-file", "rm /etc/sysctl.d/99-cnictl.conf", "forwarding is off after the next boot",
        lambda world: not world.sh("cat /etc/sysctl.d/*.conf | grep ip_forward || true"),
    ),
    Case(
        "port-off", "ip link set {veth} nomaster", "a pod can't reach its own host", no_gateway,
    ),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_only_the_fault_is_reported_and_its_fix_works(world: World, case: Case) -> None:
    run(world, case)


LOOSEN = "doctor.kernel._strict_reverse_path: sysctl -w {}=2"


@applies(LOOSEN)
def test_strict_reverse_path(world: World) -> None:
    """Requests leave through a tunnel to the peer, which forwards them. Replies arrive directly."""
    world.on_peer(
        "ip link add vx0 type vxlan id 7 remote {here} local {there} dstport 4789 dev {dev} && "
        "ip link set vx0 address 02:00:00:00:00:99 up && sysctl -qw net.ipv4.conf.all.rp_filter=0 "
        "net.ipv4.conf.vx0.rp_filter=0"
    )
    restore = "ip link del vx0; sysctl -qw net.ipv4.conf.{dev}.rp_filter=0"
    run(world, Case("reverse-path", _DETOUR, NO_WAY_OUT, no_way_out, restore=restore, hint=LOOSEN))
    world.on_peer("ip link del vx0")


def test_full_connection_tracking_table(world: World) -> None:
    assert world.reaches("external")
    with full_table.kept_full(world.here):
        assert not world.reaches("external")
        assert world.doctor() == [("conntrack-full", "net.netfilter.nf_conntrack_max")]
    assert world.reaches("external")
    assert world.doctor() == []
    note(
        "conntrack-full",
        "the connection tracking table is full",
        "a pod's new connections fail",
        "conntrack -F; raise nf_conntrack_max on the machine",
    )


def test_two_simultaneous_faults(world: World) -> None:
    world.sh("nft delete table inet cnictl; ip link set {veth} down")
    assert sorted(check for check, _ in world.doctor()) == ["masquerade", "port-off"]
    assert world.doctor("--fix") == []
    assert world.reaches("external")


def test_drift_that_cuts_off_no_pod_is_a_note_and_not_a_finding(world: World) -> None:
    world.sh("iptables -F FORWARD")
    assert called_faulty(world)
    done = world.here.run(["cnictl", "doctor"])
    assert done.stdout == "healthy: nothing was found that keeps pods from working\n"
    words = "drift: 1 resource not as in node.toml, but no pod is cut off by that now; cnictl apply repairs it"
    assert words in done.stderr.splitlines()
    world.sh("cnictl apply")
    assert not called_faulty(world)
    assert "drift" not in world.here.run(["cnictl", "doctor"]).stderr


def test_healthy_node_is_one_line(world: World) -> None:
    done = world.here.run(["cnictl", "doctor"])
    assert (done.stdout.count("\n"), done.stderr) == (1, "boot: no systemd here: have `cnictl apply` run at boot\n")


def test_missing_and_unreadable_node_files_are_reported(world: World) -> None:
    world.sh("mv /etc/cnictl/node.toml /tmp/node.toml")
    try:
        done = world.here.run(["cnictl", "doctor"], check=False)
        assert (done.status, "healthy" in done.stdout) == (1, False)
        assert "this host is not set up as a cnictl node" in done.stderr
        world.sh("echo 'subnet = [' > /etc/cnictl/node.toml")
        broken = world.here.run(["cnictl", "doctor"], check=False)
        assert (broken.status, broken.stdout, "node.toml" in broken.stderr) == (2, "", True)
    finally:
        world.sh("mv /tmp/node.toml /etc/cnictl/node.toml")


def test_a_check_that_can_not_run_is_reported(world: World) -> None:
    world.sh("mv /var/lib/cnictl/former.json /tmp/former.json; echo torn > /var/lib/cnictl/former.json")
    try:
        done = world.here.run(["cnictl", "doctor", "--only", "forwarding", "--only", "masquerade"], check=False)
        assert (done.status, done.stdout) == (1, "")
        assert "could not run: forwarding, masquerade: /var/lib/cnictl/former.json is damaged" in done.stderr
    finally:
        world.sh("mv /tmp/former.json /var/lib/cnictl/former.json")


@pytest.mark.parametrize(
    "words", [("--only", "forwardin"), ("--skip", "x"), ("--explain", "mtu-pat"), ("--dry-run",)], ids=" ".join
)
def test_unknown_checks_and_options_are_usage_errors(world: World, words: tuple[str, ...]) -> None:
    done = world.here.run(["cnictl", "doctor", *words], check=False)
    assert (done.status, done.stdout, done.stderr.count("\n")) == (2, "", 2)


def test_explain_and_list_describe_checks(world: World) -> None:
    said = world.here.run(["cnictl", "doctor", "--explain", "pods-filtered"]).stdout
    assert "Looks at: an echo request to each peer's gateway" in said and "Manual commands:" in said
    listed = json.loads(world.here.run(["cnictl", "doctor", "--list", "-o", "json"]).stdout)["items"]
    assert len(listed) > 40 and all(check["why"].endswith(".") for check in listed)


def test_dry_run_of_fix_changes_nothing(world: World) -> None:
    world.sh("nft delete table inet cnictl")
    shown = world.here.run(["cnictl", "doctor", "--fix", "--dry-run"], check=False)
    assert (shown.status, "would fix: masquerade/mynet" in shown.stdout) == (1, True)
    assert [check for check, _ in world.doctor()] == ["masquerade"]
    assert world.doctor("--fix") == []
    assert json.loads(world.sh("cnictl history -o json"))["items"][0]["command"] == "doctor --fix"
