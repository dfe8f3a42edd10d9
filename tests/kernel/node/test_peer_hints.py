"""If peers come from a cluster file, the hint about a missing peer fixes the cause."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cnictl.cluster.lab_transport import run_over_lab
from cnictl.lab.lab import Lab, Node
from tests.kernel.commands import cnictl, start_pod
from tests.kernel.node.test_reach import all_routes, cluster_text, entries_of, join, learned, put

from ..hints import applies

pytestmark = pytest.mark.once

PAIR = ("node1", "node3")
LINE = "on the operator's machine: add {} to the cluster file if it is missing there, then: cnictl cluster apply"


class World:
    """Three nodes from one file, with a pod on the first and one on the third."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.first, self.second, self.third = lab.nodes
        for node in lab.nodes:
            join(node, cluster_text(entries_of(lab)), "--external", lab.outside.address)
        self.pod, self.far = start_pod(self.first, "near"), start_pod(self.third, "far")

    def check(self, *options: str, target: str = "") -> dict[str, Any]:
        """Return test-connectivity's check on the first node of a pod on another host."""
        words = [
            "test-connectivity",
            "-o",
            "json",
            "--only",
            "pod-other-host",
            "--pod",
            target or self.far.address,
            *options,
        ]
        document = json.loads(cnictl(self.first, *words, check=False).stdout)
        asked = target or self.far.address
        (row,) = (row for row in document["checks"] if row["to"] == asked)
        return dict(row)

    @property
    def named(self) -> tuple[str, str]:
        """The options that name the third node as a peer."""
        return "--peer", f"{self.third.pod_cidr}={self.third.address}"

    def hands_out(self, node: Node, without: Node | None = None) -> None:
        """Do what `cnictl cluster apply` does on a node."""
        entries = [entry for entry in entries_of(self.lab) if without is None or entry[1] != without.address]
        put(node, cluster_text(entries))
        cnictl(node, "apply")


@pytest.fixture(scope="module")
def made() -> Iterator[World]:
    with Lab(nodes=3) as lab:
        yield World(lab)


@pytest.fixture
def world(made: World) -> Iterator[World]:
    """Yield the world, and restore it after the test."""
    yield made
    for node in (made.first, made.third):
        made.hands_out(node)
    assert learned(made.first) == all_routes(made.lab)
    assert made.check()["state"] == "ok"


def run_hint(world: World, check: dict[str, Any]) -> None:
    """Run a hint's command on the host that it names."""
    on = check["hint"]["on"]
    node = next((node for node in world.lab.nodes if node.address == on), world.first)
    node.run(["sh", "-c", check["hint"]["command"]])


def test_target_outside_every_pod_cidr_is_reported_as_such(world: World) -> None:
    check = world.check(target="10.244.77.7")
    assert (check["state"], check["cause_name"]) == ("failed", "unclaimed")
    assert check["cause"] == (
        "no route to 10.244.77.7: no node has this pod CIDR, according to file /etc/cnictl/cluster.toml"
    )
    assert check["hint"]["text"] == LINE.format("the node of 10.244.77.7")


def test_hint_gives_the_line_of_a_node_missing_from_the_file(world: World) -> None:
    world.hands_out(world.first, without=world.third)
    check = world.check(*world.named)
    assert check["cause_name"] == "unclaimed"
    assert "no node has this pod CIDR, according to file" in check["cause"]
    assert check["hint"]["text"] == LINE.format(world.third.address)
    world.hands_out(world.first)
    assert world.check()["state"] == "ok"


@applies("node.reach.peer_hints.route_here: cnictl apply")
def test_node_that_the_file_has_and_the_list_lacks_is_learned_by_apply(world: World) -> None:
    world.hands_out(world.first, without=world.third)
    put(world.first, cluster_text(entries_of(world.lab)))
    check = world.check(*world.named)
    assert (check["cause_name"], check["hint"]["text"]) == ("unclaimed", "cnictl apply")
    run_hint(world, check)
    assert world.check()["state"] == "ok"


def test_apply_restores_a_missing_route(world: World) -> None:
    world.first.run(["ip", "route", "del", world.third.pod_cidr])
    check = world.check()
    assert check["hint"]["text"] == "cnictl apply"
    run_hint(world, check)
    assert world.check()["state"] == "ok"


@applies("node.reach.peer_hints._by_entry: cnictl route del-peer {} --yes; cnictl apply")
def test_static_peer_that_overrides_the_file_is_named_by_the_matrix_and_dropped(world: World) -> None:
    cidr = world.third.pod_cidr
    words = ["sh", "-c", "cat >> /etc/cnictl/node.toml"]
    world.first.run(words, f'[[peers]]\npod_cidr = "{cidr}"\nvia = "10.0.0.123"\n')
    cnictl(world.first, "apply")
    cause = next(cell.cause for cell in run_over_lab(world.lab).failed_cells if (cell.sender, cell.receiver) == PAIR)
    assert cause is not None and cause.host == "node1"
    assert cause.hint.command == f"cnictl route del-peer {cidr} --yes; cnictl apply"
    world.first.run(["sh", "-c", cause.hint.command])
    assert world.check()["state"] == "ok"


def test_node_that_one_hosts_file_lacks_is_named_by_the_matrix(world: World) -> None:
    world.hands_out(world.first, without=world.third)
    matrix = run_over_lab(world.lab)
    assert {(cell.sender, cell.receiver) for cell in matrix.failed_cells} == {PAIR, PAIR[::-1]}
    for cell in matrix.failed_cells:
        assert cell.cause is not None and cell.cause.host == "node1"
        assert cell.cause.words == (
            f"node1 has no peer for node3's pod CIDR {world.third.pod_cidr}: its source of peers says that no node "
            "has this pod CIDR"
        )
        assert cell.cause.hint == LINE.format(world.third.address)


def test_refused_entry_is_named_with_its_reason(world: World) -> None:
    world.hands_out(world.first, without=world.third)
    entries = [*entries_of(world.lab)[:2], ("node2", "10.0.0.1", world.third.pod_cidr)]
    put(world.first, cluster_text(entries))
    cnictl(world.first, "apply")
    hint = world.check(*world.named)["hint"]["text"]
    assert "correct node2 in file /etc/cnictl/cluster.toml, whose entry has no effect here (10.0.0.1 is" in hint
    assert hint.endswith("then: cnictl cluster apply")


def doctor_hint(node: Node, check: str) -> dict[str, Any]:
    items = json.loads(cnictl(node, "doctor", "-o", "json", check=False).stdout)["items"]
    (finding,) = (finding for finding in items if finding["id"] == check)
    return dict(finding)


@applies("node.reach.peer_hints.route_back: cnictl apply")
@pytest.mark.parametrize("what", ["route", "list"])
def test_route_back_is_learned_there(world: World, what: str) -> None:
    if what == "route":
        world.third.run(["ip", "route", "del", world.first.pod_cidr])
    else:
        world.hands_out(world.third, without=world.first)
        put(world.third, cluster_text(entries_of(world.lab)))
    check = world.check()
    assert check["cause_name"] == "no-return-route", check
    assert doctor_hint(world.first, "pods-filtered")["hint"]["command"] == check["hint"]["command"] == "cnictl apply"
    assert check["hint"]["on"] == world.third.address
    run_hint(world, check)
    assert world.check()["state"] == "ok"
