"""Find out where the container runtimes on this host look for plugins and network configurations.

Each has its own folders, such as /usr/lib/cni in Debian's containerd and /opt/cni/bin upstream, and finds no plugin
elsewhere. The arguments of a running process (`runtime_processes`) take precedence over configuration files.
"""

import functools
import glob
import itertools
import os
import tomllib
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from cnictl.core import durable, programs
from cnictl.core.errors import Problem
from cnictl.core.paths import NODE_FILE
from cnictl.core.process import run
from cnictl.node.host import runtime_processes
from cnictl.node.host.runtime_processes import Process

DEFAULT_BIN_DIRS = ("/opt/cni/bin", "/usr/lib/cni")
DEFAULT_CONF_DIR = "/etc/cni/net.d"

CONTAINERD_CONFIG = "/etc/containerd/config.toml"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
CONTAINERDS = {
    "k3s": "/var/lib/rancher/k3s/agent/etc/containerd/config.toml",
    "RKE2": "/var/lib/rancher/rke2/agent/etc/containerd/config.toml",
    "microk8s": "/var/snap/microk8s/current/args/containerd.toml",
    "k0s": "/etc/k0s/containerd.toml",
}
"""The configuration files of Kubernetes distributions' own containerd, read even before it runs, as at boot."""
NERDCTL_CONFIG = "/etc/nerdctl/nerdctl.toml"
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
    """The folders that it searches for plugins, in this order."""
    conf_dir: str
    source: str
    """The file or command that names the folders."""
    settled: bool = True
    """Whether it is set up here (it has a configuration or a socket), not only installed."""
    needs_loopback: bool = False
    """Whether its CRI runs the `loopback` plugin for every pod."""


Named = tuple[tuple[str, ...], tuple[str, ...]]
"""Bin folders and conf folders that the operator named for runtimes that can't be found otherwise."""

_NAMED = "node.toml"
_given: list[Named] = []


def give(bin_dirs: tuple[str, ...], conf_dirs: tuple[str, ...]) -> None:
    """Use these folders from now on instead of the node file's; the node file is about to name them."""
    _given[:] = [(bin_dirs, conf_dirs)]
    find.cache_clear()


@functools.cache  # containerd takes 40 ms to answer, and a command of cnictl asks often
def find() -> tuple[Runtime, ...]:
    """Return the runtimes of this host: first those with a CRI, last the folders that the operator named."""
    candidates = [*started(), containerd(), *_of_distributions(), crio(), podman(), nerdctl(), *_named_by_operator()]
    kept: dict[tuple[tuple[str, ...], str, str], Runtime] = {}
    for runtime in candidates:
        if runtime is not None:
            kept.setdefault((runtime.bin_dirs, runtime.conf_dir, runtime.name), runtime)
    return tuple(kept.values())


def started() -> list[Runtime]:
    """Return the running runtimes whose command line names folders or a configuration."""
    runtimes: list[Runtime | None] = []
    for process in runtime_processes.running("containerd", "crio", "cri-dockerd", "kubelet", "dockerd"):
        if process.name == "containerd":
            runtimes.append(_started_containerd(process))
        elif process.name == "crio":
            runtimes.append(_started_crio(process))
        else:
            runtimes.append(_started_docker(process))
    return [runtime for runtime in runtimes if runtime is not None]


def _started_containerd(process: Process) -> Runtime | None:
    """Return a containerd whose arguments name its configuration; `containerd` finds the others."""
    config = process.option("--config", "-c")
    if not config and process.root == "/":
        return None
    path = process.readable(config or CONTAINERD_CONFIG)
    source = f"{process.path(config or CONTAINERD_CONFIG)} (process {process.pid})"
    return _of(process, containerd_runtime(with_imports(path, process), source))


def _started_crio(process: Process) -> Runtime | None:
    config = process.option("--config", "-c") or process.variable("CONTAINER_CONFIG")
    drop_ins = process.option("--config-dir", "-d") or process.variable("CONTAINER_CONFIG_DIR")
    conf_dir = process.option("--cni-config-dir") or process.variable("CONTAINER_CNI_CONFIG_DIR")
    plugins = process.option("--cni-plugin-dir") or process.variable("CONTAINER_CNI_PLUGIN_DIR")
    if not (config or drop_ins or conf_dir or plugins) and process.root == "/":
        return None
    folder = process.readable(drop_ins or os.path.dirname(CRIO_DROP_INS))
    settings = _merged([process.readable(config or CRIO_CONFIG), *sorted(glob.glob(f"{glob.escape(folder)}/*"))])
    network = settings.setdefault("crio", {}).setdefault("network", {})
    if conf_dir:
        network["network_dir"] = conf_dir
    if plugins:
        network.update(plugin_dirs=plugins.split(","), plugin_dir="")
    source = f"{process.path(config or CRIO_CONFIG)} (process {process.pid})"
    return _of(process, replace(crio_runtime(settings), source=source))


