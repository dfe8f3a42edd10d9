"""Chains whose program is missing are reported as unreadable, never as removed."""

from pathlib import Path

import pytest

from cnictl.core.errors import Problem
from cnictl.core.netlink import nftables
from cnictl.node import spine
from cnictl.node.host import firewall
from cnictl.node.resources import hidden_chains
from cnictl.node.resources.forward import CHAIN, IptablesForward
from cnictl.node.resources.remnants import TaggedIptables
from cnictl.node.state import original_state


@pytest.fixture(autouse=True)
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[int, list[str]]:
    """A host that has lost its iptables commands; returns the filter tables' chains by protocol family."""
    chains: dict[int, list[str]] = {}
    monkeypatch.setattr(original_state, "RECORD", str(tmp_path / "former.json"))
    monkeypatch.setattr(original_state, "STATE_DIR", str(tmp_path))
    monkeypatch.setattr(firewall, "has_command", lambda name: name == "nft")
    monkeypatch.setattr(firewall, "legacy_in_use", lambda *_: False)
    monkeypatch.setattr(nftables, "tables", lambda family: ["filter"] if family in chains else [])
    monkeypatch.setattr(nftables, "chains", lambda family, table: chains.get(family, []) if table == "filter" else [])
    return chains


def test_existing_chain_is_unknown_in_detail_and_stays(host: dict[int, list[str]]) -> None:
    host[2] = ["FORWARD", CHAIN]
    with pytest.raises(Problem, match="CNICTL-FORWARD in table filter exists, but the iptables command") as failed:
        IptablesForward().observe()
    assert failed.value.hint == "install iptables again, then repeat this"
    (step,) = spine.plan_removal([IptablesForward()]).steps
    assert step.change is None and "the iptables command is missing" in step.unknown
    assert IptablesForward("ip6").observe() is None


def test_iptables_is_not_required_without_a_chain_of_ours(host: dict[int, list[str]]) -> None:
    host[2] = ["FORWARD"]
    assert IptablesForward().observe() is None
    assert not hidden_chains.hides("nat", "CNICTL-b734f0fd")


def test_rules_of_the_old_interface_may_be_ours_once_iptables_was_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firewall, "legacy_in_use", lambda family, table: (family, table) == ("ip", "filter"))
    assert IptablesForward().observe() is None  # iptables was never used
    original_state.remember("firewall/iptables", {"there": []})
    with pytest.raises(Problem, match="may exist, but the iptables command is missing"):
        IptablesForward().observe()
    assert not hidden_chains.hides("nat", "CNICTL-b734f0fd")
    monkeypatch.setattr(firewall, "has_command", lambda name: name in ("nft", "iptables-legacy"))
    assert IptablesForward().observe() is None  # iptables-legacy lists the rules


def test_chains_that_no_record_names_are_not_known_either(host: dict[int, list[str]]) -> None:
    host[10] = ["FORWARD", CHAIN, "CNICTL-b734f0fd"]
    with pytest.raises(Problem, match="CNICTL-b734f0fd in table filter exists, but the ip6tables command is missing"):
        TaggedIptables("ip6tables", frozenset({("filter", CHAIN)})).observe()
    assert TaggedIptables("iptables").observe() is None
