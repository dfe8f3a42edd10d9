"""Peers from a cluster file change with the file, stay while it is lost, and are refused if they are wrong."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from cnictl.lab.lab import Lab, Node
from tests.kernel.commands import call, cnictl, drifted, start_pod
from tests.waiting import wait_for

from ..doctor.harness import note
from ..hints import applies

pytestmark = pytest.mark.once

FILE = "/etc/cnictl/cluster.toml"
Entry = tuple[str, str, str]
"""Name, address, pod CIDR."""


def cluster_text(entries: list[Entry], network: str = "10.244.0.0/16") -> str:
    nodes = "".join(
        f'\n[[nodes]]\nname = "{name}"\naddress = "{address}"\n' + (f'pod_cidr = "{pod_cidr}"\n' if pod_cidr else "")
        for name, address, pod_cidr in entries
    )
    return f'network = "{network}"\n{nodes}'


def entries_of(lab: Lab) -> list[Entry]:
    return [(f"node{at}", node.address, node.pod_cidr) for at, node in enumerate(lab.nodes)]


def put(node: Node, text: str, path: str = FILE) -> None:
    """Replace the file in one step, as a copy over ssh does."""
    node.run(["sh", "-c", f"cat > {path}.new && mv {path}.new {path}"], stdin=text)


def join(node: Node, text: str, *more: str, check: bool = True) -> Any:
    node.run(["sh", "-c", "cat > /root/cluster.toml"], stdin=text)
    return cnictl(node, "init-node", "--from", "/root/cluster.toml", *more, check=check)


def learned(node: Node) -> dict[str, str]:
    """Return the gateway of every learned route by destination, or its type if it has none, such as `unreachable`."""
    routes = json.loads(node.run(["ip", "-j", "route", "show", "proto", "68"]).stdout)
    return {route["dst"]: route.get("gateway", route.get("type", "")) for route in routes}


def listed(node: Node) -> dict[str, Any]:
    done = cnictl(node, "node", "list", "-o", "json", check=False)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def states(node: Node) -> dict[str, tuple[str, str]]:
    """Return state and reason by name."""
    return {row["name"]: (row["state"], row["why"]) for row in listed(node)["items"]}


def runs(node: Node) -> list[dict[str, Any]]:
    """Return the node's history, latest run first."""
    items: list[dict[str, Any]] = json.loads(cnictl(node, "history", "-o", "json").stdout)["items"]
    return items


def findings(node: Node) -> dict[str, str]:
    """Return the message of each of doctor's findings by check."""
    return {check: message for check, (message, _) in findings_with_hints(node).items()}


def findings_with_hints(node: Node) -> dict[str, tuple[str, str]]:
    """Return message and hint of each of doctor's findings by check."""
    done = cnictl(node, "doctor", "-o", "json", "--skip", "peer-silent", check=False)
    items = json.loads(done.stdout)["items"]
    return {finding["id"]: (finding["message"], finding["hint"]["text"]) for finding in items}


def assert_pods_reach_each_other(first: Node, second: Node) -> None:
    here, there = start_pod(first, "a"), start_pod(second, "b")
    try:
        assert here.pings(there.address) and there.pings(here.address)
    finally:
        for node, pod in ((first, "a"), (second, "b")):
            call(node, "DEL", pod)
            node.run(["ip", "netns", "delete", pod])


class Watch:
    """A running `cnictl watch` on a node."""

    def __init__(self, node: Node) -> None:
        self._process = node.popen(["cnictl", "watch"])
        self.said = ""
        """Its output after it began to watch. Set when it has ended."""

    def __enter__(self) -> "Watch":
        assert self._process.stderr is not None
        while "watching" not in self._process.stderr.readline():
            assert self._process.poll() is None
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self.said = self._process.communicate(timeout=20)[1]

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(timeout=20)


@pytest.fixture(scope="module")
def joined() -> Iterator[Lab]:
    """Yield three nodes that were set up from one file."""
    with Lab(nodes=3) as lab:
        for node in lab.nodes:
            join(node, cluster_text(entries_of(lab)))
        yield lab


