"""Doctor and test-connectivity name packet filters between a node and its own pods, and their hints fix them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from cnictl.lab.lab import Lab, Node
from tests.kernel.cluster import shell
from tests.kernel.commands import Pod, cnictl, start_pod
from tests.kernel.hints import applies
from tests.kernel.node.test_dual_stack import set_up

pytestmark = pytest.mark.once

_CHAIN = (
    "nft add table {table}; nft add chain {table} c '{{ type filter hook {hook} priority {priority}; policy {p}; }}'"
)


def nft(table: str, hook: str, *rules: str, policy: str = "accept", priority: str = "0") -> str:
    made = _CHAIN.format(table=table, hook=hook, priority=priority, p=policy)
    return "; ".join([made, *(f"nft add rule {table} c {rule}" for rule in rules)])


@dataclass(frozen=True)
class Firewall:
    """A rule set that drops packets to the host, the commands that load and unload it, and the chain that drops."""

    load: str
    chain: str
    unload: str


ORACLE = "; ".join(
    f"{program} -A INPUT {rule}"
    for program, icmp, reject in (
        ("iptables", "icmp", "icmp-host-prohibited"), ("ip6tables", "ipv6-icmp", "icmp6-adm-prohibited"),
    )
    for rule in (
        "-m state --state RELATED,ESTABLISHED -j ACCEPT", f"-p {icmp} -j ACCEPT", "-i lo -j ACCEPT",
        "-p tcp -m state --state NEW -m tcp --dport 22 -j ACCEPT", f"-j REJECT --reject-with {reject}",
    )
)  # fmt: skip
_ICMP = ("meta l4proto { icmp, ipv6-icmp } accept", "ct state established,related accept", "iif lo accept")
FIREWALLS = {
    "Oracle's and CentOS' INPUT": Firewall(ORACLE, "iptables INPUT", "iptables -F INPUT; ip6tables -F INPUT"),
    "nft with policy drop": Firewall(
        nft("inet theirs", "input", *_ICMP, "tcp dport 22 accept", policy="drop"), "inet theirs c",
        "nft delete table inet theirs",
    ),
    "nft with a native rule in INPUT": Firewall(
        f"{ORACLE}; nft 'insert rule ip filter INPUT ct state vmap {{ invalid : drop }}'", "ip filter INPUT",
        "nft flush chain ip filter INPUT; ip6tables -F INPUT",
    ),
    "raw prerouting": Firewall(
        nft("inet theirs", "prerouting", "iifname cni0 meta l4proto { tcp, udp } drop", priority="-300"),
        "inet theirs c", "nft delete table inet theirs",
    ),
    "the bridge family": Firewall(
        nft("bridge theirs", "input", "ip protocol tcp drop", "ip protocol udp drop"), "bridge theirs c",
        "nft delete table bridge theirs",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def world() -> Iterator[tuple[Node, Pod]]:
    with Lab(nodes=2, dual_stack=True) as lab:
        set_up(lab, both=True)
        node = lab.nodes[0]
        yield node, start_pod(node, "pod")


def findings(node: Node) -> list[dict[str, Any]]:
    said = cnictl(node, "doctor", "--only", "own-host", "-o", "json", check=False).stdout
    return list(json.loads(said)["items"])


def own_host(node: Node) -> tuple[int, list[dict[str, Any]]]:
    done = cnictl(node, "test-connectivity", "--external", "10.0.0.1", "-o", "json", check=False)
    return done.status, [row for row in json.loads(done.stdout)["checks"] if row["check"] == "own-host"]


@applies(
    "node.host.own_host._allow: {} -I {} {} {} -j ACCEPT", "node.host.own_host._allow: nft insert rule {} '{}{} accept'"
)
@pytest.mark.parametrize("name", FIREWALLS)
def test_rule_between_pods_and_their_node_is_named_and_the_hint_fixes_it(world: tuple[Node, Pod], name: str) -> None:
    node, _ = world
    firewall = FIREWALLS[name]
    assert findings(node) == []
    shell(node, firewall.load)
    try:
        reported = findings(node)
        assert firewall.chain in {finding["subject"] for finding in reported}
        assert all("TCP and UDP" in finding["message"] for finding in reported)
        status, checks = own_host(node)
        four = checks[0]
        assert (status, four["state"]) == (1, "failed")
        assert four["cause_name"] == "dropped-here"
        assert {four["tcp"], four["udp"]} <= {"refused", "silent"}
        for finding in reported:
            shell(node, finding["hint"]["text"])
        assert findings(node) == []
        _, checks = own_host(node)
        assert [(row["state"], row["tcp"], row["udp"]) for row in checks] == [("ok", "passes", "passes")] * 2
    finally:
        shell(node, firewall.unload)


def test_a_node_that_drops_what_it_sends_to_its_pods_is_named(world: tuple[Node, Pod]) -> None:
    node, _ = world
    shell(node, "iptables -A OUTPUT -o cni0 -p icmp -j ACCEPT; iptables -A OUTPUT -o cni0 -j DROP")
    try:
        (finding,) = findings(node)
        assert finding["subject"] == "iptables OUTPUT"
        assert "sends to its pods" in finding["message"]
        status, checks = own_host(node)
        assert (status, checks[0]["state"]) == (1, "failed")
        shell(node, finding["hint"]["text"])
        assert findings(node) == []
    finally:
        shell(node, "iptables -F OUTPUT")


@pytest.mark.parametrize(
    "rule",
    [
        "iptables -A INPUT -p tcp --dport 23 -j DROP",
        "iptables -A INPUT -m conntrack --ctstate INVALID -j DROP",
        "iptables -A INPUT -s 203.0.113.0/24 -j DROP",
        "iptables -A INPUT -i cni0 -p udp --dport 53 -j ACCEPT; iptables -A INPUT -i cni0 -j DROP",
        "iptables -A INPUT -p tcp -j ACCEPT; iptables -A INPUT -p udp -j ACCEPT; iptables -A INPUT -j DROP",
        "iptables -A INPUT -i cni0 -j ACCEPT; iptables -A INPUT -j REJECT",
    ],
)
def test_drops_of_particular_packets_are_not_reported(world: tuple[Node, Pod], rule: str) -> None:
    node, _ = world
    shell(node, rule)
    try:
        assert findings(node) == []
    finally:
        shell(node, "iptables -F INPUT")


def test_a_node_that_accepts_pods_on_some_ports_is_uncertain(world: tuple[Node, Pod]) -> None:
    node, _ = world
    shell(node, "iptables -A INPUT -i cni0 -p udp --dport 53 -j ACCEPT; iptables -A INPUT -i cni0 ! -p icmp -j DROP")
    try:
        status, checks = own_host(node)
        assert (status, checks[0]["state"], checks[0]["cause_name"]) == (0, "uncertain", "some-ports")
    finally:
        shell(node, "iptables -F INPUT")


def test_blocking_only_ping_fails_no_check(world: tuple[Node, Pod]) -> None:
    node, _ = world
    shell(node, "iptables -I INPUT -i cni0 -p icmp -j DROP")
    try:
        assert findings(node) == []
        _, checks = own_host(node)
        assert (checks[0]["state"], checks[0]["tcp"], checks[0]["udp"]) == ("uncertain", "passes", "passes")
        assert "TCP and UDP pass, but ping does not" in checks[0]["cause"]
        assert "of chain ip filter INPUT" in checks[0]["cause"]
    finally:
        shell(node, "iptables -F INPUT")
