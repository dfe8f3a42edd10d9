"""Make the screenshots in docs/ from what cnictl prints at terminals of a lab node: `python docs/pictures.py`.

Each terminal has 80 or 140 columns. `cnictl lab demo --svg docs/matrix.svg` makes the picture of the matrix.
"""

import fcntl
import io
import os
import re
import select
import struct
import sys
import termios
from pathlib import Path

from rich.console import Console
from rich.text import Text

from cnictl.lab.lab import Lab, Node

_HERE = Path(__file__).parent
_NETWORK = "10.244.0.0/20"
_PODS = """
for name in web db gone; do
    ip netns add $name
    python3 -c "import json; c = json.load(open('/etc/cni/net.d/10-cnictl.conflist')); \\
print(json.dumps({'cniVersion': c['cniVersion'], 'name': c['name'], **c['plugins'][0]}))" |
        CNI_COMMAND=ADD CNI_CONTAINERID=6f3c1e0b9a0d$name CNI_NETNS=/run/netns/$name CNI_IFNAME=eth0 \\
        CNI_PATH=/opt/cni/bin CNI_ARGS="K8S_POD_NAMESPACE=default;K8S_POD_NAME=$name" \\
        /opt/cni/bin/cnictl-bridge >/dev/null
done
ip netns exec web ping -q -c3 -i0.2 192.0.2.10 >/dev/null
ip netns delete gone
"""
_SPINNER = re.compile("[\u2800-\u28ff]")
_SCREENS = {
    "status": ["cnictl status"],
    "lists": ["cnictl pod list", "cnictl ipam list --sort state", "cnictl route list", "cnictl history"],
    "doctor": ["cnictl doctor"],
    "test-connectivity": ["cnictl test-connectivity --external 192.0.2.10"],
    "dry-run": ["cnictl route add-peer 10.244.3.0/24=10.0.2.54 --dry-run"],
}


def main() -> None:
    """Set two nodes up, with two pods on the first and one that is gone, and take the pictures."""
    with Lab(nodes=2) as lab:
        here, there = lab.nodes
        for node, other in ((here, there), (there, here)):
            peer = f"{other.pod_cidr}={other.address}"
            node.run(["cnictl", "init-node", "--subnet", node.pod_cidr, "--network", _NETWORK, "--peer", peer])
        here.run(["sh", "-ec", _PODS])
        for columns in (80, 140):
            _picture(here, f"status-{columns}", columns, _SCREENS["status"])
        here.run(["cnictl", "route", "add-peer", "10.244.2.0/24=10.0.2.53"])
        for name in ("lists", "doctor", "test-connectivity", "dry-run"):
            for columns in (80, 140):
                _picture(here, f"{name}-{columns}", columns, _SCREENS[name])
        _picture(here, "support-bundle", 140, ["cnictl support-bundle /tmp/node1.tar.gz"])


def _picture(node: Node, name: str, columns: int, lines: list[str]) -> None:
    """Run command lines at a terminal, and save the output as a picture."""
    console = Console(
        record=True, width=columns, file=io.StringIO(), force_terminal=True, color_system="truecolor", highlight=False
    )
    for line in lines:
        console.print(Text(f"# {line}", style="bold"))
        console.print(Text.from_ansi(_shown(node, columns, line.split())))
    console.save_svg(str(_HERE / f"{name}.svg"), title=f"node1, {columns} columns")


def _shown(node: Node, columns: int, argv: list[str]) -> str:
    """Return what a command prints at a terminal with `columns` columns."""
    ours, its = os.openpty()
    try:
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        environment = {"TERM": "xterm-256color", "COLUMNS": "", "LINES": ""}
        running = node.popen(argv, environment, stdout=its, stderr=its)
        shown = b""
        while running.poll() is None or select.select([ours], [], [], 0)[0]:
            if select.select([ours], [], [], 0.05)[0]:
                shown += os.read(ours, 1 << 16)
        shown = shown.replace(f"{sys.prefix}/bin/".encode(), b"/usr/local/bin/")
        # a spinner redraws its line; only the last state of a line is kept
        lines = (line.rpartition("\x1b[2K")[2] for line in shown.decode().replace("\r\n", "\n").split("\n"))
        return "\n".join(line for line in lines if not _SPINNER.search(line)).strip()
    finally:
        os.close(ours)
        os.close(its)


if __name__ == "__main__":
    main()
