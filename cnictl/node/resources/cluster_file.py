"""Keep this node's copy of the cluster file, /etc/cnictl/cluster.toml, if that is its source of peers."""

from cnictl.core.paths import CLUSTER_FILE
from cnictl.node.resources.textfile import TextFile
from cnictl.node.spec.node_spec import FILE, NodeSpec
from cnictl.node.spine import State


class ClusterFile(TextFile):
    """The copy. Only `init-node --from` writes it; any other content belongs to the operator and stays."""

    offered = ""
    """The text of the file that `init-node --from` names."""

    def __init__(self) -> None:
        super().__init__(CLUSTER_FILE)

    def wanted(self, spec: NodeSpec) -> State | None:
        """Return the text that `init-node --from` offers, else the present one."""
        is_used = spec.reach.source == FILE and not spec.reach.file
        return {"text": self.offered} if is_used and self.offered else self.observe()

    def remember(self) -> None:
        """Record the original content if cnictl is about to write."""
        if self.offered:
            super().remember()

    def state_after_reset(self) -> State | None:
        """Return what a reset leaves: the original content, or the present one if cnictl has never written it."""
        return super().state_after_reset() if self.is_remembered() else self.observe()
