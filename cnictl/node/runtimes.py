"""Where the container runtimes on this host look for plugins and network configurations.

Each names its own folders: Debian's containerd has /usr/lib/cni, upstream's /opt/cni/bin. A plugin in the wrong one
is a plugin that isn't there.
"""

import functools
import glob
import os
import tomllib
from dataclasses import dataclass
from typing import Any

from cnictl.core import durable, programs
from cnictl.core.errors import Problem
from cnictl.core.process import run

DEFAULT_BIN_DIRS = ("/opt/cni/bin", "/usr/lib/cni")
DEFAULT_CONF_DIR = "/etc/cni/net.d"

CONTAINERD_CONFIG = "/etc/containerd/config.toml"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
CRIO_CONFIG = "/etc/crio/crio.conf"
CRIO_DROP_INS = "/etc/crio/crio.conf.d/*.conf"
CRIO_SOCKET = "/run/crio/crio.sock"
PODMAN_CONFIGS = (
    "/usr/share/containers/containers.conf",
    "/etc/containers/containers.conf",
    "/etc/containers/containers.conf.d/*.conf",
)


@dataclass(frozen=True)
class Runtime:
    """A container runtime's view of CNI."""

    name: str
    bin_dirs: tuple[str, ...]
    """Searched in this order; a plugin in any of them is found."""
    conf_dir: str
    source: str
    """The file or command that said so."""
    settled: bool = True
    """Whether it is set up here (a configuration or a socket), not merely an installed program."""
    needs_loopback: bool = False
    """Whether its CRI runs the `loopback` plugin for every pod."""


@functools.cache  # containerd takes 40 ms to answer, and one run of cnictl asks often
def find() -> tuple[Runtime, ...]:
    """The runtimes of this host; those that run through the CRI first."""
    found = [containerd(), crio(), podman()]
    return tuple(runtime for runtime in found if runtime is not None)


def bin_dirs(runtimes: tuple[Runtime, ...]) -> tuple[str, ...]:
    """Every folder the launcher belongs in.

    Where no runtime is set up, both usual ones, but for those on a read-only file system: an installation there
    serves nobody yet.
    """
    dirs = [folder for runtime in runtimes if runtime.settled for folder in runtime.bin_dirs[:1]]
    if not dirs:
        dirs = [folder for folder in _usual_bin_dirs(runtimes) if writable(folder)] or list(DEFAULT_BIN_DIRS[:1])
    return tuple(dict.fromkeys(dirs))


def passed_over(runtimes: tuple[Runtime, ...]) -> tuple[str, ...]:
    """The usual folders that `bin_dirs` leaves out because they can't be written to."""
    if any(runtime.settled for runtime in runtimes):
        return ()
    left = [folder for folder in _usual_bin_dirs(runtimes) if not writable(folder)]
    return tuple(folder for folder in left if folder not in bin_dirs(runtimes))


def _usual_bin_dirs(runtimes: tuple[Runtime, ...]) -> list[str]:
    hinted = [folder for runtime in runtimes for folder in runtime.bin_dirs[:1]]
    return list(dict.fromkeys([*DEFAULT_BIN_DIRS, *hinted]))


def conf_dirs(runtimes: tuple[Runtime, ...]) -> tuple[str, ...]:
    """Every folder the network's conf belongs in."""
    dirs = [runtime.conf_dir for runtime in runtimes if runtime.settled]
    return tuple(dict.fromkeys(dirs or [DEFAULT_CONF_DIR]))


def running() -> bool:
    """Whether a runtime that watches its conf folder is up."""
    return os.path.exists(CONTAINERD_SOCKET) or os.path.exists(CRIO_SOCKET)


def writable(path: str) -> bool:
    """Whether `path` can be written to, or made below the nearest folder that exists."""
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return os.path.isdir(path) and os.access(path, os.W_OK)


