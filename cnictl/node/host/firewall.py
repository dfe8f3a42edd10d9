"""The host's packet filter as cnictl's resources read it: nft's JSON, and what iptables-nft leaves lying about."""

import json
import shlex
from typing import Any

from cnictl.core import programs
from cnictl.core.errors import Problem
from cnictl.core.iptables_listing import listing, misread
from cnictl.core.process import run
from cnictl.node.state import original_state

PROGRAMS = {"ip": "iptables", "ip6": "ip6tables"}
"""By nftables' name of the family."""

_BUILT_IN = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")


def has_command(name: str) -> bool:
    """Whether `nft` or `iptables` is installed."""
    return bool(programs.find(name))


def ruleset() -> list[dict[str, Any]]:
    """Every table, chain and rule, as libnftables-json(5) has them; empty without `nft`. Raises Problem."""
    if not has_command("nft"):
        return []
    entries = _entries(["list", "ruleset"])
    return entries if entries is not None else _table_by_table()


def _table_by_table() -> list[dict[str, Any]]:
    """The same where nft 1.0.6 dies at a table that is switched off: without those, which decide nothing."""
    listed = []
    for line in run(["nft", "list", "tables"]).stdout.splitlines():
        name = line.split()[1:]
        entries = _entries(["list", "table", *name])
        if entries is not None:
            listed += entries
        elif "flags dormant" not in run(["nft", "list", "table", *name], check=False).stdout:
            raise Problem(f"nft can't list table {' '.join(name)} as JSON", f"nft -j list table {' '.join(name)}")
    return listed


def _entries(words: list[str]) -> list[dict[str, Any]] | None:
    """What nft lists; None where that is no JSON, or it died."""
    done = run(["nft", "-j", *words], check=False)
    try:
        return list(json.loads(done.stdout)["nftables"]) if done.status == 0 else None
    except (ValueError, KeyError):
        return None


def remember_iptables(family: str = "ip") -> None:
    """Keep which of iptables' own tables and chains were in nftables, before the first iptables command of ours.

    iptables-nft makes them as it needs them and never removes them.
    """
    if not remembers_iptables(family):
        original_state.remember(_key(family), {"there": _iptables_objects(ruleset(), family)})


def remembers_iptables(family: str = "ip") -> bool:
    """Whether `remember_iptables` has kept them: cnictl may have used the family's program."""
    return original_state.recall(_key(family)) is not None


def drop_left_over(table: str, chain: str, family: str = "ip") -> None:
    """Remove iptables' built-in chain, and then its table, if neither was there before us and nothing is in them."""
    remembered = original_state.recall(_key(family))
    if remembered is None or not has_command("nft"):
        return
    entries = ruleset()
    chain_name, table_name = f"{family} {table} {chain}", f"{family} {table}"
    objects = _iptables_objects(entries, family)
    if chain_name in objects and chain_name not in remembered["there"] and _is_idle(entries, family, table, chain):
        run(["nft", "delete", "chain", family, table, chain], check=False)  # another's rule may just have come
        entries = ruleset()
    if table_name in objects and table_name not in remembered["there"] and _is_empty(entries, family, table):
        run(["nft", "delete", "table", family, table], check=False)


def _key(family: str) -> str:
    return f"firewall/{PROGRAMS[family]}"


def _iptables_objects(entries: list[dict[str, Any]], family: str) -> list[str]:
    """`ip TABLE` and `ip TABLE CHAIN` of a family that iptables uses."""
    names = [
        f"{family} {entry['table']['name']}" for entry in entries if entry.get("table", {}).get("family") == family
    ]
    for entry in entries:
        chain = entry.get("chain", {})
        if chain.get("family") == family:
            names.append(f"{family} {chain['table']} {chain['name']}")
    return names


def _is_idle(entries: list[dict[str, Any]], family: str, table: str, chain: str) -> bool:
    """A built-in chain with no rule and the policy it was made with."""
    for entry in entries:
        rule, base = entry.get("rule", {}), entry.get("chain", {})
        if (rule.get("family"), rule.get("table"), rule.get("chain")) == (family, table, chain):
            return False
        if (base.get("family"), base.get("table"), base.get("name")) == (family, table, chain) and (
            base.get("policy") != "accept" or chain not in _BUILT_IN
        ):
            return False
    return True


def _is_empty(entries: list[dict[str, Any]], family: str, table: str) -> bool:
    """A table with no chain, set, map or anything else in it."""
    things = [thing for entry in entries for thing in entry.values() if thing.get("family") == family]
    return not any(thing.get("table") == table for thing in things)


def rules_of(program: str, table: str) -> list[list[str]]:
    """Each line of `PROGRAM -S` in its words, quotes taken off, without chains that nft alone can read.

    Raises Problem.
    """
    return [shlex.split(line) for line in listing(program, table)[0]]


def reads(table: str, chain: str, family: str = "ip") -> bool:
    """Whether the family's program is there and can read a built-in chain; it can't where a native rule is in it."""
    program = PROGRAMS[family]
    if not has_command(program):
        return False
    try:
        listed = run([program, "-w", "-t", table, "-S", chain], check=False)
        return listed.status == 0 and chain not in misread(program, table)
    except Problem:
        return False


def legacy_beside_nft(family: str = "ip") -> bool:
    """Whether iptables' old kernel interface can be asked by a program of its own, beside the usual one."""
    legacy = f"{PROGRAMS[family]}-legacy"
    if not has_command(legacy):
        return False
    usual = programs.find(PROGRAMS[family])
    return not usual or "nf_tables" in run([usual, "--version"], check=False).stdout


def legacy_in_use(family: str = "ip", table: str = "filter") -> bool:
    """Whether the kernel holds a table of iptables' old interface."""
    try:
        with open(f"/proc/net/{'ip6' if family == 'ip6' else 'ip'}_tables_names", encoding="ascii") as file:
            return table in file.read().split()
    except OSError:
        return False


def iptables_works(family: str = "ip") -> bool:
    """Whether the family's program is there and can read FORWARD; it can't read one made by hand with nft."""
    return reads("filter", "FORWARD", family)
