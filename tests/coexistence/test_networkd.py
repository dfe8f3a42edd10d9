"""Test cnictl with Debian's systemd-networkd, started before and after cnictl, restarted, and restored by a reset.

networkd sets up the node's own link, and every link that a `.network` file with a wildcard matches.
"""

import os
import subprocess
from collections.abc import Iterator

import pytest

from cnictl.lab.lab import Lab, Node
from tests.kernel.cluster import shell
from tests.kernel.commands import Pod, cnictl, doctor, drifted, init
from tests.kernel.doctor.harness import note
from tests.waiting import wait_for

from .packaged import install, start_bus
from .world import World

pytestmark = pytest.mark.once

_DAEMON = "/lib/systemd/systemd-networkd"
_SETUP = """
echo systemd-network:x:0:0::/:/usr/sbin/nologin >> /etc/passwd
echo systemd-network:x:0: >> /etc/group
echo 0123456789abcdef0123456789abcdef > /etc/machine-id
mkdir -p /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp /run/systemd/network \\
  /run/udev/data /etc/systemd/network
cd /etc/systemd/network
printf '[Match]\\nName=eth0\\n[Network]\\nAddress=%s\\nGateway=10.0.0.1\\nIPv6AcceptRA=no\\n' "$1" > 10-eth0.network
printf '[Match]\\nName=veth* cni*\\n[Network]\\nDHCP=yes\\n' > 50-all.network
"""
"""Maps networkd's user to root, which is a node's only user."""
_START = """
rm -f /run/systemd/netif/links/*
for link in /sys/class/net/*; do echo I:1 > /run/udev/data/n$(cat $link/ifindex); done
exec /lib/systemd/systemd-networkd
"""
"""Writes udev's record of each link, because networkd waits for it and a node has no udev."""
_OURS = "/etc/systemd/network/00-cnictl.network"
_ROUTES = "/etc/systemd/networkd.conf.d/99-cnictl.conf"
_LATER = "/etc/systemd/networkd.conf.d/zz.conf"
_WILDCARD, _FIRST = "/etc/systemd/network/50-all.network", "/etc/systemd/network/00-all.network"
_OTHERS = "/run/systemd/network/10-eth0.network.d"
GATEWAY = "10.244.0.1"
NO_GATEWAY, NO_PEER = "a pod can't reach its own host", "a pod can't reach a pod of the peer's"
_ADDRESSES = "/etc/systemd/network/10-eth0.network.d/99-cnictl.conf"


class Networkd:
    """The daemon on a node, and what an operator does with it."""

    def __init__(self, node: Node) -> None:
        if not os.path.exists(_DAEMON):
            pytest.skip(f"not here: {_DAEMON}, of Debian's systemd")
        self.node = node
        install(node, "dbus")
        start_bus(node)
        node.run(["sh", "-ec", _SETUP, "setup", node.interface])

    def start(self) -> None:
        """Start the daemon and wait until it has set up the node's link."""
        started = ["sh", "-ec", _START]
        self._daemon = self.node.popen(started, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        state = "cat /run/systemd/netif/links/$(cat /sys/class/net/eth0/ifindex) || true"
        wait_for(lambda: "STATE=configured" in shell(self.node, state), "networkd has set eth0 up")

    def restart(self) -> None:
        self._daemon.terminate()
        self._daemon.wait(30)
        self.start()


@pytest.fixture
def world() -> Iterator[World]:
    with Lab(nodes=2) as lab:
        yield World(lab)


def files(node: Node) -> str:
    return shell(node, "cd /etc/systemd; ls -R .; cat network/*.network")


def reaches(pod: Pod, address: str) -> bool:
    """Return whether an echo request is answered at once."""
    return pod.run("ping", "-n", "-c1", "-W0.3", address, check=False).status == 0


def test_networkd_enabled_before_cnictl(world: World) -> None:
    node, networkd = world.here, Networkd(world.here)
    networkd.start()
    before = files(node)
    world.init()
    networkd.restart()
    assert world.missing() == []
    restart = "systemctl restart systemd-networkd"

    def cut_off(fault: str, address: str) -> list[str]:
        """Make the fault and return doctor's findings. After networkd restarts, the pod must not reach `address`."""
        shell(node, fault)
        findings = doctor(node)
        networkd.restart()
        wait_for(lambda: not reaches(world.pod, address), f"the pod can't reach {address}")
        return findings

    def works_again(by_hand: str = "") -> bool:
        """Return whether doctor fixes everything, and check that the pod reaches all addresses after a restart."""
        shell(node, by_hand or ":")
        left = doctor(node, "--fix")
        networkd.restart()
        everyone = (GATEWAY, world.far.address)
        wait_for(
            lambda: all(reaches(world.pod, address) for address in everyone), "the pod reaches its host and its peer"
        )
        return left == []

    fault = f"rm {_ROUTES} {_ADDRESSES}"
    assert cut_off(fault, world.far.address) == ["networkd-routes", "networkd-routes"]
    assert works_again()
    note("networkd-routes", f"{fault}; {restart}", NO_PEER)

    fault = f"printf '[Network]\\nManageForeignRoutes=yes\\n' > {_LATER}"
    assert cut_off(fault, world.far.address) == ["networkd-override"]
    assert works_again(f"rm {_LATER}")
    note("networkd-override", f"{fault}; {restart}", NO_PEER, f"rm {_LATER}; cnictl doctor --fix")

    fault = f"rm {_OURS}"
    assert cut_off(fault, GATEWAY) == ["networkd-links"]
    assert works_again()
    note("networkd-links", f"{fault}; {restart}", NO_GATEWAY)

    fault = f"mv {_WILDCARD} {_FIRST}"
    assert cut_off(fault, GATEWAY) == []
    assert doctor(node)[-1] == "networkd-takes"
    by_hand = f"mv {_FIRST} {_WILDCARD}; networkctl reload"
    assert works_again(by_hand)
    note("networkd-takes", f"{fault}; {restart}", NO_GATEWAY, f"{by_hand}; cnictl doctor --fix")

    assert world.missing() == []
    node.run(["ip", "netns", "delete", "pod"])
    cnictl(node, "reset-node", "--yes", "--force")
    assert files(node) == before


def test_networkd_enabled_after_cnictl(world: World) -> None:
    node = world.here
    init(node, "--peer", f"{world.there.pod_cidr}={world.there.address}")
    networkd = Networkd(node)
    wants = "/etc/systemd/system/multi-user.target.wants"
    shell(node, f"mkdir -p {wants}; ln -s {_DAEMON} {wants}/systemd-networkd.service; echo '# mine' > {_OURS}")
    before = files(node)
    assert drifted(node) == [f"file{_ROUTES}", f"file{_OURS}"]
    cnictl(node, "apply")
    networkd.start()
    # cnictl knows which file configures the uplink only once networkd runs
    assert f"file{_ADDRESSES}" in drifted(node)
    shell(node, f"mkdir {_OTHERS}; printf '[Network]\\nKeepConfiguration=yes\\n' > {_OTHERS}/mine.conf")
    assert f"file{_ADDRESSES}" not in drifted(node)
    shell(node, f"rm -r {_OTHERS}")
    cnictl(node, "apply")
    networkd.restart()
    assert drifted(node) == []
    cnictl(node, "undo")
    assert not shell(node, f"ls {_ADDRESSES} || true")
    cnictl(node, "reset-node", "--yes", "--force")
    assert files(node) == before
