"""`cluster status` names each fault between hosts with both hosts, and one `cluster apply` repairs it."""

import json
from collections.abc import Iterator

import pytest

from cnictl.lab.lab import Node
from cnictl.node.runs.converge import NO_NODE
from tests.cluster.world import COMMAND, World


@pytest.fixture
def cluster(three: World) -> Iterator[World]:
    """Yield three nodes without a fault. Afterwards, one `cluster apply` must repair what the test changed."""
    yield three
    three.cluster("apply")
    assert three.status()[1:] == ([], 0)


def _reinit(cluster: World, node: Node, text: str) -> None:
    """Set up a node again from this cluster file instead of the cluster's."""
    cluster.write(text, node, "/root/other.toml")
    node.run([COMMAND, "init-node", "--from", "/root/other.toml", "--ignore", "all"], timeout=90)


def test_forgotten_peer_names_both_hosts(cluster: World) -> None:
    _reinit(cluster, cluster.nodes[0], cluster.text([cluster.nodes[0], cluster.nodes[2]], with_cidrs=True))
    _, findings, status = cluster.status()
    assert status == 1
    assert findings == [
        "node1 has no peer for node2 (10.244.1.0/24), but node2 has one for node1: packets arrive and replies are lost"
    ]


def test_peers_that_forgot_each_other_are_reported_once(cluster: World) -> None:
    one, two, three = cluster.nodes
    _reinit(cluster, one, cluster.text([one, three], with_cidrs=True))
    _reinit(cluster, two, cluster.text([two, three], with_cidrs=True))
    assert cluster.status()[1] == ["node1 and node2 do not have each other as peers"]


def test_peer_at_another_address_names_both_hosts(cluster: World) -> None:
    text = cluster.text(cluster.nodes, with_cidrs=True).replace(cluster.nodes[1].address, "10.0.9.9")
    _reinit(cluster, cluster.nodes[0], text)
    message = cluster.status()[1][0]
    assert message.startswith("node1 sends the pods' packets for node2 (10.244.1.0/24) to 10.0.9.9, but the address")


def test_removed_route_names_both_hosts(cluster: World) -> None:
    cluster.nodes[0].run(["ip", "route", "del", "10.244.2.0/24"])
    rows, findings, _ = cluster.status()
    assert rows["node1"]["state"] == "faulty"
    assert "1 resource drifted" in rows["node1"]["why"]
    assert findings == ["the route on node1 to the pods of node3 (10.244.2.0/24) is wrong: missing"]


def test_two_nodes_with_one_pod_cidr_are_both_named(cluster: World) -> None:
    one, two, three = cluster.nodes
    text = cluster.text([two, three], with_cidrs=True).replace(two.pod_cidr, one.pod_cidr)
    two.run(["cnictl", "reset-node", "--yes"], timeout=90)
    _reinit(cluster, two, text)
    findings = cluster.status()[1]
    assert "node1 and node2 both have the pod CIDR 10.244.0.0/24" in findings
    assert any("which is node1's in the cluster file; the file gives it 10.244.1.0/24" in text for text in findings)
    document = json.loads(cluster.cluster("test", "-o", "json", check=False).stdout)
    causes = {item["cause"]["text"] for item in document["items"] if item["cause"] and item["check"] == "pod-pod"}
    assert "node1 and node2 have overlapping pod CIDRs: 10.244.0.0/24" in causes
    items = json.loads(one.run(["cnictl", "doctor", "-o", "json"], timeout=90, check=False).stdout)["items"]
    (message,) = (item["message"] for item in items if item["id"] == "same-pod-cidr")
    assert message.startswith(f"peer {two.address} (MAC ")
    assert message.endswith(f"on eth0 has this address too: it has the same pod CIDR as this node ({one.address})")
    two.run(["cnictl", "reset-node", "--yes"], timeout=90)


def test_node_that_was_reset_is_named_with_those_that_route_to_it(cluster: World) -> None:
    cluster.nodes[2].run(["cnictl", "reset-node", "--yes"], timeout=90)
    rows, findings, _ = cluster.status()
    assert rows["node3"]["state"] == "not a node"
    assert findings == [
        "node3 is not set up as a node (it was reset, or never set up), but node1 and node2 still route "
        "10.244.2.0/24 to it"
    ]
    summary = json.loads(cluster.cluster("test", "-o", "json", check=False).stdout)["summary"]
    hosts = {host["name"]: host["cause"] for host in summary["hosts"]}
    assert hosts == {"node1": None, "node2": None, "node3": NO_NODE[0]}


def test_other_network_names_both_hosts(cluster: World) -> None:
    _reinit(cluster, cluster.nodes[1], cluster.text(cluster.nodes, network="10.244.0.0/18", with_cidrs=True))
    assert cluster.status()[1] == ["node2 has network 10.244.0.0/18, but node1 has 10.244.0.0/20"]


def test_other_mtu_names_both_hosts(cluster: World) -> None:
    node = cluster.nodes[1]
    node.run(["cnictl", "init-node", "--mtu", "1400"], timeout=90)
    try:
        assert cluster.status()[1] == ["node2 has bridge MTU 1400, but node1 has 1500"]
        summary = json.loads(cluster.cluster("test", "-o", "json", check=False).stdout)["summary"]
        assert summary["notes"] == ["the bridge's MTU differs: 1500 on node1, node3; 1400 on node2"]
    finally:
        node.run(["cnictl", "init-node", "--mtu", "0"], timeout=90)


def test_other_version_is_a_row_and_is_not_changed(cluster: World) -> None:
    with cluster.replaced(cluster.nodes[2], 'case "$1" in --version) echo "cnictl 0.1.9"; exit;; esac'):
        rows, findings, _ = cluster.status()
        assert rows["node3"]["state"] == "other version"
        assert rows["node3"]["why"].startswith("has cnictl 0.1.9, but this machine has ")
        assert rows["node3"]["peers_ok"] == 2, "the rest of its status is shown too"
        assert any(text.startswith("node3 has cnictl version 0.1.9, but node1 has ") for text in findings)
        done = cluster.cluster("apply", "-o", "json", check=False)
        assert [row["state"] for row in json.loads(done.stdout)["items"]] == [
            "unchanged",
            "unchanged",
            "other version",
        ]
        assert done.status == 1
