"""Set a machine up as a node with `cnictl init-node`, from a virtual environment that can be removed afterwards."""

import json
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cnictl.core.attachments import CLAIM_MARK
from tests.waiting import wait_for

from . import containerd
from .machine import CHECKOUT, Failed, Machine, machine

NETWORK = "mynet"
"""The name that init-node gives a network by default."""
SUBNET = "10.244.0.0/24"
POD_NETWORK = "10.244.0.0/20"
ADDRESS = "10.0.0.210"
"""The node's address."""
OUTSIDE = "192.0.2.1"
"""An address beyond the node's gateway, which has no route back to pods."""
LEASES = f"/var/lib/cni/networks/{NETWORK}"
RECORDS = f"/var/lib/cnictl/attachments/{NETWORK}"
PLUGIN_LOG = "/var/log/cnictl/plugin.log"

_VENV = "/srv/venv"
_WHEELS = "/srv/wheels"


@dataclass(frozen=True)
class Layout:
    """Where a distribution keeps the CNI plugins."""

    name: str
    bin_dir: str

    def prepare(self, machine: Machine) -> None:
        """Move the reference plugins to `bin_dir`, and configure containerd for it."""
        if self.bin_dir != "/usr/lib/cni":
            machine.run("mkdir", "-p", self.bin_dir)
            machine.run("cp", "-rT", "/usr/lib/cni", self.bin_dir)
            machine.run("rm", "-r", "/usr/lib/cni")
        containerd.write_config(machine, self.bin_dir)


DEBIAN = Layout("debian", "/usr/lib/cni")
UPSTREAM = Layout("upstream", "/opt/cni/bin")
LAYOUTS = (DEBIAN, UPSTREAM)


@dataclass(frozen=True)
class Wheel:
    """The checkout as a wheel."""

    name: str
    content: bytes


def build_wheel() -> Wheel:
    """Build the checkout's wheel on a throw-away machine, because setuptools writes into the source folder."""
    with machine() as builder:
        pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index")
        builder.run(*pip, "--wheel-dir", _WHEELS, str(CHECKOUT))
        (wheel,) = builder.path(_WHEELS).iterdir()
        return Wheel(wheel.name, wheel.read_bytes())


class Node:
    """A node: run cnictl on it, and observe what its pods leave."""

    def __init__(self, machine: Machine, layout: Layout, wheel: Wheel) -> None:
        self.machine = machine
        self.layout = layout
        self._wheel = wheel

    def cnictl(self, *argv: str) -> str:
        """Run cnictl and return its stdout. Install it first if it is not installed."""
        if not self.machine.path(_VENV).exists():
            self._install()
        return self.machine.run(f"{_VENV}/bin/cnictl", *argv)

    def init(self, subnet: str = SUBNET, network: str = POD_NETWORK) -> None:
        """Set the machine up as a node of the walk-through."""
        self.cnictl("init-node", "--subnet", subnet, "--network", network)

    def remove_venv(self) -> None:
        """Remove all of cnictl that pip installed."""
        self.machine.run("rm", "-r", _VENV, _WHEELS)

    def leases(self) -> dict[str, str]:
        """Return the leased addresses, each with the ID of its container."""
        folder = self.machine.path(LEASES)
        files = list(folder.iterdir()) if folder.exists() else []
        held = [f for f in files if f.name[0].isdigit() or ":" in f.name]
        return {f.name: f.read_bytes().partition(b"\r\n")[0].decode() for f in held}

    def records(self) -> list[str]:
        """Return the names of the attachment records."""
        folder = self.machine.path(RECORDS)
        return sorted(f.name for f in folder.iterdir() if f.name != CLAIM_MARK) if folder.exists() else []

    def veths(self) -> list[str]:
        """Return the host ends of veth pairs, without the uplink."""
        links = json.loads(self.machine.run("ip", "-json", "link", "show", "type", "veth"))
        return [link["ifname"] for link in links if link["ifname"] != "uplink"]

    def left(self) -> dict[str, object]:
        """Return what exists of attachments; empty if every pod was cleaned up."""
        by_kind = {"leases": self.leases(), "records": self.records(), "veths": self.veths()}
        return {what: those for what, those in by_kind.items() if those}

    def expect_nothing_left(self) -> None:
        """Raise Failed with the plugin's log if a lease, veth or record stays. Waits, as some clients clean up late."""
        try:
            wait_for(lambda: not self.left(), "the end of all attachments", 5)
        except AssertionError:
            log = self.machine.path(PLUGIN_LOG)
            calls = log.read_text() if log.exists() else "no call of the plugin was logged"
            raise Failed(f"left behind: {self.left()}\n{calls}") from None

    def fetch(self, port: int) -> str:
        """Return what a web client beyond the node's gateway gets from that port of the node's address."""
        url = f"http://{ADDRESS}:{port}/"
        get = ("timeout", "3", "busybox", "wget", "-q", "-O-", url)

        def answer() -> subprocess.CompletedProcess[str] | None:
            done = self.machine.try_run(*get, outside=True)
            return done if done.returncode == 0 else None  # the server in the pod may not listen yet

        fetched = wait_for(answer, f"an answer from {url}", 5)
        assert fetched is not None
        return fetched.stdout

    def _install(self) -> None:
        """Install cnictl alone. It imports its dependencies from the site-packages of the tests' interpreter."""
        self.machine.run("/usr/bin/python3", "-m", "venv", "--without-pip", _VENV)
        (libraries,) = self.machine.path(f"{_VENV}/lib").glob("python3.*/site-packages")
        (libraries / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
        self.machine.write(f"{_WHEELS}/{self._wheel.name}", self._wheel.content)
        pip = (sys.executable, "-m", "pip", "--python", f"{_VENV}/bin/python", "--disable-pip-version-check")
        self.machine.run(*pip, "install", "--quiet", "--no-deps", "--no-index", f"{_WHEELS}/{self._wheel.name}")


@contextmanager
def node(layout: Layout, wheel: Wheel) -> Iterator[Node]:
    """Yield a machine of that layout with cnictl available. `init` sets it up as a node."""
    with machine() as fresh:
        layout.prepare(fresh)
        yield Node(fresh, layout, wheel)
