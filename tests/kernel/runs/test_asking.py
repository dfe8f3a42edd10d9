"""A command that removes something shows it and asks first at a terminal. Without a terminal it does not ask."""

import pytest

from cnictl.lab.lab import Node
from tests.kernel.commands import at_terminal, cnictl, doctor, drifted, init, snapshot, start_pod
from tests.waiting import wait_for

pytestmark = pytest.mark.once

PEER = ("--peer", "10.244.1.0/24=10.0.10.51")


@pytest.fixture
def node(shared_node: Node) -> Node:
    """Return the module's node, set up again."""
    init(shared_node, *PEER)
    return shared_node


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("nat", "disable"), "remove the masquerade rules of mynet"),
        (("route", "del-peer", "10.244.1.0/24"), "remove the route to 10.244.1.0/24"),
        (("bridge", "down"), "remove the bridge cni0"),
        (("plugin", "uninstall", "--force"), "remove the plugin"),
        (("undo",), "to undo it: remove the route to 10.244.2.0/24"),
        (("reset-node",), "remove the bridge cni0"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, tuple) else "",
)
def test_answer_no_changes_nothing_and_yes_does_it(node: Node, words: tuple[str, ...], shown: str) -> None:
    cnictl(node, "route", "add-peer", "10.244.2.0/24", "10.0.10.52")
    before = snapshot(node)
    refused = at_terminal(node, "n", *words)
    assert (refused.status, "nothing was changed" in refused.stderr) == (1, True)
    assert shown in refused.stderr.partition("[y/N]")[0]
    assert snapshot(node) == before
    if words != ("reset-node",):  # without a terminal it needs --yes
        assert at_terminal(node, "y", *words).status == 0
    else:
        assert cnictl(node, *words, "--yes").status == 0
    assert snapshot(node) != before
    cnictl(node, "init-node", "--subnet", "10.244.0.0/24", "--network", "10.244.0.0/20", "--nat", *PEER, "--prune")


def test_addresses_are_shown_before_they_are_freed(node: Node) -> None:
    pod = start_pod(node, "pod")
    refused = at_terminal(node, "n", "ipam", "release", "pod", "--force")
    assert refused.status == 1 and f"free {pod.address} of pod" in refused.stderr
    assert pod.pings("10.244.0.1")
    node.run(["ip", "netns", "delete", "pod"])
    wait_for(lambda: "stale" in cnictl(node, "ipam", "list").stdout, "the pod's lease is stale")
    refused = at_terminal(node, "n", "ipam", "gc")
    assert refused.status == 1 and f"free {pod.address} of pod" in refused.stderr
    assert pod.address in cnictl(node, "ipam", "list").stdout
    assert at_terminal(node, "y", "ipam", "gc").status == 0
    assert pod.address not in cnictl(node, "ipam", "list").stdout


def test_no_question_without_a_terminal_or_with_yes(node: Node) -> None:
    done = at_terminal(node, "", "nat", "disable", "--yes")
    assert (done.status, "[y/N]" in done.stderr) == (0, False)
    cnictl(node, "nat", "enable")
    assert "[y/N]" not in cnictl(node, "nat", "disable").stderr
    cnictl(node, "nat", "enable")
    assert drifted(node) == []


def test_host_without_systemd_gets_the_boot_command_once(shared_node: Node) -> None:
    note = "systemd does not run here: this node comes back after a boot only if something runs"
    cnictl(shared_node, "reset-node", "--yes")
    assert init(shared_node).stderr.count(note) == 1
    assert cnictl(shared_node, "status").stdout.count(note) == 1
    healthy = cnictl(shared_node, "doctor")
    assert (healthy.stdout + healthy.stderr).count(note) == 1
    assert doctor(shared_node) == []
    assert note not in init(shared_node, "--mtu", "1400").stderr
