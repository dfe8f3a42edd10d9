"""`kubernetes rbac` grants the rights that a source needs; `kubernetes kubeconfig` writes a credential with them."""

import os
import stat
import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from cnictl.core.errors import Problem, UsageProblem
from cnictl.node.plugin import program
from cnictl.node.reach import extras
from cnictl.node.reach import kubernetes_access as access
from cnictl.node.reach.kubernetes import KubernetesSource
from cnictl.node.reach.kubernetes_api import token_credential
from cnictl.node.spec.node_spec import Reach
from tests.kubernetes.authority import Authority
from tests.kubernetes.objects import SYSTEM, node
from tests.kubernetes.server import ApiServer


def cnictl(*words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cnictl", "kubernetes", *words],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | settings,
        timeout=30,
    )


def granted() -> set[str]:
    """Return the rights that `rbac` grants, in the form of the server's tokens."""
    rights = set()
    for document in yaml.safe_load_all(access.RBAC):
        for rule in document.get("rules", ()):
            names = [f"/{name}" for name in rule.get("resourceNames", ())] or [""]
            rights |= {f"{verb} {kind}{name}" for verb in rule["verbs"] for kind in rule["resources"] for name in names}
    return rights


@pytest.fixture
def account(server: ApiServer) -> ApiServer:
    """Return a server on which `cnictl kubernetes rbac | kubectl apply -f -` has run."""
    server.tokens["node-token"] = frozenset(granted())
    server.secret("cnictl", token=b"node-token", ca_crt=b"another authority's")
    return server


