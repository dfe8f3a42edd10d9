"""A peer on another link than the default route: the pods' MTU and doctor's checks and hints follow that link."""

import json
from collections.abc import Iterator

import pytest

from cnictl.lab.lab import Lab, Node
from tests.kernel.cluster import shell
from tests.kernel.commands import INIT_OPTIONS, cnictl, drifted, start_pod
from tests.waiting import wait_for

pytestmark = pytest.mark.once

SECOND = (
    "ip link add priv0 type vxlan id 42 local {own} remote {other} dstport 4789 dev eth0; "
    "ip address add 10.50.0.{last}/24 dev priv0; ip link set priv0 mtu 1450 up"
)


def second_link(lab: Lab) -> tuple[Node, Node]:
    """Add a link with MTU 1450 between both nodes, beside eth0 with MTU 1500."""
    here, there = lab.nodes
    for last, (own, other) in enumerate(((here, there), (there, here)), 1):
        shell(own, SECOND.format(own=own.address, other=other.address, last=last))
    return here, there


def mtu(node: Node, link: str) -> int:
    return int(json.loads(node.run(["ip", "-j", "link", "show", link]).stdout)[0]["mtu"])


@pytest.fixture(scope="module")
def nodes() -> Iterator[tuple[Node, Node]]:
    """Yield two nodes that are each other's peers over the second link."""
    with Lab(nodes=2) as lab:
        here, there = second_link(lab)
        for node, other, via in ((here, there, "10.50.0.2"), (there, here, "10.50.0.1")):
            words = ("--subnet", node.pod_cidr, "--network", "10.244.0.0/20", "--external", lab.outside.address)
            cnictl(node, "init-node", *words, "--peer", f"{other.pod_cidr}={via}")
        yield here, there


def test_pods_get_the_mtu_of_the_link_to_their_peers_and_doctor_finds_nothing(nodes: tuple[Node, Node]) -> None:
    here, there = nodes
    pod, far = start_pod(here, "web"), start_pod(there, "far")
    assert mtu(here, "cni0") == 1450
    assert "mtu 1450" in pod.run("ip", "link", "show", "eth0").stdout
    large = ("ping", "-n", "-q", "-c1", "-W2", "-M", "do", "-s", "1422", far.address)
    wait_for(lambda: pod.run(*large, check=False).status == 0, "the largest packet arrives")
    done = cnictl(here, "doctor", check=False)
    assert done.status == 0 and "healthy" in done.stdout, done.stdout
    (row,) = json.loads(cnictl(here, "route", "list", "-o", "json").stdout)["items"]
    assert (row["dev"], row["state"], row["link"]) == ("priv0", "ok", "on the link")
    (peer,) = json.loads(cnictl(here, "status", "-o", "json").stdout)["peers"]
    assert (peer["dev"], peer["answers"]) == ("priv0", True)


def test_path_with_a_smaller_mtu_is_named_without_a_hint_that_lowers_a_cards_mtu(nodes: tuple[Node, Node]) -> None:
    here, there = nodes
    shell(
        there,
        "nft add table netdev narrow; nft add chain netdev narrow in "
        "'{ type filter hook ingress device priv0 priority 0; }'; "
        "nft add rule netdev narrow in ip length '>' 1300 drop",
    )
    try:
        done = cnictl(here, "doctor", "-o", "json", "--only", "mtu-path", check=False)
        (told,) = json.loads(done.stdout)["items"]
        assert told["subject"] == "10.50.0.2"
        assert "packets of 1450 bytes are lost on the path; 1300 bytes pass" in told["message"]
        assert "cnictl bridge up --mtu 1300" in told["hint"]["text"]
        assert "ip link set" not in told["hint"]["text"]
        cnictl(here, "bridge", "up", "--mtu", "1300")
        assert cnictl(here, "doctor", "--only", "mtu-path").status == 0
    finally:
        cnictl(here, "bridge", "up", "--mtu", "0")
        shell(there, "nft delete table netdev narrow")


