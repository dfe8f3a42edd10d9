"""Read a run's journal: complete, torn by a power failure, or continued."""

from pathlib import Path

import pytest

from cnictl.node.state import journal, original_state
from cnictl.node.state.journal import Journal


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(journal, "FOLDER", str(tmp_path / "journal"))
    monkeypatch.setattr(original_state, "RECORD", str(tmp_path / "former.json"))
    return tmp_path / "journal"


def test_a_run_without_a_change_leaves_no_journal(folder: Path) -> None:
    record = Journal("apply")
    record.end("done")
    assert not folder.exists()


def test_a_run_is_read_back_unchanged() -> None:
    record = Journal("bridge up", {"spec": {"name": "mynet"}})
    record.begin("bridge/cni0", None, {"mtu": 1500}, "ip link add cni0 type bridge", "make bridge cni0")
    record.begin("address/cni0", None, {"address": "10.244.0.1/24"}, "ip address add 10.244.0.1/24 dev cni0")
    record.failed("address/cni0")
    record.end("failed")
    run = journal.last()
    assert run is not None
    assert (run.number, run.command, run.spec, run.end) == (1, "bridge up", {"name": "mynet"}, "failed")
    assert [entry.resource for entry in run.entries] == ["bridge/cni0", "address/cni0"]
    assert run.half_made == {"address/cni0"}


def test_an_interrupted_run_has_its_last_change_incomplete() -> None:
    Journal("route add-peer").begin("route/10.244.1.0/24", None, {"via": "10.0.10.51"}, "ip route add …")
    (run,) = journal.unfinished()
    assert run.half_made == {"route/10.244.1.0/24"}


def test_a_later_run_does_not_hide_an_interrupted_one() -> None:
    Journal("route add-peer").begin("route/10.244.1.0/24", None, {"via": "10.0.10.51"}, "ip route add …")
    later = Journal("watch")
    later.begin("address/cni0", None, {"address": "10.244.0.1/24"}, "ip address add …")
    later.end("done")
    assert [run.number for run in journal.unfinished()] == [1]
    journal.append(1, {"end": "finished"})
    assert journal.unfinished() == []


def test_an_undo_is_complete_once_its_result_is_recorded() -> None:
    made = Journal("bridge up")
    made.begin("bridge/cni0", None, {"mtu": 1500}, "ip link add cni0 type bridge")
    made.end("done")
    undo = Journal("undo 1", {"undoes": 1})
    undo.begin("bridge/cni0", {"mtu": 1500}, None, "ip link delete cni0")
    undo.end("done")
    assert [run.number for run in journal.unfinished()] == [2]
    journal.append(1, {"taken_back": 2})
    assert journal.unfinished() == []


@pytest.mark.parametrize("torn", [1, 40])
def test_a_torn_line_does_not_affect_another(folder: Path, torn: int) -> None:
    record = Journal("nat enable")
    record.begin("masquerade/mynet", None, {}, "nft …")
    record.begin("forward/iptables", None, {}, "iptables …")
    file = folder / "000001.jsonl"
    file.write_bytes(file.read_bytes()[:-torn])
    journal.append(1, {"end": "finished"})
    journal.append(1, {"taken_back": 2})
    run = journal.last()
    assert run is not None and (run.end, run.undone_by) == ("finished", 2)
    assert [entry.resource for entry in run.entries][:1] == ["masquerade/mynet"]


def test_run_is_a_repair_if_each_of_its_changes_is() -> None:
    record = Journal("route add-peer")
    record.begin("route/10.244.1.0/24", None, {"via": "10.0.10.51"}, "ip route add …", repair=True)
    only_repaired = journal.last()
    record.begin("route/10.244.2.0/24", None, {"via": "10.0.10.52"}, "ip route add …")
    moved = journal.last()
    assert only_repaired is not None and only_repaired.is_repair
    assert moved is not None and not moved.is_repair
    watch = Journal("watch", repairs=True)
    watch.begin("address/cni0", None, {"address": "10.244.0.1/24"}, "ip address add …")
    latest = journal.last()
    assert latest is not None and latest.is_repair


def test_text_of_a_change_does_not_end_a_run_or_mark_it_as_an_undo() -> None:
    text = '{"end": "done"}\n{"end": "done"}\n'
    record = Journal("apply", {"spec": {"name": '"undoes": '}})
    record.begin("file/etc/cnictl/node.toml", None, {"text": text}, "cat > /etc/cnictl/node.toml")
    assert [run.number for run in journal.unfinished()] == [1]
    record.end("done")
    assert journal.unfinished() == []


def test_torn_end_of_a_run_does_not_count(folder: Path) -> None:
    record = Journal("apply")
    record.begin("bridge/cni0", None, {"mtu": 1500}, "ip link add cni0 type bridge")
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"end": "do')
    assert [run.number for run in journal.unfinished()] == [1]
    path.write_bytes(whole + b'{"end": "done"}')
    assert journal.unfinished() == []
