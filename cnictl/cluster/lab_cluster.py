"""Build a cluster in a lab from one file, as an operator does on real hosts, and test every pair of its nodes."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from cnictl.cluster.lab_transport import run_over_lab
from cnictl.cluster.matrix import Matrix
from cnictl.lab.lab import Lab, Node
from cnictl.lab.plan import NETWORK

_COMMAND_SECONDS = 60.0
_PLACE = "/root/cluster.toml"


def cluster_text(lab: Lab) -> str:
    """Return the cluster file for the nodes of a lab."""
    tables = (
        f'\n[[nodes]]\nname = "{node.name}"\naddress = "{node.address}"\npod_cidr = "{node.pod_cidr}"\n'
        for node in lab.nodes
    )
    return f'network = "{NETWORK}"\n{"".join(tables)}'


def play(count: int, on_step: Callable[[str], None]) -> tuple[str, Matrix]:
    """Set up a lab of `count` nodes from one file; return the file and the matrix. Raises Problem."""
    on_step(f"bringing up {count} nodes and a host outside")
    with Lab(nodes=count) as lab, ThreadPoolExecutor(count) as pool:
        text = cluster_text(lab)

        def set_up(node: Node) -> None:
            node.run(["sh", "-c", f"cat > {_PLACE}"], text)
            words = ["init-node", "--from", _PLACE, "--external", lab.outside.address]
            node.run(["cnictl", *words], timeout=_COMMAND_SECONDS)

        on_step("cnictl init-node --from cluster.toml on every node")
        list(pool.map(set_up, lab.nodes))
        on_step("cnictl cluster test: every pair, both ways")
        return text, run_over_lab(lab)
