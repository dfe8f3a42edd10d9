"""Say how to apply this node at boot on a host without systemd, where cnictl installs no unit."""

import os
import shlex
import sys

from cnictl.core import programs
from cnictl.node.plugin import ownership
from cnictl.node.resources import boot_unit

_OPENRC = "/run/openrc"
_SHORT = "no systemd here: have `cnictl apply` run at boot"
"""The note where it is one line of many. `init-node` explains it once."""


def note() -> str:
    """Return a note on how to apply the node at boot; empty if a unit does it."""
    if boot_unit.systemd_runs():
        return ""
    program = _program()
    command = shlex.join([*program, "apply"])
    if os.path.isdir(_OPENRC):
        place = "write it into /etc/local.d/cnictl.start, make that executable, then: rc-update add local default"
    else:
        place = "add it to a script that runs at boot before the container runtime, such as /etc/rc.local"
    note = f"systemd does not run here: this node comes back after a boot only if something runs {command}; {place}"
    fault = ownership.fault(program[0])
    return f"{note}; first install cnictl where only root can write, because {fault}" if fault else note


def short() -> str:
    """Return the note in a few words; empty if a unit applies the node at boot."""
    return "" if boot_unit.systemd_runs() else _SHORT


def _program() -> list[str]:
    """Return the command that starts this cnictl."""
    started_as = os.path.abspath(sys.argv[0])
    beside = os.path.join(os.path.dirname(sys.executable), "cnictl")
    for program in (beside, started_as if os.path.basename(started_as) == "cnictl" else "", programs.find("cnictl")):
        if program and os.access(program, os.X_OK) and os.path.isfile(program):
            return [program]
    return [sys.executable, "-I", "-m", "cnictl"]
