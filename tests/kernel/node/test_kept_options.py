"""An option that is not given keeps its value in node.toml. A peer is dropped or moved only with an explicit option."""

import json
from typing import Any

import pytest

from cnictl.lab.lab import Node
from tests.kernel.commands import INIT_OPTIONS, cnictl, drifted, snapshot, start_pod
from tests.kernel.node.test_routes import routes

pytestmark = pytest.mark.once

FILE = "/etc/cnictl/node.toml"
ONE, TWO = "10.244.1.0/24=10.0.10.51", "10.244.2.0/24=10.0.2.53"
SET_UP = (
    "init-node", *INIT_OPTIONS, "--peer", ONE, "--peer", TWO, "--bridge", "br-pods", "--name", "pods", "--mtu", "1400",
    "--uplink", "eth0", "--no-nat", "--backend", "iptables", "--external", "192.0.2.10",
)  # fmt: skip


@pytest.fixture
def node(shared_node: Node) -> Node:
    """Return the module's node, set up again with SET_UP."""
    cnictl(shared_node, "reset-node", "--yes", "--force")
    cnictl(shared_node, *SET_UP)
    return shared_node


def shown(node: Node, *words: str) -> dict[str, Any]:
    return dict(json.loads(cnictl(node, *words, "-o", "json").stdout))


@pytest.mark.parametrize("words", [("init-node",), ("init-node", *INIT_OPTIONS), ("init-node", "--peer", ONE)])
def test_init_node_again_changes_only_what_an_option_says(node: Node, words: tuple[str, ...]) -> None:
    before = snapshot(node)
    assert shown(node, *words)["changed"] == 0
    assert snapshot(node) == before


def test_each_option_changes_only_its_key_and_switches_have_a_counterpart(node: Node) -> None:
    said = shown(node, "init-node")["node"]
    assert (said["bridge"], said["name"], said["mtu"], said["nat"]) == ("br-pods", "pods", 1400, False)
    assert shown(node, "init-node", "--nat", "--dry-run")["node"] == {**said, "nat": True}
    cnictl(node, "init-node", "--nat")
    assert shown(node, "init-node")["node"] == {**said, "nat": True}
    cnictl(node, "init-node", "--mtu", "0", "--uplink", "", "--external", "")
    assert shown(node, "init-node")["node"] == {**said, "nat": True, "mtu": 0, "uplink": "", "external": ""}
    assert drifted(node) == []


def test_unnamed_peer_is_dropped_only_by_prune(node: Node) -> None:
    pod = start_pod(node, "pod") if node.run(["ls", "/etc/cni/net.d"]).stdout else None
    again = cnictl(node, "init-node", "--peer", ONE)
    assert "keeps 10.244.2.0/24, which no --peer names" in again.stderr
    assert set(routes(node)) == {"10.244.1.0/24", "10.244.2.0/24"}
    preview = shown(node, "init-node", "--peer", ONE, "--prune", "--dry-run")
    assert preview["peers"]["dropped"] == [{"pod_cidr": "10.244.2.0/24", "via": "10.0.2.53"}]
    assert set(routes(node)) == {"10.244.1.0/24", "10.244.2.0/24"}
    done = cnictl(node, "init-node", "--peer", ONE, "--prune")
    assert "drops peer 10.244.2.0/24, which is reached through 10.0.2.53" in done.stderr
    assert set(routes(node)) == {"10.244.1.0/24"}
    cnictl(node, "init-node", "--prune")
    assert routes(node) == {}
    if pod is not None:
        cnictl(node, "ipam", "release", "pod", "--force")
        node.run(["ip", "netns", "delete", "pod"])


MOVED = "10.244.1.0/24=10.0.10.99"


@pytest.mark.parametrize("words", [("init-node", "--peer", MOVED), ("route", "add-peer", *MOVED.split("="))])
def test_peer_moves_only_with_replace(node: Node, words: tuple[str, ...]) -> None:
    before = snapshot(node)
    refused = cnictl(node, *words, check=False)
    assert refused.status == 2
    assert "10.244.1.0/24 is already reached through 10.0.10.51" in refused.stderr and "--replace" in refused.stderr
    assert snapshot(node) == before
    moved = cnictl(node, *words, "--replace")
    assert "moves peer 10.244.1.0/24 from 10.0.10.51 to 10.0.10.99" in moved.stderr
    assert routes(node) == {"10.244.1.0/24": "10.0.10.99", "10.244.2.0/24": "10.0.2.53"}


@pytest.mark.parametrize(
    "words", [("init-node", "--peer", "10.244.2.0/23=10.0.10.52"), ("route", "add-peer", "10.244.2.0/23", "10.0.10.52")]
)
def test_pod_cidr_that_overlaps_another_peers_is_refused_with_a_hint(node: Node, words: tuple[str, ...]) -> None:
    refused = cnictl(node, *words, check=False)
    assert refused.status == 2
    assert "10.244.2.0/23 overlaps peer 10.244.2.0/24, which this node reaches through 10.0.2.53" in refused.stderr
    assert "cnictl route del-peer 10.244.2.0/24" in refused.stderr
    assert len(routes(node)) == 2


def test_peer_taken_out_of_the_file_is_dropped_by_apply(node: Node) -> None:
    text = node.run(["cat", FILE]).stdout
    node.run(["sh", "-c", f"cat > {FILE}"], text[: text.index("\n[[peers]]")])
    cnictl(node, "apply")
    assert routes(node) == {}


def test_lost_file_is_written_again_as_the_node_was(node: Node) -> None:
    said = shown(node, "init-node")["node"]
    node.run(["rm", FILE])
    done = cnictl(node, "init-node", "--dry-run")
    assert f"{FILE} is missing" in done.stderr
    assert shown(node, "init-node")["node"] == said
    assert len(routes(node)) == 2


def test_first_init_node_requires_the_subnet(shared_node: Node) -> None:
    cnictl(shared_node, "reset-node", "--yes", "--force")
    refused = cnictl(shared_node, "init-node", check=False)
    assert refused.status == 2
    assert "init-node needs --subnet and --network" in refused.stderr
