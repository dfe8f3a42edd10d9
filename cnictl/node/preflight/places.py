"""The folders and files that runtimes read: conf, plugins, and what else starts as root."""

import os
import shlex

from cnictl.core.paths import NETWORKS_DIR, NODE_FILE, RUN_DIR, STATE_DIR
from cnictl.node import hint
from cnictl.node.hint import Hint
from cnictl.node.host import runtimes
from cnictl.node.plugin import files, install, ownership, program
from cnictl.node.plugin.releases import PLUGIN
from cnictl.node.preflight.finding import PreflightFinding, error, warning
from cnictl.node.preflight.root_alone import to_root
from cnictl.node.resources import boot_unit, inventory
from cnictl.node.resources.cni_conf import FILE_NAME, is_foreign
from cnictl.node.spec.node_spec import NodeSpec

_CONF_ENDINGS = (".conf", ".conflist", ".json")
"""What libcni reads (ConfFiles)."""


_WRITABLE = hint.advice(
    "make it writable, or name another in the runtime's conf",
    because="mounts and the runtime's conf are the operator's",
)
_LOOPBACKS = ("/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni", "/usr/local/lib/cni")
"""Where distributions and the upstream release put the reference plugins."""


def _move_away(path: str) -> Hint:
    """Give a file of another tool's a name that no runtime looks for: it is kept, and easily put back."""
    return hint.command(f"mv {shlex.quote(path)} {shlex.quote(path)}.off", "if nothing needs it any more")


def _get_loopback(folder: str) -> Hint:
    """Where this host has the program elsewhere, copy it; it has no parts besides."""
    have = next((f"{place}/loopback" for place in _LOOPBACKS if os.access(f"{place}/loopback", os.X_OK)), "")
    if have:
        return hint.command(f"mkdir -p {shlex.quote(folder)}; cp {have} {shlex.quote(folder)}/")
    return hint.advice(
        f"install the reference plugins in {folder} (Debian: containernetworking-plugins, in /usr/lib/cni)",
        because="programs are the distribution's to install",
    )


def conf_dir(spec: NodeSpec, previous: NodeSpec | None) -> list[PreflightFinding]:  # noqa: ARG001
    """Each runtime's conf folder can be written to."""
    return [
        error("conf-dir", folder, "can't be written to", _WRITABLE)
        for folder in runtimes.conf_dirs(runtimes.find())
        if not runtimes.writable(folder)
    ]


def state(spec: NodeSpec, previous: NodeSpec | None) -> list[PreflightFinding]:  # noqa: ARG001
    """What a node can't do without can be written: its file, its records, its leases; and the disk has room."""
    found = []
    for path in (NODE_FILE, f"{STATE_DIR}/new", f"{NETWORKS_DIR}/new", f"{RUN_DIR}/new"):
        place = path.removesuffix("/new")
        if not files.can_write(path):
            what = hint.advice(
                f"mount a folder that can be written at {os.path.dirname(path)}",
                because="mounts are the operator's",
            )
            found.append(error("state", place, "can't be written to, and no node works without it", what))
        elif not _has_room(place):
            what = hint.advice("make room: df, df -i", because="only the operator knows what may go")
            found.append(error("state", place, "is on a file system that is full", what))
    return found


def _has_room(path: str) -> bool:
    free = os.statvfs(install.nearest(os.path.realpath(path)))  # a link may lead to what is yet to be made
    return free.f_bavail > 0 and (free.f_files == 0 or free.f_favail > 0)


def kept(spec: NodeSpec, previous: NodeSpec | None) -> list[PreflightFinding]:
    """What keeps the node over a boot can be written; where it can't, the node does without."""
    message = "can't be written here and is left out: the node works without it until the next boot or restart"
    what = hint.advice(
        "have this host's own image or configuration bring that file (cnictl init-node elsewhere shows its text)",
        because="the file system is read-only by the operator's choice",
    )
    paths = inventory.skipped(spec, (previous,) if previous is not None else ())
    return [warning("not-kept", path, message, what) for path in paths]


def _no_exec(folder: str) -> bool:
    return bool(os.statvfs(install.nearest(folder)).f_flag & os.ST_NOEXEC)


def conf_name(spec: NodeSpec, previous: NodeSpec | None) -> list[PreflightFinding]:  # noqa: ARG001
    """No file of another tool's has our conf's name."""
    found = []
    for folder in runtimes.conf_dirs(runtimes.find()):
        path = f"{folder}/{FILE_NAME}"
        if is_foreign(path):
            found.append(error("conf-name", path, "is there and not cnictl's", _move_away(path)))
    return found


