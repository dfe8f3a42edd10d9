"""The record of a source of peers: until when it is known to be current, and what to do if the source is lost."""

import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cnictl.doctor import source
from cnictl.doctor.facts import Facts
from cnictl.node.plugin import ownership
from cnictl.node.reach import cluster_file, learning
from cnictl.node.reach.cluster_file import FileSource
from cnictl.node.reach.source import Snapshot, SourceLost
from cnictl.node.spec.node_spec import FILE, NodeSpec, Reach
from cnictl.node.state import learned_peers
from cnictl.node.state.learned_peers import Learned
from cnictl.watch.follower import Follower, pauses
from tests.waiting import wait_for

SPEC = NodeSpec(("10.244.0.0/24",), ("10.244.0.0/16",), reach=Reach(FILE))
TEXT = 'network = "10.244.0.0/16"\nnodes = [\n  { name = "n1", address = "10.0.0.1", pod_cidr = "10.244.1.0/24" },\n]\n'


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """State files in the test's own folder."""
    for name in ("RECORD", "CONFIRMED", "CONFLICT_FILE"):
        monkeypatch.setattr(learned_peers, name, str(tmp_path / name.lower()))
    for name in ("STATE_DIR", "RUN_DIR"):
        monkeypatch.setattr(learned_peers, name, str(tmp_path))
    return tmp_path


def known() -> Learned:
    learned = learned_peers.load()
    assert learned is not None
    return learned


def test_age_of_the_list_counts_from_the_sources_last_confirmation() -> None:
    record = Learned(reach=learned_peers.identity(SPEC.reach), read_at=1000.0)
    learned_peers.save(record)
    assert known().read_at == 1000.0
    learned_peers.confirm(2000.0)
    assert known().read_at == 2000.0
    learned_peers.save(replace(known(), stale_since=2100.0, trouble="gone"))
    learned_peers.confirm(3000.0)
    assert known().read_at == 2000.0
    learned_peers.save(replace(record, read_at=4000.0))
    assert known().read_at == 4000.0, "a list that is read later is newer"
    learned_peers.forget()
    assert learned_peers.load() is None and not os.path.lexists(learned_peers.CONFIRMED)


def test_follower_confirms_a_quiet_file_only_while_it_exists(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = state / "cluster.toml"
    file.write_text(TEXT)
    monkeypatch.setattr(cluster_file, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(ownership, "fault", lambda _: "")
    monkeypatch.setattr("cnictl.watch.follower.sources.opened", lambda _: FileSource(str(file)))
    monkeypatch.setattr(learning, "record_of", lambda *_: Learned(reach="file", read_at=1000.0))
    follower = Follower(lambda: SPEC, SPEC.reach, lambda _: None)
    try:
        wait_for(learned_peers.load, "the list is read")
        start = time.time()

        def is_confirmed() -> bool:
            follower.check()
            return known().read_at >= start

        wait_for(is_confirmed, "the source is confirmed")
        file.unlink()
        wait_for(lambda: known().stale_since, "the source is stale")
        read_at = known().read_at
        follower.check()
        assert known().read_at == read_at
    finally:
        follower.close()


class Lost:
    """A lost source, with a hint."""

    title = "file x"
    confirmed_at = 0.0

    def __init__(self, todo: str) -> None:
        self._todo = todo

    def list(self) -> Snapshot:
        raise SourceLost("two nodes have the name n1", self._todo)

    def watch(self, version: str) -> Iterator[Snapshot]:
        raise AssertionError(version)

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("todo", "hint"),
    [
        (
            "give each node its own name",
            "give each node its own name; `cnictl node list` shows the last list",
        ),
        ("", "repair the source; `cnictl node list` shows the last list"),
    ],
)
def test_doctor_shows_the_sources_hint_once(todo: str, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, learned = learning.learn(SPEC, Lost(todo))
    assert learned.trouble == "; ".join(filter(None, ("two nodes have the name n1", todo)))
    facts = Facts.__new__(Facts)
    monkeypatch.setattr(Facts, "spec", SPEC)
    (finding,) = source._stale(facts)
    assert str(finding.hint) == hint
    assert finding.message.endswith("are kept: two nodes have the name n1")


def test_nodes_do_not_return_to_a_source_simultaneously() -> None:
    nodes = [list(itertools.islice(pauses(), 10)) for _ in range(200)]
    for at, usual in enumerate([1, 2, 4, 8, 16, 30, 30, 30, 30, 30]):
        waits = [node[at] for node in nodes]
        assert 0.5 * usual <= min(waits) <= 0.75 * usual and 1.25 * usual <= max(waits) <= 1.5 * usual
