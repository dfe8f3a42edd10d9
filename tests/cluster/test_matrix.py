"""In the matrix of five lab nodes every pair passes, and each fault is named together with its host."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence

import pytest
import typer

from cnictl.cli import cluster_test
from cnictl.cli.output import Format
from cnictl.cluster import matrix_run
from cnictl.cluster.lab_transport import LabTransport, run_over_lab
from cnictl.cluster.matrix import Cell, CellCause, Matrix
from cnictl.cluster.ssh import Session
from cnictl.core.errors import Problem
from cnictl.lab import plan
from cnictl.lab.lab import Lab, Node
from cnictl.node.runs.converge import NO_NODE
from cnictl.probe.pair_reports import NODE_POD, POD_EXTERNAL, POD_NODE, POD_POD
from tests.kernel.cluster import GUARD, shell, traces
from tests.waiting import wait_for

pytestmark = pytest.mark.once


def set_up(lab: Lab) -> None:
    """Set up every host of the lab as a node that has all others as peers."""
    running = []
    for node in lab.nodes:
        networks = [plan.NETWORK, plan.NETWORK6][: len(node.families)]
        subnets, outside = filter(None, (node.pod_cidr, node.pod_cidr6)), (lab.outside.address, lab.outside.address6)
        words = ["--subnet", ",".join(subnets), "--network", ",".join(networks)]
        words += ["--external", ",".join(filter(None, outside))]
        for other in lab.nodes:
            if other is not node:
                words += ["--peer", f"{other.pod_cidr}={other.address}"]
                words += ["--peer", f"{other.pod_cidr6}={other.address6}"] if other.address6 else []
        running.append(node.popen(["cnictl", "init-node", *words]))
    for process in running:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said


@pytest.fixture(scope="module")
def cluster() -> Iterator[Lab]:
    with Lab(nodes=5) as lab:
        set_up(lab)
        yield lab


def cells(matrix: Matrix, check: str = POD_POD) -> dict[tuple[str, str], Cell]:
    """Return the cells of one check in IPv4, by sender and receiver."""
    return {
        (cell.sender, cell.receiver): cell
        for cell in matrix.cells
        if cell.check == check and cell.family in ("ipv4", "")
    }


def cause_of(cell: Cell) -> CellCause:
    assert cell.cause is not None, cell
    return cell.cause


def failed_pairs(matrix: Matrix) -> set[tuple[str, str]]:
    return {pair for pair, cell in cells(matrix).items() if cell.failed}


def with_node(lab: Lab, name: str) -> set[tuple[str, str]]:
    """Return every pair that includes a node."""
    others = [node.name for node in lab.nodes if node.name != name]
    return {(name, other) for other in others} | {(other, name) for other in others}


def test_five_nodes_are_green_both_ways_with_sources_preserved(cluster: Lab) -> None:
    run_over_lab(cluster)  # create the folders of leases and records
    before = [traces(node) for node in cluster.nodes]
    start = time.monotonic()
    matrix = run_over_lab(cluster)
    print(f"the matrix of 5 nodes took {time.monotonic() - start:.1f} s")
    assert matrix.passed, [(cell, cell.cause) for cell in matrix.failed_cells]
    pods = cells(matrix)
    assert len(pods) == len(cells(matrix, NODE_POD)) == len(cells(matrix, POD_NODE)) == 20
    assert all(cell.ping is not None and cell.seen_as == (cell.ping.source,) for cell in pods.values())
    assert [cell.state for cell in cells(matrix, POD_EXTERNAL).values()] == ["ok"] * 5
    assert [traces(node) for node in cluster.nodes] == before


def test_forgotten_peer_is_named_and_the_hint_fixes_it(cluster: Lab) -> None:
    first, third = cluster.nodes[0], cluster.nodes[2]
    shell(first, f"cnictl route del-peer {third.pod_cidr} --yes")
    matrix = run_over_lab(cluster)
    assert failed_pairs(matrix) == {("node1", "node3"), ("node3", "node1")}
    there, back = cells(matrix)["node1", "node3"], cells(matrix)["node3", "node1"]
    assert (there.state, back.state) == ("no answer", "one-way")
    for cell in (there, back):
        assert cause_of(cell).words == "node1 has no peer for node3's pod CIDR 10.244.2.0/24"
        assert cause_of(cell).host == "node1"
    hint = cause_of(there).hint
    assert hint.on == "node1"
    assert hint.command == f"cnictl route add-peer 10.244.2.0/24 {third.address}"
    shell(first, hint.command)
    assert run_over_lab(cluster).passed


def test_host_that_drops_what_it_forwards_is_named_by_its_own_chain(cluster: Lab) -> None:
    shell(cluster.nodes[1], GUARD)
    matrix = run_over_lab(cluster)
    shell(cluster.nodes[1], "nft delete table ip guard; cnictl apply")
    assert failed_pairs(matrix) == with_node(cluster, "node2")
    for pair in with_node(cluster, "node2"):
        cause = cause_of(cells(matrix)[pair])
        assert cause.host == "node2"
        assert "dropped on this node by the policy drop of chain ip guard forward" in cause.words


def test_strict_reverse_path_filter_is_named_with_its_host(cluster: Lab) -> None:
    """The second node reaches the first one's pods over another link, whose reverse path filter refuses its packets."""
    first, second = cluster.nodes[:2]
    for node, number, other in ((first, 1, second), (second, 2, first)):
        shell(
            node,
            f"ip link add second type vxlan id 9 dstport 4789 local {node.address} remote {other.address} dev eth0"
            f" && ip address add 10.9.0.{number}/24 dev second && ip link set second up",
        )
    shell(second, f"ip route replace {first.pod_cidr} via 10.9.0.1 dev second")
    shell(first, "sysctl -qw net.ipv4.conf.second.rp_filter=1")
    matrix = run_over_lab(cluster)
    for node in (first, second):
        shell(node, "ip link delete second; cnictl apply")
    assert failed_pairs(matrix) == {("node1", "node2"), ("node2", "node1")}
    cell = cells(matrix)["node1", "node2"]
    assert cell.state == "one-way"
    assert cause_of(cell).words.startswith("node1: the reverse path filter of second drops packets from 10.244.1.")
    assert cause_of(cell).hint


