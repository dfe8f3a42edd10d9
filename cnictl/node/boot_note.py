"""Whether anything applies this node at boot on a host without systemd, where cnictl installs no unit."""

import glob
import os
import shlex

from cnictl.core import durable
from cnictl.core.errors import Problem
from cnictl.node.resources import boot_unit

_BOOT_FILES = (
    "/etc/rc.local", "/etc/rc.d/rc.local", "/etc/local.d/*.start", "/etc/init.d/*", "/etc/inittab", "/etc/crontab",
    "/etc/cron.d/*", "/var/spool/cron/crontabs/*", "/etc/runit/*", "/etc/sv/*/run", "/etc/s6/*/*/run",
)  # fmt: skip
"""What other init systems and cron's @reboot run."""

_OPENRC = "/run/openrc"


def note() -> str:
    """Return what to do so that the node comes back with a boot; empty where something sees to it already."""
    if boot_unit.systemd_runs() or any(_applies(path) for pattern in _BOOT_FILES for path in glob.glob(pattern)):
        return ""
    command = shlex.join([*boot_unit.boot_command(boot_unit.installed_command()), "apply"])
    if os.path.isdir(_OPENRC):
        place = "make /etc/local.d/cnictl.start an executable script with it, and: rc-update add local default"
    else:
        place = "add it to what the boot runs ahead of the container runtime, such as /etc/rc.local"
    return f"systemd does not run here, so nothing applies this node at boot: {command} does; {place}"


def _applies(path: str) -> bool:
    """Whether a file has a line that calls `cnictl apply`."""
    try:
        lines = durable.contents(path).decode("utf-8", "replace").splitlines() if os.path.isfile(path) else []
    except (OSError, Problem):
        return False
    return any("cnictl" in line and "apply" in line and not line.lstrip().startswith("#") for line in lines)
