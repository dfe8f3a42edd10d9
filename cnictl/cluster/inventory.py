"""The cluster file on the operator's machine, and the hosts that it names."""

import difflib
import os
from collections.abc import Iterable
from dataclasses import dataclass

from cnictl.cluster.ssh import Ssh
from cnictl.core.errors import Problem, UsageProblem
from cnictl.core.paths import CLUSTER_FILE
from cnictl.node.plugin import files
from cnictl.node.reach import cluster_file
from cnictl.node.reach.cluster_file import Cluster, ClusterNode

HERE = "cluster.toml"


@dataclass(frozen=True)
class Inventory:
    """A cluster file and the content that was read from it."""

    path: str
    contents: bytes
    text: str
    cluster: Cluster

    def node(self, name: str) -> ClusterNode:
        """Return a node by its name. Raises UsageProblem if there is none."""
        return self.limited([name])[0]

    def limited(self, names: Iterable[str]) -> tuple[ClusterNode, ...]:
        """Return the nodes with these names, in the file's order; all if none is given. Raises UsageProblem."""
        wanted = list(dict.fromkeys(part.strip() for name in names for part in name.split(",") if part.strip()))
        known = {node.name: node for node in self.cluster.nodes}
        for name in wanted:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                raise UsageProblem(f"{self.path} has no node {name!r}", f"probably meant {near[0]}" if near else "")
        return tuple(node for node in self.cluster.nodes if not wanted or node.name in wanted)

    def write(self, text: str) -> None:
        """Write a new text to the file. Raises Problem if the file was changed since it was read."""
        if cluster_file.read(self.path) != self.contents:
            raise Problem(f"{self.path} has changed since this command read it", "run the command again")
        bom = "\ufeff" if self.contents.startswith(b"\xef\xbb\xbf") else ""
        files.write(os.path.abspath(self.path), (bom + text).encode(), 0o644)


def read(path: str) -> Inventory:
    """Read the cluster file: of `-f`, else of the current folder, else of this host. Raises UsageProblem."""
    if not path:
        path = next((place for place in (HERE, CLUSTER_FILE) if os.path.lexists(place)), "")
    if not path:
        raise UsageProblem(
            f"there is no {HERE} here and no {CLUSTER_FILE}",
            "name the cluster file with -f; docs/cluster.md describes its format",
        )
    try:
        contents = cluster_file.read(path)
    except OSError as error:
        raise UsageProblem(f"{path}: {error.strerror}") from None
    text = cluster_file.text_of(contents, path)
    return Inventory(path, contents, text, cluster_file.parse(text, path))


def hosts(nodes: Iterable[ClusterNode]) -> Ssh:
    """Return the nodes' hosts, each at its `ssh` value, or else at its first address."""
    return Ssh({node.name: node.ssh or node.addresses[0] for node in nodes})
