"""`history` and `undo` revert each change of a run, and leave what others have changed since."""

import json
from collections.abc import Iterator

import pytest

from cnictl.lab.lab import Lab, Node
from tests.kernel.commands import cnictl, drifted, init, start_pod
from tests.kernel.runs.test_confirm import as_before, in_one_order
from tests.waiting import wait_for

pytestmark = pytest.mark.once

PEER = ("--peer", "10.244.1.0/24=10.0.10.51")


@pytest.fixture
def node() -> Iterator[Node]:
    with Lab(nodes=1) as lab:
        yield lab.nodes[0]


def latest(node: Node) -> dict[str, object]:
    return dict(json.loads(cnictl(node, "history", "-o", "json").stdout)["items"][0])


def test_undo_restores_the_host_and_a_second_undo_finds_nothing(node: Node) -> None:
    before = in_one_order(as_before(node))
    init(node, *PEER)
    assert latest(node)["command"] == "init-node"
    preview = cnictl(node, "undo", "--dry-run", "-o", "json")
    assert json.loads(preview.stdout)["would_change"] > 5
    assert drifted(node) == []
    cnictl(node, "undo")
    assert in_one_order(as_before(node)) == before
    again = cnictl(node, "undo", "1")
    assert "nothing of it is left to undo" in again.stderr
    runs = json.loads(cnictl(node, "history", "-o", "json").stdout)["items"]
    assert [(run["run"], run["outcome"]) for run in runs][-1] == (1, "undone by run 2")


def test_undo_reverts_one_run_among_others(node: Node) -> None:
    init(node)
    cnictl(node, "route", "add-peer", "10.244.1.0/24", "10.0.10.51")
    before = in_one_order(as_before(node))
    cnictl(node, "nat", "disable")
    cnictl(node, "route", "add-peer", "10.244.2.0/24", "10.0.10.52")
    cnictl(node, "undo", "4")
    assert "10.244.2.0/24" not in node.run(["ip", "route"]).stdout
    assert "nat = false" in node.run(["cat", "/etc/cnictl/node.toml"]).stdout
    cnictl(node, "undo", "3")
    assert in_one_order(as_before(node)) == before
    assert drifted(node) == []


def test_rules_and_routes_that_others_added_since_stay(node: Node) -> None:
    init(node, *PEER)
    theirs = (
        "nft add table ip theirs; nft add chain ip theirs out '{ type filter hook output priority 0; }'; "
        "nft add rule ip theirs out counter; iptables -A FORWARD -s 198.51.100.0/24 -j ACCEPT; "
        "ip route add 198.51.100.0/24 via 10.0.0.1"
    )
    node.run(["sh", "-c", theirs])
    cnictl(node, "undo")
    assert "chain out" in node.run(["nft", "list", "table", "ip", "theirs"]).stdout
    assert "198.51.100.0/24" in node.run(["iptables", "-S", "FORWARD"]).stdout
    assert "198.51.100.0/24 via 10.0.0.1" in node.run(["ip", "route"]).stdout
    assert "cnictl" not in node.run(["nft", "list", "ruleset"]).stdout.lower()


def test_settings_changed_since_are_kept_and_named(node: Node) -> None:
    init(node, *PEER)
    node.run(["ip", "route", "replace", "10.244.1.0/24", "via", "10.0.0.1", "proto", "67"])
    done = cnictl(node, "undo", check=False)
    assert done.status == 1
    assert "left: route/10.244.1.0/24" in done.stderr
    assert "10.244.1.0/24 via 10.0.0.1" in node.run(["ip", "route"]).stdout
    assert "cni0" not in node.run(["ip", "-br", "link"]).stdout


def test_bridge_in_use_by_pods_is_not_removed(node: Node) -> None:
    init(node)
    pod = start_pod(node, "pod")
    done = cnictl(node, "undo", check=False)
    assert (done.status, "pods need it" in done.stderr) == (1, True)
    assert pod.pings("10.244.0.1")


def test_forwarding_stays_on_for_a_bridge_added_since(node: Node) -> None:
    init(node)
    node.run(["ip", "link", "add", "docker0", "type", "bridge"])
    node.run(["ip", "address", "add", "172.17.0.1/16", "dev", "docker0"])
    done = cnictl(node, "undo", check=False)
    assert done.status == 1
    assert "sysctl/net.ipv4.ip_forward: bridges created since need it: docker0" in done.stderr
    switch = ["sysctl", "-n", "net.ipv4.ip_forward"]
    assert node.run(switch).stdout == "1\n"
    node.run(["ip", "link", "delete", "docker0"])
    cnictl(node, "reset-node", "--yes")
    assert node.run(switch).stdout == "0\n"


_KILLED_AT_WORK = """
cnictl init-node --subnet 10.244.0.0/24 --network 10.244.0.0/20 --peer 10.244.1.0/24=10.0.10.51 &
until grep -q '"masquerade/' /var/lib/cnictl/journal/* 2>/dev/null; do :; done
kill -9 $!
wait
"""


@pytest.mark.parametrize("way", ["undo", "apply"])
def test_killed_run_is_reported_and_undone_or_continued(node: Node, way: str) -> None:
    before = in_one_order(as_before(node))
    node.run(["sh", "-c", _KILLED_AT_WORK], check=False)
    assert latest(node)["outcome"] == "cut off"
    done = cnictl(node, way)
    if way == "undo":
        assert in_one_order(as_before(node)) == before
    else:
        assert "was cut off at" in done.stderr
        assert drifted(node) == []


_UNDO_KILLED_AT_WORK = """
cnictl undo &
until grep -q '"route/' /var/lib/cnictl/journal/000002.jsonl 2>/dev/null; do :; done
kill -9 $!
wait
"""


def test_next_command_finishes_a_killed_undo(node: Node) -> None:
    before = in_one_order(as_before(node))
    init(node, *PEER)
    node.run(["sh", "-c", _UNDO_KILLED_AT_WORK], check=False)
    assert (latest(node)["command"], latest(node)["outcome"]) == ("undo 1", "cut off")
    assert "finished, run 1 is undone" in cnictl(node, "apply", check=False).stderr
    assert in_one_order(as_before(node)) == before


_AS_CUT_OFF_AHEAD_OF_THE_ROUTE = """
cd /var/lib/cnictl/journal
sed -i '/"end"/d' 000003.jsonl
sed -i '/"taken_back"/d' 000002.jsonl
ip route add 10.244.2.0/24 via 10.0.10.52 dev eth0 proto 67
"""


def test_watch_finishes_a_killed_undo(node: Node) -> None:
    init(node, *PEER)
    before = as_before(node)
    cnictl(node, "route", "add-peer", "10.244.2.0/24", "10.0.10.52")
    cnictl(node, "undo")
    node.run(["sh", "-c", _AS_CUT_OFF_AHEAD_OF_THE_ROUTE])
    assert (latest(node)["command"], latest(node)["outcome"]) == ("undo 2", "cut off")
    watch = node.popen(["cnictl", "watch"])
    try:
        wait_for(lambda: "undone" in cnictl(node, "history").stdout, "the undo is finished", 20)
    finally:
        watch.kill()
        watch.communicate()
    assert as_before(node) == before
    assert drifted(node) == []


def test_unknown_run_is_a_usage_error(node: Node) -> None:
    assert cnictl(node, "undo", "9", check=False).status == 2
    assert cnictl(node, "history", "9", check=False).status == 2
