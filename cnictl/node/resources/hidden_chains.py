"""Find and remove our iptables chains if iptables can't read the built-in chain that leads to them.

iptables can't read a chain that contains a native nft rule. If its program is missing, it is not known whether one of
our chains exists.
"""

from typing import Any

from cnictl.core.errors import Problem
from cnictl.core.iptables_listing import FAMILIES
from cnictl.core.netlink import nftables
from cnictl.core.process import run
from cnictl.node.host import firewall
from cnictl.node.host.firewall import PROGRAMS

_LED_FROM = {"filter": "FORWARD", "nat": "POSTROUTING"}
"""The built-in chain that leads to ours, by table."""


def hides(table: str, chain: str, family: str = "ip") -> bool:
    """Return whether our chain exists and a native rule keeps the family's program from reading what leads to it.

    Raises Problem if the program is missing and the chain exists, or may exist in the old kernel interface.
    """
    program = PROGRAMS[family]
    exists = chain in nftables.chains(FAMILIES[program], table)
    if firewall.has_command(program):
        return exists and not firewall.reads(table, _LED_FROM[table], family)
    if exists or _may_be_in_legacy(table, family):
        raise missing(program, f"chain {chain} in table {table} {'exists' if exists else 'may exist'}")
    return False


def missing(program: str, subject: str) -> Problem:
    """Return the error for a thing that can't be examined without `program`."""
    return Problem(f"{subject}, but the {program} command is missing", f"install {program} again, then repeat this")


def reason(table: str, family: str = "ip") -> str:
    """Return why the program can't read what leads to our chain."""
    return f"{PROGRAMS[family]} can't read {_LED_FROM[table]} of table {table}: it contains a native nftables rule"


def hint(table: str, family: str = "ip") -> str:
    """Return what to do about that."""
    return f"nft -a list chain {family} {table} {_LED_FROM[table]} shows that rule: move it to another table"


def remove(table: str, chain: str, family: str = "ip") -> None:
    """Remove the jumps to our chain and the chain with nft. Raises Problem."""
    run(["nft", "-f", "-"], "".join(f"{line}\n" for line in _removal(table, chain, family)))


def removal_commands(table: str, chain: str, family: str = "ip") -> list[str]:
    """Return the manual commands for `remove`."""
    return [f"nft {line}" for line in _removal(table, chain, family)]


def _removal(table: str, chain: str, family: str) -> list[str]:
    """Return nft's lines that delete the jumps to our chain, and the chain."""
    jumps = [
        f"delete rule {family} {table} {rule['chain']} handle {rule['handle']}"
        for rule in (entry["rule"] for entry in firewall.ruleset() if "rule" in entry)
        if (rule["family"], rule["table"]) == (family, table) and target(rule) == chain
    ]
    return [*jumps, f"flush chain {family} {table} {chain}", f"delete chain {family} {table} {chain}"]


def target(rule: dict[str, Any]) -> str:
    """Return the chain that a rule of nft's JSON jumps or goes to; empty if it does neither."""
    verdicts = [part.get("jump") or part.get("goto") or {} for part in rule.get("expr", []) if isinstance(part, dict)]
    return next((str(verdict["target"]) for verdict in verdicts if "target" in verdict), "")


def _may_be_in_legacy(table: str, family: str) -> bool:
    """Return whether the old kernel interface holds the table, cnictl has used iptables, and nothing can list it."""
    unlisted = firewall.legacy_in_use(family, table) and not firewall.has_command(f"{PROGRAMS[family]}-legacy")
    return unlisted and firewall.remembers_iptables(family)
