"""Whether anything applies this node at boot on a host without systemd, where cnictl installs no unit."""

import glob
import os
import shlex
import sys

from cnictl.core import durable, programs
from cnictl.core.errors import Problem
from cnictl.node.plugin import ownership
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
    program = _program()
    command = shlex.join([*program, "apply"])
    if os.path.isdir(_OPENRC):
        place = "make /etc/local.d/cnictl.start an executable script with it, and: rc-update add local default"
    else:
        place = "add it to what the boot runs ahead of the container runtime, such as /etc/rc.local"
    said = f"systemd does not run here, so nothing applies this node at boot: {command} does; {place}"
    fault = ownership.fault(program[0])
    return f"{said}; first install cnictl where root alone can write, for {fault}" if fault else said


def _program() -> list[str]:
    """The command that starts this cnictl."""
    started_as = os.path.abspath(sys.argv[0])
    beside = os.path.join(os.path.dirname(sys.executable), "cnictl")
    for program in (beside, started_as if os.path.basename(started_as) == "cnictl" else "", programs.find("cnictl")):
        if program and os.access(program, os.X_OK) and os.path.isfile(program):
            return [program]
    return [sys.executable, "-I", "-m", "cnictl"]


def _applies(path: str) -> bool:
    """Whether a file has a line that calls `cnictl apply`."""
    try:
        lines = durable.contents(path).decode("utf-8", "replace").splitlines() if os.path.isfile(path) else []
    except (OSError, Problem):
        return False
    return any("cnictl" in line and "apply" in line and not line.lstrip().startswith("#") for line in lines)
