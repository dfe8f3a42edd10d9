"""Read the host's packet filters, and remove what iptables-nft leaves behind."""

import json
import shlex
from typing import Any

from cnictl.core import programs
from cnictl.core.errors import Problem
from cnictl.core.iptables_listing import listing, misread
from cnictl.core.process import run
from cnictl.node.host import reading
from cnictl.node.state import original_state

PROGRAMS = {"ip": "iptables", "ip6": "ip6tables"}
"""The iptables program of each family, by the family's name in nftables."""

_BUILT_IN = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")


def has_command(name: str) -> bool:
    """Return whether a program, such as `nft`, is installed."""
    return bool(programs.find(name))


def ruleset() -> list[dict[str, Any]]:
    """Return every table, chain and rule as in libnftables-json(5); empty without `nft`. Raises Problem."""
    return reading.cached("nft's rule set", _read_ruleset)


def _read_ruleset() -> list[dict[str, Any]]:
    if not has_command("nft"):
        return []
    entries = _entries(["list", "ruleset"])
    return entries if entries is not None else _table_by_table()


def _table_by_table() -> list[dict[str, Any]]:
    """Return the rule set without dormant tables, which filter nothing and crash nft 1.0.6."""
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
    """Return what nft lists; None if that is not JSON or if nft failed."""
    done = run(["nft", "-j", *words], check=False)
    try:
        return list(json.loads(done.stdout)["nftables"]) if done.status == 0 else None
    except (ValueError, KeyError):
        return None


def remember_iptables(family: str = "ip") -> None:
    """Record which of iptables' tables and chains exist in nftables, before our first iptables command.

    iptables-nft makes them when it needs them and never removes them.
    """
    if not remembers_iptables(family):
        original_state.remember(_key(family), {"there": _iptables_objects(ruleset(), family)})


def remembers_iptables(family: str = "ip") -> bool:
    """Return whether `remember_iptables` was called, so cnictl may have used the family's program."""
    return original_state.recall(_key(family)) is not None


def drop_remnant(table: str, chain: str, family: str = "ip") -> None:
    """Remove iptables' built-in chain, and then its table, if they are empty and did not exist before cnictl."""
    remembered = original_state.recall(_key(family))
    if remembered is None or not has_command("nft"):
        return
    entries = ruleset()
    chain_name, table_name = f"{family} {table} {chain}", f"{family} {table}"
    objects = _iptables_objects(entries, family)
    if chain_name in objects and chain_name not in remembered["there"] and _is_idle(entries, family, table, chain):
        run(["nft", "delete", "chain", family, table, chain], check=False)  # another program may just have added a rule
        entries = ruleset()
    if table_name in objects and table_name not in remembered["there"] and _is_empty(entries, family, table):
        run(["nft", "delete", "table", family, table], check=False)


def left_over_commands(table: str, chain: str, family: str = "ip") -> list[str]:
    """Return the manual commands for `drop_remnant`. They check whether the chain and the table are empty by then."""
    remembered = original_state.recall(_key(family))
    if remembered is None or not has_command("nft"):
        return []
    chain_name, table_name = f"{family} {table} {chain}", f"{family} {table}"
    objects = _iptables_objects(ruleset(), family)
    commands = []
    if chain_name in objects and chain_name not in remembered["there"]:
        # an empty base chain is listed in five lines
        lines = f"nft list chain {chain_name} | grep -vc '^#'"
        commands.append(f'[ "$({lines})" -gt 5 ] || nft delete chain {chain_name}')
    if table_name in objects and table_name not in remembered["there"]:
        commands.append(f"nft list table {table_name} | grep -q chain || nft delete table {table_name}")
    return commands


def _key(family: str) -> str:
    return f"firewall/{PROGRAMS[family]}"


def _iptables_objects(entries: list[dict[str, Any]], family: str) -> list[str]:
    """Return the names of a family's tables and chains: `ip TABLE` and `ip TABLE CHAIN`."""
    names = [
        f"{family} {entry['table']['name']}" for entry in entries if entry.get("table", {}).get("family") == family
    ]
    for entry in entries:
        chain = entry.get("chain", {})
        if chain.get("family") == family:
            names.append(f"{family} {chain['table']} {chain['name']}")
    return names


def _is_idle(entries: list[dict[str, Any]], family: str, table: str, chain: str) -> bool:
    """Return whether a built-in chain has no rule and its original policy."""
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
    """Return whether a table has no chain, set, map or other object."""
    things = [thing for entry in entries for thing in entry.values() if thing.get("family") == family]
    return not any(thing.get("table") == table for thing in things)


def rules_of(program: str, table: str) -> list[list[str]]:
    """Return each line of `PROGRAM -S`, split into words without quotes, except of chains that only nft can read.

    Raises Problem.
    """
    return [_words(line) for line in listing(program, table)[0]]


def _words(line: str) -> list[str]:
    if "'" in line or "\\" in line:
        return shlex.split(line)
    # shlex costs thirty times as much, and there is a line for each peer
    words: list[str] = []
    for at, part in enumerate(line.split('"')):
        words += [part] if at % 2 else part.split()
    return words


def reads(table: str, chain: str, family: str = "ip") -> bool:
    """Return whether the family's program exists and can read a built-in chain: it can't read native nftables rules."""
    program = PROGRAMS[family]
    return reading.cached(f"{program} reads {chain} of {table}", lambda: _reads(program, table, chain))


def _reads(program: str, table: str, chain: str) -> bool:
    if not has_command(program):
        return False
    try:
        listed = run([program, "-w", "-t", table, "-S", chain], check=False)
        return listed.status == 0 and chain not in misread(program, table)
    except Problem:
        return False


def legacy_beside_nft(family: str = "ip") -> bool:
    """Return whether there is a separate program for iptables' old kernel interface, besides the usual one."""
    legacy = f"{PROGRAMS[family]}-legacy"
    if not has_command(legacy):
        return False
    usual = programs.find(PROGRAMS[family])
    return not usual or "nf_tables" in run([usual, "--version"], check=False).stdout


def legacy_in_use(family: str = "ip", table: str = "filter") -> bool:
    """Return whether the kernel has a table of iptables' old interface."""
    try:
        with open(f"/proc/net/{'ip6' if family == 'ip6' else 'ip'}_tables_names", encoding="ascii") as file:
            return table in file.read().split()
    except OSError:
        return False


def iptables_works(family: str = "ip") -> bool:
    """Return whether the family's program exists and can read FORWARD."""
    return reads("filter", "FORWARD", family)
