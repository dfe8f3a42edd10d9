"""The masquerade rule set in nftables: two chains for each network, in cnictl's table `inet cnictl`."""

from cnictl.core.masquerade.rule_set import (
    CHAIN_KINDS,
    MASQUERADE_MARKS,
    PURPOSE,
    TABLE,
    RuleSet,
    chains_of,
    never,
    owner,
)
from cnictl.core.netlink.messages import NETLINK_NETFILTER, Netlink, NetlinkError, attributes, text_attr

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cnictl.core.cidr import Cidr

_FAMILY_INET = 1
"""NFPROTO_INET, linux/netfilter.h."""


class Nft:
    """The backend `nft`; `Backend` says what each method does."""

    name = "nft"

    def is_loaded(self, rules: RuleSet) -> bool:
        """Count the rules with the rule set's digest. Costs one query."""
        return _marked(f"{rules.comment}\0".encode()) == 2 * len(rules.families)

    def present(self, name: str, families: "Iterable[int]" = ()) -> bool:  # noqa: ARG002
        """Look for rules of the network. Costs one query for both families."""
        return _marked(f"{owner(name)} ".encode()) > 0

    def load(self, rules: RuleSet) -> None:
        """Load the rules in one transaction."""
        _nft("-f", "-", stdin=text(rules))

    def check(self, rules: RuleSet) -> None:
        """Have the kernel check the rules without keeping them."""
        _nft("-c", "-f", "-", stdin=text(rules))

    def check_any(self, name: str, subnet: "Cidr") -> None:
        """Check the example: the same program and part of the kernel serve all subnets."""
        if not self.present(name):
            self.check(RuleSet(name, (subnet,), ()))

    def remove(self, name: str, scope: str = "") -> None:
        """Remove the chains, and the table if it is empty then."""
        from cnictl.core.netlink import nftables

        whole = chains_of(name, scope)
        scopes = () if scope else tuple(f"{chain}/" for chain in whole)
        nftables.remove_chains(_FAMILY_INET, TABLE, lambda chain: chain in whole or chain.startswith(scopes))
        nftables.remove_table_if_empty(_FAMILY_INET, TABLE)

    def steps(self, rules: RuleSet) -> list[tuple[list[str], str]]:
        """Return one command."""
        return [(["nft", "-f", "-"], text(rules))]

    def removal_commands(self, name: str, families: "Iterable[int]" = ()) -> list[str]:  # noqa: ARG002
        """Return the commands for the chains, which both families share."""
        commands = [f"nft delete chain inet {TABLE} {chain}" for chain in chains_of(name)]
        return [*commands, f"nft list table inet {TABLE} | grep -q chain || nft delete table inet {TABLE}"]


def text(rules: RuleSet) -> str:
    """Return the input for `nft -f` that loads the rule set in place of what is there."""
    mark = f'comment "{rules.comment}"'
    chains = [f"inet {TABLE} {chain}" for chain in chains_of(rules.name, rules.scope)]
    identity, masquerade = chains
    lines = [f"add table inet {TABLE}"]
    for chain, (_, priority) in zip(chains, CHAIN_KINDS, strict=True):
        lines.append(f"add chain {chain} {{ type nat hook postrouting priority {priority}; policy accept; }}")
    lines += [f"flush chain {chain}" for chain in chains]
    for bits in rules.families:
        ip, own = "ip" if bits == 32 else "ip6", rules.of(bits)
        lines += (
            f"add rule {identity} {ip} saddr {_any_of(own)} {ip} daddr {_any_of(rules.inside(bits))} "
            f"{ip} daddr != {_any_of(own)} meta mark & {MASQUERADE_MARKS} == 0 "
            f"counter snat {ip} prefix to {ip} saddr map {{ {', '.join(f'{cidr} : {cidr}' for cidr in own)} }} {mark}",
            f"add rule {masquerade} {ip} saddr {_any_of(own)} {ip} daddr != {_any_of(rules.inside(bits, never(bits)))} "
            f"fib daddr type != local counter masquerade fully-random {mark}",
        )
    return "\n".join(lines) + "\n"


def _nft(*words: str, stdin: str) -> None:
    from cnictl.core.process import run  # no program is started if the rules are loaded

    run(["nft", *words], stdin, purpose=PURPOSE)


def _any_of(listed: "list[Cidr]") -> str:
    return str(listed[0]) if len(listed) == 1 else f"{{ {', '.join(map(str, listed))} }}"


def _marked(mark: bytes) -> int:
    """Return how many rules of our table have `mark` in their comment (nf_tables.h, NFT_MSG_GETRULE 7)."""
    request = bytes((_FAMILY_INET, 0, 0, 0)) + text_attr(1, TABLE)  # nfgenmsg; NFTA_RULE_TABLE
    try:
        with Netlink(NETLINK_NETFILTER) as netlink:
            listed = netlink.dump(10 << 8 | 7, request)
    except NetlinkError:
        return 0  # no such table, or a kernel that has no nftables at all
    return sum(mark in attributes(rule, 4).get(7, b"") for rule in listed)  # NFTA_RULE_USERDATA
