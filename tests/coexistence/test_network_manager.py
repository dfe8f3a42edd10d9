"""Test cnictl with Debian's NetworkManager, started before and after cnictl, restarted, suspended and reset."""

import subprocess
from collections.abc import Iterator

import pytest

from cnictl.lab.lab import Lab, Node
from tests.kernel.cluster import shell
from tests.kernel.commands import cnictl, doctor, drifted, start_pod
from tests.kernel.doctor.harness import note
from tests.waiting import wait_for

from .packaged import install, serve, start_bus
from .world import World

pytestmark = pytest.mark.once

_CONF = "/etc/NetworkManager/conf.d/99-cnictl.conf"
_HOST_CONF = "/etc/NetworkManager/conf.d/10-host.conf"
_LATER = "/etc/NetworkManager/conf.d/99-zz.conf"
_HOST = f"printf '[keyfile]\\nunmanaged-devices=interface-name:eth0\\n' > {_HOST_CONF}"
"""Keeps the node's own link out of NetworkManager: these tests are not about it."""
_START = "mount -o remount,bind,ro /sys; exec NetworkManager --no-daemon"
"""With a read-only /sys, NetworkManager does not wait for udev before it uses a link."""


class NetworkManager:
    """The daemon on a node, and what an operator does with it."""

    def __init__(self, node: Node) -> None:
        self.node = node
        install(node, "network-manager")
        start_bus(node)
        shell(node, _HOST)

    def start(self) -> None:
        """Start the daemon and wait until it has looked at every link."""
        started = ["unshare", "--mount", "sh", "-ec", _START]
        self._daemon = self.node.popen(started, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda: "connected" in self.states().get("lo", ""), "NetworkManager is up")

    def restart(self) -> None:
        self._daemon.terminate()
        self._daemon.wait(30)
        self.start()

    def suspend(self) -> None:
        """Turn networking off and on, as NetworkManager does around a suspend."""
        shell(self.node, "nmcli networking off; nmcli networking on")
        wait_for(lambda: "connected" in self.states().get("lo", ""), "NetworkManager is up again")

    def states(self) -> dict[str, str]:
        """Return the state of each link."""
        said = self.node.run(["nmcli", "-t", "-f", "DEVICE,STATE", "device"], check=False).stdout
        return dict(line.split(":", 1) for line in said.splitlines())

    def managed(self) -> set[str]:
        """Return the links that NetworkManager manages."""
        return {link for link, state in self.states().items() if state != "unmanaged"} - {"lo"}


@pytest.fixture
def world() -> Iterator[World]:
    with Lab(nodes=2) as lab:
        yield World(lab)


def files(node: Node) -> str:
    return shell(node, "cd /etc/NetworkManager; ls -R . ; cat conf.d/*")


def test_network_manager_installed_before_cnictl(world: World) -> None:
    node, manager = world.here, NetworkManager(world.here)
    manager.start()
    before = files(node)
    world.init()
    assert manager.managed() == set()
    for again in (manager.suspend, manager.restart):
        again()
        assert world.missing() == []

    shell(node, f"rm {_CONF}")
    assert doctor(node) == ["network-manager"]
    shell(node, "nmcli general reload")
    wait_for(lambda: not world.pod.pings("10.244.0.1"), "the pod can't reach its gateway")
    assert doctor(node, "--fix") == []
    assert world.missing() == []
    for again in (manager.suspend, manager.restart):
        again()
        assert world.missing() == []
    note("network-manager", f"rm {_CONF}; nmcli general reload", "a pod can't reach its own host")

    fault = f"cp {_HOST_CONF} {_LATER}; nmcli general reload"
    shell(node, fault)
    wait_for(lambda: not world.pod.pings("10.244.0.1"), "the pod can't reach its gateway")
    assert doctor(node)[-1] == "network-manager-takes"
    by_hand = f"rm {_LATER}; nmcli general reload"
    shell(node, by_hand)
    assert doctor(node, "--fix") == []
    assert world.missing() == []
    note("network-manager-takes", fault, "a pod can't reach its own host", f"{by_hand}; cnictl doctor --fix")

    node.run(["ip", "netns", "delete", "pod"])
    cnictl(node, "reset-node", "--yes", "--force")
    assert files(node) == before


def test_network_manager_installed_after_cnictl(world: World) -> None:
    world.init()
    manager = NetworkManager(world.here)
    shell(world.here, f"echo '# mine' > {_CONF}")
    before = files(world.here)
    assert drifted(world.here) == [f"file{_CONF}"]
    cnictl(world.here, "apply")
    manager.start()
    assert manager.managed() == set()
    other = start_pod(world.here, "other")
    serve(other.popen)
    manager.suspend()
    assert (world.missing(), manager.managed(), other.pings("10.244.0.1")) == ([], set(), True)
    cnictl(world.here, "reset-node", "--yes", "--force")
    assert files(world.here) == before
