"""A reset leaves a host as it was before cnictl, whatever was on it."""


import pytest

from cnictl.lab.lab import Node

from .operator import cnictl, init, outcomes, snapshot, start_pod

HARDENED_SYSCTLS = {
    "net.ipv4.ip_forward": 0,
    "net.ipv4.conf.all.accept_redirects": 0,
    "net.ipv4.conf.default.accept_redirects": 0,
    "net.ipv4.conf.eth0.accept_redirects": 0,
    "net.ipv4.conf.all.send_redirects": 0,
    "net.ipv4.conf.all.rp_filter": 1,
    "net.ipv4.conf.default.rp_filter": 1,
    "net.ipv4.conf.eth0.forwarding": 1,
}

FOREIGN_NFT = """
table inet firewall {
    chain input { type filter hook input priority filter; policy accept; ct state invalid drop; }
    chain forward { type filter hook forward priority filter; policy drop; jump vpn; }
    chain vpn { iifname "wg0" accept; }
}
table ip strict {
    chain last { type filter hook forward priority 10; policy accept; ip daddr 10.99.0.0/16 accept; reject; }
}
table inet shaping {
    chain marking { type filter hook forward priority mangle; policy accept; meta mark set 7; }
}
"""

FOREIGN_IPTABLES = """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -j ACCEPT
-A DOCKER-USER -j RETURN
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -s 10.244.0.0/16 ! -o cni0 -j MASQUERADE
COMMIT
"""


def harden(node: Node) -> None:
    """A host as others left it: strict sysctls, two firewalls, a container engine's rules, files in /etc."""
    for name, value in HARDENED_SYSCTLS.items():
        node.run(["sysctl", "-qw", f"{name}={value}"])
    node.run(["nft", "-f", "-"], stdin=FOREIGN_NFT)
    node.run(["iptables-restore"], stdin=FOREIGN_IPTABLES)
    node.run(["sh", "-c", "mkdir -p /etc/sysctl.d && echo net.ipv4.ip_forward=0 > /etc/sysctl.d/50-hardening.conf"])


@pytest.mark.parametrize("backend", ["nft", "iptables"])
def test_hardened_node_is_the_same_after_reset(node: Node, backend: str) -> None:
    harden(node)
    before = snapshot(node)

    first = outcomes(init(node, "--peer", "10.244.1.0/24=10.0.10.51", "--backend", backend, "-o", "json"))
    second = outcomes(init(node, "--peer", "10.244.1.0/24=10.0.10.51", "--backend", backend, "-o", "json"))
    assert set(first.values()) == {"changed"}
    assert set(second.values()) == {"already so"}
    assert set(second) == set(first)
    start_pod(node, "pod")

    cnictl(node, "reset-node", "--yes", "--force")
    node.run(["ip", "netns", "delete", "pod"])
    assert snapshot(node) == before


@pytest.mark.parametrize("backend", ["nft", "iptables"])
def test_bare_node_is_the_same_after_reset(node: Node, backend: str) -> None:
    before = snapshot(node)
    init(node, "--backend", backend)
    cnictl(node, "reset-node", "--yes")
    assert snapshot(node) == before
