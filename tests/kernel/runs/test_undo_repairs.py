"""`undo` reverts the operator's last run. Repairs are distinguished from it, and stay."""

import json
from typing import Any

import pytest

from cnictl.lab.lab import Node
from tests.kernel.commands import at_terminal, cnictl, drifted, init
from tests.kernel.node.test_routes import routes
from tests.kernel.runs.test_confirm import as_before, in_one_order
from tests.kernel.runs.test_watch import Watching, watching
from tests.waiting import wait_for

pytestmark = pytest.mark.once

PEER = ("--peer", "10.244.1.0/24=10.0.10.51")
MORE = ("route", "add-peer", "10.244.2.0/24", "10.0.10.52")


def runs(node: Node) -> list[dict[str, Any]]:
    return list(json.loads(cnictl(node, "history", "-o", "json").stdout)["items"])


def lose_routes(node: Node) -> None:
    node.run(["sh", "-ec", "ip route flush proto 67; sysctl -qw net.ipv4.ip_forward=0"])


@pytest.mark.parametrize("by", ["watch", "apply", "doctor"])
def test_undo_reverts_the_operators_run_and_no_later_repair(node: Node, by: str) -> None:
    init(node, *PEER)
    before = in_one_order(as_before(node))
    cnictl(node, *MORE)
    if by == "watch":
        with watching(node) as watch:
            lose_routes(node)
            watch.until("repaired: ")
            wait_for(lambda: drifted(node) == [], "no resource is drifted")
    else:
        lose_routes(node)
        cnictl(node, *(("apply",) if by == "apply" else ("doctor", "--fix", "--only", "peer-route", "--only",
                                                         "forwarding")), check=False)  # fmt: skip
    assert drifted(node) == []
    assert [(run["kind"], run["repair"]) for run in runs(node)][-2:] == [("change", False), ("change", False)]
    assert {run["kind"] for run in runs(node)[:-2]} == {"repair"}
    done = cnictl(node, "undo")
    assert "undoes run 2: cnictl route add-peer 10.244.2.0/24 10.0.10.52 (20" in done.stderr
    assert "to undo it: remove the route to 10.244.2.0/24" in done.stderr
    assert "repairs since then stay" in done.stderr
    assert in_one_order(as_before(node)) == before
    assert drifted(node) == []
    cnictl(node, "undo")
    assert routes(node) == {}
    refused = cnictl(node, "undo", check=False)
    assert (refused.status, "only repairs are left to undo" in refused.stderr) == (1, True)


def test_repair_is_undone_only_by_number_with_a_warning(node: Node) -> None:
    init(node, *PEER)
    lose_routes(node)
    cnictl(node, "apply")
    preview = cnictl(node, "undo", "2", "--dry-run")
    assert "run 2 only repaired this node: without it the fault returns" in preview.stderr
    assert drifted(node) == []
    cnictl(node, "undo", "2")
    assert routes(node) == {}
    cnictl(node, "apply")
    assert drifted(node) == []


def test_repairs_within_a_run_are_not_undone(node: Node) -> None:
    init(node, *PEER)
    lose_routes(node)
    cnictl(node, *MORE)
    changes = json.loads(cnictl(node, "history", "2", "-o", "json").stdout)["changes"]
    assert {change["resource"]: change["repair"] for change in changes}["route/10.244.1.0/24"] is True
    done = cnictl(node, "undo")
    assert "stays: route/10.244.1.0/24: run 2 only repaired it" in done.stderr
    assert set(routes(node)) == {"10.244.1.0/24"}


def test_first_apply_of_a_node_is_not_a_repair(node: Node) -> None:
    cnictl(node, "bridge", "up", "--subnet", "10.244.0.0/24", "--network", "10.244.0.0/20")
    before = in_one_order(as_before(node))
    cnictl(node, "apply")
    assert [run["kind"] for run in runs(node)] == ["change", "change"]
    cnictl(node, "undo")
    assert in_one_order(as_before(node)) == before


def test_undo_of_an_edit_that_was_applied_is_not_repaired_by_watch(node: Node) -> None:
    init(node, *PEER)
    node.run(
        ["sh", "-c", "cat >> /etc/cnictl/node.toml"], '\n[[peers]]\npod_cidr = "10.244.2.0/24"\nvia = "10.0.10.52"\n'
    )
    cnictl(node, "apply")
    assert set(routes(node)) == {"10.244.1.0/24", "10.244.2.0/24"}
    assert "node.toml still contains what this run made" in cnictl(node, "undo").stderr
    watch = Watching(node)  # watch checks once before it reports that it watches
    watch.process.kill()
    watch.process.communicate()
    assert set(routes(node)) == {"10.244.1.0/24"}


def test_undo_shows_its_changes_before_it_asks_at_a_terminal(node: Node) -> None:
    init(node, *PEER)
    refused = at_terminal(node, "n", "undo")
    assert refused.status == 1
    assert "undoes run 1: cnictl init-node" in refused.stderr and "to undo it: remove the bridge cni0" in refused.stderr
    assert "nothing was changed" in refused.stderr
    assert drifted(node) == []
    assert at_terminal(node, "y", "undo").status == 0
    assert "cni0" not in node.run(["ip", "-br", "link"]).stdout
