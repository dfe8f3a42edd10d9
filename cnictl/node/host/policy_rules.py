"""Read policy rules (`ip rule`), and determine which of them decides about a packet.

The kernel reports where a packet goes (`cnictl.node.host.route_lookup`), but not by which rule. `decide` repeats the
kernel's walk over the rules without I/O, to find that rule. Sources: linux/fib_rules.h; net/core/fib_rules.c,
fib_rules_lookup.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from struct import Struct

from cnictl.core.cidr import Cidr, parse_address
from cnictl.core.netlink.messages import AF_INET, AF_INET6, attributes
from cnictl.core.netlink.rtnetlink import Netlink
from cnictl.node.host.route_lookup import DEFAULT_TABLE, LOCAL_TABLE, MAIN_TABLE, REFUSING, THROW, Packet, RouteResult

RTM_GETRULE = 34
TO_TABLE, GOTO, NOP = 1, 2, 3
_INVERTED = 2
_HEADER, _U32, _PORTS = Struct("=BBBBBBBBI"), Struct("=I"), Struct("=HH")
_DST, _SRC, _IIF, _GOTO, _PRIORITY, _MARK = 1, 2, 3, 4, 6, 10
_TUNNEL, _SUPPRESS_GROUP, _SUPPRESS_PREFIX, _TABLE, _MASK, _OIF = 12, 13, 14, 15, 16, 17
_L3MDEV, _UIDS, _PROTOCOL, _SOURCE_PORTS, _TARGET_PORTS, _DSCP = 19, 20, 22, 23, 24, 25
_NONE = 0xFFFFFFFF
_LOOPBACK = "lo"
"""The `iif` of packets that this host sends itself."""
_TABLES = {LOCAL_TABLE: "local", MAIN_TABLE: "main", DEFAULT_TABLE: "default"}


@dataclass(frozen=True)
class Rule:
    """A policy rule of one address family."""

    ipv6: bool
    priority: int
    action: int
    table: int = 0
    source: Cidr | None = None
    target: Cidr | None = None
    iif: str = ""
    oif: str = ""
    mark: int = 0
    mask: int = 0
    inverted: bool = False
    goto: int = 0
    suppress_prefix: int = -1
    """A route whose prefix is this long or shorter doesn't count."""
    l3mdev: bool = False
    """Whether the table is that of the link's VRF."""
    special: tuple[str, ...] = ()
    """Selectors that match only some of a pod's packets: ports, protocol, TOS, user, tunnel."""

    def __str__(self) -> str:
        words = [f"{self.priority}:", *(["not"] if self.inverted else []), "from", str(self.source or "all")]
        words += ["to", str(self.target)] if self.target is not None else []
        if self.mark or self.mask:
            words += ["fwmark", f"{self.mark:#x}" + (f"/{self.mask:#x}" if self.mask != _NONE else "")]
        words += [part for name, link in (("iif", self.iif), ("oif", self.oif)) if link for part in (name, link)]
        words += self.special
        if self.l3mdev:
            words += ["lookup", "[l3mdev-table]"]
        elif self.action == TO_TABLE:
            words += ["lookup", table_name(self.table)]
        else:
            words += {GOTO: ["goto", str(self.goto)], NOP: ["nop"]}.get(self.action, [REFUSING.get(self.action, "?")])
        words += ["suppress_prefixlength", str(self.suppress_prefix)] if self.suppress_prefix >= 0 else []
        return " ".join(words)


Tables = Mapping[int, Sequence[tuple[Cidr, RouteResult]]]
"""Routes by table; for each destination the lowest metric first."""
Vrf = Callable[[str], int]
"""A function from a link's name to the table of its VRF; 0 without one."""


def table_name(number: int) -> str:
    """Return the name of a table as `ip` prints it by default."""
    return _TABLES.get(number, str(number))


def rules() -> list[Rule]:
    """Return the host's policy rules of both families in their order."""
    rules_read = []
    with Netlink() as netlink:
        for family in (AF_INET, AF_INET6):
            rules_read += [_read(payload) for payload in netlink.dump(RTM_GETRULE, _HEADER.pack(family, *[0] * 8))]
    return sorted(rules_read, key=lambda rule: (rule.ipv6, rule.priority))


