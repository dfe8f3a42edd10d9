"""What the source does when the API server fails, forgets, refuses or lies: each fault is made by our own server."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cnictl.core.errors import Problem, UsageProblem
from cnictl.node.reach import kubernetes_api, kubernetes_transport
from cnictl.node.reach.kubernetes import KubernetesSource
from cnictl.node.reach.source import SourceLost
from tests.kubernetes.conftest import Cluster
from tests.kubernetes.server import ADMIN, NODES, ApiServer, Refusal, make_authority, node, status
from tests.waiting import wait_for

NODE_RIGHTS = {"get nodes", "list nodes", "watch nodes"}
MAP_RIGHTS = {"get configmaps/kubeadm-config", "get configmaps/kube-proxy"}


def add(server: ApiServer, *names: str) -> None:
    for name in names:
        server.put(node(name, [f"10.244.{len(server.nodes)}.0/24"], [f"192.0.2.{len(server.nodes) + 1}"]))


# -- lists


def test_list_takes_all_pages_of_one_version(own: Cluster, server: ApiServer) -> None:
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


def test_busy_server_is_asked_again_when_it_says(own: Cluster, server: ApiServer) -> None:
    add(server, "a")
    server.refusals = [Refusal(429, {"Retry-After": "0"}), Refusal(503, {"Retry-After": "0"})]
    assert len(own.source().list().nodes) == 1
    assert len(server.requests_of(watches=False)) == 3


def test_busy_server_is_not_asked_for_ever(own: Cluster, server: ApiServer) -> None:
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
def test_answer_that_is_no_list_loses_the_source(own: Cluster, server: ApiServer, refusal: Refusal, said: str) -> None:
    server.refusals = [refusal]
    with pytest.raises(SourceLost, match=said) as lost:
        own.source().list()
    assert server.url in str(lost.value)


def test_what_the_server_says_is_one_bounded_line(own: Cluster, server: ApiServer) -> None:
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


def test_server_that_does_not_listen_can_not_be_reached(own: Cluster, server: ApiServer) -> None:
    server.stop()
    with pytest.raises(SourceLost, match=r"can't be reached.*Connection refused"):
        own.source().list()


def test_server_with_a_certificate_of_another_authority_is_not_believed(server: ApiServer, tmp_path: Path) -> None:
    other = ApiServer(make_authority(tmp_path, "127.0.0.1"), port=server.port)
    path = other.kubeconfig(tmp_path / "kubeconfig")
    with pytest.raises(SourceLost, match="CERTIFICATE_VERIFY_FAILED"):
        KubernetesSource(str(path)).list()


def test_name_in_the_certificate_may_be_another(server: ApiServer, tmp_path: Path) -> None:
    path = server.kubeconfig(tmp_path / "wrong", **{"tls-server-name": "example.org"})
    with pytest.raises(SourceLost, match="CERTIFICATE_VERIFY_FAILED"):
        KubernetesSource(str(path)).list()
    path = server.kubeconfig(tmp_path / "right", **{"tls-server-name": "kubernetes"})
    assert KubernetesSource(str(path)).list().nodes == ()


def test_environment_names_neither_proxy_nor_authority(own: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "ALL_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://192.0.2.1:1")
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
    assert own.source().list().nodes == ()


# -- networks


def test_networks_are_those_that_kubeadm_was_told(own: Cluster, server: ApiServer) -> None:
    server.config_map("kubeadm-config", ClusterConfiguration="networking:\n  podSubnet: 10.244.0.0/16,fd00:1::/56\n")
    server.config_map("kube-proxy", **{"config.conf": "clusterCIDR: 10.9.0.0/16\n"})
    assert own.source().list().networks == ("10.244.0.0/16", "fd00:1::/56")


def test_networks_are_those_of_kube_proxy_where_kubeadm_has_none(own: Cluster, server: ApiServer) -> None:
    server.config_map("kubeadm-config", ClusterConfiguration="networking:\n  dnsDomain: cluster.local\n")
    server.config_map("kube-proxy", **{"config.conf": 'clusterCIDR: "10.9.0.0/16, fd00::/48, 10.8.0.0/16"\n'})
    assert own.source().list().networks == ("10.9.0.0/16", "fd00::/48")


@pytest.mark.parametrize(
    "text",
    ["", "a: [", "[" * 1500, "- 1", "clusterCIDR: 5", "clusterCIDR: ''", "clusterCIDR: 10.0.0.1/8", "#" * 17_000],
)
def test_networks_that_are_not_readable_are_none(own: Cluster, server: ApiServer, text: str) -> None:
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
    assert "cnictl kubernetes kubeconfig" in lost.value.hint
    server.kubeconfig(path, ADMIN)
    assert source.list().nodes == ()


# -- watches


def test_watch_asks_for_bookmarks_and_goes_on_from_the_last(own: Cluster, server: ApiServer) -> None:
    watching = own.watching()
    first = server.requests_of(watches=True)[0]
    assert first["allowWatchBookmarks"] == "true"
    assert int(first["timeoutSeconds"]) <= 600
    server.version += 500  # something else than Nodes changes
    server.bookmark()
    wait_for(lambda: all(not watch.bookmark_due for watch in server.watches), "the bookmark")
    server.forget()
    server.cut()
    add(server, "a")
    watching.wait_for(lambda nodes: "a" in nodes, "the new Node")
    assert server.requests_of(watches=True)[1]["resourceVersion"] == str(int(first["resourceVersion"]) + 500)


def test_watch_that_breaks_goes_on_without_a_new_list(own: Cluster, server: ApiServer) -> None:
    add(server, "a", "b")
    watching = own.watching()
    for name in ("c", "d"):
        server.cut()
        server.delete(min(server.nodes))
        add(server, name)
        watching.wait_for(lambda nodes, name=name: name in nodes, "the new Node")  # type: ignore[misc]
    assert sorted(watching.nodes) == ["c", "d"]
    assert len(server.requests_of(watches=False)) == 1
    wait_for(lambda: server.connections == 1, "the end of the broken connections")


def test_watch_that_the_server_ends_goes_on(own: Cluster, server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_api, "WATCH_FOR", 1)
    server.bookmarks_every = 0.1
    watching = own.watching()
    wait_for(lambda: len(server.requests_of(watches=True)) > 2, "two more watches")
    assert server.connections == 1
    add(server, "a")
    watching.wait_for(lambda nodes: "a" in nodes, "the new Node")


def test_silent_watch_is_given_up_and_goes_on(own: Cluster, server: ApiServer) -> None:
    watching = own.watching(silence=0.6)
    server.silent = True
    add(server, "a")
    wait_for(lambda: len(server.requests_of(watches=True)) > 1, "the next watch")
    server.silent = False
    watching.wait_for(lambda nodes: "a" in nodes, "the Node of the silent time")


def test_server_that_stays_silent_is_lost(own: Cluster, server: ApiServer) -> None:
    watching = own.watching(silence=0.2)
    server.silent = True
    assert "does not answer" in watching.lost().message


def test_server_that_answers_no_more_is_lost(own: Cluster, server: ApiServer) -> None:
    watching = own.watching(silence=0.2)
    server.deaf = True
    server.cut()
    assert "does not answer" in watching.lost().message


def test_server_that_ends_each_watch_at_once_is_not_asked_for_ever(
    own: Cluster, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_api, "WATCH_FOR", 0)
    watching = own.source()
    version = watching.list().version
    with pytest.raises(SourceLost, match="ended the watch"):
        next(watching.watch(version))
    assert len(server.requests_of(watches=True)) == 3


def test_server_that_is_killed_is_lost_and_listed_again_once_it_is_back(own: Cluster, server: ApiServer) -> None:
    add(server, "a", "b")
    watching = own.watching()
    server.stop()
    assert "can't be reached" in watching.lost().message
    server.delete("a")
    server.start()
    snapshot = watching.source.list()
    assert [announced.name for announced in snapshot.nodes] == ["b"]
    add(server, "c")
    assert len(next(watching.source.watch(snapshot.version)).nodes) == 2


def test_server_process_that_is_killed_and_started_again_has_lost_nothing(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def start(*words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.kubernetes.server", str(tmp_path), "--port", str(port), *words]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
        assert process.stdout is not None
        assert process.stdout.readline() == f"{tmp_path}/kubeconfig\n"  # it listens
        return process

    process = start("--node", "a=10.244.0.0/24=192.0.2.1", "--node", "b=10.244.1.0/24=192.0.2.2")
    try:
        cluster = Cluster(tmp_path / "kubeconfig", None)
        watching = cluster.watching()
        process.kill()
        process.wait()
        assert "can't be reached" in watching.lost().message
        process = start("--node", "c=10.244.2.0/24=192.0.2.3")
        snapshot = watching.source.list()
        assert [announced.name for announced in snapshot.nodes] == ["a", "b", "c"]
        cluster.create("d", ["10.244.3.0/24"], ["192.0.2.4"])
        assert len(next(watching.source.watch(snapshot.version)).nodes) == 4
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("how", ["in the stream", "as a status", "while it is watched"])
def test_forgotten_version_loses_the_source_so_that_deletions_are_not_missed(
    own: Cluster, server: ApiServer, how: str
) -> None:
    add(server, "a", "b")
    watching = own.watching()
    if how == "while it is watched":
        server.send({"type": "ERROR", "object": status(410, "Expired", "too old resource version")})
    else:
        server.refusals = [Refusal(410, watches=True)] if how == "as a status" else []
        server.silent = True
        server.cut()
        server.delete("a")
        server.forget()
    lost = watching.lost()
    assert "no longer knows the version" in lost.message
    assert len(server.requests_of(watches=False)) == 1
    server.silent = False
    assert len(watching.source.list().nodes) == len(server.nodes)


def test_error_in_the_stream_loses_the_source(own: Cluster, server: ApiServer) -> None:
    watching = own.watching()
    server.send({"type": "ERROR", "object": status(500, "InternalError", "etcd is gone")})
    assert "answers 500: etcd is gone" in watching.lost().message


@pytest.mark.parametrize("event", [b"<html>", b"{}", b'{"type": "ADDED", "object": 5}', b"\xff\xfe"])
def test_event_that_is_none_loses_the_source(own: Cluster, server: ApiServer, event: bytes) -> None:
    watching = own.watching()
    server.send(event)
    assert server.url in watching.lost().message


def test_event_without_an_end_is_not_read_to_its_end(
    own: Cluster, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_transport, "LARGEST_EVENT", 10_000)
    watching = own.watching()
    server.put(node("a", [], [], rest=1000))
    assert "more than" in watching.lost().message
    assert len(server.requests_of(watches=True)) == 1


def test_busy_server_is_watched_again_when_it_says(own: Cluster, server: ApiServer) -> None:
    server.refusals = [Refusal(code, {"Retry-After": after}, watches=True) for code, after in ((503, "1"), (429, "0"))]
    watching = own.source()
    version = watching.list().version
    add(server, "a")
    before = time.monotonic()
    assert len(next(watching.watch(version)).nodes) == 1
    assert time.monotonic() - before >= 1


def test_burst_of_changes_is_taken_at_once(own: Cluster, server: ApiServer) -> None:
    source = own.source()
    watch = source.watch(source.list().version)
    add(server, "first")
    assert len(next(watch).nodes) == 1
    for at in range(500):
        server.put(node(f"n{at}", [], []))
    assert source._follower is not None
    wait_for(lambda: len(source._follower._nodes) == 501, "all events")  # type: ignore[union-attr]
    assert len(next(watch).nodes) == 501


@pytest.mark.parametrize("waits_for", ["an event", "an answer", "a connection", "a busy server"])
def test_close_ends_a_watch_whatever_it_waits_for(own: Cluster, server: ApiServer, waits_for: str) -> None:
    source = own.source()
    version = source.list().version
    full = []
    if waits_for == "a connection":
        server.stop()
        full = _full_listener(server.port)
    server.deaf = waits_for == "an answer"
    if waits_for == "a busy server":
        server.refusals = [Refusal(503, {"Retry-After": "10"}, watches=True)]
    ended = threading.Event()

    def watch() -> None:
        for _ in source.watch(version):
            pass
        ended.set()

    threading.Thread(target=watch, daemon=True).start()
    began = (lambda: source._follower) if full else (lambda: server.requests_of(watches=True))
    wait_for(began, "the watch")
    source.close()
    assert ended.wait(1)
    for each in full:
        each.close()


def test_watch_that_nobody_takes_any_longer_ends_at_the_server(own: Cluster, server: ApiServer) -> None:
    source = own.source()
    watch = source.watch(source.list().version)
    add(server, "a")
    next(watch)
    watch.close()  # type: ignore[attr-defined]
    wait_for(lambda: not server.watches, "the end of the watch")


def _full_listener(port: int) -> list[socket.socket]:
    """Take a port where connections are neither accepted nor refused: its queue is full."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(0)
    waiting = [socket.socket() for _ in range(3)]
    for each in waiting:
        each.setblocking(False)
        each.connect_ex(("127.0.0.1", port))
    return [listener, *waiting]


# -- credentials


def test_certificate_is_a_credential_too(server: ApiServer, tmp_path: Path) -> None:
    add(server, "a")
    assert len(KubernetesSource(str(server.kubeconfig(tmp_path / "kubeconfig", token=""))).list().nodes) == 1


def test_kubeconfig_that_others_may_read_is_refused_with_the_command(own: Cluster) -> None:
    own.kubeconfig.chmod(0o640)
    with pytest.raises(UsageProblem, match="others may read or change") as refused:
        own.source().list()
    assert refused.value.hint == f"chmod 600 {own.kubeconfig}"


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away")
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
def test_file_that_is_no_kubeconfig_is_refused(tmp_path: Path, text: str) -> None:
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
def test_cluster_that_makes_no_sense_is_a_problem(server: ApiServer, tmp_path: Path, cluster: dict[str, str]) -> None:
    with pytest.raises(Problem):
        KubernetesSource(str(server.kubeconfig(tmp_path / "kubeconfig", **cluster))).list()


def test_missing_kubeconfig_is_named() -> None:
    with pytest.raises(UsageProblem, match="there is no file /nowhere/kubeconfig"):
        KubernetesSource("/nowhere/kubeconfig").list()
