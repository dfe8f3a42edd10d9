"""Nodes that learn their peers from Kubernetes are set up from their own Node, and follow the others by watch."""

import json
import random
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from cnictl.lab.lab import Lab, Node
from cnictl.watch.repairs import FIGHT
from tests.kernel.commands import cnictl, drifted
from tests.kernel.node.test_reach import (
    Watch,
    assert_pods_reach_each_other,
    findings,
    findings_with_hints,
    learned,
    listed,
    plugin_status,
)
from tests.soak import SOAK
from tests.waiting import wait_for

pytestmark = pytest.mark.once

NETWORK = "10.244.0.0/16"
FOLDER = "/root/api"
KUBECONFIG = "/etc/cnictl/kubeconfig"
_spec = find_spec("lightkube")
assert _spec is not None and _spec.origin is not None
PACKAGES = str(Path(_spec.origin).parents[1])
"""The folder that contains the Kubernetes client."""


class Cluster:
    """An API server outside, and the nodes."""

    def __init__(self, lab: Lab, announced: int) -> None:
        """Start the server. The first `announced` nodes have a Node."""
        self.lab, self.outside, self.nodes = lab, lab.outside, lab.nodes
        self.announced = [f"node{at}={node.pod_cidr}={node.address}" for at, node in enumerate(lab.nodes[:announced])]
        settings = Path("/etc/ssl/openssl.cnf").read_text(encoding="utf-8")
        self.outside.run(["sh", "-c", "mkdir -p /etc/ssl && cat > /etc/ssl/openssl.cnf"], settings)
        self.start()
        self.kubeconfig = self.outside.run(["cat", f"{FOLDER}/kubeconfig"]).stdout
        for node in lab.nodes:
            self.put_credential(node)

    def start(self, announced: list[str] | None = None) -> None:
        """Start the server with the lab's Nodes added to those it has, or with other Nodes instead of all."""
        nodes = self.announced if announced is None else announced
        if announced is not None:
            forget = "import json, sys; f = open(sys.argv[1], 'r+'); s = json.load(f); f.seek(0); f.truncate(); "
            self.outside.run(["python3", "-c", forget + "json.dump({**s, 'nodes': {}}, f)", f"{FOLDER}/nodes.json"])
        options = [word for text in nodes for word in ("--node", text)]
        checkout = Path(__file__).parents[3]
        program = ["env", f"PYTHONPATH={checkout}", "python3", "-m", "tests.kubernetes.server", FOLDER]
        command = [*program, *options, "--address", self.outside.address]
        self._server = self.outside.popen(command)
        assert self._server.stdout is not None and self._server.stdout.readline()

    def stop(self) -> None:
        """Kill the server."""
        self._server.kill()
        self._server.wait(timeout=20)

    def put_credential(self, node: Node) -> None:
        """Give a node its kubeconfig."""
        node.run(["sh", "-c", f"mkdir -p /etc/cnictl; umask 077; cat > {KUBECONFIG}"], self.kubeconfig)

    def join(self, at: int, *more: str) -> str:
        """Set up a node from its Node, and return what init-node printed."""
        done = cnictl(self.nodes[at], "init-node", "--from", "kubernetes", "--node", f"node{at}", *more)
        return str(done.stderr)

    def change(self, method: str, name: str, pod_cidr: str = "", address: str = "") -> None:
        """Send a change of a Node to the server."""
        body = {
            "metadata": {"name": name},
            "spec": {"podCIDR": pod_cidr, "podCIDRs": [pod_cidr] if pod_cidr else []},
            "status": {"addresses": [{"type": "InternalIP", "address": address}]},
        }
        path = "" if method == "POST" else f"/{name}"
        program = (
            "import ssl, sys, urllib.request as u; "
            "heads = {'Authorization': 'Bearer admin-token', 'Content-Type': 'application/json'}; "
            f"url = 'https://{self.outside.address}:6443/api/v1/nodes{path}'; "
            f"asked = u.Request(url, sys.stdin.buffer.read(), heads, method='{method}'); "
            "u.urlopen(asked, context=ssl._create_unverified_context())"
        )
        self.outside.run(["python3", "-c", program], json.dumps(body))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Lab(nodes=3) as lab:
        cluster = Cluster(lab, announced=3)
        for at in range(3):
            cluster.join(at, "--network", NETWORK)
        yield cluster


def others(cluster: Cluster) -> dict[str, str]:
    _, second, third = cluster.nodes
    return {second.pod_cidr: second.address, third.pod_cidr: third.address, NETWORK: "unreachable"}