def _started_docker(process: Process) -> Runtime | None:
    """Return cri-dockerd, or a kubelet with dockershim."""
    conf_dir, plugins = process.option("--cni-conf-dir"), process.option("--cni-bin-dir")
    if process.option("--network-plugin") != "cni" and not (conf_dir or plugins):
        return None
    listed = tuple(_clean(folder) for folder in plugins.split(",") if folder) or DEFAULT_BIN_DIRS[:1]
    source = f"its arguments (process {process.pid})"
    return _of(process, Runtime(process.name, listed, _clean(conf_dir or DEFAULT_CONF_DIR), source, True, True))


def _of(process: Process, runtime: Runtime | None) -> Runtime | None:
    """Return a runtime with its folders as this host sees them."""
    if runtime is None:
        return None
    dirs = tuple(process.path(folder) for folder in runtime.bin_dirs)
    return replace(runtime, bin_dirs=dirs, conf_dir=process.path(runtime.conf_dir))


def _of_distributions() -> list[Runtime | None]:
    """Return the containerd of each distribution whose configuration exists."""
    return [
        replace(runtime, name=f"containerd of {name}")
        for name, path in CONTAINERDS.items()
        if os.path.exists(path) and (runtime := containerd_runtime(with_imports(path), path)) is not None
    ]


def _named_by_operator() -> list[Runtime]:
    """Return the folders that the operator named, as runtimes."""
    bins, confs = _given[0] if _given else _named_in_file()
    pairs = itertools.zip_longest(bins, confs, fillvalue="")
    return [Runtime(_NAMED, (folder,) if folder else (), conf_dir, NODE_FILE) for folder, conf_dir in pairs]


def _named_in_file() -> Named:
    """Return the folders in the node file; none if it can't be read, which `node_file.load` reports."""
    plugin = _merged([NODE_FILE]).get("plugin", {}) if _mentions(NODE_FILE, b"bin_dir", b"conf_dir") else {}
    values = (plugin.get(key, []) if isinstance(plugin, dict) else [] for key in ("bin_dir", "conf_dir"))
    bins, confs = ([value] if isinstance(value, str) else value if isinstance(value, list) else [] for value in values)
    return tuple(filter(None, map(str, bins))), tuple(filter(None, map(str, confs)))


def _mentions(path: str, *words: bytes) -> bool:
    """Return whether a file has one of these words: a node file without them, of thousands of peers, is not parsed."""
    try:
        text = durable.contents(path)
    except OSError:
        return False
    return any(word in text for word in words)


def not_reading(
    runtimes: tuple[Runtime, ...], bin_dirs: Collection[str], conf_dirs: Collection[str]
) -> list[tuple[str, str]]:
    """Return the runtimes that don't see the plugin in `bin_dirs` or the conf in `conf_dirs`, and where each looks.

    A plugin or conf that is in no folder at all is missing, not in the wrong place, and is left out.
    """
    faults = []
    for runtime in runtimes:
        if not runtime.settled or runtime.name == _NAMED:
            continue
        if bin_dirs and not any(_is_in(folder, bin_dirs) for folder in runtime.bin_dirs):
            faults.append((runtime.name, f"looks for plugins in {', '.join(runtime.bin_dirs)} ({runtime.source})"))
        if conf_dirs and not _is_in(runtime.conf_dir, conf_dirs):
            faults.append((runtime.name, f"reads confs from {runtime.conf_dir} ({runtime.source})"))
    return faults


def _is_in(folder: str, others: Collection[str]) -> bool:
    return any(os.path.realpath(folder) == os.path.realpath(other) for other in others)


def bin_dirs(runtimes: tuple[Runtime, ...]) -> tuple[str, ...]:
    """Return every folder that needs the launcher.

    Without a runtime these are both usual folders, except on a read-only file system, where an installation
    would be of no use yet.
    """
    dirs = [folder for runtime in runtimes if runtime.settled for folder in runtime.bin_dirs[:1]]
    if not dirs:
        dirs = [folder for folder in _usual_bin_dirs(runtimes) if writable(folder)] or list(DEFAULT_BIN_DIRS[:1])
    return tuple(dict.fromkeys(dirs))


def passed_over(runtimes: tuple[Runtime, ...]) -> tuple[str, ...]:
    """Return the usual folders that `bin_dirs` leaves out because they can't be written to."""
    if any(runtime.settled for runtime in runtimes):
        return ()
    left = [folder for folder in _usual_bin_dirs(runtimes) if not writable(folder)]
    return tuple(folder for folder in left if folder not in bin_dirs(runtimes))


def _usual_bin_dirs(runtimes: tuple[Runtime, ...]) -> list[str]:
    hinted = [folder for runtime in runtimes for folder in runtime.bin_dirs[:1]]
    return list(dict.fromkeys([*DEFAULT_BIN_DIRS, *hinted]))


def conf_dirs(runtimes: tuple[Runtime, ...]) -> tuple[str, ...]:
    """Return every folder that needs the network's conf."""
    dirs = [runtime.conf_dir for runtime in runtimes if runtime.settled and runtime.conf_dir]
    return tuple(dict.fromkeys(dirs or [DEFAULT_CONF_DIR]))


