"""A run that fails, is stopped or is killed in the middle leaves no partial node behind."""

import json

import pytest

from cnictl.lab.lab import Node
from tests.kernel.commands import CONF, INIT_OPTIONS, NETWORK, cnictl, drifted, init, outcomes, snapshot
from tests.waiting import wait_for

pytestmark = pytest.mark.once

PEER = ("--peer", "10.244.1.0/24=10.0.10.51")


def test_unwritable_conf_folder_undoes_everything(node: Node) -> None:
    node.run(["sh", "-ec", "rm -rf /etc/cni/net.d; mkdir -p /etc/cni/net.d; mount -t tmpfs -o ro none /etc/cni/net.d"])
    before = snapshot(node)
    failed = init(node, *PEER, "-o", "json", check=False)
    assert failed.status == 1
    said = json.loads(failed.stdout)
    assert failed.stderr.strip()
    if said["steps"]:  # the run itself found it, not the earlier checks
        assert {step["outcome"] for step in said["steps"]} <= {"undone", "failed", "not reached"}
    assert _without_journal(snapshot(node)) == _without_journal(before)


def test_failing_route_undoes_everything(node: Node) -> None:
    node.run(["ip", "link", "add", "dead", "type", "dummy"], check=False)
    node.run(["ip", "link", "add", "dead", "type", "veth", "peer", "name", "dead0"], check=False)
    before = snapshot(node)
    # the link exists, so that only the kernel can refuse: none of its addresses reaches the peer
    failed = init(node, "--peer", "10.244.1.0/24=10.0.10.51%dead", "-o", "json", check=False)
    assert failed.status == 1
    assert _without_journal(snapshot(node)) == _without_journal(before)


FULL = "mkdir -p /etc/cni/net.d && mount -t tmpfs -o nr_inodes=1,mode=755 none /etc/cni/net.d"
"""A conf folder that looks writable but has no room for a file."""


def test_failure_at_the_last_step_undoes_all_the_others(node: Node) -> None:
    node.run(["sh", "-ec", FULL])
    before = snapshot(node)
    failed = init(node, *PEER, "-o", "json", check=False)
    assert failed.status == 1
    assert "No space left" in failed.stderr
    done = outcomes(failed)
    assert done.pop("cni-conf/10-cnictl.conflist") == "failed"
    assert set(done.values()) <= {"undone", "not reached"}
    assert done["bridge/cni0"] == done["plugin/cnictl-bridge"] == done["route/10.244.1.0/24"] == "undone"
    assert _without_journal(snapshot(node)) == _without_journal(before)

    node.run(["umount", "/etc/cni/net.d"])
    assert set(outcomes(init(node, *PEER, "-o", "json")).values()) == {"changed"}


def _without_journal(seen: dict[str, object]) -> dict[str, object]:
    """Remove cnictl's folders, because a failed run leaves its journal there."""
    tree = seen["tree"]
    assert isinstance(tree, list)
    return {**seen, "tree": [line for line in tree if not line.startswith(("/var/lib/cnictl", "/run/cnictl"))]}


def test_failed_move_restores_the_former_node(node: Node) -> None:
    init(node, *PEER)
    made = snapshot(node)
    node.run(["sh", "-ec", "umask 022; cp -a /etc/cni/net.d /tmp/conf && " + FULL.replace("=1", "=2")])
    node.run(["sh", "-ec", f"cp /tmp/conf/* {CONF}"])
    failed = cnictl(
        node, "init-node", "--subnet", "10.244.4.0/24", "--network", NETWORK, "--bridge", "br-pods", "-o", "json",
        check=False,
    )  # fmt: skip
    assert failed.status == 1
    assert outcomes(failed)["bridge/br-pods"] == "undone", failed.stderr
    node.run(["umount", "/etc/cni/net.d"])
    now = snapshot(node)
    for kind in ("sysctl", "routes", "nft", "iptables", "contents"):
        assert _settled(now[kind]) == _settled(made[kind]), kind
    assert drifted(node) == []