@pytest.fixture
def lab(joined: Lab) -> Iterator[Lab]:
    """Yield the three nodes, and restore the first one's file and peers after the test."""
    yield joined
    first = joined.nodes[0]
    put(first, cluster_text(entries_of(joined)))
    cnictl(first, "apply")
    assert drifted(first) == []


def all_routes(lab: Lab) -> dict[str, str]:
    _, second, third = lab.nodes
    return {
        second.pod_cidr: second.address,
        third.pod_cidr: third.address,
        "10.244.0.0/16": "unreachable",
    }


def test_nodes_find_themselves_and_pods_reach_each_other_with_their_own_addresses(lab: Lab) -> None:
    first, second, _ = lab.nodes
    assert learned(first) == all_routes(lab)
    text = first.run(["cat", "/etc/cnictl/node.toml"]).stdout
    assert 'source = "file"' in text and "[[peers]]" not in text
    assert drifted(first) == []
    assert_pods_reach_each_other(first, second)


def test_a_pod_cidr_that_no_node_has_is_refused_immediately(lab: Lab) -> None:
    pod = start_pod(lab.nodes[0], "lonely")
    try:
        done = pod.run("ping", "-n", "-c1", "-W1", "10.244.77.7", check=False)
        assert done.status != 0
        assert "Destination Host Unreachable" in done.stdout
    finally:
        call(lab.nodes[0], "DEL", "lonely")


def test_node_list_shows_each_node_with_its_state(lab: Lab) -> None:
    document = listed(lab.nodes[0])
    assert document["source"]["title"] == f"file {FILE}" and document["source"]["trouble"] == ""
    assert [(row["name"], row["state"], row["route"], row["answers"]) for row in document["items"]] == [
        ("node0", "this node", "", None), ("node1", "routed", "ok", True), ("node2", "routed", "ok", True),
    ]  # fmt: skip


def test_watch_follows_the_file_and_its_replacement(lab: Lab) -> None:
    first, second, third = lab.nodes
    operators = next(run["run"] for run in runs(first) if run["command"] != "watch")
    with Watch(first) as watch:
        put(first, cluster_text([*entries_of(lab)[:2], ("node9", "10.0.0.99", "10.244.9.0/24")]))
        expected = {second.pod_cidr: second.address, "10.244.9.0/24": "10.0.0.99", "10.244.0.0/16": "unreachable"}
        wait_for(lambda: learned(first) == expected, "the file's change is routed", 5.0)
        put(first, cluster_text(entries_of(lab)))
        wait_for(lambda: learned(first) == all_routes(lab), "the former file is routed again", 5.0)
        first.run(["ip", "route", "del", third.pod_cidr])
        wait_for(lambda: learned(first) == all_routes(lab), "a removed route is restored", 5.0)
    *lines, repaired = watch.said.splitlines()
    assert lines and all(line.startswith("followed the source: ") for line in lines), watch.said
    assert repaired.startswith("repaired: ")
    followed = list(itertools.takewhile(lambda run: run["run"] > operators, runs(first)))
    assert len(followed) >= 3 and all(run["command"] == "watch" and run["repair"] for run in followed)
    would_undo = cnictl(first, "undo", "--dry-run").stderr
    assert f"run {operators}" in would_undo, "undo skips watch's changes"


def test_lost_source_removes_no_route_and_is_reported_as_stale(lab: Lab) -> None:
    first = lab.nodes[0]
    with Watch(first) as watch:
        first.run(["rm", FILE])
        wait_for(lambda: listed(first)["source"]["stale_since"], "the source is stale", 5.0)
        assert learned(first) == all_routes(lab)
        watch.kill()
    with Watch(first):  # the source is missing from the start
        cnictl(first, "apply")
        assert learned(first) == all_routes(lab)
        assert "is missing" in findings(first)["source-stale"]
        assert cnictl(first, "node", "list", check=False).status == 1
        put(first, cluster_text(entries_of(lab)))
        wait_for(lambda: not listed(first)["source"]["stale_since"], "the source answers again", 8.0)
    assert "source-stale" not in findings(first)
    symptom = "new nodes go unnoticed; known nodes stay reachable"
    note("source-stale", f"rm {FILE}", symptom, "restore the file; cnictl apply")


