"""A list of Nodes needs certain rights, and reports an API server that fails, refuses or returns nonsense."""

import json
import time
from pathlib import Path

import pytest

from cnictl.node.reach import kubernetes_api, kubernetes_transport
from cnictl.node.reach.kubernetes import KubernetesSource
from cnictl.node.reach.source import SourceLost
from tests.kubernetes.authority import make_authority
from tests.kubernetes.conftest import Cluster, add
from tests.kubernetes.objects import ADMIN, NODES, node
from tests.kubernetes.server import ApiServer, Refusal

NODE_RIGHTS = {"get nodes", "list nodes", "watch nodes"}
MAP_RIGHTS = {"get configmaps/kubeadm-config", "get configmaps/kube-proxy"}


# -- lists


def test_list_reads_all_pages_of_one_version(own: Cluster, server: ApiServer) -> None:
    add(server, *(f"n{at}" for at in range(200)))
    for at in range(400):
        server.put(node(f"m{at}", [f"10.245.{at % 256}.0/24"], ["192.0.2.9"]))
    snapshot = own.source().list()
    assert len(snapshot.nodes) == 600
    assert snapshot.version == str(server.version)
    assert [query.get("limit") for query in server.requests_of(watches=False)] == ["250"] * 3


def test_list_begins_again_when_its_next_page_is_forgotten(own: Cluster, server: ApiServer) -> None:
    for at in range(300):
        server.put(node(f"n{at}", [], []))
    page, forgets = server.page, [True]

    def forgetful(query: dict[str, str]) -> tuple[int, dict[str, object]]:
        answer = page(query)
        if forgets:
            forgets.pop()
            server.forget()
        return answer

    server.page = forgetful  # type: ignore[method-assign]
    assert len(own.source().list().nodes) == 300
    assert len(server.requests_of(watches=False)) == 4


def test_5000_nodes_are_listed_in_less_than_a_second_of_cpu_time(own: Cluster, server: ApiServer) -> None:
    for at in range(5000):
        server.put(node(f"n{at}", [f"10.{at >> 8}.{at & 255}.0/24"], [f"172.16.{at >> 8}.{at & 255}"], rest=10))
    source = own.source()
    before = time.thread_time()
    snapshot = source.list()
    assert time.thread_time() - before < 1
    assert len(snapshot.nodes) == 5000


def test_busy_server_is_asked_again_after_its_retry_after(own: Cluster, server: ApiServer) -> None:
    add(server, "a")
    server.refusals = [Refusal(429, {"Retry-After": "0"}), Refusal(503, {"Retry-After": "0"})]
    assert len(own.source().list().nodes) == 1
    assert len(server.requests_of(watches=False)) == 3


def test_retries_of_a_busy_server_are_bounded(own: Cluster, server: ApiServer) -> None:
    server.refusals = [Refusal(503, {"Retry-After": "0"}, times=100)]
    with pytest.raises(SourceLost, match="answers 503: refused with 503"):
        own.source().list()
    assert len(server.requests_of(watches=False)) == 4


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (Refusal(503), "answers 503: refused with 503"),
        (Refusal(500, {"Content-Type": ""}, body=b"broken"), "answers 500: Internal Server Error"),
        (Refusal(500, body=b"[]"), "answers 500: Internal Server Error"),
        (Refusal(502, {"Content-Type": "text/html"}, body=b"<html>"), "answers 502: Bad Gateway"),
        (Refusal(302, {"Location": "https://192.0.2.1/"}), "answers 302"),
        (Refusal(200, body=b"<html>log in</html>"), "did not answer with nodes"),
        (Refusal(200, body=b"{}"), "did not answer with nodes"),
        (Refusal(200, body=b'{"items": [{"metadata": {"name": 1}}]}'), "did not answer with nodes"),
        (Refusal(200, body=b'{"items": []}'), "did not answer with nodes"),
        (Refusal(200, {"Content-Encoding": "gzip"}, body=b"x"), "the answer is compressed"),
        (Refusal(503, {"Retry-After": "nan"}), "answers 503"),
    ],
)
def test_answer_that_is_not_a_list_loses_the_source(
    own: Cluster, server: ApiServer, refusal: Refusal, said: str
) -> None:
    server.refusals = [refusal]
    with pytest.raises(SourceLost, match=said) as lost:
        own.source().list()
    assert server.url in str(lost.value)


def test_servers_message_is_one_bounded_line(own: Cluster, server: ApiServer) -> None:
    said = json.dumps({"message": "\x1b[31m\n" + "x" * 5000}).encode()
    server.refusals = [Refusal(500, body=said)]
    with pytest.raises(SourceLost) as lost:
        own.source().list()
    assert lost.value.message.isprintable()
    assert len(lost.value.message) < 500


def test_endless_answer_is_not_read_to_its_end(
    own: Cluster, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_transport, "LARGEST_PAGE", 10_000)
    server.put(node("a", [], [], rest=1000))
    with pytest.raises(SourceLost, match="more than"):
        own.source().list()


def test_endless_list_is_not_read_to_its_end(own: Cluster, server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_api, "LIST_WITHIN", 0.5)
    metadata = {"resourceVersion": "1", "continue": "more"}
    server.page = lambda _: (200, {"metadata": metadata, "items": []})  # type: ignore[method-assign, assignment]
    with pytest.raises(SourceLost, match="too long"):
        own.source().list()