def _settled(value: object) -> object:
    """Sort the entries without link-local routes, because the restored bridge is a new link with another MAC."""
    if not isinstance(value, list):
        return value
    return sorted(json.dumps(item, sort_keys=True) for item in value if "fe80" not in json.dumps(item))


def test_interrupted_run_can_be_continued_or_reset(node: Node) -> None:
    before = snapshot(node)
    init(node, *PEER)
    last = node.run(["sh", "-c", "ls /var/lib/cnictl/journal/*"]).stdout.split()[-1]
    node.run(["sed", "-i", '/"end"/d', last])  # as after a power cut
    node.run(["ip", "link", "delete", "cni0"])
    node.run(["rm", CONF])
    again = init(node, *PEER)
    assert "was cut off at" in again.stderr
    assert drifted(node) == []
    cnictl(node, "reset-node", "--yes")
    after = snapshot(node)
    assert set(after["tree"]) ^ set(before["tree"]) == set()
    assert after == before


def test_apply_repairs_the_rest_if_one_peer_is_unreachable(node: Node) -> None:
    """At boot, when a link is late, the node must not lose its bridge."""
    node.run(["ip", "link", "add", "late", "type", "veth", "peer", "name", "late0"])
    node.run(["sh", "-ec", "ip address add 10.77.0.1/24 dev late; ip link set late up; ip link set late0 up"])
    init(node, *PEER, "--peer", "10.244.2.0/24=10.77.0.2%late")
    node.run(["ip", "address", "flush", "dev", "late"])
    node.run(["ip", "link", "delete", "cni0"])
    node.run(["nft", "flush", "ruleset"])
    failed = cnictl(node, "apply", "-o", "json", check=False)
    assert failed.status == 1
    assert {resource for resource, outcome in outcomes(failed).items() if outcome == "failed"} == {
        "route/10.244.2.0/24"
    }
    assert drifted(node) == ["route/10.244.2.0/24"]


def test_terminated_run_undoes_its_changes(node: Node) -> None:
    """The plugin's self-test takes long enough for the signal to arrive during it."""
    before = snapshot(node)
    command = " ".join(["cnictl init-node", *INIT_OPTIONS, *PEER])
    running = node.popen(["sh", "-c", f"{command} & echo $! > /tmp/pid; wait $!"])
    wait_for(lambda: "cni0" in node.run(["ip", "-br", "link"]).stdout, "the bridge exists", 30)
    node.run(["sh", "-c", "kill -TERM $(cat /tmp/pid)"])
    running.communicate(timeout=60)
    assert running.returncode == 130
    assert _without_journal(snapshot(node)) == _without_journal(before)


def test_simultaneous_runs_wait_for_each_other(node: Node) -> None:
    running = [node.popen(["cnictl", "init-node", *INIT_OPTIONS, *PEER, "-o", "json"]) for _ in range(2)]
    said = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    changed = sorted(json.loads(stdout)["changed"] for stdout, _ in said)
    assert changed[0] == 0 < changed[1]
    assert drifted(node) == []


@pytest.mark.parametrize("step", ["sysctl", "bridge", "masquerade", "forward", "plugin"])
def test_reset_cleans_up_after_a_killed_run(node: Node, step: str) -> None:
    before = snapshot(node)
    command = " ".join(["cnictl init-node", *INIT_OPTIONS, *PEER])
    running = node.popen(["sh", "-c", f"{command} & echo $! > /tmp/pid; wait $!"])
    wait_for(
        lambda: f'"resource": "{step}/' in node.run(["sh", "-c", "cat /var/lib/cnictl/journal/*"], check=False).stdout,
        f"the {step} step has begun",
        30,
    )
    node.run(["sh", "-c", "kill -KILL $(cat /tmp/pid)"])
    running.communicate(timeout=60)
    cnictl(node, "reset-node", "--yes")
    after = snapshot(node)
    assert set(after["tree"]) ^ set(before["tree"]) == set()
    assert after == before
