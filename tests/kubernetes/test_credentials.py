"""Secure kubeconfigs and valid certificates are accepted; others are refused with the command that fixes them."""

import os
from pathlib import Path

import pytest

from cnictl.core.errors import Problem, UsageProblem
from cnictl.node.reach.kubernetes import KubernetesSource
from tests.kubernetes.conftest import Cluster, add
from tests.kubernetes.objects import ADMIN
from tests.kubernetes.server import ApiServer


def test_client_certificate_is_accepted_as_a_credential(server: ApiServer, tmp_path: Path) -> None:
    add(server, "a")
    assert len(KubernetesSource(str(server.kubeconfig(tmp_path / "kubeconfig", token=""))).list().nodes) == 1


def test_kubeconfig_that_others_may_read_is_refused_with_the_command(own: Cluster) -> None:
    own.kubeconfig.chmod(0o640)
    with pytest.raises(UsageProblem, match="others may read or change") as refused:
        own.source().list()
    assert refused.value.hint == f"chmod 600 {own.kubeconfig}"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change a file's owner")
def test_kubeconfig_of_another_user_is_refused(own: Cluster) -> None:
    os.chown(own.kubeconfig, 1234, 0)
    with pytest.raises(UsageProblem, match="belongs to user 1234, not to root") as refused:
        own.source().list()
    assert refused.value.hint == f"chown root:root {own.kubeconfig}"


def test_token_file_that_others_may_read_is_refused(server: ApiServer, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(ADMIN)
    path = server.kubeconfig(tmp_path / "kubeconfig")
    path.write_text(path.read_text().replace(f'"token": "{ADMIN}"', '"tokenFile": "token"'))
    token.chmod(0o644)
    with pytest.raises(UsageProblem, match="others may read or change"):
        KubernetesSource(str(path)).list()
    token.chmod(0o600)
    assert KubernetesSource(str(path)).list().nodes == ()


@pytest.mark.parametrize(
    "text",
    ["", "[]", "a: [", "clusters: []", '{"clusters": [{"name": "a"}], "contexts": []}', "\0", "x" * (2 << 20)],
)
def test_file_that_is_not_a_kubeconfig_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.touch(0o600)
    path.write_text(text)
    with pytest.raises(UsageProblem, match=str(path)):
        KubernetesSource(str(path)).list()


@pytest.mark.parametrize(
    "cluster",
    [
        {"certificate-authority-data": "bm90IGEgY2VydGlmaWNhdGU="},
        {"certificate-authority-data": "%"},
        {"proxy-url": "http://192.0.2.1"},
        {"server": "ftp://192.0.2.1"},
        {"server": "https://[::1"},
        {"server": 5},
    ],
)
def test_invalid_cluster_entry_is_a_problem(server: ApiServer, tmp_path: Path, cluster: dict[str, str]) -> None:
    with pytest.raises(Problem):
        KubernetesSource(str(server.kubeconfig(tmp_path / "kubeconfig", **cluster))).list()


def test_missing_kubeconfig_is_named() -> None:
    with pytest.raises(UsageProblem, match="there is no file /nowhere/kubeconfig"):
        KubernetesSource("/nowhere/kubeconfig").list()
