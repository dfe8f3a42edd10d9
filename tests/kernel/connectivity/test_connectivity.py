"""`cnictl test-connectivity` on nodes that init-node set up prints the right output and leaves nothing behind."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator

import pytest

from cnictl.lab.lab import Lab, Node
from cnictl.node.runs.converge import NO_NODE
from tests.kernel.cluster import CHECKS, PINGS, Cluster, served, shell, traces
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Lab(nodes=2) as lab:
        made = Cluster(lab)
        made.init()
        yield made


def test_pods_of_two_nodes_pass_every_check_and_nothing_is_left(cluster: Cluster) -> None:
    assert cluster.test().overall == "uncertain"  # create the folders that a first run creates
    with served(cluster.there) as pod:
        before = traces(cluster.here)
        outcome = cluster.test("--pod", pod)
        assert traces(cluster.here) == before
    assert (outcome.status, outcome.overall) == (0, "ok"), outcome.checks
    assert [row["check"] for row in outcome.checks] == CHECKS
    for row in outcome.checks:
        assert (row["sent"], row["received"], row["cause"]) == (3, 3, None)
        assert 0 <= row["rtt_ms"]["min"] <= row["rtt_ms"]["avg"] <= row["rtt_ms"]["max"] < 1000
    assert outcome.of("own-host")["to"] == cluster.here.address
    assert outcome.of("other-host")["to"] == cluster.there.address
    assert outcome.of("pod-other-host")["to"] == pod
    assert outcome.of("external")["to"] == cluster.external
    empty = traces(cluster.there)
    assert (empty["leases"], empty["records"], empty["notes"], empty["namespaces"]) == ("", "", "", "")


def test_an_answering_gateway_alone_is_uncertain(cluster: Cluster) -> None:
    outcome = cluster.test()
    check = outcome.of("pod-other-host")
    assert (outcome.status, outcome.overall) == (0, "uncertain")
    assert (check["to"], check["state"], check["cause_name"]) == ("10.244.1.1", "uncertain", "gateway-only")


def test_a_pod_on_the_other_node_sees_the_senders_own_address(cluster: Cluster) -> None:
    process = cluster.there.popen(["cnictl", "test-connectivity", "--serve", "-o", "json"])
    assert process.stdout is not None
    announced = json.loads(process.stdout.readline())
    sender = cluster.test("--pod", announced["address"]).checks[0]["from"]
    process.terminate()
    _, heard = process.communicate(timeout=20)
    assert f"pinged by {sender}\n" in heard
    assert set(announced) == {"version", "address", "addresses", "pod", "netns", "seconds"}
    assert announced["seconds"] == 600


def test_serving_ends_by_itself(cluster: Cluster) -> None:
    by_default = 600.0
    done = cluster.there.run(["cnictl", "test-connectivity", "--serve", "--for", "0.2s"], timeout=by_default / 4)
    assert done.stdout.startswith("10.244.1.")
    assert traces(cluster.there)["leases"] == ""


def test_from_an_existing_pod_by_address_and_by_container(cluster: Cluster) -> None:
    with served(cluster.here) as pod, served(cluster.here) as neighbour:
        before = traces(cluster.here)
        by_address = cluster.test("--from", pod)
        container = shell(cluster.here, "ls /var/lib/cnictl/attachments/mynet | head -1").partition("@")[0]
        by_container = cluster.test("--from", container)
        assert traces(cluster.here) == before
    assert {row["from"] for row in by_address.checks} == {pod}
    assert by_address.of("pod-same-host")["to"] == neighbour
    assert by_address.overall == "uncertain"
    assert by_container.checks[0]["from"] in (pod, neighbour)


def test_the_only_pod_has_no_neighbour_to_ping(cluster: Cluster) -> None:
    with served(cluster.here) as pod:
        outcome = cluster.test("--from", pod)
    assert outcome.of("pod-same-host")["state"] == "skipped"
    assert outcome.overall == "uncertain"


def test_from_an_unknown_pod_fails_in_one_line(cluster: Cluster) -> None:
    done = cluster.here.run(["cnictl", "test-connectivity", "--from", "10.244.0.99"], check=False)
    assert (done.status, done.stdout) == (1, "")
    assert done.stderr.startswith("cnictl: no attachment has the address, pod name or container id 10.244.0.99")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_command_and_nothing_is_left(cluster: Cluster, number: signal.Signals) -> None:
    cluster.test()
    before = traces(cluster.here)
    process = cluster.here.popen(["env", "cnictl", "test-connectivity", "--count", "100", "-o", "json"])
    wait_for(lambda: shell(cluster.here, "ls /run/netns").count("cnictl-probe-") == 2, "two probe pods")
    shell(cluster.here, f"pkill -{int(number)} -f '[t]est-connectivity --count 100'")
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert traces(cluster.here) == before


def test_next_run_cleans_up_after_a_killed_one_and_not_after_a_live_one(cluster: Cluster) -> None:
    cluster.test()
    before = traces(cluster.here)
    process = cluster.here.popen(["env", "cnictl", "test-connectivity", "--count", "100", "-o", "json"])
    wait_for(lambda: shell(cluster.here, "ls -A /var/lib/cnictl/attachments/mynet").count("@") == 2, "two pods")
    shell(cluster.here, "pkill -9 -f '[t]est-connectivity --count 100'")
    process.communicate(timeout=20)
    assert traces(cluster.here) != before
    with served(cluster.here) as alive:
        done = cluster.here.run(["cnictl", "test-connectivity", "-o", "json"])
        assert done.stderr.count("which an earlier run left behind") == 0  # serving has already swept
        assert shell(cluster.here, "ls -A /run/cnictl/probe").count("cnictl-probe-") == 1
        assert cluster.test("--from", alive).overall == "uncertain"
    assert traces(cluster.here) == before


def test_a_plugins_error_is_one_line_with_its_message(cluster: Cluster) -> None:
    shell(cluster.here, "sed 's/10.244.0.0.24/10.244.0.0\\/33/' /etc/cni/net.d/10-cnictl.conflist >/tmp/bad.conflist")
    done = cluster.here.run(["cnictl", "test-connectivity", "--conf", "/tmp/bad.conflist"], check=False)
    assert (done.status, done.stdout) == (1, "")
    assert done.stderr.startswith("cnictl: plugin cnictl-bridge, ADD: ")
    assert "CNI code 7" in done.stderr
    assert traces(cluster.here)["namespaces"] == ""


REFERENCE = {
    "cniVersion": "0.4.0",
    "name": "reference",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "cni9",
            "isGateway": True,
            "ipam": {"type": "host-local", "subnet": "10.250.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]},
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}


def test_the_reference_plugins_are_run_as_a_runtime_runs_them(cluster: Cluster) -> None:
    """Plugins of another project accept the chain runner's requests, and their DEL leaves nothing."""
    cluster.test()  # remove what other tests left
    before = traces(cluster.here)
    cluster.here.run(["sh", "-c", "cat >/tmp/reference.conflist"], json.dumps(REFERENCE))
    outcome = cluster.test("--conf", "/tmp/reference.conflist", "--bin-dir", "/usr/lib/cni")
    left = shell(cluster.here, "ls /var/lib/cni/networks/reference | grep '^10' || true")
    shell(cluster.here, "ip link delete cni9; rm -r /var/lib/cni/networks/reference")
    assert outcome.checks[0]["from"].startswith("10.250.0.")
    assert (outcome.states["own-host"], outcome.states["pod-same-host"]) == ("ok", "ok")
    assert left == ""
    assert traces(cluster.here) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--pod", "10.244.1.256"], "octet 256 is over 255"),
        (["--pod", "10.244.1.1"], "is the gateway of 10.244.1.0/24, not a pod"),
        (["--pod", "10.244.0.1"], "is the gateway of 10.244.0.0/24, not a pod"),
        (["--pod", "8.8.8.8"], "is outside the pod network 10.244.0.0/20"),
        (["--external", "1.1.1"], "has 3 parts"),
        (["--external", "::1"], "is not an address that a host can have"),
        (["--external", "2001:db8::10"], "is IPv6, but this node's pods have no such address"),
        (["--serve", "--for", "soon"], "not a time"),
        (["--serve", "--pod", "10.244.1.2"], "leave out --pod"),
        (["--for", "5m"], "--serve is not given"),
        (["--peer", "10.244.1.0/24"], "is not CIDR=VIA[%LINK]"),
        (["--count", "0"], "--count"),
    ],
)
def test_arguments_that_are_wrong_on_every_host_are_status_2(cluster: Cluster, arguments: list[str], said: str) -> None:
    done = cluster.here.run(["cnictl", "test-connectivity", *arguments], check=False)
    assert (done.status, done.stdout) == (2, "")
    assert said in done.stderr


