"""Open the source that a node file names. Its client, which may be heavy or an extra of the package, is loaded then."""

import importlib

from cnictl.core.errors import UsageProblem
from cnictl.node.reach.source import Source
from cnictl.node.spec.node_spec import NodeSpec

CLUSTER_FILE, KUBECONFIG = "/etc/cnictl/cluster.toml", "/etc/cnictl/kubeconfig"
"""Where a source's data is unless the node file says otherwise."""

FILE, KUBERNETES = "file", "kubernetes"


def opened(spec: NodeSpec) -> Source:
    """Return the source. Raises UsageProblem if its client is not installed, or what it needs is not there."""
    if spec.reach.source == FILE:
        module = importlib.import_module("cnictl.node.reach.cluster_file")
        source: Source = module.FileSource(spec.reach.file or CLUSTER_FILE)
        return source
    try:
        module = importlib.import_module("cnictl.node.reach.kubernetes")
    except ImportError as error:
        raise UsageProblem(
            f"the client for Kubernetes is not installed here: {error}", "pip install 'cnictl[kubernetes]'"
        ) from None
    cluster: Source = module.KubernetesSource(spec.reach.kubeconfig or KUBECONFIG)
    return cluster
