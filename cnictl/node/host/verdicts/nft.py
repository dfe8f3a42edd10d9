"""Read nftables rules (`nft -j list ruleset`, libnftables-json(5)) into the model of a packet filter."""

from collections.abc import Callable, Iterator
from ipaddress import ip_address, summarize_address_range
from typing import Any

from cnictl.node.host.verdicts.model import UNKNOWN, Branch, Chain, Match, Rule, Ruleset, Verdict

SEES = {"inet": ("ip", "ip6"), "ip": ("ip",), "ip6": ("ip6",), "bridge": ("ip", "ip6")}
"""The address families of the packets in a table's chains, by the table's family."""

_LINKS = {"iifname": "incoming", "iif": "incoming", "oifname": "outgoing", "oif": "outgoing", "ibrname": "bridge"}
_ADDRESS_TYPES: dict[str, str] = {"saddr": "source_type", "daddr": "target_type"}
_ADDRESSES = {"saddr": "source", "daddr": "target"}
_FAMILIES = {"ipv4": "ip", "ipv6": "ip6", "ip": "ip", "ip6": "ip6"}
_CONDITIONS = ("limit", "quota", "ct count", "connlimit", "meter", "xt", "queue", "socket", "osf", "exthdr")
"""Statements that let only some packets continue in their rule."""
_PLAIN_VERDICTS: dict[str, Verdict] = {
    "accept": "accept", "drop": "drop", "reject": "drop", "return": "return", "continue": "continue",
}  # fmt: skip

OurName = Callable[[dict[str, Any]], str]
"""Returns cnictl's name for one of its own rules, by the rule's JSON; empty for other rules."""


