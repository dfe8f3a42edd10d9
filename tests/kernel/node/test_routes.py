"""Peer routes and the bridge by themselves: added, moved, dropped, told of; nothing outlives its peer."""

import json

import pytest

from cnictl.lab.lab import Lab, Node
from tests.kernel.commands import cnictl, drifted, init, outcomes, snapshot, start_pod

pytestmark = pytest.mark.once

PEER = ("10.244.1.0/24", "10.0.10.51")


def routes(node: Node) -> dict[str, str]:
    """Destination to gateway of every route with cnictl's protocol number."""
    found = json.loads(node.run(["ip", "-j", "route", "show", "proto", "67"]).stdout)
    return {route["dst"]: route["gateway"] for route in found}


def listed(node: Node) -> dict[str, dict[str, str]]:
    """What `route list` says, by pod CIDR."""
    found = json.loads(cnictl(node, "route", "list", "-o", "json", check=False).stdout)
    return {row["pod_cidr"]: row for row in found["items"]}


def test_peer_is_added_moved_and_dropped(node: Node) -> None:
    init(node)
    cnictl(node, "route", "add-peer", *PEER)
    assert routes(node) == {"10.244.1.0/24": "10.0.10.51"}
    cnictl(node, "route", "add-peer", "10.244.2.0/24", "10.0.2.53", "--dev", "eth0")
    cnictl(node, "route", "add-peer", "10.244.1.0/24", "10.0.10.52", "--replace")
    assert routes(node) == {"10.244.1.0/24": "10.0.10.52", "10.244.2.0/24": "10.0.2.53"}
    assert set(outcomes(cnictl(node, "route", "add-peer", "10.244.1.0/24", "10.0.10.52", "-o", "json")).values()) == {
        "already so"
    }
    cnictl(node, "route", "del-peer", "10.244.1.0/24")
    assert routes(node) == {"10.244.2.0/24": "10.0.2.53"}
    assert drifted(node) == []


def test_pods_reach_each_other_once_both_nodes_have_the_route(lab: Lab) -> None:
    one, other = lab.nodes
    init(one)
    init(other)
    pod, far = start_pod(one, "a"), start_pod(other, "b")
    cnictl(one, "route", "add-peer", other.pod_cidr, other.address)
    assert not pod.pings(far.address)
    cnictl(other, "route", "add-peer", one.pod_cidr, one.address)
    assert pod.pings(far.address)


def test_list_tells_ok_missing_and_stale(node: Node) -> None:
    init(node, "--peer", "10.244.1.0/24=10.0.10.51", "--peer", "10.244.2.0/24=10.0.2.53")
    assert {row["state"] for row in listed(node).values()} == {"ok"}
    assert {row["link"] for row in listed(node).values()} == {"on the link"}
    node.run(["ip", "route", "del", "10.244.2.0/24"])
    node.run(["ip", "route", "add", "10.244.9.0/24", "via", "10.0.2.53", "proto", "67"])
    assert {cidr: row["state"] for cidr, row in listed(node).items()} == {
        "10.244.1.0/24": "ok", "10.244.2.0/24": "missing", "10.244.9.0/24": "stale",
    }  # fmt: skip
    assert cnictl(node, "route", "list", check=False).status == 1
    cnictl(node, "apply")
    assert set(routes(node)) == {"10.244.1.0/24", "10.244.2.0/24"}
    assert cnictl(node, "route", "list").status == 0


def test_foreign_route_in_the_way_is_told_and_left_alone(node: Node) -> None:
    init(node)
    node.run(["ip", "route", "add", "10.244.1.0/24", "via", "10.0.2.53"])
    before = snapshot(node)
    refused = cnictl(node, "route", "add-peer", *PEER, check=False)
    assert refused.status == 1
    assert "already has a route through 10.0.2.53 on eth0 that cnictl did not make (proto boot)" in refused.stderr
    assert snapshot(node)["routes"] == before["routes"]
    assert snapshot(node)["contents"] == before["contents"]


def test_peer_behind_a_gateway_is_refused_with_the_cause(node: Node) -> None:
    init(node)
    refused = cnictl(node, "route", "add-peer", "10.244.1.0/24", "192.0.2.10", check=False)
    assert refused.status == 1
    assert "192.0.2.10 is not on the same link, it is reached through 10.0.0.1" in refused.stderr


