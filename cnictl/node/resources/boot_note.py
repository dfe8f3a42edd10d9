"""Check whether anything applies this node at boot on a host without systemd, where cnictl installs no unit."""

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
"""The files that other init systems and cron's @reboot run."""

_OPENRC = "/run/openrc"


def note() -> str:
    """Return a note on how to apply the node at boot; empty if something already does."""
    if boot_unit.systemd_runs() or any(_applies(path) for pattern in _BOOT_FILES for path in glob.glob(pattern)):
        return ""
    program = _program()
    command = shlex.join([*program, "apply"])
    if os.path.isdir(_OPENRC):
        place = "write it into /etc/local.d/cnictl.start, make that executable, then: rc-update add local default"
    else:
        place = "add it to a script that runs at boot before the container runtime, such as /etc/rc.local"
    note = f"systemd does not run here, so nothing applies this node at boot; the command is {command}: {place}"
    fault = ownership.fault(program[0])
    return f"{note}; first install cnictl where only root can write, because {fault}" if fault else note


def _program() -> list[str]:
    """Return the command that starts this cnictl."""
    started_as = os.path.abspath(sys.argv[0])
    beside = os.path.join(os.path.dirname(sys.executable), "cnictl")
    for program in (beside, started_as if os.path.basename(started_as) == "cnictl" else "", programs.find("cnictl")):
        if program and os.access(program, os.X_OK) and os.path.isfile(program):
            return [program]
    return [sys.executable, "-I", "-m", "cnictl"]


def _applies(path: str) -> bool:
    """Return whether a file has a line that calls `cnictl apply`."""
    try:
        lines = durable.contents(path).decode("utf-8", "replace").splitlines() if os.path.isfile(path) else []
    except (OSError, Problem):
        return False
    return any("cnictl" in line and "apply" in line and not line.lstrip().startswith("#") for line in lines)
