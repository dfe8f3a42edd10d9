"""Peer routes and the bridge can be added, moved, dropped and listed separately, and no route outlives its peer."""

import json

import pytest

from cnictl.lab.lab import Lab, Node
from tests.kernel.commands import cnictl, drifted, init, outcomes, snapshot, start_pod

pytestmark = pytest.mark.once

PEER = ("10.244.1.0/24", "10.0.10.51")


def routes(node: Node) -> dict[str, str]:
    """Return the gateway by destination of every route with cnictl's protocol number."""
    rows = json.loads(node.run(["ip", "-j", "route", "show", "proto", "67"]).stdout)
    return {route["dst"]: route["gateway"] for route in rows}


def runs(node: Node) -> list[dict[str, str]]:
    """Return the runs in the journal, latest first."""
    items: list[dict[str, str]] = json.loads(cnictl(node, "history", "-o", "json").stdout)["items"]
    return items


def listed(node: Node) -> dict[str, dict[str, str]]:
    """Return the rows of `route list` by pod CIDR."""
    document = json.loads(cnictl(node, "route", "list", "-o", "json", check=False).stdout)
    return {row["pod_cidr"]: row for row in document["items"]}


def test_peer_is_added_moved_and_dropped(node: Node) -> None:
    init(node)
    cnictl(node, "route", "add-peer", *PEER)
    assert routes(node) == {"10.244.1.0/24": "10.0.10.51"}
    cnictl(node, "route", "add-peer", "10.244.2.0/24", "10.0.2.53", "--dev", "eth0")
    cnictl(node, "route", "add-peer", "10.244.1.0/24", "10.0.10.52", "--replace")
    assert routes(node) == {"10.244.1.0/24": "10.0.10.52", "10.244.2.0/24": "10.0.2.53"}
    assert set(outcomes(cnictl(node, "route", "add-peer", "10.244.1.0/24", "10.0.10.52", "-o", "json")).values()) == {
        "unchanged"
    }
    cnictl(node, "route", "del-peer", "10.244.1.0/24")
    assert routes(node) == {"10.244.2.0/24": "10.0.2.53"}
    assert drifted(node) == []


TWO = ("10.244.1.0/24=10.0.10.51", "10.244.2.0/24=10.0.2.53")


def test_several_peers_are_added_as_one_run_and_undone_by_one_undo(node: Node) -> None:
    init(node)
    before = snapshot(node)
    assert "would change" in cnictl(node, "route", "add-peer", *TWO, "--dry-run").stdout
    assert snapshot(node) == before
    cnictl(node, "route", "add-peer", *TWO)
    assert routes(node) == {"10.244.1.0/24": "10.0.10.51", "10.244.2.0/24": "10.0.2.53"}
    assert [run["command"] for run in runs(node)] == ["route add-peer", "init-node"]
    cnictl(node, "undo", "--yes")
    after = snapshot(node)
    assert (after["routes"], after["contents"]) == (before["routes"], before["contents"])
    assert (routes(node), drifted(node)) == ({}, [])


def test_several_peers_are_dropped_as_one_run(node: Node) -> None:
    init(node, "--peer", TWO[0], "--peer", TWO[1], "--peer", "10.244.3.0/24=10.0.2.54")
    refused = cnictl(node, "route", "del-peer", "10.244.1.0/24", "10.244.7.0/24", check=False)
    assert (refused.status, len(routes(node))) == (2, 3)
    assert "peer 10.244.7.0/24 is not one of this node's peers" in refused.stderr
    cnictl(node, "route", "del-peer", "10.244.1.0/24", "10.244.2.0/24")
    assert routes(node) == {"10.244.3.0/24": "10.0.2.54"}
    cnictl(node, "undo")
    assert len(routes(node)) == 3


