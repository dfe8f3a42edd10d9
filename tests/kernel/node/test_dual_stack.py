"""Set up, test and reset dual-stack nodes and IPv6-only nodes."""

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from cnictl.lab.lab import Lab, Node
from tests.kernel.cluster import PINGS
from tests.kernel.commands import cnictl, drifted, init, outcomes, snapshot, start_pod
from tests.waiting import wait_for

NETWORK, NETWORK6 = "10.244.0.0/20", "fd00:244::/48"


@pytest.fixture(scope="module")
def dual_lab() -> Iterator[Lab]:
    """Yield two bare nodes with addresses of both families, and a host outside."""
    with Lab(nodes=2, dual_stack=True) as fresh:
        yield fresh


def options(lab: Lab, node: Node, both: bool) -> list[str]:
    """Return a node's options for `init-node`: both families if `both`, otherwise only IPv6."""
    other = next(candidate for candidate in lab.nodes if candidate is not node)
    named = ["--subnet", node.pod_cidr6, "--network", NETWORK6, "--peer", f"{other.pod_cidr6}={other.address6}"]
    named += ["--external", lab.outside.address6]
    if both:
        named = ["--subnet", f"{node.pod_cidr},{node.pod_cidr6}", "--network", NETWORK, *named[2:]]
        named += ["--peer", f"{other.pod_cidr}={other.address}", "--external", lab.outside.address]
    return named


def set_up(lab: Lab, both: bool) -> list[dict[str, str]]:
    """Run `init-node` on both nodes at once, and return their outcomes."""
    with ThreadPoolExecutor(2) as pool:
        done = pool.map(lambda node: cnictl(node, "init-node", *options(lab, node, both), "-o", "json"), lab.nodes)
        return [outcomes(finished) for finished in done]


def take_back(lab: Lab) -> None:
    """Run `reset-node` on both nodes at once."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda node: cnictl(node, "reset-node", "--yes", "--force"), lab.nodes))


@contextmanager
def served(node: Node, families: int) -> Iterator[tuple[list[str], "subprocess.Popen[str]"]]:
    """Keep a pod up on a node with `--serve`. Yield its addresses, and the process, which prints who pings the pod."""
    process = node.popen(["cnictl", "test-connectivity", "--serve"])
    try:
        assert process.stdout is not None
        addresses = [process.stdout.readline().strip() for _ in range(families)]
        assert all(addresses), process.communicate()[1]
        yield addresses, process
    finally:
        process.terminate()
        process.wait(20)


def checks_of(node: Node, *arguments: str) -> list[dict[str, Any]]:
    """Return the checks of `test-connectivity` on a node."""
    done = cnictl(node, "test-connectivity", "-o", "json", *PINGS, *arguments, check=False)
    assert done.stdout, done.stderr
    checks: list[dict[str, Any]] = json.loads(done.stdout)["checks"]
    return checks


@pytest.mark.parametrize("both", [True, False], ids=["dual-stack", "IPv6-only"])
def test_two_nodes_reach_everything_in_every_family_and_a_reset_restores_them(dual_lab: Lab, both: bool) -> None:
    here, there = dual_lab.nodes
    before = snapshot(here)
    assert "unchanged" not in {outcome for results in set_up(dual_lab, both) for outcome in results.values()}
    assert {outcome for results in set_up(dual_lab, both) for outcome in results.values()} == {"unchanged"}
    assert drifted(here) == []
    families = ["ipv4", "ipv6"] if both else ["ipv6"]
    with served(there, len(families)) as (addresses, process):
        checks = checks_of(here, "--pod", ",".join(addresses))
        assert {(row["check"], row["family"]): row["state"] for row in checks} == {
            (check, family): "ok"
            for check in ("own-host", "pod-same-host", "other-host", "pod-other-host", "external")
            for family in families
        }
        process.terminate()
        said = process.communicate(timeout=20)[1]
    for source in {row["from"] for row in checks}:
        assert f"pinged by {source}\n" in said  # traffic between pods is not masqueraded
    take_back(dual_lab)
    after = snapshot(here)
    assert set(after["tree"]) ^ set(before["tree"]) == set()
    assert after == before


FAULTS = {
    "a rule drops": (
        0, "pod-other-host", "dropped-here",
        "ip6tables -I FORWARD -d fd00:244:0:1::/64 -j DROP", "ip6tables -D FORWARD -d fd00:244:0:1::/64 -j DROP",
    ),
    "forwarding off": (
        0, "other-host", "forwarding-off",
        "sysctl -qw net.ipv6.conf.all.forwarding=0", "sysctl -qw net.ipv6.conf.all.forwarding=1",
    ),
    "peer has no way back": (
        1, "pod-other-host", "no-return-route",
        "ip -6 route delete fd00:244::/64", "ip -6 route add fd00:244::/64 via fd00:10::210 proto 67",
    ),
    "peer route lost": (
        0, "pod-other-host", "no-route",
        "ip -6 route delete fd00:244:0:1::/64", "ip -6 route add fd00:244:0:1::/64 via fd00:10::51 proto 67",
    ),
    "masquerade of IPv6 lost": (
        0, "external", "no-masquerade",
        "nft delete rule inet cnictl masquerade-mynet handle "
        "$(nft -a list chain inet cnictl masquerade-mynet | sed -n '/ip6 /s/.*handle //p')", "cnictl apply",
    ),
}  # fmt: skip


def test_faults_of_ipv6_are_named_and_ipv4_keeps_working(dual_lab: Lab) -> None:
    set_up(dual_lab, both=True)
    here, there = dual_lab.nodes
    pod = start_pod(here, "asking")
    with served(there, 2) as (addresses, _):
        asked = ["--from", pod.address, "--pod", ",".join(addresses), "--count", "1", "--timeout", "0.3"]
        for name, (at, check, cause, fault, command) in FAULTS.items():
            dual_lab.nodes[at].run(["sh", "-ec", fault])
            checks = checks_of(here, *asked)
            row = next(row for row in checks if (row["family"], row["check"]) == ("ipv6", check))
            assert (row["state"], row["cause_name"]) == ("failed", cause), (name, row)
            assert [row for row in checks if row["family"] == "ipv4" and row["state"] == "failed"] == [], name
            dual_lab.nodes[at].run(["sh", "-ec", command])
        assert "failed" not in [row["state"] for row in checks_of(here, *asked)]
    take_back(dual_lab)
    here.run(["ip", "netns", "delete", "asking"])


ADVERTISE = """
import socket, struct
sender = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
index = socket.if_nametoindex("eth0")
with open("/proc/net/if_inet6") as file:
    own = next(line.split()[0] for line in file if line.startswith("fe80") and line.split()[-1] == "eth0")