@pytest.mark.parametrize(
    "text",
    ["", "network = 7", 'network = "10.244.0.0/16"\nnodes = []\n', "\x00\x01"],
    ids=["empty", "wrong", "no node", "garbage"],
)
def test_wrong_or_empty_file_removes_no_route(lab: Lab, text: str) -> None:
    first = lab.nodes[0]
    put(first, text)
    cnictl(first, "apply")
    assert learned(first) == all_routes(lab)
    assert listed(first)["source"]["trouble"]
    assert "source-stale" in findings(first)


def test_node_that_moved_off_the_link_keeps_its_route_and_is_refused_by_name(lab: Lab) -> None:
    first, second, _ = lab.nodes
    put(first, cluster_text([entries_of(lab)[0], ("node1", "192.0.2.77", second.pod_cidr), entries_of(lab)[2]]))
    cnictl(first, "apply")
    assert learned(first) == all_routes(lab)
    assert states(first)["node2"] == ("routed", "")
    refused = [(row["state"], row["why"]) for row in listed(first)["items"] if row["name"] == "node1"]
    assert any(state == "refused" and "192.0.2.77" in why for state, why in refused), refused
    assert any("as before, because its new entry is refused" in why for _, why in refused), refused
    assert_pods_reach_each_other(first, second)


def test_watch_repairs_drift_without_an_event_within_a_minute(lab: Lab) -> None:
    first = lab.nodes[0]
    conf = "/etc/cni/net.d/10-cnictl.conflist"
    with Watch(first) as watch:
        first.run(["rm", conf])
        wait_for(lambda: first.run(["test", "-s", conf], check=False).status == 0, "the conf is written again", 75.0)
    assert watch.said.startswith("repaired: "), watch.said


def test_node_that_the_file_does_not_list_says_so_everywhere(lab: Lab) -> None:
    first = lab.nodes[0]
    put(first, cluster_text(entries_of(lab)[1:]))
    cnictl(first, "apply")
    assert learned(first) == all_routes(lab)
    state, why = states(first)[""]
    assert state == "absent" and why in findings(first)["source-stale"]
    assert cnictl(first, "node", "list", check=False).status == 1
    assert f"warning: {why}" in cnictl(first, "status", check=False).stdout


def test_every_command_works_despite_a_link_loop_at_the_cluster_file(lab: Lab) -> None:
    first = lab.nodes[0]
    first.run(["sh", "-ec", f"rm {FILE}; ln -s {FILE} {FILE}"])
    try:
        cnictl(first, "apply", check=False)
        assert learned(first) == all_routes(lab)
        rows = json.loads(cnictl(first, "status", "-o", "json", check=False).stdout)["resources"]
        (why,) = (row["summary"] for row in rows if row["state"] == "not known")
        assert why == f"{FILE}: Too many levels of symbolic links"
        assert "source-stale" in findings(first)
    finally:
        first.run(["rm", FILE])


def test_list_of_another_cluster_is_accepted_only_with_accept_empty(lab: Lab) -> None:
    first = lab.nodes[0]
    put(first, cluster_text([("other", "10.0.0.200", "10.244.44.0/24")]))
    cnictl(first, "apply")
    assert learned(first) == all_routes(lab)
    assert "but not this one, and 2 of 2 known peers are missing" in listed(first)["source"]["trouble"]
    cnictl(first, "apply", "--accept-empty")
    assert learned(first) == {"10.244.44.0/24": "10.0.0.200", "10.244.0.0/16": "unreachable"}


def test_file_that_another_user_may_write_is_not_used(lab: Lab) -> None:
    first = lab.nodes[0]
    put(first, cluster_text(entries_of(lab)[:1]))
    first.run(["chmod", "666", FILE])
    cnictl(first, "apply")
    assert learned(first) == all_routes(lab)
    assert "users other than root" in listed(first)["source"]["trouble"]