@pytest.mark.parametrize(
    ("words", "status", "named"),
    [
        ((*TWO, "10.244.3.0/24=192.0.2.10"), 1, ["192.0.2.10 is not on the same network segment"]),
        ((*TWO, "10.244.3.0/24=10.0.2.54%nope"), 1, ["there is no link nope (the link to peer 10.244.3.0/24)"]),
        ((*TWO, "10.244.3.0/24=10.0.2.54%spare"), 1, ["the kernel refuses the route"]),
        ((*TWO, "10.244.9.0/24=10.0.2.54"), 1, ["already has a route through 10.0.2.99", "cnictl did not make"]),
        ((*TWO, "10.244.1.0/24=10.0.2.54"), 2, ["10.244.1.0/24=10.0.10.51 and 10.244.1.0/24=10.0.2.54"]),
        ((*TWO, TWO[0]), 2, ["two peers have the pod CIDR 10.244.1.0/24"]),
        ((*TWO, "10.244.1.128/25=10.0.2.54"), 2, ["overlap: 10.244.1.0/24=10.0.10.51 and 10.244.1.128/25=10.0.2.54"]),
        ((*TWO, "10.244.0.0/24=10.0.2.54"), 2, ["this node's own subnet"]),
    ],
)
def test_several_peers_are_refused_together(
    shared_node: Node, words: tuple[str, ...], status: int, named: list[str]
) -> None:
    if not shared_node.run(["ls", "/etc/cnictl/node.toml"], check=False).stdout:
        init(shared_node)
    shared_node.run(["ip", "route", "replace", "10.244.9.0/24", "via", "10.0.2.99"])
    shared_node.run(["ip", "link", "add", "spare", "type", "veth", "peer", "name", "spare0"], check=False)
    before = snapshot(shared_node)
    try:
        refused = cnictl(shared_node, "route", "add-peer", *words, check=False)
        assert refused.status == status
        assert all(part in refused.stderr for part in named), refused.stderr
        after = snapshot(shared_node)
        assert (after["routes"], after["contents"]) == (before["routes"], before["contents"])
    finally:
        shared_node.run(["ip", "route", "del", "10.244.9.0/24"])
        shared_node.run(["ip", "link", "del", "spare"])


SECOND = "ip link add eth9 type veth peer name eth9p; ip link set eth9p up; ip link set eth9 up; "


def test_link_of_a_peer_pins_its_route(node: Node) -> None:
    """Both links lead to the peer's subnet; the kernel alone would choose eth0."""
    node.run(["sh", "-ec", SECOND + "ip address add 10.0.15.250/20 dev eth9"])
    init(node, "--peer", "10.244.1.0/24=10.0.10.51%eth9", "--peer", "10.244.2.0/24=10.0.2.53")
    assert 'dev = "eth9"' in node.run(["cat", "/etc/cnictl/node.toml"]).stdout
    cnictl(node, "route", "add-peer", "10.244.3.0/24=10.0.2.54%eth9", "10.244.4.0/24=10.0.2.55", "--dev", "eth0")
    cnictl(node, "route", "add-peer", "10.244.5.0/24", "10.0.2.56%eth9")
    links = {row["pod_cidr"]: (row["dev"], row["state"], row["link"]) for row in listed(node).values()}
    assert links == {
        **dict.fromkeys(["10.244.1.0/24", "10.244.3.0/24", "10.244.5.0/24"], ("eth9", "ok", "on the link")),
        **dict.fromkeys(["10.244.2.0/24", "10.244.4.0/24"], ("eth0", "ok", "on the link")),
    }
    assert "dev eth9" in node.run(["ip", "route", "show", "10.244.3.0/24"]).stdout
    assert drifted(node) == []
    assert cnictl(node, "init-node", "--dry-run", "--exit-code", check=False).status == 0


def test_lost_link_of_a_peer_is_named_by_every_command_that_needs_it(node: Node) -> None:
    node.run(["sh", "-ec", SECOND + "ip address add 10.50.0.1/24 dev eth9"])
    init(node, "--peer", "10.244.1.0/24=10.50.0.2%eth9")
    node.run(["ip", "link", "del", "eth9"])
    row = listed(node)["10.244.1.0/24"]
    assert (row["state"], row["link"]) == ("missing", "there is no link eth9")
    for words in (("plan",), ("apply",), ("init-node", "--dry-run"), ("route", "add-peer", TWO[1])):
        refused = cnictl(node, *words, check=False)
        assert refused.status == 1
        assert "there is no link eth9 (the link to peer 10.244.1.0/24)" in refused.stderr
    items = json.loads(cnictl(node, "doctor", "-o", "json", check=False).stdout)["items"]
    finding = next(finding for finding in items if finding["id"] == "peer-link")
    assert "there is no link eth9" in finding["message"]
    assert "10.244.1.0/24=10.50.0.2%LINK" in finding["hint"]["text"]
    cnictl(node, "route", "add-peer", "10.244.1.0/24=10.0.10.51%eth0", "--replace")
    assert listed(node)["10.244.1.0/24"]["dev"] == "eth0"


