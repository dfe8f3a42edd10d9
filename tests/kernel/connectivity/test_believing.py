"""`status`, `route list`, `doctor` and others report ok only for what they checked. Otherwise they exit with 1."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cnictl.lab.lab import Lab, Node
from tests.kernel.cluster import Cluster, shell
from tests.kernel.commands import cnictl
from tests.kernel.hints import applies, matches

pytestmark = pytest.mark.once

FAR = "10.244.1.0/24"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Yield two nodes that are each other's peers. Each test leaves them unchanged."""
    with Lab(nodes=2) as lab:
        made = Cluster(lab)
        made.init()
        yield made


def pods(node: Node) -> list[tuple[str, str]]:
    """Return what `status` and `route list` report about the first peer's pod CIDR."""
    shown = json.loads(cnictl(node, "status", "-o", "json", check=False).stdout)["peers"]
    listed = json.loads(cnictl(node, "route", "list", "-o", "json", check=False).stdout)["items"]
    return [(row["pods"], row["pod_cidr"]) for row in (shown[0], listed[0])]


def said_by_doctor(node: Node, *words: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads(cnictl(node, "doctor", "-o", "json", *words, check=False).stdout)["items"]
    return items


def findings(node: Node, *words: str) -> dict[str, str]:
    return {finding["id"]: finding["message"] for finding in said_by_doctor(node, *words)}


def test_peer_that_serves_its_pod_cidr_answers_and_the_status_is_0(cluster: Cluster) -> None:
    assert pods(cluster.here) == [("answers", FAR)] * 2
    assert cnictl(cluster.here, "status").status == cnictl(cluster.here, "route", "list").status == 0
    assert cnictl(cluster.here, "doctor").stdout.startswith("healthy")


@pytest.mark.parametrize(
    ("fault", "back", "forwards"),
    [
        (["cnictl", "reset-node", "--yes"], ["init-node", "--subnet", FAR, "--network", "10.244.0.0/20"], True),
        (
            ["cnictl", "init-node", "--subnet", "10.244.5.0/24", "--network", "10.244.0.0/20"],
            ["init-node", "--subnet", FAR],
            False,
        ),
    ],
    ids=["reset, and forwards all the same", "another pod CIDR"],
)
def test_peer_without_its_pod_cidr_is_named(
    cluster: Cluster, fault: list[str], back: list[str], forwards: bool
) -> None:
    here, there = cluster.here, cluster.there
    peers = ["--peer", f"{here.pod_cidr}={here.address}"]
    there.run(fault)
    try:
        there.run(["sysctl", "-qw", f"net.ipv4.ip_forward={int(forwards)}"])
        assert pods(here) == [("not there", FAR)] * 2
        for command in (("status",), ("route", "list"), ("doctor",)):
            done = cnictl(here, *command, check=False)
            assert done.status == 1, command
            assert f"peer {there.address} answers, but does not have the pod CIDR {FAR}" in done.stdout + done.stderr
        assert list(findings(here)) == ["peer-pods"]
    finally:
        cnictl(there, *back, *peers)
        there.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"])
    assert pods(here) == [("answers", FAR)] * 2


THERE = "probe.owning.in_words: cnictl apply"


@applies(THERE)
def test_peer_that_does_not_forward_is_named_and_the_hint_fixes_it(cluster: Cluster) -> None:
    cluster.there.run(["sysctl", "-qw", "net.ipv4.ip_forward=0"])
    try:
        assert pods(cluster.here) == [("not forwarded", FAR)] * 2
        (finding,) = said_by_doctor(cluster.here)
        assert (finding["id"], "does not forward packets to it" in finding["message"]) == ("peer-pods", True)
        assert finding["hint"]["on"] == cluster.there.address
        assert matches(THERE, finding["hint"]["command"])
        shell(cluster.there, finding["hint"]["command"])
        assert pods(cluster.here) == [("answers", FAR)] * 2
    finally:
        cluster.there.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"])


def test_silent_peer_is_not_healthy(cluster: Cluster) -> None:
    cluster.there.run(["ip", "link", "set", "eth0", "down"])
    try:
        assert [state for state, _ in pods(cluster.here)] == ["unknown"] * 2
        done = cnictl(cluster.here, "doctor", check=False)
        assert "healthy" not in done.stdout and "peer-silent" in done.stdout
    finally:
        cluster.there.run(["ip", "link", "set", "eth0", "up"])
        cnictl(cluster.there, "apply")


def test_link_that_is_not_a_bridge_is_reported(cluster: Cluster) -> None:
    here = cluster.here
    assert cnictl(here, "bridge", "show").status == 0
    here.run(["sh", "-c", "ip link del cni0; ip link add cni0 type veth peer name other"])
    try:
        done = cnictl(here, "bridge", "show", check=False)
        assert (done.status, "cni0 is a veth, not a bridge" in done.stderr) == (1, True)
        assert json.loads(cnictl(here, "bridge", "show", "-o", "json", check=False).stdout)["faults"]
    finally:
        here.run(["ip", "link", "del", "cni0"])
        cnictl(here, "apply")
    here.run(["ip", "link", "set", "cni0", "down"])
    assert cnictl(here, "bridge", "show", check=False).status == 1
    cnictl(here, "apply")


def test_host_that_is_not_set_up_is_not_healthy(cluster: Cluster) -> None:
    outside = cluster.here
    outside.run(["mv", "/etc/cnictl", "/etc/cnictl-away"])
    outside.run(["mv", "/var/lib/cnictl/former.json", "/etc/cnictl-away/"])
    try:
        for words in ((), ("--only", "conf-order"), ("--skip", "no-node"), ("--fix", "--dry-run")):
            done = cnictl(outside, "doctor", *words, check=False)
            assert (done.status, "healthy" in done.stdout) == (1, False), words
            assert "this host is not set up as a cnictl node" in done.stderr
        assert "not set up" in findings(outside)["no-node"]
    finally:
        outside.run(["mv", "/etc/cnictl-away/former.json", "/var/lib/cnictl/"])
        outside.run(["mv", "/etc/cnictl-away", "/etc/cnictl"])


BACK = "doctor.kernel._no_node: cnictl init-node"


@applies(BACK)
def test_hint_restores_a_lost_node_file(cluster: Cluster) -> None:
    here = cluster.here
    here.run(["mv", "/etc/cnictl/node.toml", "/tmp/node.toml"])
    try:
        (finding,) = [finding for finding in said_by_doctor(here) if finding["id"] == "no-node"]
        assert matches(BACK, finding["hint"]["command"])
        shell(here, finding["hint"]["command"])
        assert cnictl(here, "doctor").stdout.startswith("healthy")
        assert shell(here, "cat /etc/cnictl/node.toml") == shell(here, "cat /tmp/node.toml")
    finally:
        here.run(["mv", "/tmp/node.toml", "/etc/cnictl/node.toml"])


def test_doctor_that_skips_every_check_says_so(cluster: Cluster) -> None:
    every = [
        check["id"] for check in json.loads(cnictl(cluster.here, "doctor", "--list", "-o", "json").stdout)["items"]
    ]
    done = cnictl(cluster.here, "doctor", *(word for name in every for word in ("--skip", name)), check=False)
    assert (done.status, done.stdout) == (2, "")
    assert "every check is skipped" in done.stderr
