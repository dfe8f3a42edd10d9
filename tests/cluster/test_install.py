"""`cnictl cluster install` and `upgrade`: hosts get a bundle one after the other, and pods lose nothing by it."""

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
from tests.cluster.world import COMMAND, World, world
from tests.kernel.commands import start_pod
from tests.kernel.plugin.test_upgrade import all_answer
from tests.soak import SOAK

NODES, PODS = (3, 100) if SOAK else (2, 2)


@pytest.fixture(scope="module")
def pods() -> Iterator[tuple[World, list[str]]]:
    """Nodes with live pods, and the pods' addresses."""
    with world(NODES) as made:
        made.write(made.text(made.nodes, with_cidrs=True))
        made.cluster("apply")
        yield made, [start_pod(node, f"p{number}").address for node in made.nodes for number in range(PODS)]


@contextmanager
def no_ping_is_lost(made: World, addresses: list[str]) -> Iterator[None]:
    """Every pod answers every echo request of the first and of the last node."""
    with ExitStack() as stack:
        for node in (made.nodes[0], made.nodes[-1]):
            stack.enter_context(all_answer(node, addresses))
        yield


def rolled_out(made: World, verb: str, *words: str, status: int = 0) -> dict[str, dict[str, Any]]:
    """Rows of a roll-out by node."""
    done = made.cluster(verb, *words, "-o", "json", check=False)
    assert done.status == status, (done.stdout, done.stderr)
    return {row["node"]: row for row in json.loads(done.stdout)["items"]}


def versions_on(node: Node) -> tuple[str, str]:
    """The command's version and the plugin's in use."""
    listed = json.loads(node.run([COMMAND, "plugin", "list", "-o", "json"]).stdout)
    return node.run([COMMAND, "--version"]).stdout.split()[1], listed["current"]


def test_upgrade_that_fails_reverts_and_one_that_works_loses_no_ping(pods: tuple[World, list[str]]) -> None:
    made, addresses = pods
    former = (cnictl.__version__, cnictl.__version__)
    broken = bundles.lay(made, bundles.bundle_of(bundles.FAILS_PODS), "/root/broken.tar.gz")
    whole = bundles.lay(made, bundles.bundle_of(), "/root/whole.tar.gz")
    with no_ping_is_lost(made, addresses):
        rows = rolled_out(made, "upgrade", "--bundle", broken, status=1)
        assert [row["state"] for row in rows.values()] == ["reverted", *["not started"] * (NODES - 1)], rows
        assert "broken" in rows["node1"]["why"]
        assert versions_on(made.nodes[0]) == former
        assert not made.nodes[1].run(["sh", "-c", f"ls -d {HOME} 2>/dev/null || true"]).stdout
        rows = rolled_out(made, "upgrade", "--bundle", whole)
        assert [row["state"] for row in rows.values()] == ["changed"] * NODES, rows
        for row in rows.values():
            assert row["plugin"] == {"before": cnictl.__version__, "after": NEWER}
    for node in made.nodes:
        assert versions_on(node) == (NEWER, NEWER)
        assert not node.run(["sh", "-c", "ls -d /run/cnictl-bundle.* 2>/dev/null || true"]).stdout
    statuses, findings, _ = made.status()
    assert [(row["cnictl"], row["plugin"]) for row in statuses.values()] == [(NEWER, NEWER)] * NODES
    assert not [message for message in findings if "version" in message]
    rows = rolled_out(made, "upgrade", "--bundle", whole)
    assert [row["state"] for row in rows.values()] == ["unchanged"] * NODES
