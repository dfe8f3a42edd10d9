"""Build a cluster from six bare hosts and one file, in the order of docs/cluster.md."""

import json
import time
from itertools import permutations

from cnictl.lab.lab import Node
from tests.cluster.world import FILE, ON_NODE, World
from tests.kernel.commands import call, start_pod
from tests.waiting import wait_for

GONE_WITHIN = 15.0
"""The limit in seconds on a busy machine. On an idle one it takes five."""


def matrix(world: World) -> dict[tuple[str, str], str]:
    """Return the state of each pair of pods in `cluster test`. `ok` means the receiver saw the sender's address."""
    start = time.monotonic()
    document = json.loads(world.cluster("test", "-o", "json", check=False).stdout)
    print(f"cluster test of {len(document['summary']['hosts'])} hosts: {time.monotonic() - start:.1f} s")
    return {(cell["from"], cell["to"]): cell["state"] for cell in document["items"] if cell["check"] == "pod-pod"}


def test_one_file_and_one_command_set_up_five_nodes(bare: World) -> None:
    text = bare.text(bare.nodes[:5]).replace("nodes = [\n", "nodes = [\n  # rack 1\n")
    bare.write(text)
    planned = bare.cluster("plan")
    assert "node1 would get 10.244.0.0/24" in planned.stderr
    assert "would change:" in planned.stdout
    assert bare.file == text, "plan wrote the file"
    assert not bare.nodes[0].run(["ls", ON_NODE], check=False).stdout
    done = bare.cluster("apply", "-o", "json")
    document = json.loads(done.stdout)
    assert [row["state"] for row in document["items"]] == ["changed"] * 5
    assert document["assigned"]["node5"] == ["10.244.4.0/24"]
    assert "# rack 1" in bare.file and 'pod_cidr = "10.244.4.0/24"' in bare.file
    for node in bare.nodes[:5]:
        assert node.run(["cat", ON_NODE]).stdout == bare.file
        assert node.run(["stat", "-c", "%U:%G %a", ON_NODE]).stdout.strip() == "root:root 644"
        assert not node.run(["sh", "-c", "ls /run/cnictl/cluster-* 2>/dev/null || true"]).stdout
    rows, findings, status = bare.status()
    assert (findings, status) == ([], 0)
    assert [row["peers_ok"] for row in rows.values()] == [4] * 5


def test_every_pod_reaches_every_other_with_its_own_address(bare: World) -> None:
    assert matrix(bare) == {(sender.name, receiver.name): "ok" for sender, receiver in permutations(bare.nodes[:5], 2)}


def test_second_apply_changes_nothing(bare: World) -> None:
    document = json.loads(bare.cluster("apply", "-o", "json").stdout)
    assert [row["state"] for row in document["items"]] == ["unchanged"] * 5
    assert document["assigned"] == {}
    assert json.loads(bare.cluster("plan", "--exit-code", "-o", "json").stdout)["items"]


def test_sixth_node_is_one_line_and_one_command(bare: World) -> None:
    bare.write(bare.file.replace("]\n", bare.line(bare.nodes[5]) + "]\n"))
    assert bare.cluster("plan", "--exit-code", check=False).status == 1
    done = bare.cluster("apply")
    assert "node6 gets 10.244.5.0/24" in done.stderr
    rows, findings, status = bare.status()
    assert (findings, status) == ([], 0)
    assert [row["peers_ok"] for row in rows.values()] == [5] * 6
    assert matrix(bare) == {(sender.name, receiver.name): "ok" for sender, receiver in permutations(bare.nodes, 2)}


def test_node_with_pods_is_not_removed(bare: World) -> None:
    before = bare.file
    pod = start_pod(bare.nodes[5], "db")
    done = bare.cluster("remove", "node6", check=False)
    assert done.status == 1
    assert "node6 has 1 live pod: db" in done.stderr
    assert bare.file == before
    call(pod.node, "DEL", pod.name)
    pod.node.run(["ip", "netns", "del", pod.name])


def test_removed_node_is_reset_and_its_routes_are_gone_everywhere(bare: World) -> None:
    others, start = bare.nodes[:5], time.monotonic()
    removing = bare.operator.popen(["cnictl", "cluster", "remove", "node6"])
    wait_for(lambda: not _has(bare.nodes[5], "ls /etc/cnictl/node.toml", "node.toml"), "node6 is reset", 60.0)
    left = time.monotonic()
    wait_for(lambda: not any(_has(node, "ip route", "10.244.5.0/24") for node in others), "no host routes to it", 60.0)
    gone = time.monotonic()
    _, said = removing.communicate(timeout=120)
    assert removing.returncode == 0, said
    print(f"node6 reset after {left - start:.1f} s; its routes were gone {gone - left:.1f} s later, on all of 5 hosts")
    assert gone - left < GONE_WITHIN
    assert '"node6"' not in bare.file
    assert "# rack 1" in bare.file
    _, findings, status = bare.status()
    assert (findings, status) == ([], 0)


def _has(node: Node, command: str, text: str) -> bool:
    return text in node.run(["sh", "-c", f"{command} 2>/dev/null || true"]).stdout


def test_limit_selects_the_hosts(bare: World) -> None:
    rows, _, status = bare.status("--limit", "node1,node2")
    assert list(rows) == ["node1", "node2"]
    assert status == 0
    done = bare.cluster("status", "--limit", "nod1", check=False)
    assert done.status == 2
    assert f"{FILE.rpartition('/')[2]} has no node 'nod1'" in done.stderr
