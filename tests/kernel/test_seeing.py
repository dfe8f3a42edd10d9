"""`status`, `logs`, `metrics`: the node on one screen, its plugin's calls, and both in numbers."""

import json
import re
import select
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cnictl.lab.lab import Lab, Node

from .operator import cnictl, init, start_pod

pytestmark = pytest.mark.once

PROMTOOL = Path(__file__).parents[2] / ".venv" / "bin" / "promtool"


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A node with a peer that answers and one that doesn't, and a pod."""
    with Lab(nodes=2) as lab:
        here, there = lab.nodes
        init(here, "--peer", f"{there.pod_cidr}={there.address}", "--peer", "10.244.7.0/24=10.0.0.99")
        start_pod(here, "web1")
        yield here


def test_status_is_one_screen(node: Node) -> None:
    said = cnictl(node, "status").stdout
    for words in (
        r"bridge +cni0 up, 10.244.0.1/24, MTU 1500",
        r"addresses +1 of 253 used in 10.244.0.0/24",
        r"conf +/etc/cni/net.d: 10-cnictl.conflist\n",
        r"veth\w+ +up +web1 +10.244.0.2",
        r"10.244.1.0/24 +10.0.10.51 +eth0 +ok +answers",
        r"10.244.7.0/24 +10.0.0.99 +eth0 +ok +silent",
        r"inet cnictl masquerade-mynet +10.244.0.0/24 +all but 10.244.0.0/20 +\d+",
        r"bridge/cni0 +ok",
    ):
        assert re.search(words, said), (words, said)


def test_status_counts_packets_and_tells_of_drift_and_of_another_conf(node: Node) -> None:
    pod = start_pod(node, "web2")
    pod.run("ping", "-q", "-c1", "-W1", "192.0.2.10", check=False)
    node.run(["sh", "-c", "echo '{}' > /etc/cni/net.d/05-other.conf; ip route del 10.244.7.0/24"])
    try:
        done = cnictl(node, "status", "-o", "json", check=False)
        found = json.loads(done.stdout)
        assert (done.status, found["drifted"]) == (1, 1)
        assert sum(rule["packets"] for rule in found["rules"]) > 0
        assert found["confs"]["/etc/cni/net.d"][0] == "05-other.conf"
        assert "05-other.conf, not 10-cnictl.conflist" in cnictl(node, "status", check=False).stdout
    finally:
        node.run(["rm", "/etc/cni/net.d/05-other.conf"])
        cnictl(node, "apply")


def test_status_goes_on_with_watch(node: Node) -> None:
    running = node.popen(["cnictl", "status", "--watch", "-o", "json"])
    assert running.stdout is not None
    for _ in range(2):
        text = ""
        while not text.endswith("\n}\n"):
            assert select.select([running.stdout], [], [], 20)[0]
            text += running.stdout.readline()
        assert json.loads(text)["node"]["name"] == "mynet"
    running.kill()
    running.communicate()


def test_logs_choose_and_follow_through_rotation(node: Node) -> None:
    assert [call["verb"] for call in json.loads(cnictl(node, "logs", "web1", "-o", "json").stdout)] == ["ADD"]
    assert json.loads(cnictl(node, "logs", "--failed", "-o", "json").stdout) == []
    assert json.loads(cnictl(node, "logs", "--verb", "del", "-o", "json").stdout) == []
    assert json.loads(cnictl(node, "logs", "10.244.0.2", "-o", "json").stdout)[0]["container"] == "web1"
    assert cnictl(node, "logs", "--verb", "EAT", check=False).status == 2
    following = node.popen(["cnictl", "logs", "-f", "-n", "0", "-o", "json"])
    assert following.stdout is not None
    try:
        for number in range(3):
            while not select.select([following.stdout], [], [], 0.5)[0]:  # until it stands
                start_pod(node, f"next{number}-{len(node.run(['ip', 'netns']).stdout)}")
            assert json.loads(following.stdout.readline())["verb"] == "ADD"
            node.run(["sh", "-c", "cd /var/log/cnictl; mv plugin.log plugin.log.1"])
    finally:
        following.kill()
        following.communicate()


def value(text: str, name: str) -> float:
    """Of the one sample that begins so."""
    (line,) = [line for line in text.splitlines() if line.startswith(name)]
    return float(line.rpartition(" ")[2])


def test_metrics_are_sound_and_only_grow(node: Node) -> None:
    adds = 'cnictl_plugin_call_duration_seconds_count{outcome="ok",verb="ADD"}'
    first = cnictl(node, "metrics", "--no-doctor").stdout
    start_pod(node, "counted")
    node.run(["sh", "-c", "cd /var/log/cnictl; mv plugin.log plugin.log.1"])
    start_pod(node, "counted2")
    second = cnictl(node, "metrics").stdout
    assert value(second, adds) == value(first, adds) + 2
    assert value(second, "cnictl_drifted_resources") == 0
    used = 'cnictl_addresses_used{network="mynet"'
    assert value(second, used) == value(first, used) + 2
    assert value(second, 'cnictl_doctor_findings{check="forwarding"') == 0
    cnictl(node, "metrics", "--textfile", "/tmp/cnictl.prom")
    assert adds in node.run(["cat", "/tmp/cnictl.prom"]).stdout
    assert cnictl(node, "metrics", "--textfile", "/tmp/x.txt", check=False).status == 2


def test_promtool_finds_no_fault_with_the_metrics(node: Node) -> None:
    promtool = shutil.which("promtool") or (str(PROMTOOL) if PROMTOOL.exists() else "")
    if not promtool:
        pytest.skip("not here: promtool (tests/setup.sh fetches it as root)")
    said = cnictl(node, "metrics").stdout
    done = subprocess.run([promtool, "check", "metrics"], input=said, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
