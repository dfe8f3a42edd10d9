"""From four bare hosts to a cluster by one file: the story of docs/cluster.md, in order."""

import json

from tests.cluster.world import FILE, ON_NODE, World
from tests.kernel.commands import call, seen_source, start_pod


def test_three_nodes_are_made_by_one_file_and_one_command(bare: World) -> None:
    text = bare.text(bare.nodes[:3]).replace("nodes = [\n", "nodes = [\n  # rack 1\n")
    bare.write(text)
    planned = bare.cluster("plan")
    assert "node1 would get 10.244.0.0/24" in planned.stderr
    assert "would change:" in planned.stdout
    assert bare.file == text, "plan wrote the file"
    assert not bare.nodes[0].run(["ls", ON_NODE], check=False).stdout
    done = bare.cluster("apply", "-o", "json")
    document = json.loads(done.stdout)
    assert [row["state"] for row in document["items"]] == ["changed"] * 3
    assert document["assigned"]["node3"] == ["10.244.2.0/24"]
    assert "# rack 1" in bare.file and 'pod_cidr = "10.244.2.0/24"' in bare.file
    for node in bare.nodes[:3]:
        assert node.run(["cat", ON_NODE]).stdout == bare.file
        assert node.run(["stat", "-c", "%U:%G %a", ON_NODE]).stdout.strip() == "root:root 644"
        assert not node.run(["sh", "-c", "ls /run/cnictl/cluster-* 2>/dev/null || true"]).stdout
    rows, findings, status = bare.status()
    assert (findings, status) == ([], 0)
    assert [row["peers_ok"] for row in rows.values()] == [2, 2, 2]


def test_pods_of_two_nodes_reach_each_other_with_their_own_addresses(bare: World) -> None:
    here, there = (start_pod(node, "web") for node in bare.nodes[:2])
    assert seen_source(here, there) == here.address
    for pod in (here, there):
        call(pod.node, "DEL", pod.name)
        pod.node.run(["ip", "netns", "del", pod.name])


def test_second_apply_changes_nothing(bare: World) -> None:
    document = json.loads(bare.cluster("apply", "-o", "json").stdout)
    assert [row["state"] for row in document["items"]] == ["unchanged"] * 3
    assert document["assigned"] == {}
    assert json.loads(bare.cluster("plan", "--exit-code", "-o", "json").stdout)["items"]


def test_fourth_node_is_one_line_and_one_command(bare: World) -> None:
    bare.write(bare.file.replace("]\n", bare.line(bare.nodes[3]) + "]\n"))
    assert bare.cluster("plan", "--exit-code", check=False).status == 1
    done = bare.cluster("apply")
    assert "node4 gets 10.244.3.0/24" in done.stderr
    rows, findings, status = bare.status()
    assert (findings, status) == ([], 0)
    assert [row["peers_ok"] for row in rows.values()] == [3, 3, 3, 3]


def test_node_with_pods_is_not_removed(bare: World) -> None:
    before = bare.file
    pod = start_pod(bare.nodes[3], "db")
    done = bare.cluster("remove", "node4", check=False)
    assert done.status == 1
    assert "node4 has 1 live pod: db" in done.stderr
    assert bare.file == before
    call(pod.node, "DEL", pod.name)
    pod.node.run(["ip", "netns", "del", pod.name])


def test_removed_node_is_reset_and_its_routes_are_gone_everywhere(bare: World) -> None:
    bare.cluster("remove", "node4")
    assert '"node4"' not in bare.file
    assert "# rack 1" in bare.file
    assert not bare.nodes[3].run(["sh", "-c", "ls /etc/cnictl/node.toml 2>/dev/null || true"]).stdout
    for node in bare.nodes[:3]:
        assert "10.244.3.0/24" not in node.run(["ip", "route"]).stdout
    _, findings, status = bare.status()
    assert (findings, status) == ([], 0)


def test_limit_names_the_hosts_that_are_asked(bare: World) -> None:
    rows, _, status = bare.status("--limit", "node1,node2")
    assert list(rows) == ["node1", "node2"]
    assert status == 0
    done = bare.cluster("status", "--limit", "nod1", check=False)
    assert done.status == 2
    assert f"{FILE.rpartition('/')[2]} has no node 'nod1'" in done.stderr
