"""Run containerd with its CRI on a throw-away machine."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.waiting import wait_for

from . import image
from .cri import Cri
from .machine import Machine

CONFIG = "/etc/containerd/config.toml"
SOCKET = "/run/containerd/containerd.sock"
LOG = "/var/log/containerd.log"

# Debian's /etc/containerd/config.toml, with the additions that an unprivileged machine without a registry needs.
_CONFIG = """\
version = 2
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    sandbox_image = "{image}"
    restrict_oom_score_adj = true
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "{bin_dir}"
      conf_dir = "/etc/cni/net.d"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.internal.v1.opt"]
    path = "/var/lib/containerd/opt"
"""


def write_config(machine: Machine, bin_dir: str) -> None:
    """Write containerd's configuration with `bin_dir` as its CNI plugin folder. init-node reads it."""
    machine.write(CONFIG, _CONFIG.format(image=image.NAME, bin_dir=bin_dir))


class Containerd:
    """The daemon. It can be killed and started again while its pods keep running."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.start()

    def start(self) -> None:
        """Start the daemon and wait until its CRI answers."""
        with self.machine.path(LOG).open("ab") as log:
            self._daemon = self.machine.start("containerd", log=log)
        wait_for(self.machine.path(SOCKET).exists, "containerd's socket")
        self.cri = Cri(str(self.machine.path(SOCKET)), self.machine.cgroup)
        self.cri.wait_until_ready()

    def kill(self) -> None:
        """Kill the daemon with SIGKILL, as the kernel does when memory is short, and remove its socket file."""
        self.cri.close()
        pid = self.machine.run("pgrep", "--oldest", "--exact", "containerd").strip()  # not a child about to exec
        self.machine.run("kill", "-9", pid)
        self._daemon.wait(10)
        self.machine.path(SOCKET).unlink()

    def lose_pods(self) -> None:
        """Kill the daemon and every pod, and remove the pods' namespaces. As in a reboot, containerd's state stays."""
        self.kill()
        run = self.machine.run
        run("kill", "-9", *self.machine.processes("^/usr/bin/containerd-shim"), *self.machine.processes("^/bin/sleep"))
        for netns in run("find", "/run/netns", "-name", "cni-*").split():
            run("umount", netns)
            run("rm", netns)


@contextmanager
def running(machine: Machine) -> Iterator[Containerd]:
    """Run containerd with the test image on a machine that `write_config` has prepared."""
    image.place_archive(machine)
    daemon = Containerd(machine)
    try:
        machine.run("ctr", "-n", "k8s.io", "images", "import", image.ARCHIVE)
        yield daemon
    finally:
        daemon.kill()