def test_rbac_is_printed_for_kubectl() -> None:
    printed = cnictl("rbac")
    assert (printed.returncode, printed.stderr) == (0, "")
    kinds = [document["kind"] for document in yaml.safe_load_all(printed.stdout)]
    assert kinds == ["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "Secret"]
    assert printed.stdout == access.RBAC


def test_rbac_grants_reading_of_nodes_and_two_config_maps_and_nothing_else() -> None:
    maps = {"get configmaps/kubeadm-config", "get configmaps/kube-proxy"}
    assert granted() == {"get nodes", "list nodes", "watch nodes"} | maps


def test_rbac_binds_the_role_it_creates() -> None:
    documents = {document["kind"]: document for document in yaml.safe_load_all(access.RBAC)}
    for kind, role in (("ClusterRoleBinding", "ClusterRole"), ("RoleBinding", "Role")):
        assert documents[kind]["roleRef"]["name"] == documents[role]["metadata"]["name"]
        assert documents[kind]["roleRef"]["kind"] == role
        (subject,) = documents[kind]["subjects"]
        account = documents["ServiceAccount"]["metadata"]
        assert (subject["name"], subject["namespace"]) == (account["name"], account["namespace"])
    annotations = documents["Secret"]["metadata"]["annotations"]
    assert annotations == {"kubernetes.io/service-account.name": documents["ServiceAccount"]["metadata"]["name"]}


def test_credential_has_the_rights_that_a_source_needs(account: ApiServer, tmp_path: Path) -> None:
    account.put(node("a", ["10.244.0.0/24"], ["192.0.2.1"]))
    admin, written = account.kubeconfig(tmp_path / "admin"), tmp_path / "node"
    done = cnictl("kubeconfig", "--from", str(admin), "--output", str(written))
    assert done.returncode == 0, done.stderr
    assert f"written: {written}, a credential for {account.url}" in done.stderr
    assert f"{account.url} is an address of this host only" in done.stderr
    assert done.stdout == ""
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    assert "admin-token" not in written.read_text()
    source = KubernetesSource(str(written))
    snapshot = source.list()
    account.put(node("b", ["10.244.1.0/24"], ["192.0.2.2"]))
    assert len(next(source.watch(snapshot.version)).nodes) == 2


def test_credential_is_written_once(account: ApiServer, tmp_path: Path) -> None:
    path = str(tmp_path / "node")
    credential = token_credential(str(account.kubeconfig(tmp_path / "admin")))
    assert access.write(path, credential, dry_run=True)
    assert not os.path.exists(path)
    assert access.write(path, credential)
    first = os.stat(path).st_ino
    assert not access.write(path, credential)
    assert os.stat(path).st_ino == first
    os.chmod(path, 0o644)
    assert access.write(path, credential)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert sorted(os.listdir(tmp_path)) == ["admin", "node"]


def test_dry_run_writes_nothing_and_shows_no_token(account: ApiServer, tmp_path: Path) -> None:
    admin = account.kubeconfig(tmp_path / "admin")
    done = cnictl("kubeconfig", "--from", str(admin), "--output", str(tmp_path / "node"), "--dry-run")
    assert done.returncode == 0
    assert f"would write: {tmp_path}/node" in done.stderr
    assert "node-token" not in done.stdout + done.stderr
    assert not (tmp_path / "node").exists()


def test_credential_can_be_written_into_a_pipe(account: ApiServer, tmp_path: Path) -> None:
    admin = account.kubeconfig(tmp_path / "admin")
    done = cnictl("kubeconfig", "--from", str(admin), "--output", "/dev/stdout", "--server", "https://192.0.2.1:6443")
    assert (done.returncode, done.stderr) == (0, "")
    document = yaml.safe_load(done.stdout)
    assert document["clusters"][0]["cluster"]["server"] == "https://192.0.2.1:6443"
    assert document["users"][0]["user"] == {"token": "node-token"}


def test_foreign_file_is_not_overwritten(account: ApiServer, tmp_path: Path) -> None:
    credential = token_credential(str(account.kubeconfig(tmp_path / "admin")))
    with pytest.raises(Problem, match="was not written by"):
        access.write(str(tmp_path / "admin"), credential)
    access.write(str(tmp_path / "node"), credential)
    os.link(tmp_path / "node", tmp_path / "other")
    with pytest.raises(Problem, match="has other names"):
        access.write(str(tmp_path / "node"), credential)
    with pytest.raises(Problem, match="folder"):
        access.write(str(tmp_path), credential)


def test_missing_secret_is_named_with_the_command_that_makes_it(server: ApiServer, tmp_path: Path) -> None:
    with pytest.raises(Problem, match="there is no Secret cnictl in namespace kube-system") as missing:
        token_credential(str(server.kubeconfig(tmp_path / "admin")))
    assert missing.value.hint == "cnictl kubernetes rbac | kubectl apply -f -"


def test_credential_waits_for_a_token_that_is_not_ready(server: ApiServer, tmp_path: Path) -> None:
    admin = str(server.kubeconfig(tmp_path / "admin"))
    server.secret("cnictl")
    with pytest.raises(Problem, match="has no token yet"):
        token_credential(admin, wait=0)
    threading.Timer(0.3, server.secret, ("cnictl",), {"token": b"late"}).start()
    assert token_credential(admin).token == "late"


def test_credential_without_access_to_secrets_is_not_an_administrators(account: ApiServer, tmp_path: Path) -> None:
    with pytest.raises(Problem, match="refuses to get secrets") as refused:
        token_credential(str(account.kubeconfig(tmp_path / "admin", "node-token")))
    assert refused.value.hint == "name an administrator's kubeconfig with --from"


def test_administrators_credential_that_is_refused_is_named_as_such(server: ApiServer, tmp_path: Path) -> None:
    with pytest.raises(Problem, match="refuses the credential") as refused:
        token_credential(str(server.kubeconfig(tmp_path / "admin", "unknown")))
    assert refused.value.hint == "name an administrator's kubeconfig with --from"


def test_authority_is_the_administrators_or_the_secrets(
    account: ApiServer, authority: Authority, tmp_path: Path
) -> None:
    path = account.kubeconfig(tmp_path / "file", **{"certificate-authority": str(authority.certificate)})
    path.write_text(path.read_text().replace("certificate-authority-data", "unknown"))
    held = account.objects[f"{SYSTEM}/secrets/cnictl"]["data"]
    assert token_credential(str(path)).authority not in ("", held["ca.crt"])
    unsafe: dict[str, Any] = {"insecure-skip-tls-verify": True}
    path = account.kubeconfig(tmp_path / "none", **unsafe)
    path.write_text(path.read_text().replace("certificate-authority-data", "unknown"))
    assert token_credential(str(path)).authority == held["ca.crt"]


@pytest.mark.parametrize(
    ("server", "local"),
    [
        ("https://127.0.0.1:6443", True),
        ("https://localhost", True),
        ("https://[::1]:6443", True),
        ("https://192.0.2.1:6443", False),
        ("https://[2001:db8::1]:6443", False),
        ("https://api.example.org", False),
    ],
)
def test_address_that_means_another_host_on_each_node_is_local(server: str, local: bool) -> None:
    assert access.NodeCredential(server, "", "").is_local is local


def test_values_cannot_break_out_of_the_kubeconfig() -> None:
    odd = 'a"\n- name: x\\'
    document = yaml.safe_load(access.NodeCredential(odd, odd, odd, odd).text)
    assert document["users"] == [{"name": "cnictl", "user": {"token": odd}}]
    assert set(document["clusters"][0]["cluster"].values()) == {odd}


def test_kubeconfig_is_the_named_one_or_the_nodes_or_an_administrators(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own, admin = tmp_path / "kubeconfig", tmp_path / "admin.conf"
    monkeypatch.setattr(access, "KUBECONFIG", str(own))
    monkeypatch.setattr(access, "ADMIN_KUBECONFIGS", (str(tmp_path / "none"), str(admin)))
    assert access.choose("") == access.choose("", setting_up=True) == str(own)
    with pytest.raises(UsageProblem, match="there is no administrator's kubeconfig here"):
        access.admin("")
    admin.touch()
    assert access.choose("", setting_up=True) == access.admin("") == str(admin)
    assert access.choose("") == str(own)
    own.touch()
    assert access.choose("", setting_up=True) == str(own)
    assert access.choose("/named", setting_up=True) == access.admin("/named") == "/named"


def test_node_name_is_normalised_as_by_kubelet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "Node-1.Example ")
    assert access.own_name() == "node-1.example"


def test_source_without_its_client_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "cnictl.node.reach.kubernetes")
    monkeypatch.delattr("cnictl.node.reach.kubernetes")
    monkeypatch.setitem(sys.modules, "lightkube.resources.core_v1", None)
    with pytest.raises(UsageProblem, match="lightkube") as missing:
        extras.kubernetes_source(Reach("kubernetes"))
    assert missing.value.hint.endswith(f"{sys.executable} -m pip install 'lightkube>=1.0.1,<2'")
    monkeypatch.setattr("cnictl.node.host.debian_package.runs", lambda: True)
    with pytest.raises(UsageProblem) as packaged:
        extras.kubernetes_source(Reach("kubernetes"))
    assert "apt install ./cnictl-kubernetes_*.deb" in packaged.value.hint  # tests/deb runs this command
    extra = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert extra["kubernetes"] == ["lightkube>=1.0.1,<2"]
    assert set(extra["kubernetes"]) <= set(extra["test"])


def test_rights_are_printed_without_the_client() -> None:
    program_text = "import sys; import cnictl.cli.kubernetes; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program_text], capture_output=True, text=True, check=True)
    assert not {"lightkube", "httpx2", "yaml"} & set(done.stdout.split())


def test_copy_that_the_units_start_has_the_client(tmp_path: Path) -> None:
    for name, place in program.sources().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(place)
    imports = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import cnictl.node.reach.kubernetes"
    subprocess.run([sys.executable, "-I", "-S", "-c", imports], check=True, timeout=60)
