"""The credential for a Kubernetes API server: the rights that it needs, its file, and how that is written.

Needs no Kubernetes client: rights can be printed and files checked even where none is installed.
"""

import errno
import json
import os
import socket
import stat
from dataclasses import dataclass

from cnictl.core import durable, untrusted_text
from cnictl.core.errors import Problem, UsageProblem
from cnictl.node.plugin import output_file, ownership
from cnictl.node.state import folders

KUBECONFIG = "/etc/cnictl/kubeconfig"
"""The node's credential, unless `[reach] kubeconfig` names another."""
ADMIN_KUBECONFIGS = ("/etc/kubernetes/admin.conf", "/etc/rancher/k3s/k3s.yaml")
"""The files in which kubeadm and k3s leave an administrator's credential on a control-plane node."""
NAMESPACE = "kube-system"
ACCOUNT = "cnictl"
"""Name of the ServiceAccount, of its roles and of its Secret."""
NETWORK_CONFIG_MAPS = ("kubeadm-config", "kube-proxy")
"""The ConfigMaps that hold the cluster's pod networks."""
GRANT = "cnictl kubernetes rbac | kubectl apply -f -"
"""The command that gives the ServiceAccount all the rights that it needs."""

_LARGEST = 1 << 20
_MARK = "# Written by `cnictl kubernetes kubeconfig`"

RBAC = f"""\
# cnictl may read Nodes, and the two ConfigMaps that hold the pod networks. It can't change anything.
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {ACCOUNT}
  namespace: {NAMESPACE}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {ACCOUNT}
rules:
- apiGroups: [""]
  resources: ["nodes"]
  verbs: ["get", "list", "watch"]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {ACCOUNT}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: {ACCOUNT}
subjects:
- kind: ServiceAccount
  name: {ACCOUNT}
  namespace: {NAMESPACE}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {ACCOUNT}
  namespace: {NAMESPACE}
rules:
- apiGroups: [""]
  resources: ["configmaps"]
  resourceNames: {json.dumps(NETWORK_CONFIG_MAPS)}
  verbs: ["get"]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {ACCOUNT}
  namespace: {NAMESPACE}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {ACCOUNT}
subjects:
- kind: ServiceAccount
  name: {ACCOUNT}
  namespace: {NAMESPACE}
---
apiVersion: v1
kind: Secret
metadata:
  name: {ACCOUNT}
  namespace: {NAMESPACE}
  annotations:
    kubernetes.io/service-account.name: {ACCOUNT}
type: kubernetes.io/service-account-token
"""
"""Manifests for `kubectl apply`."""


@dataclass(frozen=True)
class NodeCredential:
    """The content of a node's kubeconfig."""

    server: str
    authority: str
    """The certificate authority in base64, as in a kubeconfig; empty for plain HTTP."""
    token: str
    server_name: str = ""
    """The name in the server's certificate, if it differs from the server's address."""

    @property
    def text(self) -> str:
        """The kubeconfig as YAML. JSON strings are valid YAML."""
        cluster = {"server": self.server}
        if self.authority:
            cluster["certificate-authority-data"] = self.authority
        if self.server_name:
            cluster["tls-server-name"] = self.server_name
        settings = "".join(f"    {key}: {json.dumps(value)}\n" for key, value in cluster.items())
        return (
            f"{_MARK}, which overwrites it.\n"
            "apiVersion: v1\nkind: Config\ncurrent-context: cnictl\n"
            f"clusters:\n- name: cnictl\n  cluster:\n{settings}"
            f"users:\n- name: cnictl\n  user:\n    token: {json.dumps(self.token)}\n"
            "contexts:\n- name: cnictl\n  context:\n    cluster: cnictl\n    user: cnictl\n"
        )

    @property
    def is_local(self) -> bool:
        """Whether the server's address means a different host on each node, such as 127.0.0.1 in k3s's kubeconfig."""
        host = self.server.partition("://")[2].rpartition(":")[0] or self.server.partition("://")[2]
        return host.startswith("127.") or host in ("localhost", "[::1]")


def own_name() -> str:
    """Return the name that kubelet registers this host under, unless `--hostname-override` gives another."""
    return socket.gethostname().strip().lower()


def choose(named: str, setting_up: bool = False) -> str:
    """Return the path of the kubeconfig: the one named in the node file, else /etc/cnictl/kubeconfig.

    With `setting_up`, an administrator's kubeconfig of a control-plane node may stand in for a missing one. It is used
    for one request only, never by `watch`.
    """
    if named or not setting_up or os.path.lexists(KUBECONFIG):
        return named or KUBECONFIG
    return admin("") if any(map(os.path.exists, ADMIN_KUBECONFIGS)) else KUBECONFIG


