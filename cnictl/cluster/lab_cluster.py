"""Build a cluster in a lab from one file, as an operator does on real hosts, and test every pair of its nodes."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from cnictl.cluster.lab_transport import run_over_lab
from cnictl.cluster.matrix import Matrix
from cnictl.core.counted import counted
from cnictl.lab.lab import Lab, Node
from cnictl.lab.plan import NETWORK, NETWORK6

_COMMAND_SECONDS = 60.0
_PLACE = "/root/cluster.toml"


def cluster_text(lab: Lab) -> str:
    """Return the cluster file for the nodes of a lab."""
    tables = (
        f'\n[[nodes]]\nname = "{node.name}"\naddress = {_values(node.address, node.address6)}\n'
        f"pod_cidr = {_values(node.pod_cidr, node.pod_cidr6)}\n"
        for node in lab.nodes
    )
    network6 = NETWORK6 if lab.outside.address6 else ""
    return f"network = {_values(NETWORK, network6)}\n{''.join(tables)}"


def _values(*texts: str) -> str:
    """Return one value, or a list of one for each family."""
    quoted = [f'"{text}"' for text in texts if text]
    return quoted[0] if len(quoted) == 1 else f"[{', '.join(quoted)}]"


def run_cluster_demo(count: int, on_step: Callable[[str], None], dual_stack: bool = False) -> tuple[str, Matrix]:
    """Set up a lab of `count` nodes from one file; return the file and the matrix. Raises Problem."""
    on_step(f"bringing up {counted(count, 'node')} and a host outside")
    with Lab(nodes=count, dual_stack=dual_stack) as lab, ThreadPoolExecutor(count) as pool:
        text = cluster_text(lab)
        externals = ",".join(filter(None, (lab.outside.address, lab.outside.address6)))

        def set_up(node: Node) -> None:
            node.run(["sh", "-c", f"cat > {_PLACE}"], text)
            words = ["init-node", "--from", _PLACE, "--external", externals]
            node.run(["cnictl", *words], timeout=_COMMAND_SECONDS)

        on_step("cnictl init-node --from cluster.toml on every node")
        list(pool.map(set_up, lab.nodes))
        on_step("cnictl cluster test: every pair, both ways")
        return text, run_over_lab(lab)
