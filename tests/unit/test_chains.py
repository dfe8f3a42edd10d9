"""Chains of ours after the iptables command is gone, where nft doesn't see them: only the note of them tells."""

from pathlib import Path

import pytest

from cnictl.core import liveness
from cnictl.core.errors import Problem
from cnictl.core.process import Finished
from cnictl.node.host import firewall
from cnictl.node.resources import chains
from cnictl.node.resources.forward import CHAIN, IptablesForward
from cnictl.node.spine import Change
from cnictl.node.state import original_state


@pytest.fixture(autouse=True)
def noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """iptables-legacy made our chain in FORWARD; then iptables was taken off the host."""
    monkeypatch.setattr(original_state, "RECORD", str(tmp_path / "former.json"))
    monkeypatch.setattr(original_state, "STATE_DIR", str(tmp_path))
    monkeypatch.setattr(chains, "run", lambda _: Finished(0, "iptables v1.8.9 (legacy)\n", ""))
    chains.note("filter", CHAIN)
    monkeypatch.setattr(firewall, "has_command", lambda name: name == "nft")
    monkeypatch.setattr(firewall, "ruleset", list)


def test_it_is_seen_and_its_removal_fails_by_name() -> None:
    forward = IptablesForward()
    state = forward.observe()
    assert state == {"unreadable": "CNICTL-FORWARD stands, but the iptables command is gone"}
    with pytest.raises(Problem, match="our chain CNICTL-FORWARD in its filter table") as failed:
        forward.carry_out(Change(forward.id, state, None, *forward.describe(state, None)))
    assert "install iptables again" in failed.value.hint


def test_a_reboot_takes_it_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "boot_id", lambda: "another")
    assert IptablesForward().observe() is None


def test_what_nft_would_show_is_gone_where_nft_shows_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "run", lambda _: Finished(0, "iptables v1.8.9 (nf_tables)\n", ""))
    chains.note("filter", CHAIN)
    assert IptablesForward().observe() is None
    monkeypatch.setattr(firewall, "has_command", lambda _: False)
    assert IptablesForward().observe() is not None


def test_nothing_is_left_that_was_never_made() -> None:
    assert not chains.left("nat", "CNICTL-b734f0fd")


def test_each_family_is_noted_and_missed_by_itself() -> None:
    assert IptablesForward("ip6").observe() is None  # the note is of iptables'
    chains.note("filter", CHAIN, "ip6")
    chains.forget("filter", CHAIN)
    assert IptablesForward().observe() is None
    assert IptablesForward("ip6").observe() == {
        "unreadable": "CNICTL-FORWARD stands, but the ip6tables command is gone"
    }
