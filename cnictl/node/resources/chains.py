"""iptables chains of ours on a host that has lost its `iptables` command since: found and removed all the same.

What iptables-nft made is seen and removed with nft. Of what iptables-legacy made only a note of ours tells; it is
worth nothing after a reboot, which takes every rule away.
"""

from typing import Any

from cnictl.core import liveness
from cnictl.core.errors import Problem
from cnictl.core.iptables_listing import FAMILIES
from cnictl.core.netlink import nftables
from cnictl.core.process import run
from cnictl.node.host import firewall
from cnictl.node.host.firewall import PROGRAMS
from cnictl.node.state import original_state

_LED_FROM = {"filter": "FORWARD", "nat": "POSTROUTING"}
"""The built-in chain that leads to ours, by table."""


def gone(table: str, family: str = "ip") -> str:
    """Why our chain in a table can't be read."""
    program = PROGRAMS[family]
    if not firewall.has_command(program):
        return f"the {program} command is gone"
    return f"{program} can't read {_LED_FROM[table]} of table {table}: a native rule of nft's stands in it"


def note(table: str, chain: str, family: str = "ip") -> None:
    """Keep that iptables (ip6tables) is about to make our chain. Raises Problem."""
    legacy = "nf_tables" not in run([PROGRAMS[family], "--version"]).stdout
    original_state.amend(_key(family, table, chain), {"legacy": legacy, "boot_id": liveness.boot_id()})


def forget(table: str, chain: str, family: str = "ip") -> None:
    """Drop the note: the chain is removed."""
    original_state.forget(_key(family, table, chain))


def left(table: str, chain: str, family: str = "ip") -> bool:
    """Whether our chain stands though the program that shows it is gone or can't read what leads to it.

    As far as that can be known.
    """
    program = PROGRAMS[family]
    if firewall.has_command(program):
        stands = chain in nftables.chains(FAMILIES[program], table)
        return stands and not firewall.reads(table, _LED_FROM[table], family)
    if _is_in(firewall.ruleset(), family, table, chain):
        return True
    noted = original_state.recall(_key(family, table, chain))
    if noted is None or noted["boot_id"] != liveness.boot_id():
        return False
    return bool(noted["legacy"]) or not firewall.has_command("nft")


def remove(table: str, chain: str, family: str = "ip") -> None:
    """Take out with nft the jumps to our chain and the chain. Raises Problem where nft doesn't see it."""
    found = firewall.ruleset()
    if not _is_in(found, family, table, chain):
        raise Problem(
            f"{gone(table, family)}, and our chain {chain} in its {table} table, with its jump, can't be removed "
            "without it",
            f"install {PROGRAMS[family]} again (the same kind, legacy or nft) and repeat this",
        )
    jumps = [
        f"delete rule {family} {table} {rule['chain']} handle {rule['handle']}"
        for rule in (entry["rule"] for entry in found if "rule" in entry)
        if (rule["family"], rule["table"]) == (family, table) and _leads_to(rule, chain)
    ]
    lines = [*jumps, f"flush chain {family} {table} {chain}", f"delete chain {family} {table} {chain}", ""]
    run(["nft", "-f", "-"], "\n".join(lines))
    forget(table, chain, family)


def removal_commands(table: str, chain: str, family: str = "ip") -> list[str]:
    """`remove` as typed by hand."""
    jumps = f"delete each jump to {chain}: nft delete rule {family} {table} … handle …"
    return [
        f"nft -a list table {family} {table}   # {jumps}",
        f"nft flush chain {family} {table} {chain}",
        f"nft delete chain {family} {table} {chain}",
    ]


def _key(family: str, table: str, chain: str) -> str:
    return f"{PROGRAMS[family]}/{table}/{chain}"


def _is_in(found: list[dict[str, Any]], family: str, table: str, chain: str) -> bool:
    chains = [entry["chain"] for entry in found if "chain" in entry]
    return any((one["family"], one["table"], one["name"]) == (family, table, chain) for one in chains)


def _leads_to(rule: dict[str, Any], chain: str) -> bool:
    return target(rule) == chain


def target(rule: dict[str, Any]) -> str:
    """The chain that a rule of nft's JSON jumps or goes to; empty where it does neither."""
    verdicts = [one.get("jump") or one.get("goto") or {} for one in rule.get("expr", []) if isinstance(one, dict)]
    return next((str(one["target"]) for one in verdicts if "target" in one), "")
