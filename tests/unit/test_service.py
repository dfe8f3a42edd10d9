"""Recognize the addresses of Services by the rules that forward their connections."""

from typing import Any

import pytest

from cnictl.probe.service import Port, of_iptables, of_nftables

IPTABLES = """\
*filter
-A KUBE-SERVICES -d 10.96.0.20/32 -p tcp -m comment --comment "shop/none has no endpoints" -m tcp --dport 80 -j REJECT
-A INPUT -d 10.0.0.1/32 -p tcp -m tcp --dport 22 -j ACCEPT
COMMIT
*nat
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-SERVICES -d 10.96.0.11/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-A
-A KUBE-SERVICES -d 10.96.0.11/32 -p udp -m udp --dport 53 -j KUBE-SVC-B
-A KUBE-SERVICES ! -d 10.96.0.12/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-A
-A KUBE-SVC-A -m statistic --mode random --probability 0.5 -j KUBE-SEP-A
-A KUBE-SVC-B -j KUBE-SEP-A
-A KUBE-SEP-A -p tcp -m tcp -j DNAT --to-destination 10.244.0.7:7007
-A PREROUTING -d 10.0.0.9/32 -p tcp -m multiport --dports 80,443 -j DNAT --to-destination 10.244.0.8
-A POSTROUTING -d 10.96.0.13/32 -p tcp -m tcp --dport 80 -j MASQUERADE
COMMIT
"""


@pytest.mark.parametrize(
    ("address", "ports"),
    [
        ("10.96.0.11", {Port("tcp", 80), Port("udp", 53)}),
        ("10.96.0.20", {Port("tcp", 80, has_endpoints=False)}),
        ("10.0.0.9", {Port("tcp", 80), Port("tcp", 443)}),
        ("10.96.0.12", set()), ("10.96.0.13", set()), ("10.0.0.1", set()), ("10.244.0.7", set()),
    ],
)  # fmt: skip
def test_service_is_found_in_iptables_rules(address: str, ports: set[Port]) -> None:
    assert set(of_iptables(IPTABLES, address)) == ports


def rule(chain: str, *expr: object) -> dict[str, Any]:
    return {"rule": {"family": "ip", "table": "kube-proxy", "chain": chain, "expr": list(expr)}}


def is_(protocol: str, field: str, value: object) -> dict[str, object]:
    return {"match": {"op": "==", "left": {"payload": {"protocol": protocol, "field": field}}, "right": value}}


def test_service_is_found_in_nftables_maps_and_rules() -> None:
    def element(address: str, target: str) -> list[object]:
        return [{"concat": [address, "tcp", 80]}, {"goto": {"target": target}}]

    ruleset: list[dict[str, Any]] = [
        {"map": {"family": "ip", "table": "kube-proxy", "name": "service-ips", "elem": [element("10.96.0.11", "svc")]}},
        {"map": {"family": "ip", "table": "kube-proxy", "name": "none", "elem": [element("10.96.0.20", "reject")]}},
        rule("svc", {"vmap": {"key": {"numgen": {}}, "data": {"set": [[0, {"goto": {"target": "endpoint"}}]]}}}),
        rule("endpoint", {"dnat": {"addr": "10.244.0.7", "port": 7007}}),
        rule("reject", {"reject": None}),
        rule("pre", is_("ip", "daddr", "10.0.0.9"), is_("tcp", "dport", 443), {"dnat": {"addr": "10.244.0.8"}}),
        rule("in", is_("ip", "daddr", "10.0.0.1"), is_("tcp", "dport", 22), {"accept": None}),
    ]  # fmt: skip
    ports = {address: list(of_nftables(ruleset, address)) for address in ("10.96.0.11", "10.96.0.20", "10.0.0.9")}
    assert ports == {
        "10.96.0.11": [Port("tcp", 80)], "10.96.0.20": [Port("tcp", 80, has_endpoints=False)],
        "10.0.0.9": [Port("tcp", 443)],
    }  # fmt: skip
    assert list(of_nftables(ruleset, "10.0.0.1")) == []
