"""Check what the runtime tests need on the machine they run on, and that they leave it unchanged."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .machine import CGROUPS
from .node import Wheel, build_wheel

PROGRAMS = ("unshare", "nsenter", "ip", "nft", "iptables", "pgrep", "podman", "containerd", "ctr", "runc", "busybox")
FILES = ("/usr/lib/cni/bridge", "/usr/lib/cni/host-local", "/usr/lib/cni/loopback", "/usr/lib/cni/portmap")
FOLDERS = ("/etc/cni", "/etc/cnictl", "/opt/cni", "/usr/lib/cni", "/usr/local/lib/cnictl", "/var/lib/cni",
           "/var/lib/cnictl", "/var/log/cnictl", "/etc/systemd/system", "/etc/sysctl.d")  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def able() -> None:
    """Skip the tests if they can't run here, and say why."""
    if os.geteuid() != 0:
        pytest.skip("RUNTIME TESTS NOT RUN: podman and containerd need root")
    lacking = [program for program in PROGRAMS if shutil.which(program) is None]
    lacking += [file for file in FILES if not os.path.exists(file)]
    if lacking:
        pytest.skip(f"RUNTIME TESTS NOT RUN: missing {', '.join(lacking)}; `sh tests/setup.sh --tests` installs them")


@pytest.fixture(scope="session")
def wheel(able: None) -> Wheel:
    """Build the checkout's wheel once."""
    del able
    return build_wheel()


@pytest.fixture(scope="module", autouse=True)
def machine_as_before(able: None) -> Iterator[None]:
    """Fail a module whose tests leave anything on the real machine."""
    del able
    before = _state()
    yield
    assert _state() == before


def _state() -> dict[str, object]:
    """Return what tests could leave: mounts, links, namespaces, firewall rules, cgroups, files where cnictl writes."""
    commands = (("ip", "link"), ("ip", "route"), ("ip", "netns"), ("nft", "list", "ruleset"))
    state: dict[str, object] = {" ".join(argv): _output(argv) for argv in commands}
    state["mounts"] = Path("/proc/self/mountinfo").read_text()
    ours = f"/cnictl-runtime-{os.getpid()}-"
    state["cgroups"] = [path for path in _below(str(CGROUPS)) if ours in path]
    for folder in FOLDERS:
        state[folder] = _below(folder)
    return state


def _below(folder: str) -> list[str]:
    """Return every path below a folder. `os.walk` skips folders that another worker removes meanwhile."""
    return sorted(f"{place}/{name}" for place, *inside in os.walk(folder) for names in inside for name in names)


def _output(argv: tuple[str, ...]) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout
