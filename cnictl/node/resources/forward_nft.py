"""Forwarding of pods' packets through every other base chain hooked at forward that may drop them.

An accept in a table of our own would end that table's say alone: the others are asked all the same. So accepts stand
at the head of each dropping chain, for the address families it sees, with the comment that says they are cnictl's.
"""

from collections.abc import Iterator
from typing import Any

from cnictl.core.masquerade import TABLE
from cnictl.core.process import run
from cnictl.node import firewall
from cnictl.node.resources.firewalld import POLICY_CHAIN
from cnictl.node.spec import NodeSpec, is_ipv6
from cnictl.node.spine import Change, State

_MARK = "cnictl:"
_BEHIND = "behind a rule that drops"
_SEES = {"inet": ("ip", "ip6"), "ip": ("ip",), "ip6": ("ip6",), "bridge": ("ip", "ip6")}
"""Address families that a chain's rules may tell apart, by the chain's family."""


class NftForward:
    """Accepts in nftables chains that others made, and that drop."""

    id = "forward/nft"
    parted = True

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
        """The accepts in every chain that may drop packets of a family that the spec has."""
        wanted = {chain: accepts(spec, chain.partition(" ")[0]) for chain in dropping_chains(firewall.ruleset())}
        return {chain: rules for chain, rules in wanted.items() if rules} or None

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


def accepts(spec: NodeSpec, family: str) -> list[str]:
    """The rules for a chain of this family, in nft's words: from pods, and to them.

    Between a bridge's ports a link name is a port's: pods are told by their addresses, in ARP too.
    """
    rules = []
    for subnet in spec.subnets:
        ip = "ip6" if is_ipv6(subnet) else "ip"
        if ip not in _SEES[family]:
            continue
        if family == "bridge":
            rules += [f"{ip} saddr {subnet}", f"{ip} daddr {subnet}"]
            rules += [f"arp saddr ip {subnet}"] if ip == "ip" else []
        else:
            rules += [f'iifname "{spec.bridge}" {ip} saddr {subnet}', f'oifname "{spec.bridge}" {ip} daddr {subnet}']
    return [f'{rule} counter accept comment "{_MARK}{spec.name[:100]}"' for rule in rules]


def dropping_chains(found: list[dict[str, Any]]) -> list[str]:
    """Base chains hooked at forward that drop by policy or by a rule they lead to; iptables' and ours left out.

    ebtables' too: it can't list a chain any more that holds a rule which is not of its own making. And firewalld's
    while it has our policy loaded, and tables that the kernel lets nobody but their owner change.
    """
    looked_after = [("bridge", "filter", "FORWARD")] if firewall.has_command("ebtables") else []
    looked_after += [(ip, "filter", "FORWARD") for ip in firewall.PROGRAMS if firewall.iptables_works(ip)]
    served = {(one["family"], one["table"]) for one in _entries(found, "chain") if one["name"] == POLICY_CHAIN}
    # nft 1.0.6 has a wrong word there for `owner`
    served |= {
        (one["family"], one["name"]) for one in _entries(found, "table") if one.get("flags", "dormant") != "dormant"
    }
    verdicts = _Verdicts(found)
    dropping = []
    for chain in _entries(found, "chain"):
        family, table, name = chain["family"], chain["table"], chain["name"]
        if chain.get("hook") != "forward" or family not in _SEES or table == TABLE:
            continue
        if (family, table, name) in looked_after or (family, table) in served:
            continue
        if chain.get("policy") == "drop" or verdicts.drop(family, table, name):
            dropping.append(f"{family} {table} {name}")
    return dropping


class _Verdicts:
    """Where the rules of a ruleset lead to, by jump, goto and verdict map."""

    def __init__(self, found: list[dict[str, Any]]) -> None:
        self._rules: dict[tuple[str, str, str], list[Any]] = {}
        for rule in _entries(found, "rule"):
            self._rules.setdefault((rule["family"], rule["table"], rule["chain"]), []).append(rule.get("expr", []))
        self._maps = {(one["family"], one["table"], one["name"]): one.get("elem", []) for one in _entries(found, "map")}

    def drop(self, family: str, table: str, chain: str) -> bool:
        """Whether a packet in this chain may be dropped or rejected."""
        waiting, seen = [chain], {chain}
        while waiting:
            for verdict, target in self._of(family, table, self._rules.get((family, table, waiting.pop()), [])):
                if verdict in ("drop", "reject"):
                    return True
                if target not in seen:
                    seen.add(target)
                    waiting.append(target)
        return False

    def _of(self, family: str, table: str, part: Any) -> Iterator[tuple[str, str]]:
        """Every verdict in a part of a rule, with the chain it leads to."""
        if isinstance(part, list):
            for one in part:
                yield from self._of(family, table, one)
        elif isinstance(part, dict):
            for key, value in part.items():
                if key in ("drop", "reject"):
                    yield key, ""
                elif key in ("jump", "goto") and isinstance(value, dict):
                    yield key, str(value.get("target"))
                elif key == "vmap" and isinstance(value, dict) and isinstance(value.get("data"), str):
                    yield from self._of(family, table, self._maps.get((family, table, value["data"].lstrip("@"))))
                else:
                    yield from self._of(family, table, value)


def _entries(found: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [entry[kind] for entry in found if kind in entry]


def _is_ours(rule: dict[str, Any]) -> bool:
    return str(rule.get("comment", "")).startswith(_MARK) and rule["table"] != TABLE


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
