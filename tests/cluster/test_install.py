"""`cluster install` and `upgrade` install a bundle on one host after the other, and pods lose no packet."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

import cnictl
from cnictl.cluster.host_install import HOME
from cnictl.lab.lab import Node
from tests.cluster import bundles
from tests.cluster.bundles import NEWER
from tests.cluster.world import COMMAND, World
from tests.kernel.commands import start_pod
from tests.kernel.plugin.test_upgrade import all_answer
from tests.soak import SOAK

FORMER = cnictl.__version__
PODS = 100 if SOAK else 1

soak = pytest.mark.skipif(not SOAK, reason="takes minutes: make soak")


@pytest.fixture(scope="module")
def pods(three: World) -> list[str]:
    """Return the addresses of the pods on the nodes."""
    return [start_pod(node, f"p{number}").address for node in three.nodes for number in range(PODS)]


@contextmanager
def no_ping_is_lost(nodes: list[Node], addresses: list[str]) -> Iterator[None]:
    """Check that every pod answers every echo request from these nodes while the context lasts."""
    with ExitStack() as stack:
        for node in nodes:
            stack.enter_context(all_answer(node, addresses))
        yield


def rolled_out(made: World, verb: str, *words: str, status: int = 0) -> dict[str, dict[str, Any]]:
    """Return the rows of a roll-out by node."""
    done = made.cluster(verb, *words, "-o", "json", check=False)
    assert done.status == status, (done.stdout, done.stderr)
    return {row["node"]: row for row in json.loads(done.stdout)["items"]}


def states(rows: dict[str, dict[str, Any]]) -> list[str]:
    """Return the state of each host after a roll-out."""
    return [row["state"] for row in rows.values()]


def versions_on(node: Node) -> tuple[str, str]:
    """Return the version of the command, and of the plugin in use."""
    script = f"{COMMAND} --version; grep '^library=' /opt/cni/bin/cnictl-bridge"
    words = node.run(["sh", "-c", script]).stdout.split()
    return words[1], words[-1].rpartition("/")[2].strip("'")


def has_bundles(node: Node) -> bool:
    """Return whether a node has a bundle installed, or a copy of one left behind."""
    return bool(node.run(["sh", "-c", f"ls -d {HOME} /run/cnictl-bundle.* 2>/dev/null || true"]).stdout)


def take_back(node: Node) -> None:
    """Restore a node's former plugin and command."""
    node.run([COMMAND, "plugin", "use", FORMER])
    node.run(["sh", f"{HOME}/current/install.sh", "uninstall"])
    node.run([COMMAND, "plugin", "uninstall", NEWER])


def test_upgrade_stops_at_the_host_that_fails_and_no_pod_loses_a_ping(three: World, pods: list[str]) -> None:
    path = bundles.lay(three, bundles.bundle_of(bundles.FAILS_ON_NODE2), "/root/broken.tar.gz")
    with no_ping_is_lost([three.nodes[2]], pods):
        done = three.cluster("upgrade", "--bundle", path, check=False)
    assert done.status == 1
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    assert [row[:2] for row in rows] == [["node1", "changed"], ["node2", "reverted"], ["node3", "not"]], done.stdout
    assert "broken" in done.stdout
    assert f"stopped at node2; cnictl {NEWER} is on node1; not started: node3" in done.stderr
    assert versions_on(three.nodes[0]) == (NEWER, NEWER)
    assert versions_on(three.nodes[1]) == versions_on(three.nodes[2]) == (FORMER, FORMER)
    assert not has_bundles(three.nodes[2])
    take_back(three.nodes[0])
    assert versions_on(three.nodes[0]) == (FORMER, FORMER)
    assert not has_bundles(three.nodes[0])


def test_host_without_cnictl_gets_it_and_is_left_clean(three: World) -> None:
    node = three.nodes[2]
    node.run(["mv", COMMAND, "/root/kept"])
    try:
        assert states(rolled_out(three, "install")) == ["unchanged", "unchanged", "changed"]
        assert versions_on(node)[0] == FORMER
        assert node.run(["find", HOME, "/usr/local/bin/cnictl", "!", "-user", "root", "-o", "-perm", "/022", "!",
                         "-type", "l"]).stdout == ""  # fmt: skip
        node.run(["sh", f"{HOME}/current/install.sh", "uninstall"])
        assert not has_bundles(node)
    finally:
        node.run(["mv", "/root/kept", COMMAND])


@soak
def test_upgrade_of_three_nodes_under_a_hundred_pods_each(three: World, pods: list[str]) -> None:
    whole = bundles.lay(three, bundles.bundle_of(), "/root/whole.tar.gz")
    unfit = bundles.lay(three, bundles.bundle_of(bundles.FAILS_SELF_TEST), "/root/unfit.tar.gz")
    with no_ping_is_lost(three.nodes, pods):
        rows = rolled_out(three, "upgrade", "--bundle", unfit, status=1)
        assert states(rows) == ["reverted", "not started", "not started"]
        assert "self-test" in rows["node1"]["why"]
        assert states(rolled_out(three, "upgrade", "--bundle", whole, "--dry-run")) == ["would change"] * 3
        rows = rolled_out(three, "upgrade", "--bundle", whole)
        assert states(rows) == ["changed"] * 3
    for row in rows.values():
        assert row["cnictl"] == row["plugin"] == {"before": FORMER, "after": NEWER}
    statuses, findings, _ = three.status()
    assert [(row["cnictl"], row["plugin"]) for row in statuses.values()] == [(NEWER, NEWER)] * 3
    assert not [message for message in findings if "version" in message]
    assert states(rolled_out(three, "upgrade", "--bundle", whole)) == ["unchanged"] * 3
    for node in three.nodes:
        take_back(node)