def test_false_announcements_are_refused_by_name_and_change_nothing(lab: Lab) -> None:
    first = lab.nodes[0]
    lies = [("gateway", "10.0.0.1", "10.244.50.0/24"), ("far", "192.0.2.7", "10.244.51.0/24")]
    put(first, cluster_text([*entries_of(lab), *lies]))
    cnictl(first, "apply")
    assert learned(first) == all_routes(lab)
    shown = states(first)
    assert shown["gateway"] == ("refused", "10.0.0.1 is this node's default gateway")
    assert shown["far"][0] == "refused" and "not on a network segment" in shown["far"][1]
    assert "node-refused" in findings(first)
    fault = "a node in cluster.toml has this node's default gateway as its address"
    symptom = "its pods are unreachable; no traffic is diverted"
    note("node-refused", fault, symptom, "correct it in cluster.toml; cnictl apply")


def test_conflict_keeps_pods_and_pod_cidr_and_is_reported_everywhere(lab: Lab) -> None:
    first = lab.nodes[0]
    pod = start_pod(first, "kept")
    others = entries_of(lab)[1:]
    try:
        put(first, cluster_text([("node0", first.address, "10.244.60.0/24"), *others]))
        cnictl(first, "apply")
        assert learned(first) == all_routes(lab), "others are reached as before"
        assert states(first)["node0"][0] == "conflict"
        assert "gives this node 10.244.60.0/24" in findings(first)["source-conflict"]
        screen = cnictl(first, "status", check=False)
        assert screen.status == 1 and "gives this node 10.244.60.0/24" in screen.stdout
        assert f"file {FILE}" in screen.stdout
        refusal = plugin_status(first)
        assert refusal["code"] == 50 and "10.244.60.0/24" in refusal["msg"]
        assert pod.pings("10.244.0.1")
        assert f'subnet = "{first.pod_cidr}"' in first.run(["cat", "/etc/cnictl/node.toml"]).stdout
        put(first, cluster_text(entries_of(lab)))
        cnictl(first, "apply")
        assert plugin_status(first) is None
        assert "source-conflict" not in findings(first)
        symptom = "the source and the node disagree; pods keep running"
        fault = "cluster.toml has another pod_cidr for this node"
        note("source-conflict", fault, symptom, "restore its pod_cidr in cluster.toml; cnictl apply")
    finally:
        call(first, "DEL", "kept")


def plugin_status(node: Node) -> Any:
    """Return the error of STATUS for the installed conf, or None."""
    conf = json.loads(node.run(["cat", "/etc/cni/net.d/10-cnictl.conflist"]).stdout)
    request = {"cniVersion": "1.1.0", "name": conf["name"], **conf["plugins"][0]}
    env = {"CNI_COMMAND": "STATUS", "CNI_PATH": "/opt/cni/bin"}
    done = node.run(["/opt/cni/bin/cnictl-bridge"], json.dumps(request), env=env, check=False)
    return json.loads(done.stdout) if done.status else None


def test_static_peers_equal_to_the_source_are_dropped_and_others_override_it(lab: Lab) -> None:
    first, second, third = lab.nodes
    cnictl(first, "reset-node", "--yes")
    where = ("--subnet", first.pod_cidr, "--network", "10.244.0.0/16")
    peers = ("--peer", f"{second.pod_cidr}={second.address}", "--peer", f"{third.pod_cidr}=10.0.0.123")
    cnictl(first, "init-node", *where, *peers)
    done = join(first, cluster_text(entries_of(lab)))
    assert f"drops peer {second.pod_cidr} from node.toml" in done.stderr
    assert f"keeps peer {third.pod_cidr} through 10.0.0.123, which overrides" in done.stderr
    assert learned(first) == {second.pod_cidr: second.address, "10.244.0.0/16": "unreachable"}
    assert drifted(first) == []
    cnictl(first, "route", "del-peer", third.pod_cidr, "--yes")
    cnictl(first, "apply")
    assert learned(first) == all_routes(lab)


