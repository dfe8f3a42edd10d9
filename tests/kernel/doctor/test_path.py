"""Test doctor's findings about the path to peers, addresses, and the files that runtimes read."""

import json

import pytest

from tests.kernel.commands import call
from tests.waiting import wait_for

from ..hints import applies
from .harness import Case, World, note, run
from .test_kernel import NO_WAY_OUT, no_gateway, no_start, no_way_out, no_way_to_peer

pytestmark = pytest.mark.once

PEER_LOST = "a pod can't reach a pod of the peer's"
CONFS = "/etc/cni/net.d"


def cut_at_1500(world: World) -> bool:
    return world.here.run(
        ["ping", "-n", "-q", "-c1", "-W1", "-M", "do", "-s", "1472", world.there.address], check=False
    ).status != 0  # fmt: skip


def not_first(world: World) -> bool:
    """Return whether the conf that a runtime uses is another one than cnictl's."""
    return world.sh(f"ls {CONFS} | grep -v '[.]off$' | head -1").strip() != "10-cnictl.conflist"


def conf_is_torn(world: World) -> bool:
    """Return whether a file that a runtime reads is not valid JSON."""
    for name in world.sh(f"ls {CONFS} | grep -v '[.]off$'").split():
        try:
            json.loads(world.sh(f"cat {CONFS}/{name}"))
        except ValueError:
            return True
    return False


def no_host_behind_the_route(world: World) -> bool:
    return world.here.run(["ping", "-n", "-q", "-c1", "-W1", "10.244.9.5"], check=False).status != 0


def unknown_name_server(world: World) -> bool:
    return "10.244.0.53" in world.sh("cat /etc/resolv.conf")


def speaks_no_1_0_0(world: World) -> bool:
    """Return whether the chained plugin does not support the conf's version."""
    said = world.sh('echo \'{"cniVersion": "1.0.0"}\' | CNI_COMMAND=VERSION /usr/lib/cni/portmap')
    return "1.0.0" not in json.loads(said)["supportedVersions"]


def no_loopback(world: World) -> bool:
    """Return whether the loopback plugin, which containerd calls first for each pod, is missing."""
    return not world.sh("ls /opt/bin | grep loopback || true")


def lan_lost(world: World) -> bool:
    """Return whether a host in the node's own network, which has no route back to pods, is unreachable."""
    return not world.reaches("10.244.9.2")


USED_BY_NOBODY = "an address counts as used, and nobody has it"
LEASE = "/var/lib/cni/networks/mynet/10.244.0.99"


def counted_as_used(world: World) -> bool:
    return world.here.run(["test", "-e", LEASE], check=False).status == 0


