"""Commands that change what plugin calls depend on wait for running calls, up to a time limit."""

from pathlib import Path

import pytest

from cnictl.core.errors import Problem
from cnictl.core.locks import Locked
from cnictl.node.state import plugin_calls


def test_calls_under_way_are_waited_for_and_then_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = str(tmp_path / "node.lock")
    monkeypatch.setattr(plugin_calls, "NODE_LOCK", lock)
    monkeypatch.setattr(plugin_calls, "WAIT", 0.1)
    with Locked(lock, shared=True), pytest.raises(Problem, match="calls of the plugin are still running") as refused:
        plugin_calls.kept_out().__enter__()
    assert refused.value.hint == f"waited 0.1 s; `fuser -v {lock}` shows it"
    with plugin_calls.kept_out(), pytest.raises(Problem):
        plugin_calls.kept_out().__enter__()
    with Locked(lock, shared=True, wait=0):
        pass