def running() -> bool:
    """Return whether a runtime that watches its conf folder is running."""
    return os.path.exists(CONTAINERD_SOCKET) or os.path.exists(CRIO_SOCKET)


def writable(path: str) -> bool:
    """Return whether `path` can be written to, or made below the nearest existing folder."""
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return os.path.isdir(path) and os.access(path, os.W_OK)


def containerd() -> Runtime | None:
    """Return containerd as `containerd config dump` describes it, else as its configuration file does."""
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
            pass  # if containerd can't read its configuration, read the file here
    return containerd_runtime(with_imports(CONTAINERD_CONFIG), CONTAINERD_CONFIG, settled)


def with_imports(path: str, process: Process | None = None) -> dict[str, Any]:
    """Return a containerd configuration merged with the files of its `imports` (containerd-config.toml(5)).

    A missing or broken file adds nothing. Each file is read once.
    """
    merged: dict[str, Any] = {}
    waiting, seen = [path], set()
    while waiting:
        current = waiting.pop(0)
        if current in seen:
            continue
        seen.add(current)
        current_config = _merged([current])
        _merge(merged, current_config)
        for pattern in current_config.get("imports", []):
            if isinstance(pattern, str):
                relative = not pattern.startswith("/")
                named = os.path.join(os.path.dirname(current), pattern) if relative else pattern
                waiting += sorted(glob.glob(process.readable(named) if process and not relative else named))
    return merged


def containerd_runtime(config: dict[str, Any], source: str, settled: bool = True) -> Runtime | None:
    """Return the runtime that a containerd configuration (version 1, 2 or 3) describes; None if its CRI is disabled.

    The `cni` table is under `plugins.cri` (version 1), `io.containerd.grpc.v1.cri` (2) or
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
    return Runtime(
        "containerd",
        _bin_dirs(cni, "bin_dirs", "bin_dir"),
        _clean(cni.get("conf_dir") or DEFAULT_CONF_DIR),
        source,
        settled,
        needs_loopback=not cni.get("use_internal_loopback", False),
    )


def _bin_dirs(table: dict[str, Any], several: str, single: str) -> tuple[str, ...]:
    """Return the plugin folders under either key of a table, in order; the usual one if there is none."""
    listed = [folder for folder in [*table.get(several, []), table.get(single, "")] if folder]
    return tuple(dict.fromkeys(_clean(folder) for folder in listed)) or DEFAULT_BIN_DIRS[:1]


def crio() -> Runtime | None:
    """Return CRI-O as its configuration files describe it; a later drop-in wins (crio.conf.d(5))."""
    files = [CRIO_CONFIG, *sorted(glob.glob(CRIO_DROP_INS))]
    settled = any(os.path.exists(path) for path in [*files, CRIO_SOCKET])
    if not settled and not programs.find("crio"):
        return None
    return crio_runtime(_merged(files), settled)


def crio_runtime(config: dict[str, Any], settled: bool = True) -> Runtime:
    """Return the runtime that a merged CRI-O configuration describes (crio.conf(5), table crio.network)."""
    network = config.get("crio", {}).get("network", {})
    return Runtime(
        "CRI-O",
        _bin_dirs(network, "plugin_dirs", "plugin_dir"),
        _clean(network.get("network_dir") or DEFAULT_CONF_DIR),
        CRIO_CONFIG,
        settled,
        needs_loopback=True,
    )


def podman() -> Runtime | None:
    """Return podman if its configuration names its own folders, else None."""
    files = [path for pattern in PODMAN_CONFIGS for path in sorted(glob.glob(pattern))]
    return podman_runtime(_merged(files), PODMAN_CONFIGS[1])


def podman_runtime(config: dict[str, Any], source: str) -> Runtime | None:
    """Return the runtime that a merged containers.conf(5) describes; None if it has nothing about CNI."""
    network = config.get("network", {})
    listed = [folder for folder in network.get("cni_plugin_dirs", []) if folder]
    conf_dir = network.get("network_config_dir", "")
    if network.get("network_backend") == "netavark" or not (listed or conf_dir):
        return None
    dirs = tuple(_clean(folder) for folder in listed) or DEFAULT_BIN_DIRS
    return Runtime("podman", dirs, _clean(conf_dir or DEFAULT_CONF_DIR), source)


def nerdctl() -> Runtime | None:
    """Return nerdctl if its configuration names its own folders, else None."""
    config = _merged([NERDCTL_CONFIG])
    folder, conf_dir = config.get("cni_path", ""), config.get("cni_netconfpath", "")
    if not (isinstance(folder, str) and isinstance(conf_dir, str) and (folder or conf_dir)):
        return None
    dirs = (_clean(folder),) if folder else DEFAULT_BIN_DIRS[:1]
    return Runtime("nerdctl", dirs, _clean(conf_dir or DEFAULT_CONF_DIR), NERDCTL_CONFIG)


def _merged(paths: list[str]) -> dict[str, Any]:
    """Return TOML files merged table by table; later files win, and missing or broken ones add nothing."""
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
    """Return a folder in one spelling: CRI-O's default ends in a slash."""
    return os.path.normpath(path)
