"""Every command's `-o json` output matches its schema in docs/schemas/, with full and with empty lists."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from cnictl.core.errors import Problem
from cnictl.lab.lab import Lab, Node
from tests.kernel.cluster import GUARD, served
from tests.kernel.commands import INIT_OPTIONS, Lines, call, cnictl, init, start_pod
from tests.schemas import checked, commands_with_json
from tests.waiting import wait_for

pytestmark = pytest.mark.once

DUAL = ("--subnet", "10.244.0.0/24,fd00:244::/64", "--network", "10.244.0.0/20,fd00:244::/48")
BARE = (
    ("history", 0), ("plugin list", 0), ("doctor", 1), ("doctor --list", 0), ("doctor --explain mtu-path", 0),
    ("doctor --fix --dry-run", 1), ("support-bundle --dry-run", 0), ("logs", 0), ("ipam gc --all", 0),
    ("confirm --status", 1), ("version", 0), ("reset-node --dry-run", 0), ("reset-node --yes", 0),
    ("plugin uninstall", 0),
    ("plugin install --dry-run", 0), ("bridge up --subnet 10.244.0.0/24 --network 10.244.0.0/20 --dry-run", 0),
)  # fmt: skip
"""Commands and their exit statuses on a host that is not set up."""
BROKEN = f"""
ip route add 10.244.7.0/24 via 10.0.0.98 proto 4 metric 3
ip rule add pref 5270 lookup 52; ip route add 10.244.1.0/24 dev lo table 52
touch /etc/cni/net.d/05-other.conf
: > /var/lib/cni/networks/mynet/10.244.0.99
ip address del 10.244.0.1/24 dev cni0; ip address add 10.244.0.1/24 dev cni0 nodad; ip link set cni0 mtu 1400
ip netns delete gone
{GUARD}
"""
"""A diverted route, a policy rule, another conf, a torn and a stale lease, a bridge with another MTU, a drop."""
CLEARED = """
ip rule del pref 5270; ip route del 10.244.7.0/24 metric 3
nft delete table ip guard
rm /etc/cni/net.d/05-other.conf /var/lib/cni/networks/mynet/10.244.0.99 /tmp/b.tar.gz
"""
"""Removes what would make a reset fail."""
FULL = (
    ("status", 1), ("plan", 0), ("plan --exit-code", 1), ("apply --dry-run", 0), ("doctor", 1),
    ("doctor --fix --dry-run", 1), ("test-connectivity --count 1 --timeout 0.3", 1),
    ("test-connectivity --from web --count 1 --timeout 0.3", 1), ("history", 0), ("history 1", 0),
    ("ping host web -c 1 --trace", 0), ("ping host 10.244.0.1:9/udp -c 1", 0),
    ("ping web external:9 -c 1 -W 0.3", 1),
    ("undo --dry-run", 0), ("confirm --status", 1), ("logs", 0), ("logs --failed", 0),
    ("pod list", 0), ("pod show web --to 10.0.10.51", 0), ("pod show gone", 0),
    ("support-bundle /tmp/b.tar.gz", 0), ("bridge show", 1), ("bridge up --mtu 1300 --dry-run", 0),
    ("bridge down --force --dry-run", 0), ("nat show", 0), ("nat enable", 0), ("nat disable --dry-run", 0),
    ("node list", 0), ("route list", 1), ("route add-peer 10.244.9.0/24 10.0.10.51 --dry-run", 0),
    ("route del-peer 10.244.7.0/24 --dry-run", 0), ("ipam list", 0), ("ipam show web", 0), ("ipam check", 1),
    ("ipam release web --force --dry-run", 0), ("ipam gc --dry-run", 0), ("plugin list", 0), ("plugin install", 0),
    ("plugin install --lib-dir /opt/lib --bin-dir /opt/bin --dry-run", 0), ("plugin uninstall --force --dry-run", 0),
    ("reset-node --yes", 1), ("reset-node --force --dry-run", 0), ("version", 0),
)  # fmt: skip
"""Commands and their exit statuses on a node with pods and those faults."""
IN_LAB = ("lab status", "lab demo")
"""Commands whose own tests in tests/kernel/lab check their JSON."""


def said(node: Node, words: str, status: int = 0) -> Any:
    """Return the document that a command printed, checked against its schema."""
    done = cnictl(node, *words.split(), "-o", "json", check=False)
    assert (done.status, done.stdout != "") == (status, True), (words, done)
    return checked(command_of(words), done.stdout)


def command_of(words: str) -> str:
    """Return the command with which a line begins: one word or two."""
    (command,) = (name for name in commands_with_json() if f"{words} ".startswith(f"{name} "))
    return command


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[Node]]:
    """Yield two nodes that are not set up."""
    with Lab(nodes=2) as lab:
        yield lab.nodes


@pytest.fixture
def node(nodes: list[Node]) -> Iterator[Node]:
    """Yield the first of the two nodes, and reset it after the test."""
    yield nodes[0]
    cnictl(nodes[0], "reset-node", "--yes", "--force")


def test_host_that_is_not_set_up(node: Node) -> None:
    documents = {words: said(node, words, status) for words, status in BARE}
    for words in ("history", "plugin list", "logs", "ipam gc --all", "doctor --fix --dry-run"):
        assert documents[words]["items"] == [], words
    assert documents["reset-node --yes"]["steps"] == documents["plugin uninstall"]["changes"] == []


def test_first_run_refused_planned_failed_and_undone(node: Node) -> None:
    line = " ".join(INIT_OPTIONS)
    assert said(node, f"init-node {' '.join(DUAL)} --peer 10.244.1.0/24=10.0.10.51 --dry-run")["would_change"] > 5
    node.run(["sh", "-c", "ip route add 10.244.0.64/26 via 10.0.2.9"])
    assert said(node, f"init-node {line}", 1)["error"] == "preflight"
    node.run(["sh", "-c", "ip route del 10.244.0.64/26; mkdir -p /etc/cni/net.d"])
    node.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=1,mode=755", "none", "/etc/cni/net.d"])
    assert {"failed", "undone"} <= {step["outcome"] for step in said(node, f"init-node {line}", 1)["steps"]}
    node.run(["umount", "/etc/cni/net.d"])
    assert said(node, f"init-node {line} --confirm-within 1")["confirm_within"] == 1
    wait_for(lambda: said(node, "history")["items"][0]["kind"] == "undo", "the run is undone")
    assert said(node, "apply") == {"version": 1, "changed": 0, "steps": []}
    assert said(node, "apply --dry-run") == {"version": 1, "would_change": 0, "steps": []}


def test_node_with_pods_and_faults(nodes: list[Node], node: Node) -> None:
    there = nodes[1]
    init(node, "--peer", f"{there.pod_cidr}={there.address}", "--peer", "10.244.7.0/24=10.0.0.99", "--external",
         "192.0.2.10")  # fmt: skip
    init(there, "--peer", f"{node.pod_cidr}={node.address}")
    web, _ = start_pod(node, "web"), start_pod(node, "gone")
    with served(there) as far:
        assert web.pings(far)
    with contextlib.suppress(Problem):
        call(node, "CHECK", "nobody")
    node.run(["sh", "-ec", BROKEN])
    documents = {words: said(node, words, status) for words, status in FULL}
    for words, document in documents.items():
        assert document.get("items", True) and document.get("checks", True), words
    assert documents["logs --failed"]["items"][0]["failed"]
    assert documents["pod show web --to 10.0.10.51"]["connections"]
    assert documents["status"]["strays"] and documents["status"]["bridge"]["ports"]
    node.run(["sh", "-ec", CLEARED])


def test_node_from_setup_to_reset(node: Node) -> None:
    assert not said(node, f"init-node {' '.join(INIT_OPTIONS)}")["findings"]
    for words in ("doctor", "route list", "ipam list", "ipam check", "pod list"):
        assert said(node, words)["items"] == [], words
    assert said(node, "ipam gc")["items"][0]["outcomes"] == []
    assert said(node, "status")["watch"] is None
    for words in ("plan", "apply --dry-run --exit-code", "test-connectivity --count 1 --external 192.0.2.10"):
        said(node, words)
    version = said(node, "plugin list")["current"]
    assert said(node, f"plugin use {version}")["changes"]  # node.toml then names the version
    assert said(node, f"plugin use {version}") == {"version": 1, "state": "unchanged", "changes": []}
    assert said(node, "nat disable")["changed"] > 0
    assert said(node, "nat show")["items"] == []
    number = said(node, "nat enable --confirm-within 60")["run"]
    assert said(node, "confirm --status")["waiting"] == said(node, "confirm")["confirmed"] == number
    for words in ("route add-peer 10.244.1.0/24 10.0.10.51", "route del-peer 10.244.1.0/24", "undo", "undo"):
        assert said(node, words)["changed"] > 0, words
    pods = [start_pod(node, name) for name in ("one", "two", "three")]
    node.run(["ip", "netns", "delete", "two"])
    wait_for(lambda: "stale" in {lease["state"] for lease in said(node, "ipam list")["items"]}, "one lease is stale")
    assert said(node, "ipam gc")["items"][0]["outcomes"]
    assert said(node, f"ipam release {pods[0].address} --force")["items"][0]["action"] == "freed"
    said(node, "bridge show")
    assert said(node, "bridge down --force")["changed"] > 0
    assert said(node, "bridge up")["changed"] > 0
    assert said(node, "apply")["steps"]
    running = node.popen(["cnictl", "watch"])
    wait_for(lambda: said(node, "status", 0)["watch"] is not None, "watch runs")
    running.terminate()
    running.communicate(timeout=20)
    assert said(node, "reset-node --yes --force")["changed"] > 0
    for words in ("plugin install", "plugin uninstall"):
        assert said(node, words)["state"] == "changed"


@pytest.mark.parametrize("words", ["status --watch", "test-connectivity --serve", "logs --follow"])
def test_stream_has_a_document_on_each_line(node: Node, words: str) -> None:
    init(node)
    running = node.popen(["cnictl", *words.split(), "-o", "json"])
    lines = Lines(running.stdout)
    for number in range(20):
        if (line := lines.next(2.0)) is not None:
            break
        start_pod(node, f"event{number}")  # writes a call to the log once the command follows it
    running.terminate()
    running.communicate(timeout=20)
    assert line is not None
    checked(command_of(words), line)


def test_every_command_is_tested() -> None:
    """The tables above and the tests themselves use every command."""
    tables = {command_of(words) for words, _ in (*BARE, *FULL)}
    over_ssh = {
        f"cluster {verb}" for verb in ("status", "plan", "apply", "remove", "test", "install", "upgrade")
    }  # tests/cluster
    assert {*tables, *IN_LAB, *over_ssh, "init-node", "apply", "confirm", "undo", "plugin use"} == set(
        commands_with_json()
    )
