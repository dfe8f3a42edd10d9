"""A watch continues, or loses the source, when the API server fails, forgets, falls silent or returns nonsense."""

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cnictl.node.reach import kubernetes_api, kubernetes_transport
from cnictl.node.reach.source import SourceLost
from tests.kubernetes.conftest import Cluster, add
from tests.kubernetes.objects import node, status
from tests.kubernetes.server import ApiServer, Refusal
from tests.waiting import wait_for


def test_watch_requests_bookmarks_and_continues_from_the_last(own: Cluster, server: ApiServer) -> None:
    watching = own.watching()
    first = server.requests_of(watches=True)[0]
    assert first["allowWatchBookmarks"] == "true"
    assert int(first["timeoutSeconds"]) <= 600
    server.version += 500  # an object other than a Node changes
    server.bookmark()
    wait_for(lambda: all(not watch.bookmark_due for watch in server.watches), "the bookmark")
    server.forget()
    server.cut()
    add(server, "a")
    watching.wait_for(lambda nodes: "a" in nodes, "the new Node")
    assert server.requests_of(watches=True)[1]["resourceVersion"] == str(int(first["resourceVersion"]) + 500)


def test_broken_watch_continues_without_a_new_list(own: Cluster, server: ApiServer) -> None:
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


def test_watch_that_the_server_ends_continues(own: Cluster, server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_api, "WATCH_FOR", 1)
    server.bookmarks_every = 0.1
    watching = own.watching()
    wait_for(lambda: len(server.requests_of(watches=True)) > 2, "two more watches")
    assert server.connections == 1
    add(server, "a")
    watching.wait_for(lambda nodes: "a" in nodes, "the new Node")


def test_silent_watch_is_closed_and_continued(own: Cluster, server: ApiServer) -> None:
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


def test_server_that_stops_answering_is_lost(own: Cluster, server: ApiServer) -> None:
    watching = own.watching(silence=0.2)
    server.deaf = True
    server.cut()
    assert "does not answer" in watching.lost().message


def test_retries_of_a_server_that_ends_each_watch_are_bounded(
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
        assert process.stdout.readline() == f"{tmp_path}/kubeconfig\n"  # the server listens
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
def test_invalid_event_loses_the_source(own: Cluster, server: ApiServer, event: bytes) -> None:
    watching = own.watching()
    server.send(event)
    assert server.url in watching.lost().message


def test_endless_event_is_not_read_to_its_end(own: Cluster, server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_transport, "LARGEST_EVENT", 10_000)
    watching = own.watching()
    server.put(node("a", [], [], rest=1000))
    assert "more than" in watching.lost().message
    assert len(server.requests_of(watches=True)) == 1


def test_busy_server_is_watched_again_after_its_retry_after(own: Cluster, server: ApiServer) -> None:
    server.refusals = [Refusal(code, {"Retry-After": after}, watches=True) for code, after in ((503, "1"), (429, "0"))]
    watching = own.source()
    version = watching.list().version
    add(server, "a")
    before = time.monotonic()
    assert len(next(watching.watch(version)).nodes) == 1
    assert time.monotonic() - before >= 1


def test_burst_of_changes_is_one_update(own: Cluster, server: ApiServer) -> None:
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
def test_close_ends_a_watch_in_any_wait(own: Cluster, server: ApiServer, waits_for: str) -> None:
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


def test_abandoned_watch_ends_at_the_server(own: Cluster, server: ApiServer) -> None:
    source = own.source()
    watch = source.watch(source.list().version)
    add(server, "a")
    next(watch)
    watch.close()  # type: ignore[attr-defined]
    wait_for(lambda: not server.watches, "the end of the watch")


def _full_listener(port: int) -> list[socket.socket]:
    """Occupy a port on which connections are neither accepted nor refused, because its queue is full."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(0)
    waiting = [socket.socket() for _ in range(3)]
    for each in waiting:
        each.setblocking(False)
        each.connect_ex(("127.0.0.1", port))
    return [listener, *waiting]