def decide(
    rules: Sequence[Rule], tables: Tables, packet: Packet, vrf: Vrf = lambda _: 0
) -> tuple[Rule | None, RouteResult | None]:
    """Return the rule that decides about a packet, and the route; no route if the rule refuses the packet.

    A rule that matches only some packets, such as those of one port, is ignored. Without a rule and a route, the packet
    has no route.
    """
    target = parse_address(packet.target)
    ahead = 0
    for rule in rules:
        if rule.ipv6 != (len(target) == 16) or rule.priority < ahead or not matches(rule, packet):
            continue
        if rule.action == GOTO:
            ahead = rule.goto
            continue
        if rule.action in REFUSING:
            return rule, None
        if rule.action != TO_TABLE:
            continue
        number = (vrf(packet.iif) or vrf(packet.oif)) if rule.l3mdev else rule.table
        route = longest(tables.get(number, ()), target)
        if route is None or route[1].kind == THROW or route[0].prefix <= rule.suppress_prefix:
            continue
        return rule, route[1]
    return None, None


def longest(routes: Sequence[tuple[Cidr, RouteResult]], target: bytes) -> tuple[Cidr, RouteResult] | None:
    """Return the route with the longest prefix for an address; of several, the first that is not dead."""
    fitting = [entry for entry in routes if entry[0].holds(target)]
    best = max((destination.prefix for destination, _ in fitting), default=-1)
    same = [entry for entry in fitting if entry[0].prefix == best]
    return next((entry for entry in same if not entry[1].dead), same[0] if same else None)


def matches(rule: Rule, packet: Packet) -> bool:
    """Return whether a rule applies to every packet that is like this one."""
    if rule.special:
        return False
    same = (
        (rule.source is None or (bool(packet.source) and rule.source.holds(parse_address(packet.source))))
        and (rule.target is None or rule.target.holds(parse_address(packet.target)))
        and (not rule.iif or rule.iif == (packet.iif or _LOOPBACK))
        and (not rule.oif or rule.oif == packet.oif)
        and (packet.mark & rule.mask) == rule.mark
    )
    return same != rule.inverted


def _read(payload: bytes) -> Rule:
    family, target_bits, source_bits, tos, table, _, _, action, flags = _HEADER.unpack_from(payload)
    parts = attributes(payload, 12)

    def number(kind: int, otherwise: int = 0) -> int:
        return int(_U32.unpack(parts[kind])[0]) if len(parts.get(kind, b"")) == 4 else otherwise

    mark = number(_MARK)
    suppress = number(_SUPPRESS_PREFIX, _NONE)
    return Rule(
        ipv6=family == AF_INET6,
        priority=number(_PRIORITY),
        action=action,
        table=number(_TABLE) or table,
        source=Cidr(parts[_SRC], source_bits) if _SRC in parts else None,
        target=Cidr(parts[_DST], target_bits) if _DST in parts else None,
        iif=_text(parts.get(_IIF, b"")),
        oif=_text(parts.get(_OIF, b"")),
        mark=mark,
        mask=number(_MASK, _NONE if mark else 0),
        inverted=bool(flags & _INVERTED),
        goto=number(_GOTO),
        suppress_prefix=suppress if suppress != _NONE else -1,
        l3mdev=parts.get(_L3MDEV, b"\0") != b"\0",
        special=_special(parts, tos),
    )


def _special(parts: Mapping[int, bytes], tos: int) -> tuple[str, ...]:
    words: list[str] = ["tos", f"{tos:#x}"] if tos else []
    if _DSCP in parts:
        words += ["dscp", str(parts[_DSCP][0])]
    if _PROTOCOL in parts:
        words += ["ipproto", str(parts[_PROTOCOL][0])]
    for name, kind in (("sport", _SOURCE_PORTS), ("dport", _TARGET_PORTS)):
        if kind in parts:
            first, last = _PORTS.unpack(parts[kind])
            words += [name, str(first) if first == last else f"{first}-{last}"]
    if _UIDS in parts:
        words += ["uidrange", "{}-{}".format(*Struct("=II").unpack(parts[_UIDS]))]
    if any(parts.get(_TUNNEL, b"")):
        words += ["tun_id", str(int.from_bytes(parts[_TUNNEL], "big"))]
    group = parts.get(_SUPPRESS_GROUP, b"")
    if len(group) == 4 and _U32.unpack(group)[0] != _NONE:
        words += ["suppress_ifgroup", str(_U32.unpack(group)[0])]
    return tuple(words)


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode("utf-8", "surrogateescape")