def test_peers_of_both_families_are_added_together() -> None:
    with Lab(nodes=1, dual_stack=True) as lab:
        (node,) = lab.nodes
        both = ("--subnet", f"{node.pod_cidr},{node.pod_cidr6}", "--network", "10.244.0.0/20,fd00:244::/48")
        cnictl(node, "init-node", *both)
        six = ("fd00:244:0:7::/64=fd00:10::77", "fd00:244:0:8::/64=fe80::88%eth0")
        cnictl(node, "route", "add-peer", TWO[0], *six)
        assert {row["via"]: row["dev"] for row in listed(node).values()} == {
            "10.0.10.51": "eth0", "fd00:10::77": "eth0", "fe80::88": "eth0",
        }  # fmt: skip
        assert (
            "fe80::88 is link-local"
            in cnictl(node, "route", "add-peer", "fd00:244:0:9::/64=fe80::88", check=False).stderr
        )
        assert cnictl(node, "route", "add-peer", "fd00:244:0:9::/64", "fe80::99%eth0").status == 0


def test_pods_reach_each_other_once_both_nodes_have_the_route(lab: Lab) -> None:
    here, there = lab.nodes
    init(here)
    init(there)
    pod, far = start_pod(here, "a"), start_pod(there, "b")
    cnictl(here, "route", "add-peer", there.pod_cidr, there.address)
    assert not pod.pings(far.address)
    cnictl(there, "route", "add-peer", here.pod_cidr, here.address)
    assert pod.pings(far.address)


def test_list_shows_ok_missing_and_stale(node: Node) -> None:
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


def test_foreign_route_in_the_way_is_reported_and_not_modified(node: Node) -> None:
    init(node)
    node.run(["ip", "route", "add", "10.244.1.0/24", "via", "10.0.2.53"])
    before = snapshot(node)
    refused = cnictl(node, "route", "add-peer", *PEER, check=False)
    assert refused.status == 1
    assert "already has a route through 10.0.2.53 on eth0 that cnictl did not make (proto boot)" in refused.stderr
    assert snapshot(node)["routes"] == before["routes"]
    assert snapshot(node)["contents"] == before["contents"]


@pytest.mark.parametrize(
    "words", [("reset-node", "--yes"), ("route", "del-peer", PEER[0], "--yes")], ids=lambda w: w[0]
)
def test_foreign_route_beside_ours_stays_when_ours_is_removed(node: Node, words: tuple[str, ...]) -> None:
    init(node, "--peer", "=".join(PEER))
    foreign = "10.244.1.0/24 via 10.0.2.53 dev eth0 proto static metric 50"
    node.run(["ip", "route", "add", *foreign.split()])
    assert drifted(node) == []
    cnictl(node, *words)
    assert " ".join(node.run(["ip", "route", "show", "10.244.1.0/24"]).stdout.split()) == foreign


def test_peer_behind_a_gateway_is_refused_with_the_cause(node: Node) -> None:
    init(node)
    refused = cnictl(node, "route", "add-peer", "10.244.1.0/24", "192.0.2.10", check=False)
    assert refused.status == 1
    assert "192.0.2.10 is not on the same network segment, but reached through 10.0.0.1" in refused.stderr


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
        (("add-peer", "10.244.1.0/24"), "CIDR=VIA[%LINK]"),
        (("add-peer", "10.244.1.0/24=10.0.10.51", "10.244.2.0/24"), "'10.244.2.0/24'"),
        (("add-peer", "10.244.1.0/24=10.0.10.51%eth1", "--dev", "eth0"), "--dev eth0 is for peers without a link"),
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


def test_bridge_is_created_and_removed_on_a_bare_host(node: Node) -> None:
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


def test_bridge_up_requires_the_subnet(node: Node) -> None:
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


def test_bridge_mtu_changes_and_is_pinned(node: Node) -> None:
    init(node)
    cnictl(node, "bridge", "up", "--mtu", "1400")
    assert drifted(node) == []
    start_pod(node, "pod")
    assert json.loads(cnictl(node, "bridge", "show", "-o", "json").stdout)["mtu"] == 1400


def test_foreign_address_on_the_bridge_is_named_with_ours(node: Node) -> None:
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