def entries(listing: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Return the objects of one kind in a listing: `chain`, `rule`, `map`, `table`."""
    return [entry[kind] for entry in listing if kind in entry]


def chain_name(entry: dict[str, Any], key: str = "chain") -> str:
    """Return the full name of a chain, or of a rule's chain: `inet filter forward`."""
    return f"{entry['family']} {entry['table']} {entry[key]}"


def ruleset(listing: list[dict[str, Any]], our_name: OurName = lambda _: "") -> Ruleset:
    """Return the model of a listing. Chains have names such as `inet filter forward`."""
    maps = {chain_name(map_, "name"): map_.get("elem", []) for map_ in entries(listing, "map")}
    rules: dict[str, list[Rule]] = {}
    for rule in entries(listing, "rule"):
        reading = _Reading(f"{rule['family']} {rule['table']} ", maps)
        statements = rule.get("expr", [])
        rules.setdefault(chain_name(rule), []).append(
            Rule(words(statements), tuple(reading.branches(statements)), our_name(rule), int(rule.get("handle", 0)))
        )
    chains = [
        Chain(name, tuple(rules.get(name, ())), chain.get("hook", ""), chain.get("policy", "accept"))
        for chain in entries(listing, "chain")
        for name in (chain_name(chain, "name"),)
    ]
    return Ruleset({chain.name: chain for chain in chains})


class _Reading:
    """Reads the rules of one table."""

    def __init__(self, table: str, maps: dict[str, Any]) -> None:
        self._table = table
        """The beginning of the names of its chains and maps: `inet filter `."""
        self._maps = maps

    def branches(self, statements: list[Any]) -> Iterator[Branch]:
        """Yield the branches of a rule."""
        matches: list[Match] = []
        for statement in statements:
            if not isinstance(statement, dict):
                continue
            (kind, content), *_ = statement.items()
            if kind == "match":
                matches += _matches(content)
            elif kind == "vmap":
                yield from self._of_map(content, tuple(matches))
            elif kind == "xt" and isinstance(content, dict) and content.get("type") == "target":
                if content.get("name") == "REJECT":
                    yield Branch(tuple(matches), "drop")
            elif kind == "xt" and isinstance(content, dict) and content.get("name") == "comment":
                continue
            elif kind in _CONDITIONS:
                matches.append(UNKNOWN)
            else:
                branch = self._verdict(kind, content, tuple(matches))
                if branch is not None:
                    yield branch

    def _verdict(self, kind: str, content: Any, matches: tuple[Match, ...]) -> Branch | None:
        if kind in _PLAIN_VERDICTS:
            return Branch(matches, _PLAIN_VERDICTS[kind])
        if kind in ("jump", "goto") and isinstance(content, dict):
            return Branch(matches, "jump" if kind == "jump" else "goto", f"{self._table}{content.get('target')}")
        return None

    def _of_map(self, vmap: dict[str, Any], matches: tuple[Match, ...]) -> Iterator[Branch]:
        """Yield a branch for each verdict in a map.

        Programs may fill a named map, so only its connection states count.
        """
        data = vmap.get("data")
        about = _about(vmap.get("key"))
        named = isinstance(data, str)
        pairs = self._maps.get(f"{self._table}{str(data).lstrip('@')}", []) if named else (data or {}).get("set", [])
        seen: set[Branch] = set()
        for key, verdict in (pair for pair in pairs if isinstance(pair, list) and len(pair) == 2):
            value = _value(key)
            match = Match(about, (value,), listed=True) if about and value else UNKNOWN
            if named and about != "state":
                match = UNKNOWN
            for kind, content in verdict.items() if isinstance(verdict, dict) else ():
                branch = self._verdict(kind, content, (*matches, *_families(vmap.get("key")), match))
                if branch is not None and branch not in seen:
                    seen.add(branch)
                    yield branch


def _matches(match: dict[str, Any]) -> list[Match]:
    left, right, operator = match.get("left"), match.get("right"), match.get("op", "==")
    about = _about(left)
    values, listed = _values(right)
    if not about or not values or operator not in ("==", "!=", "in"):
        return [*_families(left), *_protocols(left), UNKNOWN]
    negated = operator == "!="
    if about == "family":
        values = tuple(_FAMILIES.get(value, value) for value in values)
    elif about == "translated" and values != ("dnat",):
        return [UNKNOWN]
    return [*_families(left), Match(about, values, negated, listed)]


def _about(left: Any) -> str:
    """Return the property of `Packets` on the left side of a match; empty for anything else."""
    if not isinstance(left, dict):
        return ""
    if "meta" in left:
        key = left["meta"].get("key")
        return _LINKS.get(key) or {"nfproto": "family", "protocol": "family", "l4proto": "protocol"}.get(key, "")
    if "ct" in left:
        return {"state": "state", "status": "translated"}.get(left["ct"].get("key"), "")
    if "fib" in left and left["fib"].get("result") == "type":
        flags = left["fib"].get("flags")
        flags = [flags] if isinstance(flags, str) else flags
        return _ADDRESS_TYPES.get(flags[0], "") if isinstance(flags, list) and len(flags) == 1 else ""
    if "payload" in left and left["payload"].get("protocol") in ("ip", "ip6"):
        field = left["payload"].get("field")
        return "protocol" if field in ("protocol", "nexthdr") else _ADDRESSES.get(field, "")
    return ""


def _protocols(left: Any) -> list[Match]:
    """Return the match that a header field implies: a rule that looks at a TCP header matches only TCP packets."""
    protocol = left["payload"].get("protocol") if isinstance(left, dict) and "payload" in left else ""
    return [Match("protocol", (protocol,))] if protocol in ("tcp", "udp", "sctp", "icmp", "icmpv6") else []


def _families(left: Any) -> list[Match]:
    """Return the match that a header field implies: a rule that looks at an IPv4 header matches only IPv4 packets."""
    protocol = left["payload"].get("protocol") if isinstance(left, dict) and "payload" in left else ""
    return [Match("family", (protocol,))] if protocol in ("ip", "ip6") else []


def _values(right: Any) -> tuple[tuple[str, ...], bool]:
    """Return the values on the right side and whether they are a set; none for a named set, which programs fill."""
    if isinstance(right, dict) and "set" in right:
        elements = right["set"] if isinstance(right["set"], list) else [right["set"]]
        values = [_value(element) for element in elements]
        return (tuple(values) if all(values) else ()), True
    if isinstance(right, list):
        return tuple(str(value) for value in right), False
    if isinstance(right, dict) and "range" in right:
        first, last = map(ip_address, right["range"])
        return tuple(map(str, summarize_address_range(first, last))), False
    value = _value(right)
    return ((value,), False) if value and not value.startswith("@") else ((), False)


def _value(element: Any) -> str:
    if isinstance(element, dict) and "elem" in element:
        return _value(element["elem"].get("val"))
    if isinstance(element, dict) and "prefix" in element:
        return f"{element['prefix']['addr']}/{element['prefix']['len']}"
    return element if isinstance(element, str) else ""


_NAMES = ("iifname", "oifname", "ibrname")
_SHOWN = 3
"""Elements of a set that are shown to people."""


def words(statements: list[Any], whole: bool = False) -> str:
    """Return a rule in nft's words, with long sets cut; with `whole`, sets are complete and sorted."""
    shown = [_statement(statement, whole) for statement in statements if isinstance(statement, dict)]
    return " ".join(filter(None, shown))


def _statement(statement: dict[str, Any], whole: bool) -> str:
    (kind, content), *_ = statement.items()
    if kind == "match":
        operator = "" if content.get("op") in ("==", "in") else f"{content.get('op')} "
        left = content.get("left")
        right = _expression(content.get("right"), whole, "," if content.get("op") == "in" else " . ")
        quoted = isinstance(left, dict) and left.get("meta", {}).get("key") in _NAMES and right[:1] not in "{@"
        return f"{_expression(left, whole)} {operator}{_quoted(right) if quoted else right}"
    if kind == "vmap":
        return f"{_expression(content.get('key'), whole)} vmap {_expression(content.get('data'), whole)}"
    if kind in ("jump", "goto"):
        return f"{kind} {content.get('target')}"
    return f"xt {content.get('name', '')}" if kind == "xt" and isinstance(content, dict) else kind


def _quoted(text: str) -> str:
    return f'"{text}"'


def _expression(part: Any, whole: bool, joiner: str = " . ") -> str:
    if isinstance(part, list):
        return joiner.join(_expression(element, whole) for element in part)
    if not isinstance(part, dict):
        return str(part)
    if "meta" in part:
        return str(part["meta"].get("key"))
    if "ct" in part:
        return f"ct {part['ct'].get('key')}"
    if "payload" in part:
        return f"{part['payload'].get('protocol', '@')} {part['payload'].get('field', '')}"
    if "fib" in part:
        return f"fib {' . '.join(part['fib'].get('flags', []))} {part['fib'].get('result')}"
    if "range" in part:
        return "-".join(map(str, part["range"]))
    if "concat" in part:
        return " . ".join(_expression(element, whole) for element in part["concat"])
    if "set" in part:
        elements = part["set"] if isinstance(part["set"], list) else [part["set"]]
        shown = [_expression(element, whole) for element in elements]
        return "{ " + ", ".join(sorted(shown) if whole else shown[:_SHOWN] + ["…"] * (len(shown) > _SHOWN)) + " }"
    return _value(part) or "…"
