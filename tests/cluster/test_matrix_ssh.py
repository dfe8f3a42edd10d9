"""`cluster test` over ssh shows an operator the matrix of three hosts."""

import json

from tests.cluster.world import World
from tests.kernel.cluster import shell, traces


def test_three_hosts_are_green_and_nothing_is_left(three: World) -> None:
    three.cluster("test", "-o", "json", check=False)  # create the folders of leases and records
    before = [traces(node) for node in three.nodes]
    done = three.cluster("test", "-o", "json", check=False)
    document = json.loads(done.stdout)
    bad = [item for item in document["items"] if item["state"] != "ok" and item["check"] != "pod-external"]
    assert not bad, bad
    assert len([item for item in document["items"] if item["check"] == "pod-pod"]) == 6
    assert [host["cause"] for host in document["summary"]["hosts"]] == [None] * 3
    assert [traces(node) for node in three.nodes] == before


def test_forgotten_peer_and_a_host_without_sshd_are_named(three: World) -> None:
    first, second, third = three.nodes
    shell(first, f"ip route del {second.pod_cidr}; mv /usr/local/bin/cnictl /usr/local/bin/cnictl.away; true")
    done = three.cluster("test", check=False)
    shell(first, "mv /usr/local/bin/cnictl.away /usr/local/bin/cnictl")
    assert done.status == 1
    assert "node1 was not reached: cnictl is not installed there" in done.stdout
    done = three.cluster("test", check=False)
    shell(first, "cnictl apply")
    assert done.status == 1
    assert "✘ node1: no route to the peer's pod CIDR 10.244.1.0/24 through" in done.stdout
    assert "    hint: on node1: cnictl apply" in done.stdout
    assert third.name in done.stdout
