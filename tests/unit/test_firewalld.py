"""firewalld's policy for pods accepts no more than cnictl's accept rules in other firewalls."""

from xml.etree import ElementTree

import pytest

from cnictl.node.resources import firewalld
from cnictl.node.spec.node_spec import NodeSpec, Peer

DUAL = NodeSpec(
    ("10.244.0.0/24", "fd00:244::/64"),
    ("10.244.0.0/20", "fd00:244::/48"),
    peers=(Peer("10.244.1.0/24", "10.0.10.51"), Peer("fd00:244:0:1::/64", "fe80::51", "eth0")),
)


def test_policy_accepts_packets_from_pods_and_to_pods_only_from_pods_and_peers() -> None:
    policy = ElementTree.fromstring(firewalld._policy(DUAL))
    accepted = []
    for rule in policy.iter("rule"):
        assert rule.find("accept") is not None
        ends = {kind: end.get("address") for kind in ("source", "destination") for end in rule.iter(kind)}
        accepted.append((rule.get("family"), ends.get("source"), ends.get("destination")))
    assert accepted == [
        ("ipv4", "10.244.0.0/24", None),
        ("ipv4", "10.244.0.0/20", "10.244.0.0/24"),
        ("ipv4", "10.0.10.51", "10.244.0.0/24"),
        ("ipv6", "fd00:244::/64", None),
        ("ipv6", "fd00:244::/48", "fd00:244::/64"),
    ]


def test_firewalld_is_not_changed_if_forwarding_is_left_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firewalld, "_is_installed", lambda: True)
    monkeypatch.setattr(firewalld, "runs", lambda: False)
    left = NodeSpec(DUAL.subnets, DUAL.networks, forward=False)
    assert firewalld.Firewalld(left).desired(left) is None
    assert firewalld.Firewalld(DUAL).desired(DUAL) is not None