def in_node_file(node: Node) -> str:
    return node.run(["cat", "/etc/cnictl/node.toml"]).stdout


def test_node_takes_its_pod_cidr_from_its_node_and_reaches_the_others(cluster: Cluster) -> None:
    first, second, _ = cluster.nodes
    assert f'subnet = "{first.pod_cidr}"' in in_node_file(first)
    assert learned(first) == others(cluster)
    assert listed(first)["source"]["title"].startswith("kubernetes https://")
    assert drifted(first) == []
    assert_pods_reach_each_other(first, second)


def test_node_that_joins_is_routed_and_one_that_leaves_is_not(cluster: Cluster) -> None:
    first = cluster.nodes[0]
    with Watch(first):
        cluster.change("POST", "node9", "10.244.9.0/24", "10.0.0.99")
        wait_for(lambda: learned(first).get("10.244.9.0/24") == "10.0.0.99", "the new node has a route", 20.0)
        cluster.change("DELETE", "node9")
        wait_for(lambda: learned(first) == others(cluster), "the removed node's route is gone", 20.0)
        cluster.change("POST", "thief", first.pod_cidr, "10.0.0.98")
        wait_for(lambda: listed(first)["source"]["conflict"], "the conflict is seen", 20.0)
        assert learned(first) == others(cluster)
        assert plugin_status(first)["code"] == 50
        cluster.change("DELETE", "thief")
        wait_for(lambda: plugin_status(first) is None, "the conflict is over", 20.0)


def test_nodes_that_join_one_by_one_do_not_count_as_a_fight(cluster: Cluster) -> None:
    first = cluster.nodes[0]
    joining = {f"10.244.{at}.0/24": f"10.0.0.{at}" for at in range(100, 100 + 2 * FIGHT)}
    with Watch(first):
        for pod_cidr, address in joining.items():
            cluster.change("POST", f"node{address}", pod_cidr, address)
            wait_for(lambda at=pod_cidr: at in learned(first), f"{pod_cidr} is routed", 20.0)  # type: ignore[misc]
        assert learned(first) == others(cluster) | joining
        for address in joining.values():
            cluster.change("DELETE", f"node{address}")
        wait_for(lambda: learned(first) == others(cluster), "their routes are gone", 20.0)


def test_node_registered_again_with_another_pod_cidr_is_a_conflict(cluster: Cluster) -> None:
    first = cluster.nodes[0]
    with Watch(first):
        cluster.change("PUT", "node0", "10.244.70.0/24", first.address)
        wait_for(lambda: "source-conflict" in findings(first), "doctor reports the conflict", 20.0)
        assert f'subnet = "{first.pod_cidr}"' in in_node_file(first)
        cluster.change("PUT", "node0", first.pod_cidr, first.address)
        wait_for(lambda: "source-conflict" not in findings(first), "the conflict is over", 20.0)


def test_server_that_is_down_removes_no_route_even_after_a_restart_of_watch(cluster: Cluster) -> None:
    first = cluster.nodes[0]
    with Watch(first) as watch:
        cluster.stop()
        wait_for(lambda: listed(first)["source"]["stale_since"], "the source is stale", 20.0)
        watch.kill()
    cnictl(first, "apply")
    with Watch(first):
        assert learned(first) == others(cluster)
        assert "source-stale" in findings(first)
        cluster.start()
        wait_for(lambda: not listed(first)["source"]["stale_since"], "the source answers again", 45.0)
    assert learned(first) == others(cluster)


def hide_client(node: Node) -> None:
    """Hide lightkube from this node only: mount a folder with links to all other packages over the packages' folder."""
    node.run(["mkdir", "-p", "/root/all", "/root/others"])
    node.run(["mount", "--bind", PACKAGES, "/root/all"])
    node.run(["sh", "-c", "ln -sf /root/all/* /root/others && rm /root/others/lightkube"])
    node.run(["mount", "--bind", "/root/others", PACKAGES])


def put_client_back(_: Cluster, node: Node) -> None:
    """Show all packages again."""
    node.run(["umount", "-l", PACKAGES])


