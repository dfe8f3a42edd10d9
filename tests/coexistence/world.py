"""Two lab nodes with one pod each, and a TCP check of everything that pods must reach."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from cnictl.core.process import Finished
from cnictl.lab.lab import Lab, Node
from tests.kernel.commands import init, start_pod

from .packaged import refused, serve

EXTERNAL = "192.0.2.10"


class World:
    """Two nodes and the host outside, each with a server. The program under test runs on the first node."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.here, self.there = lab, *lab.nodes
        for node in (self.here, self.there, lab.outside):
            serve(node.popen)

    def init(self, *more: str) -> None:
        """Set up both nodes, and start a pod on each."""
        pairs = ((self.here, self.there), (self.there, self.here))
        with ThreadPoolExecutor(2) as pool:
            started = [
                pool.submit(init, node, "--peer", f"{peer.pod_cidr}={peer.address}", *more) for node, peer in pairs
            ]
        for future in started:
            future.result()
        self.pod, self.far = start_pod(self.here, "pod"), start_pod(self.there, "far")
        for pod in (self.pod, self.far):
            serve(pod.popen)

    def missing(self) -> list[str]:
        """Return the failed ones among the connections that must work."""
        pod, far = self.pod.address, self.far.address
        clients: dict[str, tuple[Callable[..., Finished], dict[str, str]]] = {
            "pod": (self.pod.run, {"its host": "10.244.0.1", "outside": EXTERNAL, "far pod": far}),
            "far pod": (self.far.run, {"its host": "10.244.1.1", "outside": EXTERNAL, "pod": pod}),
            "host": (on(self.here), {"pod": pod, "far pod": far}),
            "other node": (on(self.there), {"pod": pod}),
        }
        lacking = []
        for client, (run, servers) in clients.items():
            closed = refused(run, servers.values())
            lacking += [f"{client} to {server}" for server, address in servers.items() if address in closed]
        return lacking


def on(node: Node) -> Callable[..., Finished]:
    """Return a function that runs a command on a node as `Pod.run` does in a pod."""
    return lambda *argv, check: node.run([*argv], check=check)
