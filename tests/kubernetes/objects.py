"""Build the objects of the tests' API server in the form of the Kubernetes API."""

from typing import Any

Object = dict[str, Any]

NODES = "/api/v1/nodes"
SYSTEM = "/api/v1/namespaces/kube-system"
ADMIN = "admin-token"
"""A token with all rights."""


def node(name: str, pod_cidrs: list[str], addresses: list[str], rest: int = 0) -> Object:
    """Return a Node as kubelet registers it. With `rest` it lists that many images, as Nodes of real clusters do."""
    images = [
        {"names": [f"registry.example/{name}/image-{at}@sha256:{at:064x}", f"image:{at}"], "sizeBytes": at << 20}
        for at in range(rest)
    ]
    listed = [{"type": "Hostname", "address": name}, {"type": "ExternalIP", "address": "203.0.113.9"}]
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {"podCIDR": pod_cidrs[0], "podCIDRs": pod_cidrs} if pod_cidrs else {},
        "status": {
            "addresses": [*listed, *({"type": "InternalIP", "address": address} for address in addresses)],
            "images": images,
        },
    }


def status(code: int, reason: str, message: str) -> Object:
    """Return a Status, the form of every error."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }
