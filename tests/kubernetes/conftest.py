"""Provide an API server for a test: the tests' own, or the real one that CNICTL_TEST_KUBECONFIG names."""

import base64
import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from lightkube import ApiError, Client, KubeConfig, codecs
from lightkube.models.authentication_v1 import TokenRequestSpec
from lightkube.models.core_v1 import NodeAddress, NodeSpec, NodeStatus
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Node, ServiceAccount, ServiceAccountToken
from lightkube.resources.rbac_authorization_v1 import ClusterRole, ClusterRoleBinding, Role, RoleBinding

from cnictl.core.errors import Problem
from cnictl.node.reach import kubernetes_access as access
from cnictl.node.reach import kubernetes_api
from cnictl.node.reach.kubernetes import KubernetesSource
from cnictl.node.reach.source import Announcement, Snapshot
from tests.kubernetes.authority import Authority, make_authority
from tests.kubernetes.objects import node
from tests.kubernetes.server import ApiServer
from tests.waiting import wait_for

REAL = os.environ.get("CNICTL_TEST_KUBECONFIG", "")
PREFIX = "cnictl-test-"
"""The prefix of the names of all Nodes that tests create in a real cluster."""


class Watching:
    """A thread that watches a source."""

    def __init__(self, source: KubernetesSource, version: str) -> None:
        self.source = source
        self.snapshots: list[Snapshot] = []
        self.failure: Problem | None = None
        self._version = version
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        try:
            for snapshot in self.source.watch(self._version):
                self.snapshots.append(snapshot)
        except Problem as problem:
            self.failure = problem

    @property
    def nodes(self) -> dict[str, Announcement]:
        """The latest Nodes by name."""
        return {node.name: node for node in self.snapshots[-1].nodes} if self.snapshots else {}

    def wait_for(self, look: Callable[[dict[str, Announcement]], object], what: str) -> None:
        """Wait until `look` accepts the latest Nodes."""
        wait_for(lambda: self.failure is not None or look(self.nodes), what)
        assert self.failure is None, self.failure

    def lost(self) -> Problem:
        """Wait until the source is lost, and return the failure."""
        wait_for(lambda: self.failure, "SourceLost")
        self._thread.join(2)
        assert self.failure is not None
        return self.failure

    def ended(self, within: float) -> bool:
        """Return whether the watch ends within some seconds."""
        self._thread.join(within)
        return not self._thread.is_alive()


NODE_RULE = {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]}
MAP_RULE = {
    "apiGroups": [""],
    "resources": ["configmaps"],
    "resourceNames": ["kubeadm-config", "kube-proxy"],
    "verbs": ["get"],
}


@dataclass
class Cluster:
    """An API server, with an administrator's credential."""

    kubeconfig: Path
    server: ApiServer | None

    def __post_init__(self) -> None:
        self._admin = Client(KubeConfig.from_file(self.kubeconfig).get(), trust_env=False)
        self.sources: list[KubernetesSource] = []

    def source(self, silence: float = 30.0) -> KubernetesSource:
        """Return a source that reads from this server."""
        source = KubernetesSource(str(self.kubeconfig), silence)
        self.sources.append(source)
        return source

    def listed(self) -> tuple[KubernetesSource, Snapshot]:
        """Return a source, and the snapshot that it lists."""
        source = self.source()
        return source, source.list()

    def watching(self, silence: float = 30.0) -> Watching:
        """Return a watch that continues from a list."""
        source = self.source(silence)
        watching = Watching(source, source.list().version)
        server = self.server
        if server is not None:
            wait_for(lambda: server.watches or watching.failure, "a watch at the server")
        return watching

    def create(self, name: str, pod_cidrs: list[str], addresses: list[str]) -> None:
        """Register a Node."""
        listed = [NodeAddress(type="InternalIP", address=address) for address in addresses]
        made = self._admin.create(
            Node(
                metadata=ObjectMeta(name=PREFIX + name),
                spec=NodeSpec(podCIDR=pod_cidrs[0], podCIDRs=pod_cidrs) if pod_cidrs else NodeSpec(),
                status=NodeStatus(addresses=[*listed, NodeAddress(type="Hostname", address=name)]),
            )
        )
        if made.status is None or not made.status.addresses:  # a server that ignores the status at creation
            self.readdress(name, *addresses)

    def readdress(self, name: str, *addresses: str) -> None:
        """Give a Node other addresses, as kubelet does."""

        def edit(node: Node) -> None:
            status = node.status or NodeStatus()
            status.addresses = [NodeAddress(type="InternalIP", address=address) for address in addresses]
            changed = Node.Status(metadata=node.metadata, spec=node.spec, status=status)
            self._admin.replace(changed, PREFIX + name)

        self._change(name, edit)

    def label(self, name: str, value: str) -> None:
        """Change a Node without effect on peers."""

        def edit(node: Node) -> None:
            assert node.metadata is not None
            node.metadata.labels = {**(node.metadata.labels or {}), "cnictl-test": value}
            self._admin.replace(node)

        self._change(name, edit)

    def account(self, path: Path, *, nodes: bool = True, maps: bool = True) -> KubernetesSource:
        """Return a source with the credential of an account that has the rights of `cnictl kubernetes rbac`, or fewer.

        The real server gets what the command prints, under other names.
        """
        if self.server is not None:
            rights = {f"{verb} nodes" for verb in NODE_RULE["verbs"]} if nodes else set()
            rights |= {f"get configmaps/{name}" for name in MAP_RULE["resourceNames"]} if maps else set()
            self.server.tokens["account"] = frozenset(rights)
            token = "account"
        else:
            token = self._real_account(("ClusterRole",) if not nodes else ("Role",) if not maps else ())
        api = kubernetes_api.Api(str(self.kubeconfig), silence=0)
        authority = api.config.cluster.certificate_auth_data or ""
        path.touch(0o600)
        path.write_text(access.NodeCredential(api.server, authority, token, api.server_name).text)
        source = KubernetesSource(str(path))
        self.sources.append(source)
        return source

    def _real_account(self, left_out: tuple[str, ...]) -> str:
        text = access.RBAC.replace(f"name: {access.ACCOUNT}\n", f"name: {PREFIX}account\n")
        for made in codecs.load_all_yaml(text):
            assert made.metadata is not None
            if made.kind not in (*left_out, "Secret"):
                self._admin.create(made)
        asked = ServiceAccountToken(metadata=ObjectMeta(), spec=TokenRequestSpec(audiences=[], expirationSeconds=3600))
        given = self._admin.create(asked, f"{PREFIX}account", namespace=access.NAMESPACE)
        assert given.status is not None and given.status.token
        return given.status.token

    def _change(self, name: str, edit: Callable[[Node], None]) -> None:
        """Change a Node. Try again if a controller of the cluster changed it meanwhile."""
        for attempt in range(10):
            try:
                edit(self._admin.get(Node, PREFIX + name))
            except ApiError as error:
                if error.status.code != 409 or attempt == 9:
                    raise
            else:
                return

    def delete(self, name: str) -> None:
        """Remove a Node."""
        self._admin.delete(Node, PREFIX + name)

    def clear(self) -> None:
        """Close all sources, and remove what tests created."""
        for source in self.sources:
            source.close()
        self.remove()
        self._admin.close()

    def remove(self) -> None:
        """Remove what tests created in a real cluster, including tests that were killed."""
        if self.server is not None:
            return
        for name in [made.metadata.name or "" for made in self._admin.list(Node) if made.metadata]:
            if name.startswith(PREFIX):
                with contextlib.suppress(ApiError):
                    self._admin.delete(Node, name)
        for kind in (ClusterRole, ClusterRoleBinding):
            with contextlib.suppress(ApiError):
                self._admin.delete(kind, f"{PREFIX}account")
        for local in (Role, RoleBinding, ServiceAccount):
            with contextlib.suppress(ApiError):
                self._admin.delete(local, f"{PREFIX}account", namespace=access.NAMESPACE)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return a certificate authority for the tests."""
    return make_authority(tmp_path_factory.mktemp("authority"), "127.0.0.1")


@pytest.fixture
def server(authority: Authority) -> Iterator[ApiServer]:
    """Yield the tests' own API server, over TLS."""
    server = ApiServer(authority)
    server.start()
    yield server
    server.deaf = False
    server.stop()


@pytest.fixture
def own(server: ApiServer, tmp_path: Path) -> Iterator[Cluster]:
    """Yield a cluster with the tests' own server, which can be made to fail."""
    cluster = Cluster(server.kubeconfig(tmp_path / "kubeconfig"), server)
    yield cluster
    server.deaf = False
    cluster.clear()


def contained(path: Path, copy: Path) -> Path:
    """Write a copy of a kubeconfig that no other user may access and that refers to no files, as the source wants."""
    document = yaml.safe_load(path.read_text())
    for entry in [
        *(entry["cluster"] for entry in document["clusters"]),
        *(entry["user"] for entry in document["users"]),
    ]:
        for key in ("certificate-authority", "client-certificate", "client-key"):
            if key in entry:
                entry[f"{key}-data"] = base64.b64encode((path.parent / entry.pop(key)).read_bytes()).decode()
        if "tokenFile" in entry:
            entry["token"] = (path.parent / entry.pop("tokenFile")).read_text().strip()
    copy.touch(0o600)
    copy.write_text(yaml.safe_dump(document))
    return copy


@pytest.fixture(params=["own", "real"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    """Yield a cluster with either server. What holds for both is the contract."""
    if request.param == "own":
        yield request.getfixturevalue("own")
        return
    if not REAL:
        pytest.skip("CNICTL_TEST_KUBECONFIG names no kubeconfig of a real API server")
    cluster = Cluster(contained(Path(REAL), tmp_path / "kubeconfig"), None)
    cluster.remove()
    yield cluster
    cluster.clear()


def add(server: ApiServer, *names: str) -> None:
    """Create Nodes, each with its own pod CIDR and address."""
    for name in names:
        server.put(node(name, [f"10.244.{len(server.nodes)}.0/24"], [f"192.0.2.{len(server.nodes) + 1}"]))