def test_texts_of_nodes_are_bounded(own: Cluster, server: ApiServer) -> None:
    server.put(node("n" * 10_000, ["1" * 10_000, "::" + "1" * 10_000, "10.0.0.0/8"], ["9" * 10_000] * 1000))
    (announced,) = own.source().list().nodes
    assert len(announced.name) <= 253
    assert len(announced.pod_cidrs) == 2
    assert len(announced.addresses) <= 8
    assert max(map(len, (*announced.pod_cidrs, *announced.addresses))) <= 64


def test_server_that_does_not_listen_is_unreachable(own: Cluster, server: ApiServer) -> None:
    server.stop()
    with pytest.raises(SourceLost, match=r"can't be reached.*Connection refused"):
        own.source().list()


def test_server_with_a_certificate_of_another_authority_is_not_trusted(server: ApiServer, tmp_path: Path) -> None:
    other = ApiServer(make_authority(tmp_path, "127.0.0.1"), port=server.port)
    path = other.kubeconfig(tmp_path / "kubeconfig")
    with pytest.raises(SourceLost, match="CERTIFICATE_VERIFY_FAILED"):
        KubernetesSource(str(path)).list()


def test_tls_server_name_may_differ_from_the_address(server: ApiServer, tmp_path: Path) -> None:
    path = server.kubeconfig(tmp_path / "wrong", **{"tls-server-name": "example.org"})
    with pytest.raises(SourceLost, match="CERTIFICATE_VERIFY_FAILED"):
        KubernetesSource(str(path)).list()
    path = server.kubeconfig(tmp_path / "right", **{"tls-server-name": "kubernetes"})
    assert KubernetesSource(str(path)).list().nodes == ()


def test_proxy_and_authority_of_the_environment_are_ignored(own: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "ALL_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://192.0.2.1:1")
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
    assert own.source().list().nodes == ()


# -- networks


def test_networks_are_those_of_kubeadms_configuration(own: Cluster, server: ApiServer) -> None:
    server.config_map("kubeadm-config", ClusterConfiguration="networking:\n  podSubnet: 10.244.0.0/16,fd00:1::/56\n")
    server.config_map("kube-proxy", **{"config.conf": "clusterCIDR: 10.9.0.0/16\n"})
    assert own.source().list().networks == ("10.244.0.0/16", "fd00:1::/56")


def test_networks_are_those_of_kube_proxy_if_kubeadm_has_none(own: Cluster, server: ApiServer) -> None:
    server.config_map("kubeadm-config", ClusterConfiguration="networking:\n  dnsDomain: cluster.local\n")
    server.config_map("kube-proxy", **{"config.conf": 'clusterCIDR: "10.9.0.0/16, fd00::/48, 10.8.0.0/16"\n'})
    assert own.source().list().networks == ("10.9.0.0/16", "fd00::/48")


@pytest.mark.parametrize(
    "text",
    ["", "a: [", "[" * 1500, "- 1", "clusterCIDR: 5", "clusterCIDR: ''", "clusterCIDR: 10.0.0.1/8", "#" * 17_000],
)
def test_unreadable_networks_are_none(own: Cluster, server: ApiServer, text: str) -> None:
    server.config_map("kube-proxy", **{"config.conf": text})
    assert own.source().list().networks == ()


# -- rights


def test_rights_that_rbac_grants_are_enough(server: ApiServer, tmp_path: Path) -> None:
    server.tokens["node"] = frozenset(NODE_RIGHTS | MAP_RIGHTS)
    add(server, "a")
    source = KubernetesSource(str(server.kubeconfig(tmp_path / "kubeconfig", "node")))
    version = source.list().version
    add(server, "b")
    assert len(next(source.watch(version)).nodes) == 2
    assert all(path == NODES or path.rpartition("/")[2] in ("a", "kubeadm-config", "kube-proxy")
               for path, _ in server.requests)  # fmt: skip


@pytest.mark.parametrize(
    ("rights", "said", "rule"),
    [
        (MAP_RIGHTS, "refuses to list nodes", 'resources: ["nodes"], verbs: ["get", "list", "watch"]'),
        (NODE_RIGHTS, "refuses to get configmaps", 'resourceNames: ["kubeadm-config", "kube-proxy"], verbs: ["get"]'),
    ],
)
def test_missing_right_is_named_with_the_rule_that_grants_it(
    server: ApiServer, tmp_path: Path, rights: set[str], said: str, rule: str
) -> None:
    server.tokens["node"] = frozenset(rights)
    with pytest.raises(SourceLost, match=said) as lost:
        KubernetesSource(str(server.kubeconfig(tmp_path / "kubeconfig", "node"))).list()
    assert rule in lost.value.hint
    assert "cnictl kubernetes rbac | kubectl apply -f -" in lost.value.hint


def test_right_to_watch_that_is_missing_is_named(server: ApiServer, tmp_path: Path) -> None:
    server.tokens["node"] = frozenset((NODE_RIGHTS | MAP_RIGHTS) - {"watch nodes"})
    source = KubernetesSource(str(server.kubeconfig(tmp_path / "kubeconfig", "node")))
    with pytest.raises(SourceLost, match="refuses to watch nodes: User") as lost:
        next(source.watch(source.list().version))
    assert '"watch"' in lost.value.hint


def test_renewed_credential_is_used_at_the_next_list(server: ApiServer, tmp_path: Path) -> None:
    path = server.kubeconfig(tmp_path / "kubeconfig", "old")
    source = KubernetesSource(str(path))
    with pytest.raises(SourceLost, match="refuses the credential: Unauthorized") as lost:
        source.list()
    assert lost.value.hint.endswith(f"cnictl kubernetes kubeconfig --output FILE; copy FILE here to {path}")
    server.kubeconfig(path, ADMIN)
    assert source.list().nodes == ()
