"""A node and a peer exchange pod CIDRs, or one takes over the other's, in one run that one undo reverts."""

import json
from dataclasses import dataclass

import pytest

from cnictl.lab.lab import Node
from tests.kernel.commands import cnictl, drifted, snapshot

pytestmark = pytest.mark.once


@dataclass(frozen=True)
class Family:
    """Pod CIDRs and a peer's address in one address family."""

    network: str
    cidrs: tuple[str, str, str]
    via: str
    words: tuple[str, ...] = ()
    """Options for `ip`."""


IPV4 = Family("10.244.0.0/20", ("10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24"), "10.0.10.51")
IPV6 = Family(
    "fd00:10:244::/48", ("fd00:10:244::/64", "fd00:10:244:1::/64", "fd00:10:244:2::/64"), "fd00:2::51", ("-6",)
)


def set_up(node: Node, family: Family, own: str, peer: str) -> None:
    """Set up a node with this pod CIDR, and with one peer that has the other one."""
    peer_option = f"{peer}={family.via}"
    cnictl(node, "init-node", "--subnet", own, "--network", family.network, "--peer", peer_option, "--prune")


def join(node: Node, family: Family, own: str, peer: str) -> None:
    """Set up a node from a cluster file that names one other node."""
    here = "fd00:2::50" if family is IPV6 else node.address
    nodes = ((here, own), (family.via, peer))
    tables = "".join(
        f'\n[[nodes]]\nname = "node{at}"\naddress = "{address}"\npod_cidr = "{pod_cidr}"\n'
        for at, (address, pod_cidr) in enumerate(nodes)
    )
    node.run(["sh", "-c", "cat > /root/cluster.toml"], stdin=f'network = "{family.network}"\n{tables}')
    cnictl(node, "init-node", "--from", "/root/cluster.toml")


def ways(node: Node, family: Family) -> dict[str, str]:
    """Return the link or the gateway to each pod CIDR."""
    rows = json.loads(node.run(["ip", "-j", *family.words, "route", "show"]).stdout)
    return {row["dst"]: row.get("gateway", row["dev"]) for row in rows if row["dst"] in family.cidrs}


@pytest.fixture(params=[IPV4, IPV6], ids=["IPv4", "IPv6"])
def family(request: pytest.FixtureRequest, node: Node) -> Family:
    """Return an address family, after giving the node an address on the peer's link."""
    chosen: Family = request.param
    if chosen is IPV6:
        node.run(["ip", "address", "add", "fd00:2::50/64", "dev", "eth0", "nodad"])
    return chosen


HANDS = pytest.mark.parametrize(
    ("own", "peer"), [(1, 2), (1, 0), (2, 0)], ids=["takes the peer's", "exchanges them", "leaves its own to the peer"]
)


@HANDS
def test_pod_cidrs_change_hands_in_one_run(node: Node, family: Family, own: int, peer: int) -> None:
    first, second, _ = family.cidrs
    set_up(node, family, first, second)
    before = snapshot(node)
    set_up(node, family, family.cidrs[own], family.cidrs[peer])
    assert ways(node, family) == {family.cidrs[own]: "cni0", family.cidrs[peer]: family.via}
    assert drifted(node) == []
    cnictl(node, "undo", "--yes")
    assert ways(node, family) == {first: "cni0", second: family.via}
    assert (snapshot(node)["routes"], drifted(node)) == (before["routes"], [])


@HANDS
def test_pod_cidrs_of_a_learned_peer_change_hands(node: Node, family: Family, own: int, peer: int) -> None:
    first, second, _ = family.cidrs
    join(node, family, first, second)
    join(node, family, family.cidrs[own], family.cidrs[peer])
    assert ways(node, family) == {family.cidrs[own]: "cni0", family.cidrs[peer]: family.via}
    assert drifted(node) == []
    cnictl(node, "undo", "--yes")
    assert ways(node, family) == {first: "cni0", second: family.via}
    assert drifted(node) == []


def test_route_that_another_link_needs_is_not_hidden(node: Node, family: Family) -> None:
    first, second, third = family.cidrs
    set_up(node, family, first, second)
    node.run(["ip", "link", "add", "other", "type", "bridge"])
    node.run(["ip", "link", "set", "other", "up"])
    address = third.replace("/", "9/") if family is IPV6 else third.replace(".0/", ".9/")
    node.run(["ip", "address", "add", address, "dev", "other", *(["nodad"] if family is IPV6 else [])])
    refused = cnictl(node, "route", "add-peer", third, family.via, check=False)
    assert refused.status == 1
    assert f"{third} already has a route on other that cnictl did not make (proto kernel)" in refused.stderr
    assert ways(node, family) == {first: "cni0", second: family.via, third: "other"}
