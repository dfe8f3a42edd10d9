"""Find the policy rule that decides about a packet, in the kernel's order."""

import pytest

from cnictl.core.cidr import parse_cidr
from cnictl.node.host.policy_rules import GOTO, NOP, TO_TABLE, Rule, Tables, decide, matches
from cnictl.node.host.route_lookup import MAIN_TABLE, THROW, Packet, RouteResult

PROHIBIT = 8
FROM_POD = Packet("10.244.1.2", "10.244.0.2", "cni0")


def way(destination: str, dev: str, kind: int = 1, table: int = MAIN_TABLE, dead: bool = False) -> RouteResult:
    return RouteResult(((dev, ""),), kind=kind, table=table, destination=destination, dead=dead)


def tables(*routes: RouteResult) -> Tables:
    by_table: dict[int, list[tuple[object, RouteResult]]] = {}
    for route in routes:
        by_table.setdefault(route.table, []).append((parse_cidr(route.destination), route))
    return by_table  # type: ignore[return-value]


MAIN = Rule(False, 32766, TO_TABLE, MAIN_TABLE)
VPN = Rule(False, 5270, TO_TABLE, 52)
PEER = way("10.244.1.0/24", "eth0")
AWAY = way("0.0.0.0/0", "tailscale0", table=52)


@pytest.mark.parametrize(
    ("rules", "routes", "decides", "dev"),
    [
        ([VPN, MAIN], (PEER,), 32766, "eth0"),
        ([VPN, MAIN], (PEER, AWAY), 5270, "tailscale0"),
        ([Rule(False, 90, TO_TABLE, MAIN_TABLE, suppress_prefix=0), VPN, MAIN], (PEER, AWAY), 90, "eth0"),
        ([Rule(False, 90, TO_TABLE, MAIN_TABLE, suppress_prefix=24), VPN, MAIN], (PEER, AWAY), 5270, "tailscale0"),
        ([VPN, MAIN], (PEER, AWAY, way("10.0.0.0/8", "", THROW, 52)), 32766, "eth0"),
        ([Rule(False, 90, GOTO, goto=32766), VPN, MAIN], (PEER, AWAY), 32766, "eth0"),
        ([Rule(False, 90, NOP), VPN, MAIN], (PEER, AWAY), 5270, "tailscale0"),
        ([Rule(False, 90, PROHIBIT, iif="cni0"), VPN, MAIN], (PEER, AWAY), 90, None),
        ([Rule(False, 90, PROHIBIT, iif="eth0"), MAIN], (PEER,), 32766, "eth0"),
        ([Rule(True, 90, PROHIBIT), MAIN], (PEER,), 32766, "eth0"),
        ([Rule(False, 90, PROHIBIT, special=("dport", "80")), MAIN], (PEER,), 32766, "eth0"),
        ([MAIN], (PEER, way("10.244.1.0/25", "eth1")), 32766, "eth1"),
        ([MAIN], (way("10.244.1.0/24", "eth9", dead=True), PEER), 32766, "eth0"),
        ([MAIN], (), None, None),
    ],
)
def test_rule_that_decides(
    rules: list[Rule], routes: tuple[RouteResult, ...], decides: int | None, dev: str | None
) -> None:
    rule, route = decide(rules, tables(*routes), FROM_POD)
    assert (rule.priority if rule else None, route.dev if route else None) == (decides, dev)


@pytest.mark.parametrize(
    ("rule", "packet", "applies"),
    [
        (Rule(False, 1, TO_TABLE, mark=0x4000, mask=0x4000), FROM_POD, False),
        (Rule(False, 1, TO_TABLE, mark=0x4000, mask=0x4000), Packet("10.244.1.2", mark=0xC000), True),
        (Rule(False, 1, TO_TABLE, mark=0xCA6C, mask=0xFFFFFFFF, inverted=True), FROM_POD, True),
        (Rule(False, 1, TO_TABLE, source=parse_cidr("10.244.0.0/24")), FROM_POD, True),
        (Rule(False, 1, TO_TABLE, source=parse_cidr("10.244.0.0/24")), Packet("10.244.1.2"), False),
        (Rule(False, 1, TO_TABLE, target=parse_cidr("10.244.0.0/24")), FROM_POD, False),
        (Rule(False, 1, TO_TABLE, iif="lo"), Packet("10.244.1.2"), True),
        (Rule(False, 1, TO_TABLE, iif="lo"), FROM_POD, False),
    ],
)
def test_packets_that_a_rule_applies_to(rule: Rule, packet: Packet, applies: bool) -> None:
    assert matches(rule, packet) == applies


def test_rule_is_printed_as_ip_rule_prints_it() -> None:
    rule = Rule(
        False, 7, TO_TABLE, MAIN_TABLE, parse_cidr("10.0.0.0/8"), mark=1, mask=0xFF, inverted=True, suppress_prefix=0
    )
    assert str(rule) == "7: not from 10.0.0.0/8 fwmark 0x1/0xff lookup main suppress_prefixlength 0"
