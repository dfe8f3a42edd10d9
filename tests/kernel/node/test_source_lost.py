"""No packet is lost if the source of peers is missing, empty, corrupt or wrong and watch is killed meanwhile.

Both nodes lose their source, and `watch` is killed and started again on both during each fault. Packets between their
pods are numbered, and each is counted. With `make soak`, the source is missing for two minutes.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from cnictl.lab.lab import Lab, Node
from tests.kernel.commands import Pod, call, start_pod
from tests.kernel.node.stream import INTERVAL, Stream
from tests.kernel.node.test_reach import FILE, Watch, cluster_text, entries_of, join, learned, listed, put
from tests.kernel.node.test_reach_kubernetes import NETWORK, Cluster
from tests.soak import SOAK
from tests.waiting import wait_for

pytestmark = pytest.mark.once

AWAY = 120.0 if SOAK else 0.0
"""The minimum time in seconds for which the source is missing."""
LEAST = 50
"""The minimum number of packets for a meaningful stream."""

Routes = dict[str, str]


class Ground:
    """Two nodes that follow a source, each with a pod and a watch."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes
        self.routes = [learned(node) for node in nodes]
        self.watches = [Watch(node).__enter__() for node in nodes]
        self.restarts = 0
        self._said = dict.fromkeys((node.name for node in nodes), "")

    def through(self, fault: str, away: float = 0.0) -> None:
        """Wait until both nodes report what is wrong with their source, then kill watch and start it again."""
        for node in self.nodes:
            wait_for(lambda node=node: self._is_noticed(node), f"{fault}: the node reports it", 40.0)  # type: ignore[misc]
        self.restart(fault)
        end = time.monotonic() + away
        while time.monotonic() < end:
            self.restart(fault)

    def _is_noticed(self, node: Node) -> bool:
        """Return whether a node reports something else than at the last fault."""
        said = _trouble(node)
        is_new = said not in ("", self._said[node.name])
        if is_new:
            self._said[node.name] = said
        return is_new

    def restart(self, fault: str) -> None:
        """Kill watch on both nodes, start it again, and check that all routes are there."""
        for watch in self.watches:
            watch.kill()
        self.watches = [Watch(node).__enter__() for node in self.nodes]
        self.restarts += 1
        assert [learned(node) for node in self.nodes] == self.routes, fault

    def whole(self) -> None:
        """Wait until both nodes have their source again."""
        for node in self.nodes:
            wait_for(lambda node=node: not _trouble(node), "the source is right again", 40.0)  # type: ignore[misc]
        assert [learned(node) for node in self.nodes] == self.routes

    def close(self) -> None:
        """End both watches."""
        for watch in self.watches:
            watch.__exit__()


def _trouble(node: Node) -> str:
    """Return what a node reports as wrong with its source."""
    document = listed(node)
    refused = [row["why"] for row in document["items"] if row["state"] == "refused"]
    return " ".join(filter(None, [document["source"]["trouble"], document["source"]["conflict"], *refused]))


@contextmanager
def counted(ground: Callable[[], Ground], nodes: list[Node]) -> Iterator[Ground]:
    """Count the packets between the nodes' pods while the context lasts. None may be lost."""
    here, there = start_pod(nodes[0], "here"), start_pod(nodes[1], "there")
    made = None
    try:
        made = ground()
        start = time.monotonic()
        with Stream(here, there) as stream:
            yield made
        result, took = stream.counted, time.monotonic() - start
        print(f"{result.sent} packets in {took:.0f} s, {len(result.lost)} lost; watch killed {2 * made.restarts} times")
        assert (result.lost, result.refused) == ([], 0)
        assert result.sent >= max(LEAST, took / INTERVAL / 4)
    finally:
        if made is not None:
            made.close()
        _end(here)
        _end(there)


def _end(pod: Pod) -> None:
    call(pod.node, "DEL", pod.name)
    pod.node.run(["ip", "netns", "del", pod.name])


def test_no_packet_is_lost_with_any_fault_of_the_cluster_file() -> None:
    with Lab(nodes=2) as lab:
        for node in lab.nodes:
            join(node, cluster_text(entries_of(lab)))
        one, two = entries_of(lab)
        faults = {
            "empty": "",
            "garbage": "\x00\x01",
            "no node": 'network = "10.244.0.0/16"\nnodes = []\n',
            "another cluster": cluster_text([("other", "10.0.0.200", "10.244.44.0/24")]),
            "liars with both nodes' pod CIDRs": cluster_text(
                [("liar1", "10.0.0.201", one[2]), ("liar2", "10.0.0.202", two[2]), one, two]
            ),
            "the gateway as both nodes' address": cluster_text(
                [(name, "10.0.0.1", cidr) for name, _, cidr in (one, two)]
            ),
        }
        with counted(lambda: Ground(lab.nodes), lab.nodes) as ground:
            for node in lab.nodes:
                node.run(["rm", FILE])
            ground.through("away", AWAY)
            for fault, text in faults.items():
                for node in lab.nodes:
                    put(node, text)
                ground.through(fault)
            for node in lab.nodes:
                put(node, cluster_text(entries_of(lab)))
            ground.whole()


def test_no_packet_is_lost_with_any_fault_of_the_kubernetes_server() -> None:
    with Lab(nodes=2) as lab:
        cluster = Cluster(lab, 2)
        for at in range(2):
            cluster.join(at, "--network", NETWORK)
        one, two = lab.nodes
        faults = {
            "empty": [],
            "another cluster": ["other=10.244.44.0/24=10.0.0.200"],
            "liars with both nodes' pod CIDRs": [
                f"a-liar={one.pod_cidr}=10.0.0.201", f"b-liar={two.pod_cidr}=10.0.0.202", *cluster.announced,
            ],
            "the gateway as both nodes' address": [
                f"node{at}={node.pod_cidr}=10.0.0.1" for at, node in enumerate(lab.nodes)
            ],
        }  # fmt: skip
        with counted(lambda: Ground(lab.nodes), lab.nodes) as ground:
            cluster.stop()
            ground.through("down", AWAY)
            for fault, announced in faults.items():
                cluster.start(announced)
                ground.through(fault)
                cluster.stop()
            cluster.start(cluster.announced)
            ground.whole()
