"""Keep this node's copy of the cluster file, /etc/cnictl/cluster.toml, where the node learns its peers from it."""

from cnictl.core.paths import CLUSTER_FILE
from cnictl.node.resources.textfile import TextFile
from cnictl.node.spec.node_spec import FILE, NodeSpec
from cnictl.node.spine import State


class ClusterFile(TextFile):
    """The copy. Only `init-node --from` writes it; whatever else comes to be there is the operator's, and stays."""

    offered = ""
    """The text of the file that `init-node --from` names."""

    def __init__(self) -> None:
        super().__init__(CLUSTER_FILE)

    def wanted(self, spec: NodeSpec) -> State | None:
        """Return the text that is offered, else the present one."""
        is_used = spec.reach.source == FILE and not spec.reach.file
        return {"text": self.offered} if is_used and self.offered else self.observe()

    def remember(self) -> None:
        """Record what was there before cnictl, if cnictl is about to write."""
        if self.offered:
            super().remember()

    def former(self) -> State | None:
        """Return what a reset leaves: what was there before cnictl wrote, or what is there if it never did."""
        return super().former() if self.is_remembered() else self.observe()
