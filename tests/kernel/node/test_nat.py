"""Masquerade and forwarding work: receivers see the right source address, and the right hosts are reachable."""

import json
from collections.abc import Iterator

import pytest

from cnictl.lab.lab import Lab, Node
from tests.kernel.commands import DOCKER_FILTER, Pod, cnictl, drifted, init, outcomes, seen_source, snapshot, start_pod

pytestmark = pytest.mark.once

DOCKER_MASQUERADE = ["iptables", "-t", "nat", "-A", "POSTROUTING", "-s", "10.244.0.0/16", "!", "-o", "cni0"]
"""The masquerade rule that a container engine adds for its own network.

It also matches pods' packets to other nodes.
"""

FIREWALLD = """
table inet firewalld {
    chain filter_FORWARD {
        type filter hook forward priority 10; policy accept;
        ct state established,related accept
        jump zones
        reject with icmpx admin-prohibited
    }
    chain zones { iifname "trusted0" accept; }
}
"""


@pytest.fixture
def pair(lab: Lab) -> Iterator[tuple[Pod, Pod, Node]]:
    """Yield a pod on each of two nodes without masquerade that are each other's peers, and the host outside."""
    here, there = lab.nodes
    init(here, "--peer", f"{there.pod_cidr}={there.address}", "--no-nat")
    init(there, "--peer", f"{here.pod_cidr}={here.address}", "--no-nat")
    yield start_pod(here, "a"), start_pod(there, "b"), lab.outside


@pytest.mark.parametrize("backend", ["nft", "iptables"])
def test_outside_sees_the_node_and_pods_see_the_pod(pair: tuple[Pod, Pod, Node], backend: str) -> None:
    pod, far, outside = pair
    assert not pod.pings(outside.address)  # no host outside has a route back to a pod
    cnictl(pod.node, "nat", "enable", "--backend", backend)
    for protocol in ("udp", "tcp"):
        assert seen_source(pod, outside, protocol) == pod.node.address
        assert seen_source(pod, far, protocol) == pod.address
        assert seen_source(far, pod, protocol) == far.address
    assert pod.pings(outside.address) and pod.pings(far.address)


@pytest.mark.parametrize("backend", ["nft", "iptables"])
def test_masquerade_of_another_tool_does_not_catch_pods_of_other_nodes(
    pair: tuple[Pod, Pod, Node], backend: str
) -> None:
    pod, far, outside = pair
    pod.node.run([*DOCKER_MASQUERADE, "-j", "MASQUERADE"])
    assert seen_source(pod, far) == pod.node.address  # without cnictl's rules it does
    cnictl(pod.node, "nat", "enable", "--backend", backend)
    for protocol in ("udp", "tcp"):
        assert seen_source(pod, far, protocol) == pod.address
        assert seen_source(pod, outside, protocol) == pod.node.address


@pytest.mark.parametrize("backend", ["nft", "iptables"])
def test_disable_removes_the_rules_and_no_pod_restores_them(pair: tuple[Pod, Pod, Node], backend: str) -> None:
    node = pair[0].node
    without = snapshot(node)
    cnictl(node, "nat", "enable", "--backend", backend)
    cnictl(node, "nat", "disable")
    after = snapshot(node)
    assert (after["nft"], after["iptables"]) == (without["nft"], without["iptables"])
    start_pod(node, "later")
    assert snapshot(node)["nft"] == without["nft"]
    assert drifted(node) == []


def test_flushed_rules_come_back_with_the_next_pod(pair: tuple[Pod, Pod, Node]) -> None:
    pod, _, outside = pair
    cnictl(pod.node, "nat", "enable")
    pod.node.run(["nft", "delete", "table", "inet", "cnictl"])
    assert drifted(pod.node) == ["masquerade/mynet"]
    start_pod(pod.node, "next")
    assert drifted(pod.node) == []
    assert seen_source(pod, outside) == pod.node.address


def test_show_counts_packets_by_destination(pair: tuple[Pod, Pod, Node]) -> None:
    pod, far, outside = pair
    for backend in ("nft", "iptables"):
        cnictl(pod.node, "nat", "enable", "--backend", backend)
        seen_source(pod, far)
        seen_source(pod, outside)
        shown = json.loads(cnictl(pod.node, "nat", "show", "-o", "json").stdout)
        assert shown["as_it_should_be"] and shown["backend"] == backend
        assert {rule["backend"] for rule in shown["items"]} == {backend}
        counted = {rule["effect"]: rule["packets"] for rule in shown["items"] if rule["packets"]}
        assert set(counted) >= {"pods of other nodes see the pod's own address", "others see the node's address"}
    assert "others see the node's address" in cnictl(pod.node, "nat", "show").stdout