def conf_order(spec: NodeSpec, previous: NodeSpec | None) -> list[PreflightFinding]:  # noqa: ARG001
    """No conf sorts before ours: runtimes take the first by name."""
    found = []
    for folder in runtimes.conf_dirs(runtimes.find()):
        try:
            names = sorted(os.listdir(folder))
        except (FileNotFoundError, NotADirectoryError):
            continue
        for name in names:
            if name < FILE_NAME and name.endswith(_CONF_ENDINGS):
                message = f"sorts before {FILE_NAME}: runtimes would use it instead"
                found.append(error("conf-order", f"{folder}/{name}", message, _move_away(f"{folder}/{name}")))
    return found


def bin_dir(spec: NodeSpec, previous: NodeSpec | None) -> list[PreflightFinding]:  # noqa: ARG001
    """Each runtime's plugin folder can be written to, by root alone."""
    found = []
    for folder in runtimes.bin_dirs(runtimes.find()):
        if not runtimes.writable(folder):
            found.append(error("bin-dir", folder, "can't be written to", _WRITABLE))
        elif _no_exec(folder):
            what = hint.advice(
                "mount -o remount,exec the file system that it is on, or name another folder in the runtime's conf",
                because="mounts and the runtime's conf are the operator's",
            )
            found.append(error("bin-dir", folder, "is mounted noexec: no runtime can start a plugin there", what))
        reason = ownership.fault(install.nearest(folder))
        if reason:
            what = to_root(install.nearest(folder), "what is there runs as root at every pod's start")
            found.append(error("bin-dir", folder, reason, what))
    places = ", ".join(runtimes.bin_dirs(runtimes.find()))
    for folder in runtimes.passed_over(runtimes.find()):
        message = f"can't be written to and is passed over: the plugin is put into {places} alone"
        what = hint.advice(
            f"should a runtime look there: mount it writable and run this again, or name {places} in its conf",
            because="mounts and the runtime's conf are the operator's",
        )
        found.append(warning("bin-dir", folder, message, what))
    return found


def _elsewhere() -> Hint:
    return hint.command("cnictl plugin install --lib-dir /opt/cnictl", "it installs the plugin elsewhere")


def lib_dir(spec: NodeSpec, previous: NodeSpec | None) -> list[PreflightFinding]:  # noqa: ARG001
    """The folder for the plugin's versions can be written to, by root alone."""
    found = install.installed(runtimes.bin_dirs(runtimes.find()))
    folder = found.lib_dir
    if not found.current and not runtimes.writable(folder):
        return [error("lib-dir", folder, "can't be written to", _elsewhere())]
    if not found.current and _no_exec(folder):
        message = "is mounted noexec: the plugin's launcher can't be tried there"
        return [error("lib-dir", folder, message, _elsewhere())]
    reason = ownership.fault(install.nearest(folder))
    if not reason:
        return []
    what = to_root(install.nearest(folder), "its code runs as root at every pod's start")
    return [error("lib-dir", folder, reason, what)]


def launcher_name(spec: NodeSpec, previous: NodeSpec | None) -> list[PreflightFinding]:  # noqa: ARG001
    """No file of another tool's has our launcher's name."""
    paths = [f"{folder}/{PLUGIN}" for folder in runtimes.bin_dirs(runtimes.find())]
    return [
        error("launcher-name", path, "is there and not cnictl's", _move_away(path))
        for path in paths
        if install.is_foreign(path)
    ]


def loopback(spec: NodeSpec, previous: NodeSpec | None) -> list[PreflightFinding]:  # noqa: ARG001
    """The CRI runs `loopback` for each pod; without it every pod fails though the node says ready."""
    found = []
    for runtime in runtimes.find():
        there = any(os.access(f"{folder}/loopback", os.X_OK) for folder in runtime.bin_dirs)
        if runtime.settled and runtime.needs_loopback and not there:
            subject = f"{runtime.name}: {', '.join(runtime.bin_dirs)}"
            message = "has no `loopback` plugin, which the CRI runs for every pod"
            found.append(error("loopback", subject, message, _get_loopback(runtime.bin_dirs[0])))
    return found


def boot_command(spec: NodeSpec, previous: NodeSpec | None) -> list[PreflightFinding]:  # noqa: ARG001
    """What the units will start is root's alone."""
    if not boot_unit.systemd_runs():
        return []
    if files.is_masked(boot_unit.UNIT_FILE):
        message = "is masked: no boot will bring the node back"
        what = hint.command(f"systemctl unmask {boot_unit.UNIT}")
        return [warning("boot-command", boot_unit.UNIT_FILE, message, what)]
    reason = ownership.fault(install.nearest(program.HOME))
    if not reason:
        return []
    what = to_root(install.nearest(program.HOME), "what is there runs as root at boot")
    return [error("boot-command", program.HOME, reason, what)]
