"""Boot and reboot a lab node with this machine's systemd as process 1. /etc, /var and /opt outlast a reboot.

systemd runs in the node's network namespace, and has its own process namespace, mounts and cgroup. A reboot also
removes what a real kernel would lose: the node's links, routes, rules and kernel settings.
"""

import copy
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from cnictl.lab.lab import Node, environment
from tests.kernel.cluster import shell
from tests.runtime.machine import cgroup_removed
from tests.waiting import wait_for

_SYSTEMD = "/lib/systemd/systemd"
_serial = count(1)

_MASKED = (
    "dbus.service", "dbus.socket", "systemd-logind.service", "console-getty.service", "getty-static.service",
    "sys-kernel-debug.mount", "sys-kernel-tracing.mount", "systemd-binfmt.service", "systemd-sysusers.service",
)  # fmt: skip
"""Units that need devices or a user other than root."""

_PREPARE = f"""
echo 0123456789abcdef0123456789abcdef > /etc/machine-id  # without it, systemd sees a first boot and enables all units
mkdir -p /etc/systemd/system
cd /etc/systemd/system
ln -s {_SYSTEMD.rpartition("/")[0]}/system/multi-user.target default.target
for unit in {" ".join(_MASKED)}; do ln -s /dev/null $unit; done
"""

_BOOT = f"""
mount -t proc -o nosuid,nodev,noexec proc /proc
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs /run
find /tmp -xdev -mindepth 1 -delete 2>/dev/null || true  # no tmpfs over /tmp: this checkout may be below it
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount --rbind /dev /dev  # systemd mounts over a /dev that is no mount point
cat /proc/sys/kernel/random/uuid > /run/boot-id
mount --bind /run/boot-id /proc/sys/kernel/random/boot_id
exec env -i container=lab "PATH=$PATH" {_SYSTEMD} --log-target=journal
"""

_LOST = """
ip link delete cni0
ip route flush proto 67
nft flush ruleset
sysctl -qw net.ipv4.ip_forward=0
"""


class Booted:
    """The booted machine. `node` gives access to it as to any lab node, and is a new object after each boot."""

    def __init__(self, below: Node, cgroup: Path) -> None:
        self._below, self._cgroup = below, cgroup
        shell(below, _PREPARE)
        self._boot()

    def _boot(self) -> None:
        unshare = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--cgroup", "sh", "-ec", _BOOT]
        into_cgroup = f'echo $$ > {self._cgroup}/cgroup.procs; exec "$@"'
        self._holder = subprocess.Popen(
            ["sh", "-c", into_cgroup, "sh", *self._below.command(unshare)],
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(lambda: self._systemd() != 0, "systemd starts")
        self.node = copy.copy(self._below)
        self.node.pid = self._systemd()
        wait_for(lambda: self._state() in ("running", "degraded"), "systemd finishes the boot", 30)

    def _systemd(self) -> int:
        """Return systemd's pid on this machine, two processes below the one that entered the node; 0 before it runs."""
        pid = str(self._holder.pid)
        for _ in range(2):
            pid = subprocess.run(["pgrep", "--parent", pid], capture_output=True, text=True, check=False).stdout.strip()
            if not pid:
                return 0
        return int(pid) if Path(f"/proc/{pid}/comm").read_text(encoding="utf-8") == "systemd\n" else 0

    def _state(self) -> str:
        return self.systemctl("is-system-running", check=False)

    def systemctl(self, *words: str, check: bool = True) -> str:
        """Run systemctl and return its stdout."""
        return self.node.run(["systemctl", *words], timeout=60, check=check).stdout.strip()

    def reboot(self) -> None:
        """Shut down as systemd does, and boot again."""
        self.systemctl("reboot", check=False)
        self._holder.wait(60)
        self._below.run(["sh", "-c", _LOST], check=False)
        self._boot()

    def end(self) -> None:
        """Kill the machine at once."""
        self._holder.kill()
        self._holder.wait(10)


@contextmanager
def booted(below: Node) -> Iterator[Booted]:
    """Yield the booted machine, and end it afterwards. Skip the test if this host has no systemd or cgroup2."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    trees = [path for _, path, kind, *_ in mounts if kind == "cgroup2"]
    if not (os.path.exists(_SYSTEMD) and shutil.which("systemctl") and trees):
        pytest.skip("not here: systemd or cgroup2")
    cgroup = Path(trees[0]) / f"cnictl-booted-{os.getpid()}-{next(_serial)}"
    owner = os.stat(f"/proc/{below.pid}").st_uid
    cgroup.mkdir()
    try:
        for name in (".", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"):
            os.chown(cgroup / name, owner, -1)
        machine = Booted(below, cgroup)
        try:
            yield machine
        finally:
            machine.end()
    finally:
        for folder, _, _ in os.walk(cgroup, topdown=False):
            wait_for(partial(cgroup_removed, folder), f"the cgroup {folder} is removed")
