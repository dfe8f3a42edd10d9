"""iptables chains of ours on a host that has lost its `iptables` command since: found and removed all the same.

What iptables-nft made is seen and removed with nft. Of what iptables-legacy made only a note of ours tells; it is
worth nothing after a reboot, which takes every rule away.
"""

from typing import Any

from cnictl.core import liveness
from cnictl.core.errors import Problem
from cnictl.core.process import run
from cnictl.node import firewall, former

GONE = "the iptables command is gone"


def note(table: str, chain: str) -> None:
    """Keep that iptables is about to make our chain. Raises Problem."""
    legacy = "nf_tables" not in run(["iptables", "--version"]).stdout
    former.amend(_key(table, chain), {"legacy": legacy, "boot_id": liveness.boot_id()})


def forget(table: str, chain: str) -> None:
    """Drop the note: the chain is removed."""
    former.forget(_key(table, chain))


def left(table: str, chain: str) -> bool:
    """Whether our chain stands though there is no iptables to show it, as far as that can be known."""
    if firewall.has_command("iptables"):
        return False
    if _is_in(firewall.ruleset(), table, chain):
        return True
    noted = former.recall(_key(table, chain))
    if noted is None or noted["boot_id"] != liveness.boot_id():
        return False
    return bool(noted["legacy"]) or not firewall.has_command("nft")


def remove(table: str, chain: str) -> None:
    """Take out with nft the jumps to our chain and the chain. Raises Problem where nft doesn't see it."""
    found = firewall.ruleset()
    if not _is_in(found, table, chain):
        raise Problem(
            f"{GONE}, and our chain {chain} in its {table} table, with the jump to it, can't be removed without it",
            "install iptables again (the same kind, legacy or nft) and repeat this",
        )
    jumps = [
        f"delete rule ip {table} {rule['chain']} handle {rule['handle']}"
        for rule in (entry["rule"] for entry in found if "rule" in entry)
        if (rule["family"], rule["table"]) == ("ip", table) and _leads_to(rule, chain)
    ]
    lines = [*jumps, f"flush chain ip {table} {chain}", f"delete chain ip {table} {chain}", ""]
    run(["nft", "-f", "-"], "\n".join(lines))
    forget(table, chain)


def removal_commands(table: str, chain: str) -> list[str]:
    """`remove` as typed by hand."""
    return [
        f"nft -a list table ip {table}   # delete each jump to {chain}: nft delete rule ip {table} … handle …",
        f"nft flush chain ip {table} {chain}",
        f"nft delete chain ip {table} {chain}",
    ]


def _key(table: str, chain: str) -> str:
    return f"iptables/{table}/{chain}"


def _is_in(found: list[dict[str, Any]], table: str, chain: str) -> bool:
    chains = [entry["chain"] for entry in found if "chain" in entry]
    return any((one["family"], one["table"], one["name"]) == ("ip", table, chain) for one in chains)


def _leads_to(rule: dict[str, Any], chain: str) -> bool:
    return any((statement.get("jump") or {}).get("target") == chain for statement in rule.get("expr", []))
