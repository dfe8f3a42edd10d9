"""Run the matrix over the nodes of a lab. Commands are started directly in the nodes, without ssh."""

from collections.abc import Callable, Sequence

from cnictl.cluster import matrix_run
from cnictl.cluster.matrix import Matrix
from cnictl.cluster.ssh import Session
from cnictl.lab.lab import Lab, environment


class LabTransport:
    """Starts commands in the nodes of a lab; a host's name is its node's name."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def start(self, host: str, argv: Sequence[str]) -> Session:
        """Start a command in a node. Raises UsageProblem if the lab has no such node."""
        return Session(self._lab.machine(host).command(list(argv)), host, environment())


def run_over_lab(lab: Lab, on_step: Callable[[str], None] = lambda _: None) -> Matrix:
    """Return the matrix of every pair of a lab's nodes, which must be set up."""
    return matrix_run.run([node.name for node in lab.nodes], LabTransport(lab), on_step)