def test_hint_on_a_host_that_is_not_set_up_is_init_node(node: Node) -> None:
    done = node.run(["cnictl", "test-connectivity"], check=False)
    assert (done.status, done.stdout) == (1, "")
    message, hint = NO_NODE
    assert done.stderr == f"cnictl: {message}\n  hint: {hint}\n"


def test_walk_through_is_reproduced(lab: Lab) -> None:
    """With only the bridge, the first two checks pass.

    NAT adds the other host and the outside. Routes add the rest.
    """
    here, there = lab.nodes
    external = lab.outside.address
    for node in lab.nodes:
        shell(
            node,
            f"cnictl init-node --subnet {node.pod_cidr} --network 10.244.0.0/20 --external {external} --no-nat",
        )
    with served(there) as pod:

        def states() -> list[tuple[str, str]]:
            peer = f"{there.pod_cidr}={there.address}"
            arguments = ["cnictl", "test-connectivity", "--peer", peer, "--pod", pod, "-o", "json", *PINGS]
            document = json.loads(here.run(arguments, check=False).stdout)
            assert [row["check"] for row in document["checks"]] == CHECKS
            return [(row["state"], row["cause_name"] or "") for row in document["checks"]]

        assert states() == [("ok", "")] * 2 + [
            ("failed", "no-masquerade"),
            ("failed", "no-route"),
            ("failed", "no-masquerade"),
        ]
        for node in lab.nodes:
            shell(node, "cnictl nat enable")
        assert states() == [("ok", "")] * 3 + [("failed", "no-route"), ("ok", "")]
        shell(here, f"cnictl route add-peer {there.pod_cidr} {there.address}")
        assert states()[3] == ("failed", "no-return-route")
        shell(there, f"cnictl route add-peer {here.pod_cidr} {here.address}")
        assert states() == [("ok", "")] * 5


def test_terminal_and_pipe_get_the_same_lines(cluster: Cluster) -> None:
    piped = cluster.here.run(["cnictl", "test-connectivity", *PINGS])
    assert piped.stdout.splitlines()[0].split()[:4] == ["CHECK", "FROM", "TO", "STATE"]
    leader, follower = os.openpty()
    try:
        process = cluster.here.popen(
            ["cnictl", "test-connectivity", *PINGS], {"COLUMNS": "150"}, stdout=follower, stderr=subprocess.PIPE
        )
        os.close(follower)
        shown = b""
        try:
            while chunk := os.read(leader, 4096):
                shown += chunk
        except OSError:
            pass  # EIO: the last writer has closed the terminal
        process.communicate(timeout=20)
    finally:
        os.close(leader)
    lines = re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", shown).decode().splitlines()

    def without_times(line: str) -> str:
        return re.sub(r"[0-9.]+/[0-9./]+ *|10\.244\.0\.[0-9]+ *", "", line)

    assert list(map(without_times, lines)) == list(map(without_times, piped.stdout.splitlines()))
    assert "uncertain" in shown.decode()
    assert "    hint: " in shown.decode()
