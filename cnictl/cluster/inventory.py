"""Read and write the cluster file on the operator's machine, and list its hosts."""

import difflib
import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from cnictl.cluster.hosts import Command
from cnictl.cluster.ssh import VERSION, Ssh
from cnictl.core import untrusted_text
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
        self._require(name)
        return next(node for node in self.cluster.nodes if node.name == name)

    def limited(self, names: Iterable[str]) -> tuple[ClusterNode, ...]:
        """Return the nodes with these names, in the file's order; all without `names`. Raises UsageProblem.

        A text without any name, such as an empty variable of a script, does not mean all nodes.
        """
        texts = tuple(names)
        wanted = {part.strip() for text in texts for part in text.split(",") if part.strip()}
        if texts and not wanted:
            raise UsageProblem("--limit names no node", "leave --limit out to mean all nodes")
        for name in sorted(wanted):
            self._require(name)
        return tuple(node for node in self.cluster.nodes if not texts or node.name in wanted)

    def _require(self, name: str) -> None:
        known = [node.name for node in self.cluster.nodes]
        if name not in known:
            near = difflib.get_close_matches(name[:100], known, 1)
            shown = untrusted_text.cut(repr(name), 100)
            raise UsageProblem(f"{self.path} has no node {shown}", f"did you mean {near[0]}?" if near else "")

    def require_writable(self) -> None:
        """Raise Problem if this user can't write the file."""
        if not files.can_write(self.path):
            places = shlex.join([self.path, os.path.dirname(os.path.abspath(self.path))])
            raise Problem(f"{self.path} can't be written by this user", f"ls -ld {places} shows who can")

    def write(self, text: str) -> None:
        """Write a new text to the file. Raises Problem if the file was changed since it was read."""
        if cluster_file.read(self.path) != self.contents:
            raise Problem(f"{self.path} has changed since this command read it", "run the command again")
        bom = "\ufeff" if self.contents.startswith(b"\xef\xbb\xbf") else ""
        files.write(os.path.abspath(self.path), (bom + text).encode(), 0o644)


def read(path: str) -> Inventory:
    """Read the cluster file: that of `-f`, else of the current folder, else of this host. Raises UsageProblem."""
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


def hosts(nodes: Iterable[ClusterNode], first: Command = VERSION) -> Ssh:
    """Return the nodes' hosts, each reached at its `ssh` value, or else at its first address.

    `first`: the first command on each connection.
    """
    return Ssh({node.name: node.ssh or node.addresses[0] for node in nodes}, first)
