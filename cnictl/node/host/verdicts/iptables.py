"""Read iptables rules (`iptables -S`, split into words) into the model of a packet filter."""

import shlex
from collections.abc import Iterator, Sequence

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

    A rule whose comment begins with `mark`, or that jumps to `own_chain`, is ours. `own_chain` itself is left out.
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
        match = _match(word, rest, negated)
        if match is not None:
            matches.append(match)
        negated = False
    return tuple(matches), "", None


def _match(word: str, rest: Iterator[str], negated: bool) -> Match | None:
    """Return what the option `word` matches, taking its value from `rest`; None if it matches every packet."""
    if word == "-m":
        return None if next(rest) in _SILENT_MODULES else UNKNOWN
    if word == "--comment":
        next(rest)
        return None
    if word in _OPTIONS:
        return Match(_OPTIONS[word], (_pattern(word, next(rest)),), negated)
    if word in ("--ctstate", "--state"):
        return Match("state", tuple(next(rest).lower().split(",")), negated)
    if word in _ADDRESS_TYPES:
        return Match(_ADDRESS_TYPES[word], tuple(next(rest).lower().split(",")), negated)
    if word == "--ctstatus":
        return Match("translated", (), negated) if next(rest).lower() == "dnat" else UNKNOWN
    if word == "-p":
        protocol = next(rest)
        return None if protocol in ("all", "0") else Match("protocol", (protocol,), negated)
    # an unknown option's values are words without a dash
    return UNKNOWN if word.startswith("-") else None


def _pattern(option: str, value: str) -> str:
    """Return a link's name with `*` as wildcard; iptables writes it as `+`."""
    return value[:-1] + "*" if option in ("-i", "-o") and value.endswith("+") else value
