"""`cnictl watch` lists again after another command recorded that the source is lost."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cnictl.node.reach import learning
from cnictl.node.spec.node_spec import KUBERNETES, NodeSpec, Reach
from cnictl.node.state import learned_peers
from cnictl.node.state.learned_peers import Learned
from cnictl.watch.follower import Follower
from tests.kubernetes.conftest import add
from tests.kubernetes.server import ApiServer
from tests.kubernetes.test_lists import MAP_RIGHTS, NODE_RIGHTS
from tests.waiting import wait_for


def known() -> Learned:
    return learned_peers.load() or Learned()


@pytest.fixture
def spec(server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NodeSpec:
    """Return a node whose state is in a folder of the test, and which may read the server's Nodes."""
    monkeypatch.setattr(learned_peers, "RECORD", str(tmp_path / "peers.json"))
    monkeypatch.setattr(learned_peers, "CONFLICT_FILE", str(tmp_path / "conflict"))
    monkeypatch.setattr(learned_peers, "STATE_DIR", str(tmp_path))
    monkeypatch.setattr(learned_peers, "RUN_DIR", str(tmp_path))
    monkeypatch.setattr(learned_peers, "CONFIRMED", str(tmp_path / "current"))
    server.tokens["node"] = frozenset(NODE_RIGHTS | MAP_RIGHTS)
    add(server, "self", "other")
    kubeconfig = str(server.kubeconfig(tmp_path / "kubeconfig", "node"))
    return NodeSpec(("10.244.0.0/24",), ("10.244.0.0/16",), reach=Reach(KUBERNETES, "self", kubeconfig=kubeconfig))


@pytest.fixture
def follower(spec: NodeSpec, server: ApiServer) -> Iterator[Follower]:
    """Yield a follower that has listed the Nodes and watches them."""
    follower = Follower(lambda: spec, spec.reach, lambda _: None)
    wait_for(lambda: server.watches, "the watch")
    yield follower
    follower.close()


def test_right_restored_during_a_watch_clears_another_commands_finding(
    server: ApiServer, spec: NodeSpec, follower: Follower
) -> None:
    assert not known().stale_since
    server.tokens["node"] = frozenset()
    learning.ask(spec)
    assert known().stale_since and 'verbs: ["get", "list", "watch"]' in known().trouble
    follower.check()
    wait_for(lambda: not server.watches, "the end of the watch")
    server.tokens["node"] = frozenset(NODE_RIGHTS | MAP_RIGHTS)
    wait_for(lambda: not known().stale_since, "a good list", 20.0)


def test_check_does_not_restart_a_working_watch(server: ApiServer, follower: Follower) -> None:
    (watch,) = server.watches
    follower.check()
    add(server, "third")
    wait_for(lambda: len(known().nodes) == 3, "the new Node")
    assert server.watches == {watch}


def test_bookmark_confirms_the_list_without_another_request(
    server: ApiServer, spec: NodeSpec, follower: Follower
) -> None:
    wait_for(lambda: known().nodes, "the list")
    read_at, (watch,) = known().read_at, server.watches
    follower.check()
    assert known().read_at == read_at, "the watch has received nothing since"

    def is_confirmed() -> bool:
        server.bookmark()
        follower.check()
        return known().read_at > read_at

    wait_for(is_confirmed, "the list is current")
    assert server.watches == {watch} and spec.reach.source == KUBERNETES