def test_foreign_rule_that_masquerades_between_pods_is_seen_by_the_receivers(cluster: Lab) -> None:
    rule = "ip saddr 10.244.3.0/24 ip daddr 10.244.0.0/20 oifname eth0 masquerade"
    shell(
        cluster.nodes[3],
        "nft add table ip other; nft add chain ip other post '{ type nat hook postrouting priority -50; }'; "
        f"nft add rule ip other post {rule}",
    )
    matrix = run_over_lab(cluster)
    shell(cluster.nodes[3], "nft delete table ip other")
    assert failed_pairs(matrix) == {("node4", name) for name in ("node1", "node2", "node3", "node5")}
    for pair in failed_pairs(matrix):
        cell = cells(matrix)[pair]
        assert (cell.state, cell.seen_as) == ("masqueraded", (cluster.nodes[3].address,))
        assert cause_of(cell).host == "node4"
        assert cause_of(cell).words.startswith("node4 masquerades packets from pod 10.244.3.")


def test_node_that_is_cut_off_is_red_and_the_others_are_green(cluster: Lab) -> None:
    gone = cluster.nodes[4]
    shell(gone, "ip link set eth0 down")
    matrix = run_over_lab(cluster)
    shell(gone, "ip link set eth0 up; ip route add default via 10.0.0.1; cnictl apply")
    assert failed_pairs(matrix) == with_node(cluster, "node5")
    for pair in with_node(cluster, "node5"):
        assert cause_of(cells(matrix)[pair]).host == "node5"
    assert run_over_lab(cluster).passed


class Unreached(LabTransport):
    """A transport that does not reach one host."""

    def start(self, host: str, argv: Sequence[str]) -> Session:
        if host == "node2":
            raise Problem("connect to host node2 port 22: No route to host")
        return super().start(host, argv)


