"""Pods of five nodes whose peers come from Kubernetes reach each other, and a sixth node joins and leaves."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from cnictl.lab.lab import Lab, Node
from tests.kernel.commands import Pod, cnictl, drifted, start_pod
from tests.kernel.node.test_reach import Watch, learned
from tests.kernel.node.test_reach_kubernetes import NETWORK, Cluster
from tests.waiting import wait_for

pytestmark = pytest.mark.once

BOUND = 20.0
"""The limit in seconds for all nodes to follow.

A quiet machine needs a fraction of a second. The test prints its time.
"""
_SERVE = """
import socket
server = socket.create_server(("0.0.0.0", 7007), backlog=64)
print("ready", flush=True)
while True:
    connection, sender = server.accept()
    connection.sendall(sender[0].encode())
    connection.close()
"""
_ASK = """
import json, socket, sys
seen = {}
for receiver in sys.argv[1:]:
    try:
        with socket.create_connection((receiver, 7007), timeout=2) as connection:
            seen[receiver] = connection.recv(64).decode()
    except OSError as error:
        seen[receiver] = str(error)
print(json.dumps(seen))
"""


class Pods:
    """A pod on each of some nodes, with a server that reports who connects to it."""

    def __init__(self, nodes: list[Node]) -> None:
        self._pods: list[Pod] = []
        self._servers = ExitStack()
        for node in nodes:
            self.add(node)

    def add(self, node: Node) -> None:
        """Start the pod of one more node."""
        pod = start_pod(node, "probe")
        serving = pod.popen(["/usr/bin/python3", "-c", _SERVE])
        self._servers.callback(serving.communicate)
        self._servers.callback(serving.kill)
        assert serving.stdout is not None and serving.stdout.readline() == "ready\n"
        self._pods.append(pod)

    def red(self) -> dict[tuple[str, str], str]:
        """Return the pairs in which the receiver did not see the sender's own address, with what happened."""
        red: dict[tuple[str, str], str] = {}
        for sender in self._pods:
            receivers = [pod.address for pod in self._pods if pod is not sender]
            seen = json.loads(sender.run("/usr/bin/python3", "-c", _ASK, *receivers).stdout)
            red |= {(sender.address, at): said for at, said in seen.items() if said != sender.address}
        return red

    def end(self) -> None:
        """Stop all servers."""
        self._servers.close()


@pytest.fixture(scope="module")
def six() -> Iterator[Cluster]:
    """Yield six nodes. Five of them have a Node in Kubernetes, and follow it."""
    with Lab(nodes=6) as lab, ExitStack() as watches:
        cluster = Cluster(lab, announced=5)
        for at in range(5):
            cluster.join(at, "--network", NETWORK)
            watches.enter_context(Watch(lab.nodes[at]))
        yield cluster


@pytest.fixture(scope="module")
def pods(six: Cluster) -> Iterator[Pods]:
    """Yield a pod on each of the five nodes."""
    pods = Pods(six.nodes[:5])
    yield pods
    pods.end()


def test_pods_of_five_nodes_reach_each_other_with_their_own_addresses(pods: Pods) -> None:
    assert pods.red() == {}


def test_sixth_node_joins_by_one_command_and_leaves_no_route_when_removed(
    six: Cluster, pods: Pods, record_property: Callable[[str, object], None]
) -> None:
    *five, sixth = six.nodes
    histories = [runs(node) for node in five]
    announced = time.monotonic()
    six.change("POST", "node5", sixth.pod_cidr, sixth.address)
    wait_for(lambda: all(learned(node).get(sixth.pod_cidr) == sixth.address for node in five), "routes", BOUND)
    routed = time.monotonic() - announced
    six.join(5, "--network", NETWORK)
    pods.add(sixth)
    wait_for(lambda: pods.red() == {}, "a green matrix", BOUND)
    green = time.monotonic() - announced
    assert drifted(sixth) == []
    assert [runs(node) for node in five] == histories, "no command was run on the other nodes"

    left = time.monotonic()
    six.change("DELETE", "node5")
    wait_for(lambda: not any(sixth.pod_cidr in learned(node) for node in five), "its routes are gone", BOUND)
    gone = time.monotonic() - left
    cnictl(sixth, "reset-node", "--yes", "--force")
    assert learned(sixth) == {}
    for what, seconds in (("routed on all", routed), ("set up, matrix green", green), ("gone from all", gone)):
        record_property(what, f"{seconds:.2f}")
        print(f"{what} after {seconds:.2f} s")


def runs(node: Node) -> list[str]:
    """Return the operator's runs on a node, without watch's changes."""
    items = json.loads(cnictl(node, "history", "-o", "json").stdout)["items"]
    return [f"{item['run']} {item['command']}" for item in items if item["command"] != "watch"]
