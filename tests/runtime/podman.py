"""Run podman with its CNI backend on a throw-away machine."""

import json

from . import image
from .machine import Machine

# Without both ulimits podman requests more than a process may have. runc, because crun refuses the hybrid cgroup tree.
_CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]

[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"

[network]
network_backend = "cni"
"""
_STORAGE_CONF = """\
[storage]
driver = "vfs"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"
"""


class Podman:
    """The podman command on one machine. It looks for plugins and networks in its default folders."""

    def __init__(self, machine: Machine, network: str) -> None:
        self.machine = machine
        self.network = network
        machine.write("/etc/containers/containers.conf", _CONTAINERS_CONF)
        machine.write("/etc/containers/storage.conf", _STORAGE_CONF)
        image.place_rootfs(machine)

    def __call__(self, *argv: str) -> str:
        """Run podman and return its stdout. Raises Failed with all its output if it failed."""
        return self.machine.run("podman", *argv)

    def run(self, name: str, *command: str, options: tuple[str, ...] = ()) -> str:
        """Start a container in the background, and return the address that `podman inspect` shows for it."""
        placed = ("--network", self.network, "--cgroup-parent", self.machine.cgroup, "--cap-add", "NET_RAW")
        self("run", "--detach", "--name", name, *placed, *options, "--rootfs", image.ROOTFS, *command)
        return self.address(name)

    def address(self, name: str) -> str:
        """Return the container's address as `podman inspect` shows it; empty while it has none."""
        (container,) = json.loads(self("inspect", name))
        address = container["NetworkSettings"]["Networks"][self.network]["IPAddress"]
        assert isinstance(address, str)
        return address

    def exec(self, name: str, *command: str) -> str:
        """Run a command in the container and return its stdout."""
        return self("exec", name, *command)

    def id(self, name: str) -> str:
        """Return the container's full ID, which is its CNI_CONTAINERID."""
        return self("inspect", "--format", "{{.Id}}", name).strip()

    def expect_ping(self, name: str, *addresses: str) -> None:
        """Raise Failed unless each address answers a container's ping."""
        for address in addresses:
            self.exec(name, "ping", "-c", "1", "-W", "2", address)
