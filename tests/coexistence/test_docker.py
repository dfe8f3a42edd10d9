"""Docker as Debian ships it: its FORWARD drops, before cnictl comes and after, and over its restarts.

dockerd runs in its rootless mode, for a node's root has the rights of a user namespace alone: its containers have no
cgroups. Its bridge, its rules and the ports that it publishes are the same as with root.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cnictl.lab.lab import Lab, Node
from tests.kernel.cluster import shell
from tests.kernel.commands import cnictl
from tests.waiting import wait_for

from .packaged import connects, install
from .world import EXTERNAL, World, on

pytestmark = pytest.mark.once

_DOCKER = "/usr/bin/docker"
_DAEMON = """
mount -t tmpfs cgroup /sys/fs/cgroup
mkdir /sys/fs/cgroup/devices
mount -t cgroup -o devices cgroup /sys/fs/cgroup/devices
exec env XDG_RUNTIME_DIR=/run dockerd --rootless --storage-driver vfs "$@" 2>>/var/log/dockerd.log
"""
"""runc wants to see a cgroup hierarchy; each daemon has a mount namespace of its own."""
_RUNC = """#!/bin/sh
# the group of terminals, 5, is none in the lab's user namespace
[ ! -e config.json ] || sed -i 's/,"gid=5"//' config.json
exec /usr/sbin/runc "$@"
"""
_IMAGE = """
mkdir -p /tmp/image/bin
cp /bin/busybox /tmp/image/bin/
tar -C /tmp/image -c . | docker import - box
"""


class Dockerd:
    """The daemon on a node, and what an operator does with it."""

    def __init__(self, node: Node) -> None:
        self.node = node
        install(node, "docker.io")
        node.run(["sh", "-ec", "cat > /usr/local/bin/runc; chmod 755 /usr/local/bin/runc"], stdin=_RUNC)
        # containerd comes along, and has its plugins elsewhere than `start_pod` looks for them
        shell(node, "rmdir /opt/cni/bin; ln -s /usr/lib/cni /opt/cni/bin")

    def start(self, *options: str) -> None:
        """Until it answers: its rules are made by then."""
        unshare = ["unshare", "--cgroup", "--mount", "sh", "-ec", _DAEMON, "dockerd"]
        self._daemon = self.node.popen([*unshare, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda: self.node.run([_DOCKER, "version"], check=False).status == 0, "dockerd answers")

    def stop(self) -> None:
        self._daemon.terminate()
        self._daemon.wait(30)

    def restart(self) -> None:
        self.stop()
        self.start()

    def rules(self) -> list[str]:
        """All that iptables holds but cnictl's."""
        saved = self.node.run(["iptables-save"]).stdout
        lines = re.sub(r" ?\[\d+:\d+\]", "", saved).splitlines()
        return [line for line in lines if line[0] != "#" and "cnictl" not in line.lower()]

    def containers_work(self) -> bool:
        """Whether a container reaches the outside."""
        ping = ["box", "/bin/busybox", "ping", "-c1", "-W2", EXTERNAL]
        return self.node.run([_DOCKER, "run", "--rm", *ping], check=False).status == 0

    @contextmanager
    def published(self, port: int) -> Iterator[None]:
        """A container's server on a port of the node's."""
        options = ["--rm", "-d", "--name", "served", "--stop-signal", "KILL", "-p", f"{port}:80"]
        serve = ["box", "/bin/busybox", "httpd", "-f"]
        self.node.run([_DOCKER, "run", *options, *serve])
        yield
        self.node.run([_DOCKER, "stop", "served"])


@pytest.fixture
def world() -> Iterator[World]:
    with Lab(nodes=2) as lab:
        yield World(lab)


@pytest.fixture
def dockerd(world: World) -> Dockerd:
    return Dockerd(world.here)


def head_of(node: Node, chain: str) -> str:
    return node.run(["iptables", "-S", chain]).stdout.splitlines()[1]


def reset(node: Node) -> str:
    """What it said."""
    node.run(["ip", "netns", "delete", "pod"])
    return cnictl(node, "reset-node", "--yes", "--force").stderr


def drops(node: Node) -> bool:
    return "-P FORWARD DROP" in node.run(["iptables", "-S", "FORWARD"]).stdout


def assert_all_works(world: World, dockerd: Dockerd) -> None:
    assert world.missing() == []
    assert dockerd.containers_work()


def test_docker_started_after_cnictl(world: World, dockerd: Dockerd) -> None:
    world.init()
    # it drops what is forwarded where it had to turn forwarding on itself, as in a boot that it is first in
    shell(world.here, "sysctl -qw net.ipv4.ip_forward=0")
    dockerd.start()
    assert drops(world.here)
    shell(world.here, _IMAGE)
    assert world.missing() == []
    dockerd.restart()
    assert_all_works(world, dockerd)
    assert cnictl(world.here, "doctor").stdout.startswith("healthy")
    with dockerd.published(8080):
        wait_for(lambda: connects(on(world.lab.outside), world.here.address, 8080), "outside reaches a container")
        assert connects(world.far.run, world.here.address, 8080)
    # what docker made and lives by it has still once cnictl is gone
    rules = dockerd.rules()
    said = reset(world.here)
    assert "net.ipv4.ip_forward stays on: bridges created since need it: docker0" in said
    assert dockerd.rules() == rules
    assert dockerd.containers_work()


def test_docker_that_was_there_first(world: World, dockerd: Dockerd) -> None:
    node = world.here
    dockerd.start()
    shell(node, _IMAGE)
    before = dockerd.rules()
    world.init()
    assert drops(node)
    assert world.missing() == []
    dockerd.restart()
    assert "CNICTL-FORWARD" in head_of(node, "DOCKER-USER")
    assert_all_works(world, dockerd)

    # what operators do to a docker whose rules were lost; this time its bridge is given addresses of pods
    dockerd.stop()
    shell(node, "iptables -F; iptables -X; iptables -t nat -F; iptables -t nat -X; ip link delete docker0")
    dockerd.start("--bip", "10.244.0.129/25")
    assert not connects(world.far.run, world.pod.address)
    found = json.loads(cnictl(node, "doctor", "-o", "json", check=False).stdout)["items"]
    assert [(one["id"], "docker0" in one["message"]) for one in found] == [("forward-drop", False), ("overlap", True)]
    dockerd.stop()
    shell(node, "ip link delete docker0")
    dockerd.start("--bip", "172.17.0.1/16")
    cnictl(node, "doctor", "--fix")
    assert "CNICTL-FORWARD" in head_of(node, "DOCKER-USER")
    assert_all_works(world, dockerd)

    reset(node)
    assert dockerd.rules() == before
    assert dockerd.containers_work()
