"""`cnictl watch` restores what others remove. A repeated conflict is reported, and watch stops repairing it."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cnictl.lab.lab import Lab, Node
from cnictl.node.plugin import program
from tests.kernel.commands import Lines, cnictl, drifted, init, start_pod
from tests.waiting import wait_for

pytestmark = pytest.mark.once

PEER = ("--peer", "10.244.1.0/24=10.0.10.51")


class Watching:
    """A running `cnictl watch`."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.process: subprocess.Popen[str] = node.popen(["cnictl", "watch"])
        self.lines = Lines(self.process.stderr)
        self.until("watching: ")

    def until(self, words: str, bound: float = 30.0) -> str:
        """Return the next line of its output that contains these words."""
        while True:
            line = self.lines.next(bound)
            assert line is not None, f"watch never printed {words!r}"
            if words in line:
                return line


def signal(node: Node, name: str) -> None:
    """Send a signal to the running `cnictl watch`."""
    pid = json.loads(node.run(["cat", "/run/cnictl/watch.json"]).stdout)["pid"]
    node.run(["kill", f"-{name}", str(pid)], check=False)


@contextmanager
def watching(node: Node) -> Iterator[Watching]:
    running = Watching(node)
    try:
        yield running
    finally:
        signal(node, "TERM")
        running.process.communicate(timeout=20)


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with Lab(nodes=1) as lab:
        init(lab.nodes[0], *PEER)
        yield lab.nodes[0]


@pytest.mark.parametrize(
    ("taken", "told", "by"),
    [
        ("nft flush ruleset", "masquerade packets from 10.244.0.0/24", "nft"),
        ("ip address flush dev cni0", "add address 10.244.0.1/24 to cni0", ""),
        ("ip route del 10.244.1.0/24", "route 10.244.1.0/24 through", ""),
        ("ip link delete cni0", "make the bridge cni0", ""),
        ("sysctl -qw net.ipv4.ip_forward=0", "turn on forwarding of IPv4", ""),
    ],
    ids=["rules", "address", "route", "bridge", "forwarding"],
)
def test_watch_restores_what_others_remove(node: Node, taken: str, told: str, by: str) -> None:
    with watching(node) as watch:
        node.run(taken.split())
        line = watch.until(told)
        assert line.startswith("repaired: ")
        assert not by or f"changed by {by} (process" in line
        wait_for(lambda: drifted(node) == [], "no resource is drifted")
    run = json.loads(cnictl(node, "history", "-o", "json").stdout)["items"][0]
    assert (run["command"], run["outcome"]) == ("watch", "done")


def test_pods_come_and_go_and_files_are_edited_without_a_repair(node: Node) -> None:
    with watching(node) as watch:
        pod = start_pod(node, "calm")
        assert pod.pings("10.244.0.1")
        node.run(["ip", "netns", "delete", "calm"])
        node.run(["sed", "-i", "s/nat = true/nat = false/", "/etc/cnictl/node.toml"])
        node.run(["ip", "route", "add", "198.51.100.0/24", "via", "10.0.0.1"])
        node.run(["ip", "route", "del", "198.51.100.0/24"])
        node.run(["sed", "-i", "s/nat = false/nat = true/", "/etc/cnictl/node.toml"])
        node.run(["ip", "route", "del", "10.244.1.0/24"])
        assert "route 10.244.1.0/24" in watch.until("repaired: ")
    cnictl(node, "ipam", "gc")


def test_repeated_removal_is_reported_once_and_not_repaired(node: Node) -> None:
    with watching(node) as watch:
        enemy = node.popen(["sh", "-c", "while :; do ip route del 10.244.1.0/24 2>/dev/null; done"])
        try:
            told = watch.until("keeps being changed", 60)
            assert "route/10.244.1.0/24" in told
        finally:
            enemy.kill()
            enemy.communicate()
        state = json.loads(node.run(["cat", "/run/cnictl/watch.json"]).stdout)
        assert state["repairs"]["route/10.244.1.0/24"] == 5
        assert list(state["given_up"]) == ["route/10.244.1.0/24"]
        assert drifted(node) == ["route/10.244.1.0/24"]
        signal(node, "HUP")
        watch.until("repaired: route 10.244.1.0/24")
    assert drifted(node) == []


def test_watch_ends_on_a_signal_without_further_output(node: Node) -> None:
    with watching(node) as watch:
        signal(node, "TERM")
        _, said = watch.process.communicate(timeout=20)
        assert (watch.process.returncode, said) == (0, "")


def test_unit_is_valid(node: Node) -> None:
    node.run(["sh", "-c", "cnictl watch --unit > /tmp/cnictl-watch.service"])
    folder = os.path.dirname(program.COMMAND)  # systemd requires a program there, which a node without systemd lacks
    node.run(["sh", "-c", f"mkdir -p {folder}; cp /usr/bin/true {program.COMMAND}"])
    checked = node.run(["systemd-analyze", "verify", "/tmp/cnictl-watch.service"], check=False)
    said = [line for line in checked.stderr.splitlines() if "Command 'man" not in line]  # the lab has no manual pages
    node.run(["rm", "-r", program.HOME])
    assert said == []
