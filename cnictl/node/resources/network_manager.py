"""Tell NetworkManager to leave the bridge and host veths alone. By default it manages every link.

`nmcli networking off` and `on` remove a managed bridge's address and ports, and start DHCP on each port.
NetworkManager does the same around a suspend.
"""

import os

from cnictl.core import programs
from cnictl.core.process import run
from cnictl.node.host import host_links
from cnictl.node.resources.textfile import TextFile
from cnictl.node.spec.node_spec import NodeSpec
from cnictl.node.spine import Change, State

CONF_FILE = "/etc/NetworkManager/conf.d/99-cnictl.conf"
HOST_VETHS = ("veth???????????", "veth????????")
"""Patterns of host veths' names: `veth` and 11 hex digits, or 8 with cnictl up to 0.1.0. Docker's names have 7."""

PROCESS = "NetworkManager"
"""The process's name in /proc/PID/comm."""

_PROGRAM = "/usr/sbin/NetworkManager"
_RELOAD = ["nmcli", "general", "reload", "conf"]
_TEXT = """\
# Written by cnictl: NetworkManager leaves the pods' bridge and its ports alone. Removed by `cnictl reset-node`.
[keyfile]
unmanaged-devices+={names}
"""


class UnmanagedDevices(TextFile):
    """The drop-in, if NetworkManager is installed. It adds to the unmanaged devices of other files."""

    def __init__(self) -> None:
        super().__init__(CONF_FILE)

    def wanted(self, spec: NodeSpec) -> State | None:
        """Return the text that names bridge and host veths; the present state without NetworkManager."""
        if not os.path.exists(_PROGRAM):
            return self.observe()
        return {"text": _TEXT.format(names=";".join(f"interface-name:{name}" for name in (spec.bridge, *HOST_VETHS)))}

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:
        """Return the summary, and the manual commands for the file and the reload."""
        summary, command = super().describe(before, after)
        return summary, f"{command}\n{' '.join(_RELOAD)} || true"

    def carry_out(self, change: Change) -> None:
        """Write or remove the file, and reload a running NetworkManager."""
        super().carry_out(change)
        if PROCESS in host_links.processes() and programs.find(_RELOAD[0]):
            run(_RELOAD, check=False)  # doctor checks whether the reload worked
