"""Test cnictl with Debian's Docker and FORWARD set to DROP: Docker started before and after cnictl, and restarted.

dockerd runs in rootless mode, because a node's root has only the rights of a user namespace. Its containers have no
cgroups. Its bridge, rules and published ports are the same as with root.
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
"""runc requires a cgroup hierarchy. Each daemon has its own mount namespace."""
_RUNC = """#!/bin/sh
# the lab's user namespace does not map group 5, that of terminals
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
        # the package brings containerd, whose plugin folder differs from the one that `start_pod` uses
        shell(node, "rmdir /opt/cni/bin; ln -s /usr/lib/cni /opt/cni/bin")

    def start(self, *options: str) -> None:
        """Start dockerd and wait until it answers; by then it has made its rules."""
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
        """Return all lines of iptables-save except cnictl's."""
        saved = self.node.run(["iptables-save"]).stdout
        lines = re.sub(r" ?\[\d+:\d+\]", "", saved).splitlines()
        return [line for line in lines if line[0] != "#" and "cnictl" not in line.lower()]

    def containers_work(self) -> bool:
        """Return whether a container reaches the outside."""
        ping = ["box", "/bin/busybox", "ping", "-c1", "-W2", EXTERNAL]
        return self.node.run([_DOCKER, "run", "--rm", *ping], check=False).status == 0

    @contextmanager
    def published(self, port: int) -> Iterator[None]:
        """Run a server in a container and publish it on a port of the node."""
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
    """Remove the pod, reset the node, and return what `reset-node` wrote to stderr."""
    node.run(["ip", "netns", "delete", "pod"])
    return cnictl(node, "reset-node", "--yes", "--force").stderr


def drops(node: Node) -> bool:
    return "-P FORWARD DROP" in node.run(["iptables", "-S", "FORWARD"]).stdout


def assert_all_works(world: World, dockerd: Dockerd) -> None:
    assert world.missing() == []
    assert dockerd.containers_work()


def test_docker_started_after_cnictl(world: World, dockerd: Dockerd) -> None:
    world.init()
    # dockerd sets FORWARD to DROP if it turned forwarding on itself, as it does when it starts first at boot
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
    # after a reset, docker still has its rules and the forwarding that it needs
    rules = dockerd.rules()
    said = reset(world.here)
    assert "net.ipv4.ip_forward stays on: bridges created since need it: docker0" in said
    assert dockerd.rules() == rules
    assert dockerd.containers_work()


def test_docker_started_before_cnictl(world: World, dockerd: Dockerd) -> None:
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

    # operators recover lost docker rules this way; here the new bridge also gets addresses of the pod network
    dockerd.stop()
    shell(node, "iptables -F; iptables -X; iptables -t nat -F; iptables -t nat -X; ip link delete docker0")
    dockerd.start("--bip", "10.244.0.129/25")
    assert not connects(world.far.run, world.pod.address)
    findings = json.loads(cnictl(node, "doctor", "-o", "json", check=False).stdout)["items"]
    assert [(finding["id"], "docker0" in finding["message"]) for finding in findings] == [
        ("forward-drop", False),
        ("overlap", True),
    ]
    dockerd.stop()
    shell(node, "ip link delete docker0")
    dockerd.start("--bip", "172.17.0.1/16")
    cnictl(node, "doctor", "--fix")
    assert "CNICTL-FORWARD" in head_of(node, "DOCKER-USER")
    assert_all_works(world, dockerd)

    reset(node)
    assert dockerd.rules() == before
    assert dockerd.containers_work()