def test_unreachable_host_fails_the_command(cluster: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended:
        cluster_test.run(["node1", "node2", "node3"], Unreached(cluster), output=Format.JSON)
    assert ended.value.exit_code == 1
    document = json.loads(capsys.readouterr().out)
    hosts = {host["name"]: host["cause"] for host in document["summary"]["hosts"]}
    assert hosts == {"node1": None, "node2": "connect to host node2 port 22: No route to host", "node3": None}
    states = {(item["from"], item["to"]): item["state"] for item in document["items"] if item["check"] == "pod-pod"}
    assert (states["node1", "node3"], states["node1", "node2"]) == ("ok", "not reached")


def test_host_that_is_not_set_up_is_reported_as_such(cluster: Lab) -> None:
    matrix = matrix_run.run(["node1", "outside"], LabTransport(cluster), lambda _: None)
    (report,) = matrix.not_reached
    assert (report.name, report.fault) == ("outside", NO_NODE[0])


def probing(node: Node) -> "subprocess.Popen[str]":
    """Start `cluster-probe` on a node, and return it when its pod is up."""
    process = node.popen(["cnictl", "cluster-probe"], stdin=subprocess.PIPE)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["version"] == 1
    return process


@pytest.mark.parametrize("how", ["end of stdin", "SIGTERM", "SIGHUP", "nonsense"])
def test_probe_that_ends_early_leaves_nothing(cluster: Lab, how: str) -> None:
    node = cluster.nodes[0]
    before = traces(node)
    process = probing(node)
    assert traces(node) != before
    assert process.stdin is not None
    if how.startswith("SIG"):
        process.send_signal(getattr(signal, how))
    elif how == "nonsense":
        process.stdin.write("nonsense\n")
        process.stdin.flush()
    else:
        process.stdin.close()
        process.stdin = None
    _, said = process.communicate(timeout=20)
    assert (process.returncode, "not a message of the test: nonsense" in said) == (
        (1, True) if how == "nonsense" else (0, False)
    )
    assert traces(node) == before


def test_probe_ends_when_its_time_is_up(cluster: Lab) -> None:
    node = cluster.nodes[0]
    before = traces(node)
    process = node.popen(["cnictl", "cluster-probe", "--for", "1s"], stdin=subprocess.PIPE)
    process.wait(timeout=20)
    _, said = process.communicate()
    assert (process.returncode, said) == (1, "cnictl: the time for this test is up\n")
    assert traces(node) == before


def test_next_probe_cleans_up_after_a_killed_one(cluster: Lab) -> None:
    node = cluster.nodes[0]
    before = traces(node)
    process = probing(node)
    process.kill()  # this also kills the command on the node
    process.communicate(timeout=20)
    wait_for(lambda: not shell(node, "pgrep -x cnictl || true"), "the command has ended")
    assert traces(node) != before
    assert run_over_lab(cluster).passed
    assert traces(node) == before


def test_dual_stack_is_tested_in_both_families() -> None:
    with Lab(nodes=3, dual_stack=True) as lab:
        set_up(lab)
        # the lab's IPv6 addresses must finish duplicate address detection first
        wait_for(lambda: run_over_lab(lab).passed, "the matrix passes in both families", 60)
        shell(lab.nodes[0], f"cnictl route del-peer {lab.nodes[1].pod_cidr6} --yes")
        matrix = run_over_lab(lab)
    states: Mapping[tuple[str, str, str], str] = {
        (cell.family, cell.sender, cell.receiver): cell.state for cell in matrix.cells if cell.check == POD_POD
    }
    assert len(states) == 12
    failed = {pair for pair, state in states.items() if state != "ok"}
    assert failed == {("ipv6", "node1", "node2"), ("ipv6", "node2", "node1")}
    for cell in matrix.failed_cells:
        assert cause_of(cell).words == f"node1 has no peer for node2's pod CIDR {lab.nodes[1].pod_cidr6}"
