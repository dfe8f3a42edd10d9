"""What the source promises holds with the tests' own API server and with a real one."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from cnictl.node.reach import kubernetes_api
from cnictl.node.reach.kubernetes import KubernetesSource
from cnictl.node.reach.source import Announcement, SourceLost
from tests.kubernetes.conftest import PREFIX, Cluster, Watching
from tests.waiting import wait_for

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


def test_changes_between_list_and_watch_are_not_missed(cluster: Cluster) -> None:
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


def test_list_reads_all_pages(cluster: Cluster) -> None:
    names = [f"n{at}" for at in range(300)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: cluster.create(name, [], []), names))
    assert {f"{PREFIX}{name}" for name in names} <= {node.name for node in cluster.listed()[1].nodes}


def test_watch_that_the_server_ends_continues(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_api, "WATCH_FOR", 1)
    watching = cluster.watching()
    for name in ("a", "b", "c"):  # one new Node each second keeps the watch from counting as ended forever
        before = time.monotonic()
        cluster.create(name, [], [])
        watching.wait_for(lambda nodes, name=name: f"{PREFIX}{name}" in nodes, "the new Node")  # type: ignore[misc]
        wait_for(lambda before=before: time.monotonic() > before + 0.8, "most of a second")  # type: ignore[misc]
    assert watching.failure is None


def test_version_that_the_server_has_forgotten_loses_the_source(cluster: Cluster) -> None:
    source, snapshot = cluster.listed()
    if cluster.server is not None:
        cluster.server.forget()
    source._last = replace(snapshot, version="1")  # older than any version that a server keeps
    assert "no longer knows the version" in Watching(source, "1").lost().message


def test_rights_that_rbac_grants_are_enough(cluster: Cluster, tmp_path: Path) -> None:
    source = cluster.account(tmp_path / "account")
    wait_for(lambda: isinstance(listed_or_refused(source), str), "the rights")
    watching = Watching(source, source.list().version)
    cluster.create("a", BOTH, ["192.0.2.1"])
    watching.wait_for(lambda nodes: f"{PREFIX}a" in nodes, "the new Node")


@pytest.mark.parametrize(
    ("nodes", "maps", "said", "rule"),
    [
        (False, True, "refuses to list nodes", 'resources: ["nodes"], verbs: ["get", "list", "watch"]'),
        (True, False, "refuses to get configmaps", 'resourceNames: ["kubeadm-config", "kube-proxy"], verbs: ["get"]'),
    ],
    ids=["nodes", "configmaps"],
)
def test_missing_right_is_named_with_the_rule_that_grants_it(
    cluster: Cluster, tmp_path: Path, nodes: bool, maps: bool, said: str, rule: str
) -> None:
    source = cluster.account(tmp_path / "account", nodes=nodes, maps=maps)

    lost: list[SourceLost] = []

    def refused() -> bool:
        answer = listed_or_refused(source)
        lost.extend([answer] if isinstance(answer, SourceLost) else [])
        return bool(lost) and said in lost[-1].message

    wait_for(refused, said)
    assert rule in lost[-1].hint


def test_credential_that_the_server_does_not_know_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    cluster.account(tmp_path / "account")
    document = yaml.safe_load((tmp_path / "account").read_text())
    document["users"][0]["user"]["token"] = "unknown"
    (tmp_path / "account").write_text(yaml.safe_dump(document))
    with pytest.raises(SourceLost, match="refuses the credential: Unauthorized"):
        KubernetesSource(str(tmp_path / "account")).list()


def listed_or_refused(source: KubernetesSource) -> str | SourceLost:
    """Return the version of a list, or the refusal. A right takes effect a moment after it is granted."""
    try:
        return source.list().version
    except SourceLost as lost:
        return lost


def test_close_ends_a_watch_within_a_second(cluster: Cluster) -> None:
    watching = cluster.watching()
    watching.source.close()
    assert watching.ended(within=1)
    assert watching.failure is None


def test_version_that_was_not_listed_is_refused(cluster: Cluster) -> None:
    source, _ = cluster.listed()
    with pytest.raises(SourceLost, match="was not listed at version"):
        next(source.watch("1"))
