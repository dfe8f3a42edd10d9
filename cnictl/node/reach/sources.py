"""Open the source of peers that a node file names."""

from cnictl.core.paths import CLUSTER_FILE
from cnictl.node.reach import extras
from cnictl.node.reach.cluster_file import FileSource
from cnictl.node.reach.source import Source
from cnictl.node.spec.node_spec import FILE, NodeSpec


def open_source(spec: NodeSpec, setting_up: bool = False) -> Source:
    """Return the source. Raises UsageProblem if its client or its credential is missing.

    With `setting_up`, an administrator's credential is used if the node has none.
    """
    if spec.reach.source == FILE:
        return FileSource(spec.reach.file or CLUSTER_FILE)
    return extras.kubernetes_source(spec.reach, setting_up)
