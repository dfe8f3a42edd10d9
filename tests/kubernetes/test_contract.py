"""What the source promises of every API server: run against the project's own and against a real one."""

import pytest

from cnictl.node.reach.source import Announcement, SourceLost
from tests.kubernetes.conftest import PREFIX, Cluster, Watching

BOTH = ["198.18.1.0/24", "2001:db8:1::/64"]
"""A Node's pod CIDRs in a dual-stack cluster."""


def test_list_has_pod_cidrs_and_internal_addresses_of_both_families(cluster: Cluster) -> None:
    cluster.create("both", BOTH, ["192.0.2.1", "2001:db8::1"])
    cluster.create("one", ["198.18.2.0/24"], ["192.0.2.2"])
    _, snapshot = cluster.listed()
    nodes = {node.name: node for node in snapshot.nodes}
    assert nodes[f"{PREFIX}both"] == Announcement(f"{PREFIX}both", tuple(BOTH), ("192.0.2.1", "2001:db8::1"))
    assert nodes[f"{PREFIX}one"] == Announcement(f"{PREFIX}one", ("198.18.2.0/24",), ("192.0.2.2",))
    assert snapshot.version


def test_node_without_a_pod_cidr_or_address_is_listed_as_it_is(cluster: Cluster) -> None:
    cluster.create("new", [], [])
    nodes = {node.name: node for node in cluster.listed()[1].nodes}
    assert nodes[f"{PREFIX}new"].addresses == ()


def test_watch_yields_all_nodes_after_each_change(cluster: Cluster) -> None:
    cluster.create("a", ["198.18.1.0/24"], ["192.0.2.1"])
    watching = cluster.watching()
    cluster.create("b", ["198.18.2.0/24"], ["192.0.2.2"])
    watching.wait_for(lambda nodes: {f"{PREFIX}a", f"{PREFIX}b"} <= nodes.keys(), "the new Node")
    cluster.readdress("b", "192.0.2.22")
    watching.wait_for(lambda nodes: nodes[f"{PREFIX}b"].addresses == ("192.0.2.22",), "the new address")
    cluster.delete("a")
    watching.wait_for(lambda nodes: f"{PREFIX}a" not in nodes and f"{PREFIX}b" in nodes, "the deletion")


def test_what_happens_between_list_and_watch_is_not_missed(cluster: Cluster) -> None:
    cluster.create("gone", ["198.18.1.0/24"], ["192.0.2.1"])
    source, snapshot = cluster.listed()
    cluster.delete("gone")
    cluster.create("new", ["198.18.2.0/24"], ["192.0.2.2"])
    Watching(source, snapshot.version).wait_for(
        lambda nodes: f"{PREFIX}gone" not in nodes and f"{PREFIX}new" in nodes, "both changes"
    )


def test_node_deleted_and_registered_again_has_its_new_pod_cidr(cluster: Cluster) -> None:
    cluster.create("a", ["198.18.1.0/24"], ["192.0.2.1"])
    watching = cluster.watching()
    cluster.delete("a")
    cluster.create("a", ["198.18.9.0/24"], ["192.0.2.1"])
    watching.wait_for(
        lambda nodes: f"{PREFIX}a" in nodes and nodes[f"{PREFIX}a"].pod_cidrs == ("198.18.9.0/24",), "the new pod CIDR"
    )


def test_updates_that_change_nothing_for_peers_are_not_yielded(cluster: Cluster) -> None:
    cluster.create("a", ["198.18.1.0/24"], ["192.0.2.1"])
    watching = cluster.watching()
    cluster.label("a", "other")
    cluster.create("b", ["198.18.2.0/24"], ["192.0.2.2"])
    watching.wait_for(lambda nodes: f"{PREFIX}b" in nodes, "the new Node")
    assert all(f"{PREFIX}b" in {node.name for node in snapshot.nodes} for snapshot in watching.snapshots)


def test_close_ends_a_watch_within_a_second(cluster: Cluster) -> None:
    watching = cluster.watching()
    watching.source.close()
    assert watching.ended(within=1)
    assert watching.failure is None


def test_version_that_was_not_listed_is_refused(cluster: Cluster) -> None:
    source, _ = cluster.listed()
    with pytest.raises(SourceLost, match="was not listed at version"):
        next(source.watch("1"))
