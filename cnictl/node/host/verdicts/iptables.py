"""Read iptables rules (`iptables -S`, split into words) into the model of a packet filter."""

import shlex
from collections.abc import Sequence

from cnictl.node.host.verdicts.model import UNKNOWN, Branch, Chain, Match, Rule, Ruleset, Verdict

HOOKS = {"INPUT": "input", "FORWARD": "forward", "OUTPUT": "output"}
"""The built-in chains of table filter and their hooks."""

_VERDICTS: dict[str, Verdict] = {"ACCEPT": "accept", "DROP": "drop", "REJECT": "drop", "RETURN": "return"}
_ADDRESS_TYPES = {"--src-type": "source_type", "--dst-type": "target_type"}
_OPTIONS = {"-i": "incoming", "-o": "outgoing", "-s": "source", "-d": "target"}
_SILENT_MODULES = ("comment", "conntrack", "state", "addrtype", "tcp", "udp", "icmp", "icmp6")
"""Modules that match nothing without one of their options."""


def ruleset(lines: Sequence[Sequence[str]], mark: str = "", own_chain: str = "") -> Ruleset:
    """Return the model of one table.

    A rule whose comment begins with `mark`, or that jumps to `own_chain`, is cnictl's. `own_chain` itself is left out.
    """
    policies: dict[str, str] = {}
    rules: dict[str, list[Rule]] = {}
    for words in lines:
        if words[0] == "-P":
            policies[words[1]] = words[2].lower()
            rules.setdefault(words[1], [])
        elif words[0] == "-N":
            rules.setdefault(words[1], [])
        elif words[0] == "-A" and words[1] != own_chain:
            rules.setdefault(words[1], []).append(_rule(list(words[2:]), mark, own_chain))
    rules.pop(own_chain, None)
    return Ruleset(
        {
            name: Chain(name, tuple(chain_rules), HOOKS.get(name, ""), policies.get(name, "accept"))
            for name, chain_rules in rules.items()
        }
    )


def _rule(words: list[str], mark: str, own_chain: str) -> Rule:
    matches, target, leads = _parsed(words)
    text = shlex.join(words)
    comment = words[words.index("--comment") + 1] if "--comment" in words[:-1] else ""
    if (own_chain and target == own_chain) or (mark and comment.startswith(mark)):
        return Rule(text, (), text)
    if target in _VERDICTS:
        return Rule(text, (Branch(matches, _VERDICTS[target]),))
    if leads:
        return Rule(text, (Branch(matches, leads, target),))
    return Rule(text, ())


def _parsed(words: list[str]) -> tuple[tuple[Match, ...], str, Verdict | None]:
    """Return a rule's matches, its target, and whether it jumps or goes there; None if the rule has no target."""
    matches: list[Match] = []
    rest = iter(words)
    negated = False
    for word in rest:
        if word == "!":
            negated = True
            continue
        if word in ("-j", "-g"):
            return tuple(matches), next(rest), "goto" if word == "-g" else "jump"
        if word == "-m":
            if next(rest) not in _SILENT_MODULES:
                matches.append(UNKNOWN)
        elif word == "--comment":
            next(rest)
        elif word in _OPTIONS:
            value = next(rest)
            matches.append(Match(_OPTIONS[word], (_pattern(word, value),), negated))
        elif word in ("--ctstate", "--state"):
            matches.append(Match("state", tuple(next(rest).lower().split(",")), negated))
        elif word in _ADDRESS_TYPES:
            matches.append(Match(_ADDRESS_TYPES[word], tuple(next(rest).lower().split(",")), negated))
        elif word == "--ctstatus":
            wanted = next(rest).lower().split(",")
            matches.append(Match("translated", (), negated) if wanted == ["dnat"] else UNKNOWN)
        elif word == "-p":
            protocol = next(rest)
            if protocol not in ("all", "0"):
                matches.append(Match("protocol", (protocol,), negated))
        elif word.startswith("-"):
            matches.append(UNKNOWN)  # the option's values are words without a dash
        negated = False
    return tuple(matches), "", None


def _pattern(option: str, value: str) -> str:
    """Return a link's name with `*` as wildcard; iptables writes it as `+`."""
    return value[:-1] + "*" if option in ("-i", "-o") and value.endswith("+") else value
