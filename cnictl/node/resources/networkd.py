"""Tell systemd-networkd to leave the bridge, host veths and the routes to peers alone.

If a `.network` file matches them, networkd removes host veths from the bridge, and the bridge's address. When networkd
starts, it removes foreign routes from the links that it manages. It also removes its own address there and adds it
again (seen with 252), and with a link's last address the kernel removes every route over the link.

A running networkd reads networkd.conf again only when it is restarted, and then before it manages links. See
networkd.conf(5), systemd.network(5).
"""

import glob
import os

from cnictl.core import durable, programs
from cnictl.core.process import run
from cnictl.node.host import host_links
from cnictl.node.resources.network_manager import HOST_VETHS
from cnictl.node.resources.textfile import TextFile
from cnictl.node.spec.node_spec import NodeSpec
from cnictl.node.spine import Change, State

DAEMON_CONF = "/etc/systemd/networkd.conf.d/99-cnictl.conf"
NETWORK_FILE = "/etc/systemd/network/00-cnictl.network"
FOLDERS = ("/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd")
"""The folders of `network` and `networkd.conf.d`. A file hides files of the same name in later folders."""

KEPT_FILES = "/etc/systemd/network/*.network.d/99-cnictl.conf"
"""The pattern of the drop-ins for links to peers."""
FILES = (DAEMON_CONF, NETWORK_FILE, KEPT_FILES)
PROCESS = "systemd-network"
"""The process's name in /proc/PID/comm, cut to 15 characters."""

_STATE_DIR = "/run/systemd/netif"
_SERVICE = "multi-user.target.wants/systemd-networkd.service"
_RELOAD = ["networkctl", "reload"]
_DAEMON_TEXT = """\
# Written by cnictl: networkd keeps routes to other nodes' pods when it starts. Removed by `cnictl reset-node`.
[Network]
ManageForeignRoutes=no
"""
_NETWORK_TEXT = """\
# Written by cnictl: networkd leaves the pods' bridge and its ports alone. Removed by `cnictl reset-node`.
[Match]
Name={bridge} {veths}
Kind=bridge veth

[Link]
Unmanaged=yes
"""
_KEPT_TEXT = """\
# Written by cnictl: keeps networkd from removing this link's addresses, and with them the routes to other nodes' pods,
# when it starts. Removed by `cnictl reset-node`.
[Network]
KeepConfiguration=static
"""


class NetworkdFile(TextFile):
    """A file that networkd reads when it starts, if networkd is used.

    With `reloads`, a running networkd reads it immediately. A removal needs no reload: no link is left to manage.
    (A reload removes the addresses of links whose files have changed since networkd started.)
    """

    def __init__(self, path: str, text: str, reloads: bool = False) -> None:
        super().__init__(path)
        self._text, self._reloads = text, reloads

    def wanted(self, spec: NodeSpec) -> State | None:
        """Return its text; the present state if networkd isn't used."""
        if not is_used():
            return self.observe()
        return {"text": self._text.format(bridge=spec.bridge, veths=" ".join(HOST_VETHS))}

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:
        """Return the summary, and the manual commands for the file and the reload."""
        summary, command = super().describe(before, after)
        return summary, f"{command}\n{' '.join(_RELOAD)} || true" if after and self._reloads else command

    def carry_out(self, change: Change) -> None:
        """Write or remove the file, and reload a running networkd after a write."""
        super().carry_out(change)
        if self._reloads and change.after and PROCESS in host_links.processes() and programs.find(_RELOAD[0]):
            run(_RELOAD, check=False)  # doctor checks whether the reload worked


def networkd_files(spec: NodeSpec) -> list[NetworkdFile]:
    """Return the files for networkd: one for foreign routes, one for unmanaged links, and drop-ins for links to peers.

    A link to peers that networkd manages gets a drop-in, unless its files set KeepConfiguration. Existing drop-ins
    stay, because a link's file is known only while networkd runs.
    """
    paths = set(glob.glob(KEPT_FILES))
    if spec.known_peers and is_used():
        for link in host_links.links_to_others(spec):
            file = file_of(link)
            if file and not _sets_keep_configuration(file):
                paths.add(KEPT_FILES.replace("*.network", os.path.basename(file)))
    return [
        NetworkdFile(DAEMON_CONF, _DAEMON_TEXT),
        NetworkdFile(NETWORK_FILE, _NETWORK_TEXT, reloads=True),
        *(NetworkdFile(path, _KEPT_TEXT) for path in sorted(paths)),
    ]


def is_used() -> bool:
    """Return whether networkd is enabled, or has run since this host booted."""
    wanted = (f"{folder}/system/{_SERVICE}" for folder in FOLDERS)
    return os.path.exists(f"{_STATE_DIR}/state") or any(map(os.path.lexists, wanted))


def file_of(link: str) -> str:
    """Return the `.network` file of a link that networkd manages; empty if networkd does not manage it."""
    try:
        index = durable.contents(f"/sys/class/net/{link}/ifindex").decode().strip()
        state = durable.contents(f"{_STATE_DIR}/links/{index}").decode("utf-8", "replace")
    except OSError:
        return ""
    values = dict(line.partition("=")[::2] for line in state.splitlines())
    return values.get("NETWORK_FILE", "") if values.get("ADMIN_STATE") != "unmanaged" else ""


def _sets_keep_configuration(file: str) -> bool:
    """Return whether a `.network` file, or a drop-in that is not ours, sets KeepConfiguration."""
    name = os.path.basename(file)
    drop_ins = [path for folder in FOLDERS for path in glob.glob(f"{folder}/network/{name}.d/*.conf")]
    for path in [file, *(drop_in for drop_in in drop_ins if os.path.basename(drop_in) != os.path.basename(KEPT_FILES))]:
        try:
            text = durable.contents(path).decode("utf-8", "replace")
        except OSError:
            continue
        if any(line.strip().startswith("KeepConfiguration") for line in text.splitlines()):
            return True
    return False
