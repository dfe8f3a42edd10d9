"""Load what only some nodes need: clients of stores, which are extras of the package."""

from __future__ import annotations  # the type of the source is an extra's

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cnictl.core.errors import UsageProblem
from cnictl.node.host import debian_package
from cnictl.node.reach import kubernetes_access
from cnictl.node.reach.kubernetes_access import NodeCredential
from cnictl.node.spec.node_spec import Reach

if TYPE_CHECKING:
    from cnictl.node.reach.kubernetes import KubernetesSource

_KUBERNETES = ("kubernetes", "lightkube>=1.0.1,<2", ("lightkube", "httpx2", "msgspec", "yaml"))
"""The extra, what it installs (pyproject.toml), and the packages that are imported."""


def kubernetes_source(reach: Reach, setting_up: bool = False) -> KubernetesSource:
    """Return the source for `source = "kubernetes"`. Raises UsageProblem if lightkube is not installed.

    With `setting_up`, an administrator's kubeconfig on a control-plane node does where the node has none of its own.
    """
    with _needing(*_KUBERNETES):
        from cnictl.node.reach.kubernetes import KubernetesSource
    return KubernetesSource(kubernetes_access.choose(reach.kubeconfig, setting_up))


def kubernetes_credential(admin: str, server: str) -> NodeCredential:
    """Return a node's credential, read with an administrator's kubeconfig. Raises Problem."""
    with _needing(*_KUBERNETES):
        from cnictl.node.reach.kubernetes_api import token_credential
    return token_credential(admin, server)


@contextlib.contextmanager
def _needing(extra: str, requirement: str, packages: tuple[str, ...]) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in packages:
            raise
        what_to_do = f"install cnictl with its extra {extra}, or: {sys.executable} -m pip install '{requirement}'"
        if debian_package.runs():
            what_to_do = f"install the Debian package cnictl-{extra} of cnictl's version, built beside it"
        raise UsageProblem(f"the package {error.name}, which this takes, is not installed", what_to_do) from None
