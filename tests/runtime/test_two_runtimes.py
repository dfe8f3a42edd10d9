"""Share one network of a node between podman and containerd. Neither may remove the other's pods."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.waiting import wait_for

from . import containerd
from .containerd import Containerd
from .node import DEBIAN, NETWORK, Node, Wheel, node
from .podman import Podman

VALID = "cni.dev/valid-attachments"


@dataclass(frozen=True)
class Shared:
    """A node with both runtimes."""

    node: Node
    podman: Podman
    daemon: Containerd


@pytest.fixture
def shared(wheel: Wheel) -> Iterator[Shared]:
    """A node with both runtimes at their defaults, and the conf in the folder that both read."""
    with node(DEBIAN, wheel) as fresh, containerd.running(fresh.machine) as daemon:
        fresh.init()
        wait_for(daemon.cri.network_ready, "NetworkReady after init-node")
        yield Shared(fresh, Podman(fresh.machine, NETWORK), daemon)


def collect(node: Node, runtime: str, valid: list[str]) -> None:
    """Call GC from a process with the runtime's name, because these versions of both runtimes do not call GC."""
    conflist = json.loads(node.machine.path("/etc/cni/net.d/10-cnictl.conflist").read_text())
    named = [{"containerID": container, "ifname": "eth0"} for container in valid]
    conf = {**conflist["plugins"][0], "name": NETWORK, "cniVersion": "1.1.0", VALID: named}
    script = (
        "import subprocess, sys; open('/proc/self/comm', 'w').write(sys.argv[1]); "
        "sys.exit(subprocess.call(sys.argv[2:]))"
    )
    environment = {"CNI_COMMAND": "GC", "CNI_PATH": node.layout.bin_dir}
    plugin = f"{node.layout.bin_dir}/cnictl-bridge"
    node.machine.run("python3", "-ISc", script, runtime, plugin, stdin=json.dumps(conf), env=environment)


def test_gc_of_one_runtime_frees_nothing_of_the_other(shared: Shared) -> None:
    node, podman, cri = shared.node, shared.podman, shared.daemon.cri
    container = podman.run("theirs", "sleep", "100000")
    sandboxes = [cri.run_sandbox("kept"), cri.run_sandbox("lost")]
    assert node.leases() == {
        container: podman.id("theirs"),
        **{sandbox.address: sandbox.id for sandbox in sandboxes},
    }

    collect(node, "containerd", [sandboxes[0].id])
    assert node.leases() == {container: podman.id("theirs"), sandboxes[0].address: sandboxes[0].id}
    podman.expect_ping("theirs", sandboxes[0].address)
    collect(node, "podman", [])
    assert node.leases() == {sandboxes[0].address: sandboxes[0].id}

    podman("rm", "--force", "--time", "0", "--all")
    cri.end(*(sandbox.id for sandbox in sandboxes))
    node.expect_nothing_left()