def test_undo_of_joining_reverts_everything_and_reset_finds_marked_routes(lab: Lab) -> None:
    first = lab.nodes[0]
    cnictl(first, "reset-node", "--yes")
    assert learned(first) == {}
    assert first.run(["ls", "-A", "/etc/cnictl"], check=False).stdout == ""
    join(first, cluster_text(entries_of(lab)))
    undone = cnictl(first, "undo", "--yes", check=False)
    assert (undone.status, learned(first)) == (0, {}), undone.stderr
    join(first, cluster_text(entries_of(lab)))
    first.run(["rm", "-r", "/etc/cnictl", "/var/lib/cnictl/former.json"])
    cnictl(first, "reset-node", "--yes")
    assert learned(first) == {}
    join(first, cluster_text(entries_of(lab)))


def test_undo_of_a_new_file_restores_the_former_files_routes(lab: Lab) -> None:
    first = lab.nodes[0]
    grown = cluster_text([*entries_of(lab), ("node9", "10.0.0.99", "10.244.9.0/24")])
    join(first, grown)
    assert learned(first) == {**all_routes(lab), "10.244.9.0/24": "10.0.0.99"}
    cnictl(first, "undo", "--yes")
    assert learned(first) == all_routes(lab)
    assert drifted(first) == [], "the former list is restored too"


def test_run_that_fails_leaves_routes_and_list_as_they_were(lab: Lab) -> None:
    first = lab.nodes[0]
    grown = cluster_text([*entries_of(lab), ("node9", "10.0.0.99", "10.244.9.0/24")])
    first.run(["mount", "--bind", "/dev/null", "/opt/cni/bin/cnictl-bridge"])
    try:
        done = join(first, grown, "--bridge", "cni9", check=False)
        assert done.status == 1
    finally:
        first.run(["umount", "/opt/cni/bin/cnictl-bridge"])
    assert learned(first) == all_routes(lab)
    assert drifted(first) == []


def test_dry_run_shows_the_routes_and_keeps_nothing(lab: Lab) -> None:
    first = lab.nodes[0]
    cnictl(first, "reset-node", "--yes")
    done = join(first, cluster_text(entries_of(lab)), "--dry-run")
    assert "proto 68" in done.stdout
    assert learned(first) == {}
    assert first.run(["ls", "-A", "/var/lib/cnictl"], check=False).stdout == ""
    join(first, cluster_text(entries_of(lab)))


@applies("doctor.source._stale: cnictl apply")
def test_hint_restores_a_lost_record(lab: Lab) -> None:
    first = lab.nodes[0]
    first.run(["rm", "/var/lib/cnictl/peers.json"])
    items = json.loads(cnictl(first, "doctor", "-o", "json", check=False).stdout)["items"]
    (finding,) = (finding for finding in items if finding["id"] == "source-stale")
    first.run(["sh", "-c", finding["hint"]["command"]])
    assert "source-stale" not in findings(first)
    assert learned(first) == all_routes(lab)


HEAD = 'network = "10.244.0.0/16"\n[[nodes]]\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEAD + 'name = "x"\naddress = "10.0.0.77"\npod_cidr = "10.244.9.0/24"\n', "address"),
        (HEAD + 'name = "self"\naddress = "{own}"\n', "has no pod CIDR yet"),
        ("network = 3\nnodes = []\n", "network"),
    ],
    ids=["not in it", "without a pod CIDR", "wrong"],
)
def test_unusable_file_is_refused_and_changes_nothing(lab: Lab, text: str, said: str) -> None:
    first = lab.nodes[0]
    before = first.run(["cat", "/etc/cnictl/node.toml"]).stdout
    done = join(first, text.replace("{own}", first.address), check=False)
    assert done.status == 2
    assert said in done.stderr
    assert first.run(["cat", "/etc/cnictl/node.toml"]).stdout == before