def test_show_says_when_the_rules_are_gone(pair: tuple[Pod, Pod, Node]) -> None:
    node = pair[0].node
    cnictl(node, "nat", "enable")
    node.run(["nft", "flush", "table", "inet", "cnictl"])
    shown = cnictl(node, "nat", "show", check=False)
    assert shown.status == 1
    assert "`cnictl apply` repairs them" in shown.stderr


def test_second_enable_changes_nothing(pair: tuple[Pod, Pod, Node]) -> None:
    node = pair[0].node
    cnictl(node, "nat", "enable")
    assert set(outcomes(cnictl(node, "nat", "enable", "-o", "json")).values()) == {"unchanged"}


@pytest.mark.parametrize("command", [("nat", "enable"), ("nat", "disable"), ("nat", "enable", "--backend", "iptables")])
def test_dry_run_changes_nothing(pair: tuple[Pod, Pod, Node], command: tuple[str, ...]) -> None:
    node = pair[0].node
    if command == ("nat", "disable"):
        cnictl(node, "nat", "enable")
    before = snapshot(node)
    assert "would change" in cnictl(node, *command, "--dry-run").stdout
    assert snapshot(node) == before


@pytest.mark.parametrize("rules", ["policy", "docker", "late-docker"])
def test_pods_pass_a_forward_chain_that_drops(lab: Lab, rules: str) -> None:
    here, there = lab.nodes
    if rules == "policy":
        there.run(["iptables", "-P", "FORWARD", "DROP"])
    if rules == "docker":
        there.run(["iptables-restore"], stdin=DOCKER_FILTER)
    init(here, "--peer", f"{there.pod_cidr}={there.address}")
    init(there, "--peer", f"{here.pod_cidr}={here.address}")
    if rules == "late-docker":
        there.run(["iptables-restore", "--noflush"], stdin=DOCKER_FILTER)
    pod, far, sibling = start_pod(here, "a"), start_pod(there, "b"), start_pod(there, "c")
    assert pod.pings(far.address) and far.pings(pod.address)
    assert far.pings(sibling.address)  # bridged packets pass FORWARD too
    assert far.pings(lab.outside.address)
    assert drifted(there) == []
    place = "DOCKER-USER" if rules == "docker" else "FORWARD"
    assert there.run(["iptables", "-S", place]).stdout.splitlines()[1].endswith("-j CNICTL-FORWARD")


def test_forward_accept_is_loaded_before_anything_drops(node: Node) -> None:
    init(node)
    assert "-j CNICTL-FORWARD" in node.run(["iptables", "-S", "FORWARD"]).stdout


def test_pods_pass_an_nft_firewall_that_rejects(lab: Lab) -> None:
    here, there = lab.nodes
    there.run(["nft", "-f", "-"], stdin=FIREWALLD)
    init(here, "--peer", f"{there.pod_cidr}={there.address}")
    init(there, "--peer", f"{here.pod_cidr}={here.address}")
    pod, far = start_pod(here, "a"), start_pod(there, "b")
    assert pod.pings(far.address) and far.pings(pod.address)
    listed = there.run(["nft", "list", "chain", "inet", "firewalld", "filter_FORWARD"]).stdout.splitlines()
    assert [number for number, line in enumerate(listed) if 'comment "cnictl:mynet"' in line] == [5, 6, 7, 8, 9, 10]
    assert "reject with icmpx admin-prohibited" in listed[11]


def test_firewall_reloaded_later_is_drift_that_apply_repairs(node: Node) -> None:
    init(node)
    node.run(["nft", "-f", "-"], stdin=FIREWALLD)
    assert drifted(node) == ["forward/nft"]
    cnictl(node, "apply")
    assert drifted(node) == []
    node.run(["nft", "insert", "rule", "inet", "firewalld", "filter_FORWARD", "drop"])
    node.run(["iptables", "-I", "FORWARD", "-j", "DROP"])
    assert drifted(node) == ["forward/iptables", "forward/nft"]
    cnictl(node, "apply")
    assert drifted(node) == []


def test_node_without_iptables_gets_its_accept_by_nft(node: Node) -> None:
    node.run(
        ["sh", "-ec", 'for one in $(ls /usr/sbin | grep ^iptables); do mount --bind /dev/null "/usr/sbin/$one"; done']
    )
    node.run(
        ["nft", "-f", "-"],
        stdin="table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }",
    )
    before = snapshot_nft(node)
    init(node)
    assert snapshot_nft(node).count('comment "cnictl:mynet"') == 5
    cnictl(node, "reset-node", "--yes")
    assert snapshot_nft(node) == before


def snapshot_nft(node: Node) -> str:
    """Return the nftables rule set."""
    return node.run(["nft", "-s", "list", "ruleset"]).stdout
