"""States record the places of cnictl's rules in other programs' chains as data, not as text."""

from cnictl.node.host.verdicts.places import AHEAD, BEHIND, Misplaced
from cnictl.node.resources import placed_rules

EARLY = {"rule": "-i cni0", "misplaced": AHEAD, "drop": "-d 169.254.169.254 -j DROP in FORWARD"}
LATE = {"rule": "-o cni0", "misplaced": BEHIND, "drop": "-j REJECT in FORWARD"}


def test_rule_keeps_its_side_with_any_text() -> None:
    for side in (AHEAD, BEHIND):
        misplaced = Misplaced(side, "ahead of its time in FORWARD")
        assert placed_rules.read(placed_rules.stored("-i cni0", misplaced)) == ("-i cni0", misplaced)
    assert placed_rules.read(placed_rules.stored("ahead of")) == ("ahead of", None)


def test_states_with_a_rule_ahead_are_distinguished() -> None:
    assert placed_rules.any_ahead({"accepts": ["-s ahead of"], "jumps": {"FORWARD": [EARLY]}})
    assert placed_rules.any_ahead({"inet theirs guard": ["sent", EARLY]})
    assert not placed_rules.any_ahead({"accepts": [], "jumps": {"FORWARD": [LATE, ""]}})
    assert not placed_rules.any_ahead({"unreadable": "the iptables command is missing"})