sender.bind((socket.inet_ntop(socket.AF_INET6, bytes.fromhex(own)), 0, 0, index))
sender.sendto(struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0), ("ff02::1", 0, 0, index))
"""
"""A router's advertisement of itself as default router for 1800 s (RFC 4861, section 4.2)."""


def test_node_that_relies_on_router_advertisements_keeps_its_default_route(dual_lab: Lab) -> None:
    node, router = dual_lab.nodes

    def learned() -> bool:
        return "proto ra" in node.run(["ip", "-6", "route", "show", "default"]).stdout

    def value() -> str:
        return node.run(["cat", "/proc/sys/net/ipv6/conf/eth0/accept_ra"]).stdout.strip()

    static = node.run(["ip", "-6", "route", "show", "default"]).stdout.split(" pref ")[0].split()
    node.run(["ip", "-6", "route", "delete", "default"])
    # a neighbour that reports that it is not a router ends the default route through it (net/ipv6/ndisc.c,
    # rt6_clean_tohost)
    router.run(["sysctl", "-qw", "net.ipv6.conf.all.forwarding=1"])
    router.run(["/usr/bin/python3", "-c", ADVERTISE])
    wait_for(learned, "the advertisement gave a default route")
    assert value() == "1"
    done = outcomes(cnictl(node, "init-node", *options(dual_lab, node, both=False), "-o", "json"))
    assert done.get("sysctl/net.ipv6.accept_ra") == "changed"
    assert (value(), learned()) == ("2", True)
    assert "net/ipv6/conf/eth0/accept_ra = 2\n" in node.run(["cat", "/etc/sysctl.d/99-cnictl.conf"]).stdout
    assert drifted(node) == []
    cnictl(node, "reset-node", "--yes")
    assert (value(), learned()) == ("1", True)
    node.run(["ip", "-6", "route", "delete", "default"])
    node.run(["ip", "-6", "route", "add", *static])
    router.run(["sysctl", "-qw", "net.ipv6.conf.all.forwarding=0"])


def test_family_is_added_and_removed_under_a_live_pod(dual_lab: Lab) -> None:
    node = dual_lab.nodes[0]
    before = snapshot(node)
    init(node)
    pod = start_pod(node, "pod")
    cnictl(node, "bridge", "up", "--subnet", node.pod_cidr6, "--network", NETWORK6)
    assert drifted(node) == []
    assert pod.pings("10.244.0.1")
    assert node.run(["cat", "/proc/sys/net/ipv6/conf/all/forwarding"]).stdout == "1\n"
    init(node)  # not refused: the pod has no address of the removed family
    assert drifted(node) == []
    assert node.run(["cat", "/proc/sys/net/ipv6/conf/all/forwarding"]).stdout == "0\n"
    assert "fd00:244" not in node.run(["ip", "address"]).stdout
    cnictl(node, "reset-node", "--yes", "--force")
    node.run(["ip", "netns", "delete", "pod"])
    after = snapshot(node)
    assert set(after["tree"]) ^ set(before["tree"]) == set()
    assert after == before


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            "sysctl -qw net.ipv6.conf.all.disable_ipv6=1",
            "IPv6 is off on this host: net.ipv6.conf.all.disable_ipv6 is 1",
        ),
        (
            "ip -6 route add fd00:244::8000:0:0:0/80 via fd00:10::1",
            "fd00:244:0:0:8000::/80 via fd00:10::1 dev eth0",
        ),
        (
            "ip -6 address delete fd00:10::210/64 dev eth0",
            "(eth0 has no IPv6 address of its own), or name the peer's link-local address",
        ),
    ],
    ids=["disabled", "overlap", "uplink without address"],
)  # fmt: skip
def test_obstacles_to_ipv6_are_reported_before_any_change(spoil: str, said: str) -> None:
    with Lab(nodes=2, dual_stack=True) as lab:
        node = lab.nodes[0]
        node.run(["sh", "-ec", spoil])
        done = cnictl(node, "init-node", *options(lab, node, both=True), check=False)
        assert done.status == 1
        assert said in done.stderr
        assert "cni0" not in node.run(["ip", "-br", "link"]).stdout
