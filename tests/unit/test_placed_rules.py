"""Rules of ours in other programs' chains say in a state, not in words, where they are; earlier journals still read."""

from cnictl.node.host.verdicts.places import AHEAD, BEHIND, Misplaced
from cnictl.node.resources import placed_rules
from cnictl.node.resources.forward import IptablesForward
from cnictl.node.resources.forward_nft import NftForward
from cnictl.node.runs.revert import Trace, reverted
from cnictl.node.spec.node_spec import NodeSpec

SPEC = NodeSpec(subnets=("10.244.0.0/24",), networks=("10.244.0.0/20",))
EARLY = {"rule": "-i cni0", "misplaced": AHEAD, "drop": "-d 169.254.169.254 -j DROP in FORWARD"}
LATE = {"rule": "-o cni0", "misplaced": BEHIND, "drop": "-j REJECT in FORWARD"}


def test_rule_keeps_its_side_whatever_its_text_says() -> None:
    for side in (AHEAD, BEHIND):
        misplaced = Misplaced(side, "ahead of its time in FORWARD")
        assert placed_rules.read(placed_rules.stored("-i cni0", misplaced)) == ("-i cni0", misplaced)
    assert placed_rules.read(placed_rules.stored("ahead of")) == ("ahead of", None)


def test_states_with_a_rule_ahead_are_told_apart() -> None:
    assert placed_rules.any_ahead({"accepts": ["-s ahead of"], "jumps": {"FORWARD": [EARLY]}})
    assert placed_rules.any_ahead({"inet theirs guard": ["sent", EARLY]})
    assert not placed_rules.any_ahead({"accepts": [], "jumps": {"FORWARD": [LATE, ""]}})
    assert not placed_rules.any_ahead({"unreadable": "the iptables command is missing"})


def test_undo_of_a_run_of_an_earlier_release_goes_back_to_where_the_rules_were() -> None:
    old = {
        "accepts": ["-s 10.244.0.0/24"],
        "jumps": {"FORWARD": ["-i cni0   # ahead of -d 169.254.169.254 -j DROP in FORWARD",
                              "-o cni0   # behind -j REJECT in FORWARD"]},
    }  # fmt: skip
    new = {"accepts": ["-s 10.244.0.0/24"], "jumps": {"FORWARD": [""]}}
    trace = Trace("forward/iptables", old, new, [old, new], False)
    target, notes = reverted(IptablesForward("ip", SPEC), trace, new)
    assert (target, notes) == ({**old, "jumps": {"FORWARD": [EARLY, LATE]}}, [])

    rule = 'iifname "cni0" accept comment "cnictl:mynet"'
    before, after = {"ip a fwd": [f"{rule}   # ahead of drop in ip a fwd"]}, {"ip a fwd": [rule]}
    target, _ = reverted(NftForward(SPEC), Trace("forward/nft", before, after, [before, after], False), after)
    assert target == {"ip a fwd": [{"rule": rule, "misplaced": AHEAD, "drop": "drop in ip a fwd"}]}


def test_first_releases_state_is_read() -> None:
    state = {"subnet": "10.244.0.0/24", "bridge": "cni0", "name": "mynet", "at": "FORWARD"}
    read = IptablesForward().updated(state)
    assert read["jumps"] == {"FORWARD": [""]}
    assert [rule.partition(" -m")[0] for rule in read["accepts"]] == [
        "-d 10.244.0.0/24 -o cni0",
        "-s 10.244.0.0/24 -i cni0",
    ]
