"""Debian's packages on lab nodes: what `tests/packages.sh` unpacked, as if it were installed there."""

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
    """Lay a package over a node's /usr, and its configuration into /etc; what its scripts do is the test's.

    A test is skipped, and says so, where the package can't be had.
    """
    folder = _UNPACKED / package
    if not folder.is_dir():
        pytest.skip(f"not here: Debian's {package} (tests/packages.sh fetches it as root)")
    node.run(["sh", "-ec", _INSTALL, "install", str(folder)])


def start_bus(node: Node) -> None:
    """A system bus on a node, where root alone is: whoever comes may do as they like."""
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
    """A server on port 80 where `start` starts things, for as long as its node lives."""
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
    """To which of these no connection is accepted: firewalls often let echo requests pass where nothing else does.

    `run` runs a command where the client is.
    """
    return run("/usr/bin/python3", "-c", _CONNECT, str(port), *addresses, check=True).stdout.split()


def connects(run: Callable[..., Finished], address: str, port: int = 80) -> bool:
    """Whether a connection to that server is accepted."""
    return not refused(run, [address], port)