CASES = (
    Case(
        "stale-route", "ip route add 10.244.9.0/24 via 10.0.0.1 proto 67", "a host of that range can't be reached",
        no_host_behind_the_route, also="ip route add 10.244.8.0/22 via {there}",
        restore="ip route del 10.244.8.0/22",
    ),
    Case(
        "peer-link", "ip route add {there}/32 via 10.0.0.1; ip route del {far_cidr}", PEER_LOST, no_way_to_peer,
        "ip route del {there}/32; cnictl apply",
    ),
    Case(
        "overlap", "ip route add 10.244.0.0/25 via {there}", "a pod can't reach its own host", no_gateway,
        "ip route del 10.244.0.0/25",
    ),
    Case(
        "pod-routing",
        "ip link add vpn type veth peer name vpn0; ip link set vpn up; ip link set vpn0 up; "
        "ip route add default dev vpn table 52; ip rule add priority 5270 lookup 52",
        PEER_LOST, no_way_to_peer,
        "ip rule add to 10.244.0.0/20 lookup main priority 5269; ip rule add from {cidr} lookup main priority 5269",
        subject="rule 5270",
        restore="ip rule del priority 5269; ip rule del priority 5269; ip rule del priority 5270; ip link del vpn",
    ),
    Case("link-forwarding", "sysctl -w net.ipv4.conf.cni0.forwarding=0", NO_WAY_OUT, no_way_out,
         hint="node.host.pod_routes.switch_on: sysctl -qw {}=1"),
    Case(
        "resolver-in-network", "cp /etc/resolv.conf /tmp/r; echo nameserver 10.244.0.53 > /etc/resolv.conf",
        "the host's name server is looked for among the pods", unknown_name_server,
        "cat /tmp/r > /etc/resolv.conf",
    ),
    Case(
        "same-pod-cidr", "ip route del {cidr}; ip address add 10.244.0.1/24 dev cni0", PEER_LOST, no_way_to_peer,
        "ip address del 10.244.0.1/24 dev cni0; cnictl apply", on_peer=True,
    ),
    Case(
        "mtu-path", "ip link set {dev} mtu 1400", "large packets to the peer vanish, small ones pass", cut_at_1500,
        "ip link set {dev} mtu 1500", on_peer=True, restore="cnictl bridge up --mtu 0",
        hint="doctor.path._smaller_mtu: cnictl bridge up --mtu {}", then="ip link set {dev} mtu 1500",
    ),
    Case(
        "pods-filtered",
        "nft add table netdev cloud; "
        "nft add chain netdev cloud out '{ type filter hook egress device {dev} priority 0; }'; "
        "nft add rule netdev cloud out ip saddr {cidr} ip daddr {far_cidr} drop",
        PEER_LOST, no_way_to_peer, "nft delete table netdev cloud",
    ),
    Case(
        "conf-order", f"echo '{{}}' > {CONFS}/00-other.conflist", "runtimes take another conf", not_first,
        f"rm {CONFS}/00-other.conflist", restore=f"rm -f {CONFS}/00-other.conflist.off",
        hint="node.preflight.places._move_away: mv {} {}.off",
    ),
    Case(
        "conf-broken", f"echo '{{' > {CONFS}/20-torn.conflist", "a runtime finds a conf that it can't read",
        conf_is_torn, f"rm {CONFS}/20-torn.conflist", restore=f"rm -f {CONFS}/20-torn.conflist.off",
        hint="doctor.runtime._unreadable: mv {} {}.off",
    ),
    Case(
        "node-in-network",
        "sed -i s,10.244.0.0/21,10.244.0.0/20, /etc/cnictl/node.toml; cnictl apply",
        "a pod can't reach a host of the node's own network", lan_lost,
        "sed -i s,10.244.0.0/20,10.244.0.0/21, /etc/cnictl/node.toml; cnictl apply",
        also="ip address add 10.244.9.1/24 dev {dev}; "
        "sed -i s,10.244.0.0/20,10.244.0.0/21, /etc/cnictl/node.toml; cnictl apply",
        restore="ip address del 10.244.9.1/24 dev {dev}; "
        "sed -i s,10.244.0.0/21,10.244.0.0/20, /etc/cnictl/node.toml; cnictl apply",
    ),
    Case(
        "chained-plugin",
        "printf '#!/bin/sh\\necho {\\\\\"supportedVersions\\\\\": [\\\\\"0.4.0\\\\\"]}' > /opt/old; chmod +x /opt/old; "
        "mount --bind /opt/old /usr/lib/cni/portmap",
        "no pod can start: portmap is older than the conf", speaks_no_1_0_0, "umount /usr/lib/cni/portmap",
    ),
    Case(
        "loopback", "rm /opt/bin/loopback", "no pod can start under containerd", no_loopback,
        "cp /usr/lib/cni/loopback /opt/bin/", hint="node.preflight.places._get_loopback: mkdir -p {}; cp {} {}/",
        also="mkdir -p /opt/bin /etc/containerd; cp /usr/lib/cni/loopback /usr/lib/cni/portmap /opt/bin/; "
        "printf 'version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"/opt/bin\"\n' "
        "> /etc/containerd/config.toml; cnictl apply",
        restore="rm -r /etc/containerd; cnictl apply",
    ),
    Case(
        "uplink-down", "ip link set {dev} down", NO_WAY_OUT, no_way_out,
        "ip link set {dev} up; ip route add default via 10.0.0.1; cnictl apply", subject="eth0",
        hint="doctor.path._no_way_out: ip link set {} up; cnictl apply", then="ip route add default via 10.0.0.1",
    ),
    Case(
        "unheld-address", "rm /var/lib/cni/networks/mynet/{pod}", "a pod's address is given out again",
        lambda world: world.starts(request=world.request(ip=world.pod.address)),
        hint="doctor.ipam._unheld: printf '%s\\r\\n%s' {} {} > {}",
    ),
    Case(
        "torn-lease", f": > {LEASE}", USED_BY_NOBODY, counted_as_used,
        hint="doctor.ipam._counted: cnictl ipam gc --name {}",
    ),
    Case(
        "pool-full",
        "for n in $(seq 2 254); do [ -e /var/lib/cni/networks/mynet/10.244.0.$n ] || "
        "printf 'filler\\r\\neth0' > /var/lib/cni/networks/mynet/10.244.0.$n; done",
        "no pod can start", no_start, "grep -l filler /var/lib/cni/networks/mynet/* | xargs rm",
    ),
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def host_of_a_former_peer(world: World) -> None:
    """Add the destination of the stale route's case, and a host in a second network of the node."""
    world.on_peer(
        "ip address add 10.244.9.5/32 dev lo; ip address add 10.244.9.2/24 dev {dev}; "
        "ip rule add from 10.244.9.2 to {cidr} prohibit"
    )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_only_the_fault_is_reported_and_its_fix_works(world: World, case: Case) -> None:
    run(world, case)


OFFLOAD = "doctor.path._bad_checksums: ethtool -K {} tx-checksum-ip-generic off"


@applies(OFFLOAD)
def test_card_with_wrong_checksums(world: World) -> None:
    """A rule on the other node simulates a faulty card there: encapsulated packets from it have a wrong checksum."""
    for shell, own, other, last in ((world.sh, "{here}", "{there}", 1), (world.on_peer, "{there}", "{here}", 2)):
        shell(
            f"ip link add vx0 type vxlan id 9 local {own} remote {other} dstport 4789 udpcsum dev {{dev}}; "
            f"ip address add 10.98.0.{last}/24 dev vx0; ip link set vx0 up"
        )
    reaches = ("ping", "-n", "-q", "-c1", "-W1", "10.98.0.2")
    assert world.here.run([*reaches]).status == 0
    fault = (
        "ethtool -K {dev} tx off; nft add table netdev card; "
        "nft add chain netdev card out '{ type filter hook egress device {dev} priority 0; }'; "
        "nft add rule netdev card out udp dport 4789 udp checksum set 0xdead"
    )
    world.on_peer(fault)
    assert world.here.run([*reaches], check=False).status != 0
    assert world.doctor() == [("vxlan-checksum", "vx0")]
    assert world.doctor("--fix") == []
    world.sh("ethtool -K vx0 tx-checksum-ip-generic on")
    world.follow("vxlan-checksum", OFFLOAD)
    world.on_peer("nft delete table netdev card; ethtool -K {dev} tx on")
    assert world.here.run([*reaches]).status == 0
    world.sh("ip link del vx0")
    world.on_peer("ip link del vx0")
    note(
        "vxlan-checksum", f"{fault} (on the peer, for its card)", "what comes by a tunnel is dropped",
        "cnictl doctor --fix, on each node with such a card",
    )  # fmt: skip


def is_dead_and_counted(world: World) -> bool:
    return counted_as_used(world) and "dead" not in world.sh("ip netns list")


def test_address_of_a_pod_that_died(world: World) -> None:
    """The runtime never called DEL."""
    world.sh("ip netns add dead")
    call(world.here, "ADD", "dead", world.request(ip="10.244.0.99"))
    kill = "ip netns delete dead; while ip -d link show type veth | grep -q 'alias cnictl:mynet/dead'; do :; done"
    run(world, Case("stale-lease", kill, USED_BY_NOBODY, is_dead_and_counted))


COLLECT = "doctor.runtime._remnant_leases: cnictl ipam gc --name {}"


@applies(COLLECT)
@pytest.mark.parametrize("by_hint", [False, True], ids=["by --fix", "by the hint"])
def test_leftovers_of_a_former_setup(world: World, by_hint: bool) -> None:
    folder = "/var/lib/cni/networks/oldnet"
    world.sh(f"mkdir -p {folder}; printf 'gone\\r\\neth0' > {folder}/10.9.0.2; touch -d 2001-01-01 {folder}/10.9.0.2")
    assert world.doctor() == [("residue", "oldnet")]
    if by_hint:
        world.follow("residue", COLLECT)
    assert world.doctor("--fix") == []
    assert not world.sh(f"ls {folder} | grep 10.9 || true")
    world.sh(f"rm -r {folder}")
    note("residue", "leases of a network that has no conf any more", "every tool counts pods that are gone")


ANOTHER = "doctor.path._another_uplink: cnictl init-node --uplink ''"


@applies(ANOTHER)
def test_missing_uplink(world: World) -> None:
    world.sh("sed -i '1i uplink = \"gone0\"' /etc/cnictl/node.toml")
    try:
        assert ("uplink-down", "gone0") in world.doctor()
        world.follow("uplink-down", ANOTHER)
    finally:
        world.sh("sed -i '/^uplink/d' /etc/cnictl/node.toml; cnictl apply")
    assert world.doctor() == []


def test_hint_for_a_link_without_a_carrier_names_its_other_end(world: World) -> None:
    """Setting the link up again would change nothing."""
    world.sh("ip link add cable0 type veth peer name cable1; ip link set cable0 up; ip link set cable1 down")
    world.sh("sed -i '1i uplink = \"cable0\"' /etc/cnictl/node.toml")
    try:
        (finding,) = (finding for finding in world.findings() if finding["id"] == "uplink-down")
    finally:
        world.sh("sed -i '/^uplink/d' /etc/cnictl/node.toml; ip link del cable0; cnictl apply")
    assert (finding["fixable"], finding["hint"]["command"]) == (False, "")
    assert "check the other end of cable0" in finding["hint"]["text"]
    assert world.doctor() == []


ADD_THERE = "node.reach.peer_hints.there: cnictl route add-peer {} {}"


@applies(ADD_THERE)
def test_peer_without_a_route_back(world: World) -> None:
    world.on_peer("cnictl route del-peer {cidr} --yes")
    try:
        assert world.doctor() == [("pods-filtered", world.there.address)]
        world.follow("pods-filtered", ADD_THERE)
    finally:
        world.on_peer("cnictl route add-peer {cidr} {here}")
    assert world.doctor() == []


def test_second_default_route(world: World) -> None:
    """The reference plugin fails with such a conf, and doctor reports it."""
    ipam = {"type": "host-local", "subnet": "10.7.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}
    conf = {"cniVersion": "1.0.0", "name": "ref", "type": "bridge", "isDefaultGateway": True, "ipam": ipam}
    world.here.run(["sh", "-c", f"cat > {CONFS}/50-ref.conf"], json.dumps(conf))
    assert world.doctor() == [("second-default", f"{CONFS}/50-ref.conf")]
    world.sh(f"rm {CONFS}/50-ref.conf")
    assert world.doctor() == []
    note(
        "second-default",
        "a conf with isDefaultGateway and a route to 0.0.0.0/0",
        "the reference plugin fails",
        "edit it",
    )


def test_pod_larger_than_the_uplink(world: World) -> None:
    """The MTU of the uplink and the bridge was lowered, but running pods keep theirs."""
    world.sh("ip link set {dev} mtu 1400; cnictl apply")
    try:
        wait_for(lambda: world.reaches("10.244.0.1"), "small packets pass")
        assert {check for check, _ in world.doctor()} == {"mtu"}
        assert not world.reaches("far", "-M", "do", "-s", "1450")
    finally:
        world.sh("ip link set {dev} mtu 1500; cnictl apply")
    assert world.doctor() == []
    note(
        "mtu", "ip link set eth0 mtu 1400; cnictl apply", "a running pod's large packets don't pass", "restart the pod"
    )


def test_nearly_full_pool(world: World) -> None:
    filler = "printf 'filler\\r\\neth0' > /var/lib/cni/networks/mynet/10.244.0.$n"
    world.sh(f"for n in $(seq 20 250); do {filler}; done")
    assert world.doctor() == [("pool-low", "mynet")]
    world.sh("grep -l filler /var/lib/cni/networks/mynet/* | xargs rm")
    assert world.doctor() == []
    note("pool-low", "all addresses but 20 are leased", "a rollout runs out of addresses", "stop pods")
