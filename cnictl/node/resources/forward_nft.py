"""Forwarding of pods' packets through every other base chain hooked at forward that may drop them.

An accept in a table of our own would end that table's say alone: the others are asked all the same. So two accepts
stand at the head of each dropping chain, with the comment that says they are cnictl's.
"""

from typing import Any

from cnictl.core.masquerade import TABLE
from cnictl.core.process import run
from cnictl.node import firewall
from cnictl.node.spec import NodeSpec
from cnictl.node.spine import Change, State

_MARK = "cnictl:"
_BEHIND = "behind a rule that drops"
_FAMILIES = ("inet", "ip")


class NftForward:
    """Accepts in nftables chains that others made, and that drop."""

    id = "forward/nft"

    def observe(self) -> State | None:
        """Our accepts by chain (`inet filter forward`), as text; None if there are none."""
        found: dict[str, list[str]] = {}
        dropped: set[str] = set()
        for rule in _entries(firewall.ruleset(), "rule"):
            chain = _chain_of(rule)
            if _is_ours(rule):
                found.setdefault(chain, []).append(_text(rule))
                if chain in dropped and _BEHIND not in found[chain]:
                    found[chain].append(_BEHIND)
            elif any("drop" in statement or "reject" in statement for statement in rule.get("expr", [])):
                dropped.add(chain)
        return found or None

    def desired(self, spec: NodeSpec) -> State | None:
        """Both accepts in every chain that may drop."""
        chains = dropping_chains(firewall.ruleset())
        return {chain: accepts(spec) for chain in chains} or None

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:
        """The summary and the nft commands."""
        old, new = before or {}, after or {}
        commands = [
            f"nft -a list chain {chain}   # delete what is marked '{_MARK}': nft delete rule {chain} handle …"
            for chain, rules in old.items()
            if rules != new.get(chain)
        ]
        words = []
        for chain, rules in new.items():
            if old.get(chain) != rules:
                words.append(f"accept packets from and to pods at the head of {chain}")
                commands += [f"nft insert rule {chain} '{rule}'" for rule in reversed(rules)]
        words += [f"remove the accepts for pods from {chain}" for chain in old if chain not in new]
        return ", ".join(words), "\n".join(commands)

    def carry_out(self, change: Change) -> None:
        """Ours out, the new ones in, in one transaction. Raises Problem."""
        found = firewall.ruleset()
        chains = {f"{one['family']} {one['table']} {one['name']}" for one in _entries(found, "chain")}
        ours = [rule for rule in _entries(found, "rule") if _is_ours(rule)]
        lines = [f"delete rule {_chain_of(rule)} handle {rule['handle']}" for rule in ours]
        for chain, rules in (change.after or {}).items():
            if chain in chains:
                lines += [f"insert rule {chain} {rule}" for rule in reversed(rules) if rule != _BEHIND]
        if lines:
            run(["nft", "-f", "-"], "\n".join(lines) + "\n")


def accepts(spec: NodeSpec) -> list[str]:
    """The two rules, in nft's words: from pods, and to them."""
    mark = f'comment "{_MARK}{spec.name[:100]}"'
    return [
        f'iifname "{spec.bridge}" ip saddr {spec.subnet} counter accept {mark}',
        f'oifname "{spec.bridge}" ip daddr {spec.subnet} counter accept {mark}',
    ]


def dropping_chains(found: list[dict[str, Any]]) -> list[str]:
    """Base chains hooked at forward that drop by policy or by a rule they lead to; iptables' and ours left out."""
    by_iptables = firewall.iptables_works()
    rules: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for rule in _entries(found, "rule"):
        rules.setdefault((rule["family"], rule["table"], rule["chain"]), []).append(rule)
    dropping = []
    for chain in _entries(found, "chain"):
        family, table, name = chain["family"], chain["table"], chain["name"]
        if chain.get("hook") != "forward" or family not in _FAMILIES or (family, table) == ("inet", TABLE):
            continue
        if by_iptables and (family, table, name) == ("ip", "filter", "FORWARD"):
            continue
        if chain.get("policy") == "drop" or _leads_to_drop(rules, family, table, name, set()):
            dropping.append(f"{family} {table} {name}")
    return dropping


def _leads_to_drop(
    rules: dict[tuple[str, str, str], list[dict[str, Any]]], family: str, table: str, chain: str, seen: set[str]
) -> bool:
    seen.add(chain)
    for rule in rules.get((family, table, chain), []):
        for statement in rule.get("expr", []):
            if "drop" in statement or "reject" in statement or _map_drops(statement):
                return True
            for target in _targets(statement):
                if target not in seen and _leads_to_drop(rules, family, table, target, seen):
                    return True
    return False


def _targets(statement: Any) -> list[str]:
    """Every chain that a statement jumps or goes to, verdict maps included."""
    found = []
    if isinstance(statement, dict):
        for key, value in statement.items():
            if key in ("jump", "goto") and isinstance(value, dict):
                found.append(str(value.get("target")))
            else:
                found += _targets(value)
    elif isinstance(statement, list):
        for value in statement:
            found += _targets(value)
    return found


def _map_drops(statement: dict[str, Any]) -> bool:
    """Whether a verdict map written in the rule holds a drop."""
    return "vmap" in statement and "'drop'" in str(statement["vmap"])


def _entries(found: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [entry[kind] for entry in found if kind in entry]


def _is_ours(rule: dict[str, Any]) -> bool:
    return str(rule.get("comment", "")).startswith(_MARK) and (rule["family"], rule["table"]) != ("inet", TABLE)


def _chain_of(rule: dict[str, Any]) -> str:
    return f"{rule['family']} {rule['table']} {rule['chain']}"


def _text(rule: dict[str, Any]) -> str:
    """A rule of ours in the words that `accepts` has for it; others' additions show as they are."""
    words = []
    for statement in rule["expr"]:
        match = statement.get("match")
        if match is None:
            words.append(next(iter(statement)))
            continue
        left, right = match["left"], match["right"]
        if "meta" in left:
            words.append(f'{left["meta"]["key"]} "{right}"')
        elif "payload" in left and isinstance(right, dict) and "prefix" in right:
            prefix = right["prefix"]
            words.append(f"{left['payload']['protocol']} {left['payload']['field']} {prefix['addr']}/{prefix['len']}")
        else:
            words.append(str(match))
    return f'{" ".join(words)} comment "{rule["comment"]}"'