def containerd() -> Runtime | None:
    """containerd, by its own account where it can give one, else by its configuration file."""
    program = programs.find("containerd")
    configured = os.path.exists(CONTAINERD_CONFIG)
    settled = configured or os.path.exists(CONTAINERD_SOCKET)
    if not program and not settled:
        return None
    if program:
        try:
            dumped = run([program, "config", "dump"], timeout=10).stdout
            return containerd_runtime(tomllib.loads(dumped), "containerd config dump", settled)
        except (Problem, tomllib.TOMLDecodeError):
            pass  # a containerd that can't read its own configuration still has the file
    return containerd_runtime(_merged([CONTAINERD_CONFIG]), CONTAINERD_CONFIG, settled)


def containerd_runtime(config: dict[str, Any], source: str, settled: bool = True) -> Runtime | None:
    """The runtime that a containerd configuration (version 1, 2 or 3) describes; None if its CRI is disabled.

    The `cni` table stands under `plugins.cri` (version 1), `io.containerd.grpc.v1.cri` (2) or
    `io.containerd.cri.v1.runtime` (3).
    """
    disabled = config.get("disabled_plugins", [])
    if any(name in ("cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime") for name in disabled):
        return None
    plugins = config.get("plugins", {})
    cni: dict[str, Any] = {}
    for name in ("cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime"):
        table = plugins.get(name, {})
        cni = {**cni, **table.get("cni", {})} if isinstance(table, dict) else cni
    listed = [folder for folder in [*cni.get("bin_dirs", []), cni.get("bin_dir", "")] if folder]
    return Runtime(
        "containerd",
        tuple(dict.fromkeys(_clean(folder) for folder in listed)) or DEFAULT_BIN_DIRS[:1],
        _clean(cni.get("conf_dir") or DEFAULT_CONF_DIR),
        source,
        settled,
        needs_loopback=not cni.get("use_internal_loopback", False),
    )


def crio() -> Runtime | None:
    """CRI-O, by its configuration files; a drop-in later in the alphabet wins (crio.conf.d(5))."""
    files = [CRIO_CONFIG, *sorted(glob.glob(CRIO_DROP_INS))]
    settled = any(os.path.exists(path) for path in [*files, CRIO_SOCKET])
    if not settled and not programs.find("crio"):
        return None
    return crio_runtime(_merged(files), settled)


def crio_runtime(config: dict[str, Any], settled: bool = True) -> Runtime:
    """The runtime that a merged CRI-O configuration describes (crio.conf(5), table crio.network)."""
    network = config.get("crio", {}).get("network", {})
    listed = [folder for folder in [*network.get("plugin_dirs", []), network.get("plugin_dir", "")] if folder]
    return Runtime(
        "CRI-O",
        tuple(dict.fromkeys(_clean(folder) for folder in listed)) or DEFAULT_BIN_DIRS[:1],
        _clean(network.get("network_dir") or DEFAULT_CONF_DIR),
        CRIO_CONFIG,
        settled,
        needs_loopback=True,
    )


def podman() -> Runtime | None:
    """podman, where its configuration names folders of its own; else the usual ones serve it."""
    files = [path for pattern in PODMAN_CONFIGS for path in sorted(glob.glob(pattern))]
    return podman_runtime(_merged(files), PODMAN_CONFIGS[1])


def podman_runtime(config: dict[str, Any], source: str) -> Runtime | None:
    """What a merged containers.conf(5) says of CNI; None if nothing."""
    network = config.get("network", {})
    listed = [folder for folder in network.get("cni_plugin_dirs", []) if folder]
    conf_dir = network.get("network_config_dir", "")
    if network.get("network_backend") == "netavark" or not (listed or conf_dir):
        return None
    dirs = tuple(_clean(folder) for folder in listed) or DEFAULT_BIN_DIRS
    return Runtime("podman", dirs, _clean(conf_dir or DEFAULT_CONF_DIR), source)


def _merged(paths: list[str]) -> dict[str, Any]:
    """TOML files merged table by table, the later winning; a file that is missing or broken adds nothing."""
    merged: dict[str, Any] = {}
    for path in paths:
        try:
            _merge(merged, tomllib.loads(durable.contents(path).decode()))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
            continue
    return merged


def _merge(into: dict[str, Any], other: dict[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _clean(path: str) -> str:
    """Two spellings of a folder are one: CRI-O's default ends in a slash."""
    return os.path.normpath(path)