def admin(named: str) -> str:
    """Return the path of an administrator's kubeconfig: the one named, else kubeadm's or k3s's. Raises UsageProblem."""
    path = named or next((path for path in ADMIN_KUBECONFIGS if os.path.exists(path)), "")
    if not path:
        raise UsageProblem(
            f"there is no administrator's kubeconfig here: {' and '.join(ADMIN_KUBECONFIGS)} are missing",
            "run this on a control-plane node, or add --from ~/.kube/config",
        )
    return path


def read(path: str, private: bool) -> str:
    """Return the text of a kubeconfig. Raises UsageProblem if others may change it, or (with `private`) read it."""
    ensure_private(path, private)
    try:
        return durable.contents(path, _LARGEST).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageProblem(f"{path} can't be read: {getattr(error, 'strerror', 'it is not text')}") from None


def ensure_private(path: str, secret: bool) -> None:
    """Raise UsageProblem unless a file belongs to root or the caller, and nobody else can change or read it.

    Without `secret`, others may read it.
    """
    try:
        file = os.stat(path)
    except OSError as error:
        missing = error.errno == errno.ENOENT
        hint = f"write it on a control-plane node: {written_to(path)}"
        raise UsageProblem(
            f"there is no file {path}" if missing else f"{path}: {error.strerror}",
            hint if missing and path == KUBECONFIG else "",
        ) from None
    owners = ownership.roots() | {os.geteuid()}
    if not secret:
        caller = os.environ.get("SUDO_UID", "")  # the file may be an administrator's own
        owners |= {int(caller)} if caller.isdecimal() else set()
    if file.st_uid not in owners:
        raise UsageProblem(f"{path} belongs to user {file.st_uid}, not to root", f"chown root:root {path}")
    mode = stat.S_IMODE(file.st_mode)
    if mode & (0o077 if secret else 0o022):
        verbs, fix = ("read or change", "600") if secret else ("change", "go-w")
        raise UsageProblem(f"others may {verbs} {path} (mode {mode:o})", f"chmod {fix} {path}")


def written_to(path: str) -> str:
    """Return how a node's kubeconfig gets to `path`, as part of a hint."""
    return f"cnictl kubernetes kubeconfig --output FILE; copy FILE here to {path}"


def write(path: str, credential: NodeCredential, dry_run: bool = False) -> bool:
    """Write the kubeconfig at `path` in one step, with mode 0600; return whether that changes it.

    A file that cnictl did not write is not overwritten: raises Problem.
    """
    data = credential.text.encode()
    if not output_file.is_stdout(path):
        present = _written_before(path)
        if present == data and not os.stat(path).st_mode & 0o077:
            return False
    if not dry_run:
        if path == KUBECONFIG:
            folders.make(os.path.dirname(path))
        output_file.write(path, data, 0o600)
    return True


def _written_before(path: str) -> bytes:
    """Return the present content of a kubeconfig that cnictl wrote; nothing if there is no file. Raises Problem."""
    try:
        content = durable.contents(path, _LARGEST)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise Problem(f"{path}: {error.strerror}") from None
    if content and not content.startswith(_MARK.encode()):
        raise Problem(
            f"{path} was not written by `cnictl kubernetes kubeconfig`",
            "name another file with --output, or move this one away",
        )
    if os.stat(path).st_nlink > 1:  # it would be rewritten in place and keep its mode
        raise Problem(f"{path} has other names (hard links)", f"rm {path}")
    return content


def right_to(kind: str) -> str:
    """Return the hint for a refused request: the rule that grants it, and the command that adds the rule."""
    if kind == "secrets":
        return "name an administrator's kubeconfig with --from"
    rule = 'resources: ["nodes"], verbs: ["get", "list", "watch"]; in a ClusterRole'
    if kind == "configmaps":
        names = json.dumps(NETWORK_CONFIG_MAPS)
        rule = f'resources: ["configmaps"], resourceNames: {names}, verbs: ["get"]; in a Role of namespace {NAMESPACE}'
    return f'it needs the rule apiGroups: [""], {rule}. On a control-plane node: {GRANT}'


def shown(text: str) -> str:
    """Return an API server's message as one bounded line."""
    return untrusted_text.line(text, 300)
