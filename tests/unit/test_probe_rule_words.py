"""A rule is shown with all its matches, and the hint for one that drops deletes that rule and no other."""

import pytest

from cnictl.probe.drop_hint import for_drop
from cnictl.probe.rule_words import choose, hides_matches
from cnictl.probe.trace import Drop

NFT = """\
table ip filter {
\tchain FORWARD { # handle 2
\t\ttype filter hook forward priority filter; policy accept;
\t\toifname "cni0" ip daddr 10.244.0.0/24 ct status dnat  counter accept # handle 7
\t\tip daddr 10.244.1.2 counter drop # handle 5
\t}
}
"""
IPTABLES = (
    "-A FORWARD -d 10.244.0.0/24 -o cni0 -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT",
    '-A FORWARD -d 10.244.1.2/32 -m comment --comment "it\'s $(id)" -j DROP',
)
FORWARD = ("ip", "filter", "FORWARD")


def test_rule_whose_matches_nft_leaves_out_is_shown_as_iptables_lists_it() -> None:
    accept = choose(NFT, IPTABLES, FORWARD, 7)
    assert accept.text == "-d 10.244.0.0/24 -o cni0 -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT"
    assert choose(NFT, IPTABLES, FORWARD, 5).text == "ip daddr 10.244.1.2 counter drop"


def test_rule_of_iptables_is_deleted_by_its_own_words() -> None:
    """A comment may hold what a shell would run."""
    words = "-d 10.244.1.2/32 -m comment --comment 'it'\"'\"'s $(id)' -j DROP"
    assert choose(NFT, IPTABLES, FORWARD, 5).delete == f"iptables -D FORWARD {words}"
    raw = ("ip6", "raw", "PREROUTING")
    assert choose(NFT, IPTABLES, raw, 5).delete.startswith("ip6tables -t raw -D PREROUTING ")


def test_rule_of_a_chain_that_iptables_reads_in_part_is_named_by_its_handle() -> None:
    rule = choose(NFT, IPTABLES[:1], FORWARD, 5)
    assert (rule.text, rule.delete) == (
        "ip daddr 10.244.1.2 counter drop", "nft delete rule ip filter FORWARD handle 5"
    )  # fmt: skip
    gone = choose(NFT, (), FORWARD, 9)
    assert (gone.text, gone.delete) == ("with handle 9", "")


@pytest.mark.parametrize(
    ("rule", "hidden"),
    [
        ("-p tcp -m tcp --dport 80 -m comment --comment web -j DROP", False),
        ("-d 10.0.0.1/32 -j DROP", False),
        ("-m length --length 0:99 -j DROP", True),
    ],
)
def test_only_matches_that_nft_can_not_show_count(rule: str, hidden: bool) -> None:
    assert hides_matches(rule.split()) == hidden


def test_drop_of_a_rule_is_deleted_unless_a_program_keeps_it() -> None:
    deleted = for_drop(
        Drop("inet mine", "drops", "ip daddr 10.244.1.2 drop", "nft delete rule inet mine drops handle 2"), "A"
    )
    assert deleted.command == "nft delete rule inet mine drops handle 2"
    for table, chain in (("ip filter", "KUBE-FIREWALL"), ("inet firewalld", "filter_INPUT"), ("inet cnictl", "c")):
        kept = for_drop(Drop(table, chain, "drop", "nft delete rule x"), "10.244.0.5")
        assert (kept.command, kept[:24]) == ("", "accept 10.244.0.5 before")
    assert for_drop(Drop("inet mine", "drops", ""), "10.244.0.5") == "accept 10.244.0.5 in that chain"
