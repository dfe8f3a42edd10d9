"""Load the clients that only some sources of peers need. They are optional dependencies of the package (extras)."""

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
"""The extra's name, its requirement in pyproject.toml, and the packages that the client imports."""


def kubernetes_source(reach: Reach, setting_up: bool = False) -> KubernetesSource:
    """Return the source for `source = "kubernetes"`. Raises UsageProblem if lightkube is not installed.

    With `setting_up`, an administrator's kubeconfig of a control-plane node is used if the node has none.
    """
    with _needing(*_KUBERNETES):
        from cnictl.node.reach.kubernetes import KubernetesSource
    return KubernetesSource(kubernetes_access.choose(reach.kubeconfig, setting_up))


def kubernetes_credential(admin: str, server: str) -> NodeCredential:
    """Fetch a node's credential with an administrator's kubeconfig. Raises Problem."""
    with _needing(*_KUBERNETES):
        from cnictl.node.reach.kubernetes_api import token_credential
    return token_credential(admin, server)


@contextlib.contextmanager
def _needing(extra: str, requirement: str, packages: tuple[str, ...]) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in packages:
            raise
        what_to_do = f"install cnictl[{extra}], or: {sys.executable} -m pip install '{requirement}'"
        if debian_package.runs():
            what_to_do = f"install the Debian package of the same version: apt install ./cnictl-{extra}_*.deb"
        message = f"source {extra!r} needs the Python package {package}, which is not installed"
        raise UsageProblem(message, what_to_do) from None