def test_second_link_that_is_down_is_named_with_the_peers_behind_it(nodes: tuple[Node, Node]) -> None:
    here, _ = nodes
    shell(here, "ip link set priv0 down")
    try:
        done = cnictl(here, "doctor", "-o", "json", "--skip", "mtu-path", check=False)
        by_check = {finding["id"]: finding for finding in json.loads(done.stdout)["items"]}
        assert by_check["uplink-down"]["subject"] == "priv0"
        assert "nothing reaches 10.50.0.2" in by_check["uplink-down"]["message"]
    finally:
        cnictl(here, "doctor", "--fix", "--only", "uplink-down")
        cnictl(here, "apply")
    assert drifted(here) == []


def test_strict_filter_of_the_second_link_is_named(nodes: tuple[Node, Node]) -> None:
    here, there = nodes
    shell(here, "sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.priv0.rp_filter=1")
    shell(there, "ip address add 10.99.0.1/32 dev lo")
    shell(here, "ip route add 10.99.0.1/32 dev eth0")
    try:
        # learn the MAC first: the filter drops an ARP request without counting it
        shell(there, "ping -n -q -c1 -W1 10.50.0.1")
        shell(there, "ping -n -q -c1 -W1 -I 10.99.0.1 10.50.0.1 || true")
        done = cnictl(here, "doctor", "-o", "json", "--only", "reverse-path", check=False)
        assert [finding["subject"] for finding in json.loads(done.stdout)["items"]] == ["priv0"]
    finally:
        shell(here, "sysctl -qw net.ipv4.conf.priv0.rp_filter=0; ip route del 10.99.0.1/32")
        shell(there, "ip address del 10.99.0.1/32 dev lo")


def test_first_peer_that_needs_it_lowers_the_mtu_and_only_apply_raises_it(lab: Lab) -> None:
    here, there = second_link(lab)
    cnictl(here, "init-node", *INIT_OPTIONS, "--peer", "10.244.5.0/24=10.0.2.53")
    pod = start_pod(here, "web")
    assert mtu(here, "cni0") == 1500
    done = cnictl(here, "route", "add-peer", there.pod_cidr, "10.50.0.2")
    assert mtu(here, "cni0") == 1450
    assert "the pods' MTU is now 1450; restart the pods that still have a larger MTU: web" in done.stderr
    assert drifted(here) == []
    findings = json.loads(cnictl(here, "doctor", "-o", "json", "--only", "mtu", check=False).stdout)["items"]
    assert ["priv0's 1450" in finding["message"] for finding in findings] == [True]
    start_pod(here, "new")
    assert "mtu 1450" in here.run(["ip", "netns", "exec", "new", "ip", "link", "show", "eth0"]).stdout
    cnictl(here, "route", "del-peer", there.pod_cidr, "--yes")
    assert (mtu(here, "cni0"), drifted(here)) == (1450, [])
    assert cnictl(here, "plan", "--exit-code", check=False).status == 1
    cnictl(here, "apply")
    assert (mtu(here, "cni0"), drifted(here)) == (1500, [])
    cnictl(here, "route", "add-peer", there.pod_cidr, "10.50.0.2")
    cnictl(here, "undo", "--yes")
    assert (mtu(here, "cni0"), drifted(here)) == (1500, [])
    assert pod.pings("10.244.0.1")


def test_route_with_its_own_mtu_limits_pods(node: Node) -> None:
    shell(node, "ip route add 10.0.2.53/32 dev eth0 mtu 1380")
    cnictl(node, "init-node", *INIT_OPTIONS, "--peer", "10.244.5.0/24=10.0.2.53")
    assert mtu(node, "cni0") == 1380


def test_peer_behind_a_link_with_too_small_an_mtu_for_ipv6_is_refused(lab: Lab) -> None:
    here, _ = second_link(lab)
    shell(here, "ip link set priv0 mtu 1000")
    words = ("--subnet", "10.244.0.0/24,fd00:244::/64", "--network", "10.244.0.0/20,fd00:244::/48")
    refused = cnictl(here, "init-node", *words, "--peer", "10.244.1.0/24=10.50.0.2", check=False)
    assert refused.status == 1
    assert "error [ipv6] priv0: its MTU is 1000 (the link to peer 10.50.0.2)" in refused.stderr
    cnictl(here, "init-node", *words)
    refused = cnictl(here, "route", "add-peer", "10.244.1.0/24", "10.50.0.2", check=False)
    assert refused.status == 1
    assert "peer 10.50.0.2 is reached over priv0 with an MTU of 1000" in refused.stderr
    assert mtu(here, "cni0") == 1500
