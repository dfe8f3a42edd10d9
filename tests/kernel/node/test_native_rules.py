"""With a native nft rule in one of iptables' chains, iptables can't list that table, but everything else works."""

import json

import pytest

from cnictl.lab.lab import Node
from tests.kernel.cluster import shell
from tests.kernel.commands import INIT_OPTIONS, cnictl, drifted, start_pod

pytestmark = pytest.mark.once

NATIVE = {"refused": "ct state vmap { invalid : drop }", "misread": "ip daddr { 192.0.2.7, 192.0.2.9 } drop"}
"""iptables-nft refuses to list a chain with the first rule, and lists the second one as a drop of all packets."""
CHAINS = {
    "ip filter INPUT": "iptables -A INPUT -p tcp --dport 22 -j ACCEPT",
    "ip filter FORWARD": "iptables -A FORWARD -p tcp --dport 22 -j ACCEPT",
    "ip nat PREROUTING": "iptables -t nat -A PREROUTING -p tcp --dport 9 -j RETURN",
    "ip nat POSTROUTING": "iptables -t nat -A POSTROUTING -p tcp --dport 9 -j RETURN",
    "ip mangle FORWARD": "iptables -t mangle -A FORWARD -p tcp --dport 9 -j RETURN",
}


def add(node: Node, chain: str, kind: str) -> None:
    shell(node, f"{CHAINS[chain]}; nft 'add rule {chain} {NATIVE[kind]}'")


def is_loaded(node: Node, chain: str, kind: str) -> bool:
    return NATIVE[kind].split("{")[1] in shell(node, f"nft list chain {chain}")


def remove(node: Node, chain: str) -> None:
    shell(node, f"nft delete table {chain.rpartition(' ')[0]}")


def ours(node: Node) -> list[str]:
    """Return the lines of the nftables rule set that carry cnictl's marks."""
    lines = node.run(["nft", "list", "ruleset"]).stdout.splitlines()
    return [line.strip() for line in lines if "CNICTL-" in line or "cnictl" in line]


def unable(node: Node, *words: str) -> str:
    """Return doctor's messages about checks that could not run."""
    said = cnictl(node, "doctor", *words, check=False).stderr
    return "\n".join(line for line in said.splitlines() if "could not run" in line)


@pytest.mark.parametrize("kind", NATIVE)
@pytest.mark.parametrize("chain", CHAINS)
def test_a_node_is_set_up_checked_and_reset_beside_a_native_rule(shared_node: Node, chain: str, kind: str) -> None:
    node = shared_node
    add(node, chain, kind)
    try:
        cnictl(node, "init-node", *INIT_OPTIONS)
        assert drifted(node) == []
        assert cnictl(node, "apply", "-o", "json").status == 0
        assert unable(node).count("could not run") == (chain == "ip nat POSTROUTING")
        cnictl(node, "reset-node", "--yes")
        assert ours(node) == []
        assert is_loaded(node, chain, kind)
    finally:
        cnictl(node, "reset-node", "--yes", "--force", check=False)
        remove(node, chain)


@pytest.mark.parametrize("kind", NATIVE)
@pytest.mark.parametrize("chain", CHAINS)
def test_a_native_rule_added_later_hides_nothing_from_a_reset(shared_node: Node, chain: str, kind: str) -> None:
    node = shared_node
    cnictl(node, "init-node", *INIT_OPTIONS, "--backend", "iptables")
    try:
        shell(node, "iptables -t mangle -I FORWARD -m comment --comment cnictl:cni0 -j RETURN")
        add(node, chain, kind)
        status = json.loads(cnictl(node, "status", "-o", "json", check=False).stdout)
        states = {row["resource"]: row["state"] for row in status["resources"] if row["state"] != "ok"}
        if chain == "ip nat POSTROUTING":
            assert states == {"masquerade/mynet": "not known"}
            done = cnictl(node, "apply", check=False)
            assert (done.status, "can't be read" in done.stderr) == (1, True)
        elif chain == "ip filter FORWARD":
            assert set(states) == {"forward/iptables", "forward/nft"} or set(states) == {"forward/iptables"}
            cnictl(node, "apply")
            assert drifted(node) == []
        else:
            assert states == {}
        cnictl(node, "reset-node", "--yes")
        assert ours(node) == []
        assert is_loaded(node, chain, kind)
    finally:
        cnictl(node, "reset-node", "--yes", "--force", check=False)
        shell(node, "nft flush ruleset")


def test_a_drop_in_a_chain_that_only_nft_reads_is_seen(shared_node: Node) -> None:
    node = shared_node
    cnictl(node, "init-node", *INIT_OPTIONS)
    try:
        shell(node, "iptables -N theirs; iptables -I FORWARD -j theirs")
        shell(node, f"nft 'add rule ip filter theirs {NATIVE['refused']}'; nft add rule ip filter theirs drop")
        assert "forward/iptables" in drifted(node)
        cnictl(node, "apply")
        assert drifted(node) == []
        here, there = start_pod(node, "here"), start_pod(node, "there")
        assert here.pings(there.address)
        listed = shell(node, "iptables -S FORWARD").splitlines()
        assert [line.rpartition(" ")[2] for line in listed if "-j" in line][:2] == ["CNICTL-FORWARD", "theirs"]
    finally:
        cnictl(node, "reset-node", "--yes", "--force", check=False)
        shell(node, "nft flush ruleset; ip netns delete here; ip netns delete there")
