"""NetworkManager told to leave the bridge and pods' veths alone: it sets up every link that nobody tells it not to.

`nmcli networking off` and `on`, which is also what it does around a suspend, take a managed bridge's address and its
ports, and ask for DHCP on each of these.
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
"""What the plugin calls host veths, as patterns: `veth` and 11 hex digits, up to 0.1.0 eight; Docker's have seven."""

PROCESS = "NetworkManager"
"""As /proc/PID/comm has it."""

_PROGRAM = "/usr/sbin/NetworkManager"
_RELOAD = ["nmcli", "general", "reload", "conf"]
_TEXT = """\
# Written by cnictl: NetworkManager leaves the pods' bridge and its ports alone. Removed by `cnictl reset-node`.
[keyfile]
unmanaged-devices+={names}
"""


class UnmanagedDevices(TextFile):
    """The drop-in, where NetworkManager is installed: it adds to what other files leave unmanaged."""

    def __init__(self) -> None:
        super().__init__(CONF_FILE)

    def wanted(self, spec: NodeSpec) -> State | None:
        """The bridge and host veths by name; what is there, if anything, where there is no NetworkManager."""
        if not os.path.exists(_PROGRAM):
            return self.observe()
        return {"text": _TEXT.format(names=";".join(f"interface-name:{name}" for name in (spec.bridge, *HOST_VETHS)))}

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:
        """The file, and the word that has it read."""
        summary, command = super().describe(before, after)
        return summary, f"{command}\n{' '.join(_RELOAD)}"

    def carry_out(self, change: Change) -> None:
        """Write or remove it; a NetworkManager that runs is told."""
        super().carry_out(change)
        if PROCESS in host_links.processes() and programs.find(_RELOAD[0]):
            run(_RELOAD, check=False)  # doctor asks it whether it has heard