@pytest.mark.parametrize(
    ("hide", "put_back", "said", "todo"),
    [
        (hide_client, put_client_back,
         "needs the Python package lightkube, which is not installed", "pip install 'lightkube"),
        (lambda node: node.run(["rm", KUBECONFIG]), Cluster.put_credential,
         f"there is no file {KUBECONFIG}", "cnictl kubernetes kubeconfig --output"),
    ],
    ids=["client", "credential"],
)  # fmt: skip
def test_missing_client_or_credential_is_named_with_a_hint_and_the_last_list_is_kept(
    cluster: Cluster,
    hide: Callable[[Node], object],
    put_back: Callable[[Cluster, Node], object],
    said: str,
    todo: str,
) -> None:
    first = cluster.nodes[0]
    before = in_node_file(first)
    hide(first)
    try:
        refused = cnictl(first, "init-node", "--from", "kubernetes", "--node", "node0", check=False)
        assert refused.status == 2 and said in refused.stderr and todo in refused.stderr
        assert in_node_file(first) == before
        cnictl(first, "apply")
        message, hint = findings_with_hints(first)["source-stale"]
        assert said in message and todo in hint and todo not in message
        with Watch(first):
            assert learned(first) == others(cluster)
            first.run(["ip", "route", "flush", "proto", "68"])
            wait_for(lambda: learned(first) == others(cluster), "the last good list is routed", 10.0)
            put_back(cluster, first)
            wait_for(lambda: not listed(first)["source"]["trouble"], "the source answers again", 45.0)
    finally:
        if listed(first)["source"]["trouble"]:
            put_back(cluster, first)
    assert learned(first) == others(cluster)


def test_server_killed_at_any_moment_loses_no_route_and_leaves_none(cluster: Cluster) -> None:
    """Nodes join and leave. The server is killed shortly after each change, and keeps what it has accepted."""
    first, drawn, lasting = cluster.nodes[0], random.Random(16), others(cluster)
    with Watch(first):
        for turn in range(40 if SOAK else 3):
            here = turn % 2 == 0
            cidr, address = f"10.244.{100 + turn // 2}.0/24", "10.0.0.97"
            cluster.change("POST" if here else "DELETE", f"brief{turn // 2}", cidr, address)
            moment = time.monotonic() + drawn.uniform(0, 0.6)
            wait_for(lambda moment=moment: time.monotonic() > moment, "the moment has come")  # type: ignore[misc]
            cluster.stop()
            assert lasting.items() <= learned(first).items()
            cluster.start()
        cluster.change("DELETE" if here else "POST", f"brief{turn // 2}", cidr, address)
        wanted = {**lasting, **({} if here else {cidr: address})}
        wait_for(lambda: learned(first) == wanted, "the routes match the server", 45.0)
        if not here:
            cluster.change("DELETE", f"brief{turn // 2}")
            wait_for(lambda: learned(first) == lasting, "the last node's route is gone", 10.0)


def test_setting_up_again_and_undoing_it_changes_no_other_node(cluster: Cluster) -> None:
    third = cluster.nodes[2]
    said = cnictl(third, "reset-node", "--yes").stderr
    assert learned(third) == {}
    assert "/etc/cnictl/kubeconfig stays: it is an operator's credential" in said
    assert third.run(["cat", "/etc/cnictl/kubeconfig"]).stdout == cluster.kubeconfig
    said = cluster.join(2, "--network", NETWORK)
    assert "2 peers learned from kubernetes" in said and "other nodes learn of this one" in said
    assert drifted(third) == []


def test_setting_up_again_keeps_name_and_credential_of_the_node_file(cluster: Cluster) -> None:
    third = cluster.nodes[2]
    third.run(["mv", KUBECONFIG, "/root/kubeconfig"])
    third.run(["sed", "-i", r'/^\[reach\]/a kubeconfig = "/root/kubeconfig"', "/etc/cnictl/node.toml"])
    cnictl(third, "init-node", "--from", "kubernetes", "--unclaimed", "default-route")
    assert 'node = "node2"' in in_node_file(third) and 'kubeconfig = "/root/kubeconfig"' in in_node_file(third)
    assert listed(third)["source"]["trouble"] == ""


def test_init_node_requires_the_pod_network_if_the_cluster_does_not_say_it(cluster: Cluster) -> None:
    third = cluster.nodes[2]
    cnictl(third, "reset-node", "--yes")
    cluster.put_credential(third)
    done = cnictl(third, "init-node", "--from", "kubernetes", "--node", "node2", check=False)
    assert done.status == 2 and "--network" in done.stderr
    unknown = cnictl(third, "init-node", "--from", "kubernetes", "--node", "nobody", check=False)
    assert unknown.status == 2 and "no Node named 'nobody'" in unknown.stderr
    cluster.join(2, "--network", NETWORK)
