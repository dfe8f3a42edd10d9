"""The host's packet filter as cnictl's resources read it: nft's JSON, and what iptables-nft leaves lying about."""

import json
import shutil
from typing import Any

from cnictl.core.errors import Problem
from cnictl.core.process import run
from cnictl.node import former

_FORMER = "firewall/iptables"
_BUILT_IN = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")


def has_command(name: str) -> bool:
    """Whether `nft` or `iptables` is installed."""
    return shutil.which(name) is not None


def ruleset() -> list[dict[str, Any]]:
    """Every table, chain and rule, as libnftables-json(5) has them; empty without `nft`. Raises Problem."""
    if not has_command("nft"):
        return []
    found = json.loads(run(["nft", "-j", "list", "ruleset"]).stdout)
    return list(found["nftables"])


def remember_iptables() -> None:
    """Keep which of iptables' own tables and chains were in nftables, before the first iptables command of ours.

    iptables-nft makes them as it needs them and never removes them.
    """
    if former.recall(_FORMER) is None:
        former.remember(_FORMER, {"there": _iptables_objects(ruleset())})


def drop_left_over(table: str, chain: str) -> None:
    """Remove iptables' built-in chain, and then its table, if neither was there before us and nothing is in them."""
    remembered = former.recall(_FORMER)
    if remembered is None or not has_command("nft"):
        return
    found = ruleset()
    chain_name, table_name = f"ip {table} {chain}", f"ip {table}"
    objects = _iptables_objects(found)
    if chain_name in objects and chain_name not in remembered["there"] and _is_idle(found, table, chain):
        run(["nft", "delete", "chain", "ip", table, chain])
        objects = _iptables_objects(ruleset())
    left = [name for name in objects if name.startswith(f"{table_name} ")]
    if table_name in objects and table_name not in remembered["there"] and not left:
        run(["nft", "delete", "table", "ip", table], check=False)  # another program's chain may just have come


def _iptables_objects(found: list[dict[str, Any]]) -> list[str]:
    """`ip TABLE` and `ip TABLE CHAIN` of the family that iptables uses."""
    names = [f"ip {entry['table']['name']}" for entry in found if entry.get("table", {}).get("family") == "ip"]
    for entry in found:
        chain = entry.get("chain", {})
        if chain.get("family") == "ip":
            names.append(f"ip {chain['table']} {chain['name']}")
    return names


def _is_idle(found: list[dict[str, Any]], table: str, chain: str) -> bool:
    """A built-in chain with no rule and the policy it was made with."""
    for entry in found:
        rule, one = entry.get("rule", {}), entry.get("chain", {})
        if (rule.get("family"), rule.get("table"), rule.get("chain")) == ("ip", table, chain):
            return False
        if (one.get("family"), one.get("table"), one.get("name")) == ("ip", table, chain) and (
            one.get("policy") != "accept" or chain not in _BUILT_IN
        ):
            return False
    return True


def iptables_rules(table: str) -> list[list[str]]:
    """Each line of `iptables -S` in its words, quotes taken off. Raises Problem."""
    import shlex

    return [shlex.split(line) for line in run(["iptables", "-w", "-t", table, "-S"]).stdout.splitlines()]


def iptables_works() -> bool:
    """Whether `iptables` is there and can read its filter table; one made by hand with nft can't be read by it."""
    if not has_command("iptables"):
        return False
    try:
        return run(["iptables", "-w", "-S", "FORWARD"], check=False).status == 0
    except Problem:
        return False