def test_route_the_kernel_refuses_leaves_the_node_file_as_it_was(node: Node) -> None:
    init(node)
    node.run(["ip", "link", "add", "spare", "type", "veth", "peer", "name", "spare0"])
    before = node.run(["cat", "/etc/cnictl/node.toml"]).stdout
    refused = cnictl(node, "route", "add-peer", *PEER, "--dev", "spare", check=False)
    assert refused.status == 1
    assert "the kernel refuses" in refused.stderr
    assert node.run(["cat", "/etc/cnictl/node.toml"]).stdout == before
    assert routes(node) == {}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("add-peer", "10.244.1.5/24", "10.0.10.51"), "10.244.1.5/24"),
        (("add-peer", "10.244.1.0/24", "10.0.10.999"), "999"),
        (("add-peer", "10.244.0.0/24", "10.0.10.51"), "10.244.0.0/24"),
        (("add-peer", "10.99.0.0/24", "10.0.10.51"), "10.99.0.0/24"),
        (("add-peer", "10.244.1.0/24", "10.0.0.210"), "10.0.0.210"),
        (("del-peer", "10.244.7.0/24"), "10.244.7.0/24"),
        (("add-peer", "10.244.1.0/24"), "'via'"),
    ],
)
def test_usage_errors_are_one_line(shared_node: Node, words: tuple[str, ...], named: str) -> None:
    if not shared_node.run(["ls", "/etc/cnictl/node.toml"], check=False).stdout:
        init(shared_node)
    refused = cnictl(shared_node, "route", *words, check=False)
    assert refused.status == 2, refused.stderr
    assert len(refused.stderr.splitlines()) == 1, refused.stderr
    assert named in refused.stderr
    assert routes(shared_node) == {}


@pytest.mark.parametrize("words", [("route", "add-peer", *PEER), ("bridge", "up", "--mtu", "1400"), ("bridge", "down")])
def test_dry_run_changes_nothing(node: Node, words: tuple[str, ...]) -> None:
    init(node)
    before = snapshot(node)
    assert "would change" in cnictl(node, *words, "--dry-run").stdout
    assert snapshot(node) == before


def test_bridge_alone_on_a_bare_host_and_away_again(node: Node) -> None:
    before = snapshot(node)
    cnictl(node, "bridge", "up", "--subnet", "10.244.0.0/24", "--network", "10.244.0.0/20")
    shown = json.loads(cnictl(node, "bridge", "show", "-o", "json").stdout)
    assert (shown["addresses"], shown["up"], shown["made_by"]) == (["10.244.0.1/24"], True, "cnictl")
    assert "masquerade" not in node.run(["nft", "list", "ruleset"]).stdout
    cnictl(node, "bridge", "down")
    assert cnictl(node, "bridge", "show", check=False).status == 1
    cnictl(node, "bridge", "up")
    cnictl(node, "reset-node", "--yes")
    assert snapshot(node) == before


def test_bridge_needs_to_know_its_subnet(node: Node) -> None:
    refused = cnictl(node, "bridge", "up", check=False)
    assert refused.status == 2
    assert "needs --subnet and --network" in refused.stderr


def test_bridge_shows_the_pods_on_it_and_stays_up_under_them(node: Node) -> None:
    init(node)
    pod = start_pod(node, "pod")
    (port,) = json.loads(cnictl(node, "bridge", "show", "-o", "json").stdout)["ports"]
    assert (port["pod"], port["addresses"], port["up"]) == ("pod", [pod.address], True)
    refused = cnictl(node, "bridge", "down", check=False)
    assert refused.status == 1
    assert "would cut off 1 pod" in refused.stderr
    assert pod.pings("10.244.0.1")


def test_bridge_mtu_moves_and_is_pinned(node: Node) -> None:
    init(node)
    cnictl(node, "bridge", "up", "--mtu", "1400")
    assert drifted(node) == []
    start_pod(node, "pod")
    assert json.loads(cnictl(node, "bridge", "show", "-o", "json").stdout)["mtu"] == 1400


def test_address_of_another_on_the_bridge_is_named_beside_ours(node: Node) -> None:
    node.run(["sh", "-ec", "ip link add cni0 type bridge; ip address add 172.16.9.1/24 dev cni0; ip link set cni0 up"])
    before = snapshot(node)
    refused = cnictl(
        node, "bridge", "up", "--subnet", "10.244.0.0/24", "--network", "10.244.0.0/20", check=False
    )  # fmt: skip
    assert refused.status == 1
    assert "172.16.9.1/24" in refused.stderr and "10.244.0.1/24" in refused.stderr
    after = snapshot(node)
    for kind in ("addresses", "routes", "nft", "iptables", "contents", "sysctl"):
        assert after[kind] == before[kind], kind
