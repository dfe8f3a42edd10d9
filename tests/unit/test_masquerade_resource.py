"""Describe a change of the masquerade resource without reading the host."""

from cnictl.node.resources.masquerade import Masquerade
from cnictl.node.spec.node_spec import NodeSpec

SPEC = NodeSpec(subnets=("10.244.0.0/24",), networks=("10.244.0.0/20",))
WHOLE = {"nft": {"subnets": ["10.244.0.0/24"], "networks": ["10.244.0.0/20"]}}
DAMAGED = {"nft": {"damaged": "rules are missing, changed or of another release"}}


def test_an_undo_leaves_damaged_rules_and_says_so() -> None:
    summary, commands = Masquerade(SPEC).describe(WHOLE, DAMAGED)
    assert summary == "leave the masquerade rules of mynet as they are (nft)"
    assert commands == ""


def test_manual_removal_deletes_only_the_networks_own_chains() -> None:
    _, commands = Masquerade(SPEC).describe(WHOLE, None)
    assert commands.splitlines()[:2] == [
        "nft delete chain inet cnictl identity-mynet",
        "nft delete chain inet cnictl masquerade-mynet",
    ]
