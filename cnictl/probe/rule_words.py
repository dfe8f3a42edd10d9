"""Put a rule of nftables into words, with the command that deletes it.

iptables-nft keeps matches of its own (xt) in its rules. nft leaves them out, or shows a part of them: it lists
`--ctstate RELATED,ESTABLISHED,DNAT` as `ct status dnat`. Such a rule is shown as `iptables -S` prints it.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from cnictl.core.errors import Problem
from cnictl.core.process import run
from cnictl.node.host import firewall

_TABLES = ("filter", "nat", "mangle", "raw", "security")
_SHOWN_BY_NFT = ("comment", "tcp", "udp")
_HANDLE = " # handle "


@dataclass(frozen=True)
class RuleWords:
    """A rule as people read it."""

    text: str
    """The rule, without its chain."""
    delete: str
    """The command that deletes it; empty if the rule is not found."""


def rule_words(family: str, table: str, chain: str, handle: int) -> RuleWords:
    """Return the rule with a handle."""
    listed = run(["nft", "-a", "-s", "list", "chain", family, table, chain], check=False).stdout
    return choose(listed, _iptables_rules(family, table, chain), (family, table, chain), handle)


def choose(listed: str, of_iptables: Sequence[str], place: tuple[str, str, str], handle: int) -> RuleWords:
    """Return the rule with a handle, from a chain's listing by `nft -a` and, if iptables reads it, by `iptables -S`."""
    family, table, chain = place
    rules = [line.strip().rpartition(_HANDLE) for line in listed.splitlines() if _HANDLE in line and "{ #" not in line]
    at = next((number for number, rule in enumerate(rules) if rule[2] == str(handle)), -1)
    if at < 0:
        return RuleWords(f"with handle {handle}", "")
    if len(of_iptables) != len(rules):
        return RuleWords(rules[at][0].strip(), f"nft delete rule {family} {table} {chain} handle {handle}")
    words = shlex.split(of_iptables[at])[2:]  # without -A CHAIN
    program = firewall.PROGRAMS[family]
    in_table = "" if table == "filter" else f"-t {table} "
    delete = f"{program} {in_table}-D {shlex.join([chain, *words])}"
    return RuleWords(shlex.join(words) if hides_matches(words) else rules[at][0].strip(), delete)


def hides_matches(words: Sequence[str]) -> bool:
    """Return whether nft does not show all matches of a rule, given in the words of `iptables -S`."""
    return any(option == "-m" and match not in _SHOWN_BY_NFT for option, match in pairwise(words))


def _iptables_rules(family: str, table: str, chain: str) -> list[str]:
    """Return the rules of a chain as `iptables -S` lists them; none if iptables-nft can't read the chain."""
    program = firewall.PROGRAMS.get(family, "")
    if table not in _TABLES or not program or not firewall.reads(table, chain, family):
        return []
    try:
        if "nf_tables" not in run([program, "--version"], check=False).stdout:
            return []
        lines = run([program, "-w", "-t", table, "-S", chain], check=False).stdout.splitlines()
    except Problem:
        return []
    return [line for line in lines if line.startswith("-A ")]
