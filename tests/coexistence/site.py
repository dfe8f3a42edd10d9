"""Two nodes of a lab with a pod each, and all that pods are promised to reach, told by TCP."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from cnictl.core.process import Finished
from cnictl.lab.lab import Lab, Node
from tests.kernel.operator import init, start_pod

from .packaged import connects, serve

EXTERNAL = "192.0.2.10"


class Site:
    """Two nodes and the host outside, with servers on each; the program in question runs on the first."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.here, self.there = lab, *lab.nodes
        for node in (self.here, self.there, lab.outside):
            serve(node.popen)

    def init(self, *more: str) -> None:
        """Both nodes, and a pod on each."""
        pairs = ((self.here, self.there), (self.there, self.here))
        with ThreadPoolExecutor(2) as pool:
            started = [
                pool.submit(init, node, "--peer", f"{peer.pod_cidr}={peer.address}", *more) for node, peer in pairs
            ]
        for one in started:
            one.result()
        self.pod, self.far = start_pod(self.here, "pod"), start_pod(self.there, "far")
        for pod in (self.pod, self.far):
            serve(pod.popen)

    def missing(self) -> list[str]:
        """Who can't connect to whom, of what pods are promised."""
        ways: dict[str, tuple[Callable[..., Finished], str]] = {
            "pod to its host": (self.pod.run, "10.244.0.1"),
            "pod to outside": (self.pod.run, EXTERNAL),
            "pod to far pod": (self.pod.run, self.far.address),
            "far pod to pod": (self.far.run, self.pod.address),
            "other node to pod": (on(self.there), self.pod.address),
            "host to pod": (on(self.here), self.pod.address),
        }
        return [name for name, (run, address) in ways.items() if not connects(run, address)]


def on(node: Node) -> Callable[..., Finished]:
    """What runs a command on a machine as `Pod.run` does in a pod."""
    return lambda *argv, check: node.run([*argv], check=check)
