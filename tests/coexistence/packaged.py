"""Install Debian packages on lab nodes: overlay what `tests/packages.sh` unpacked."""

import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from cnictl.core.process import Finished
from cnictl.lab.lab import Node

_UNPACKED = Path(__file__).parents[2] / ".venv" / "packages"
_INSTALL = """
mkdir -p /opt/kept/local /opt/kept/plugins
mount --rbind /usr/local /opt/kept/local
mount --rbind /usr/lib/cni /opt/kept/plugins
mount -t overlay overlay -o lowerdir="$1/usr:/usr" /usr
mount --rbind /opt/kept/local /usr/local
mount --rbind /opt/kept/plugins /usr/lib/cni
for folder in etc var; do [ ! -d "$1/$folder" ] || cp -r "$1/$folder/." "/$folder/"; done
"""
_BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_type="*"/><allow receive_type="*"/>
  </policy>
</busconfig>
"""


def install(node: Node, package: str) -> None:
    """Overlay a package on a node's /usr, and copy its files for /etc and /var. Skip the test if it was not unpacked.

    The test must do what the package's maintainer scripts do.
    """
    folder = _UNPACKED / package
    if not folder.is_dir():
        pytest.skip(f"not here: Debian's {package} (tests/packages.sh fetches it as root)")
    node.run(["sh", "-ec", _INSTALL, "install", str(folder)])


def start_bus(node: Node) -> None:
    """Start a system bus on a node. Its policy allows everything, because root is the node's only user."""
    node.run(["mkdir", "-p", "/run/dbus"])
    node.run(["sh", "-c", f"cat > /run/dbus/system.conf <<'EOF'\n{_BUS}EOF"])
    node.run(["dbus-daemon", "--config-file=/run/dbus/system.conf", "--fork"])


_SERVE = """
import socket
server = socket.create_server(("0.0.0.0", 80))
print("ready", flush=True)
while True:
    server.accept()[0].close()
"""


def serve(start: Callable[[list[str]], subprocess.Popen[str]]) -> None:
    """Run a server on port 80 where `start` starts processes, until its node ends."""
    serving = start(["/usr/bin/python3", "-c", _SERVE])
    assert serving.stdout is not None
    assert serving.stdout.readline() == "ready\n"


_CONNECT = """
import socket, sys
for address in sys.argv[2:]:
    try:
        socket.create_connection((address, sys.argv[1]), 2).close()
    except OSError:
        print(address)
"""


def refused(run: Callable[..., Finished], addresses: Iterable[str], port: int = 80) -> list[str]:
    """Return the addresses that accept no TCP connection. A ping proves less: firewalls often let only pings pass.

    `run` runs a command where the client is.
    """
    return run("/usr/bin/python3", "-c", _CONNECT, str(port), *addresses, check=True).stdout.split()


def connects(run: Callable[..., Finished], address: str, port: int = 80) -> bool:
    """Return whether that address accepts a TCP connection."""
    return not refused(run, [address], port)
