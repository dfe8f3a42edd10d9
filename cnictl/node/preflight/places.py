"""Check the folders and files of confs, plugins and state, and what the boot unit starts."""

import os
import shlex

from cnictl.core.paths import NETWORKS_DIR, NODE_FILE, RUN_DIR, STATE_DIR
from cnictl.node import hint
from cnictl.node.hint import Hint
from cnictl.node.host import runtimes
from cnictl.node.plugin import files, install, ownership, program
from cnictl.node.plugin.plugin_version import PLUGIN
from cnictl.node.preflight.finding import PreflightFinding, error, warning
from cnictl.node.preflight.root_alone import to_root
from cnictl.node.resources import boot_unit, inventory
from cnictl.node.resources.cni_conf import FILE_NAME, is_foreign
from cnictl.node.spec.node_spec import NodeSpec

_CONF_ENDINGS = (".conf", ".conflist", ".json")
"""The endings of the files that libcni reads (ConfFiles)."""


_WRITABLE = hint.advice(
    "make it writable, or name another folder in the runtime's configuration",
    because="mounts and the runtime's configuration belong to the operator",
)
_LOOPBACKS = ("/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni", "/usr/local/lib/cni")
"""The folders into which distributions and upstream install the reference plugins."""


def _move_away(path: str) -> Hint:
    """Return the hint that renames another tool's file so that no runtime reads it. It is easily renamed back."""
    return hint.command(f"mv {shlex.quote(path)} {shlex.quote(path)}.off", "if nothing needs it any more")


def _get_loopback(folder: str) -> Hint:
    """Return the hint that copies `loopback` from another folder of this host, or else to install it."""
    have = next((f"{place}/loopback" for place in _LOOPBACKS if os.access(f"{place}/loopback", os.X_OK)), "")
    if have:
        return hint.command(f"mkdir -p {shlex.quote(folder)}; cp {have} {shlex.quote(folder)}/")
    return hint.advice(
        f"install the reference plugins in {folder} (Debian: containernetworking-plugins, in /usr/lib/cni)",
        because="the distribution's package manager installs programs",
    )


def conf_dir(spec: NodeSpec, previous: NodeSpec | None) -> list[PreflightFinding]:  # noqa: ARG001
    """Check that each runtime's conf folder is writable."""
    return [
        error("conf-dir", folder, "is not writable", _WRITABLE)
        for folder in runtimes.conf_dirs(runtimes.find())
        if not runtimes.writable(folder)
    ]


def state(spec: NodeSpec, previous: NodeSpec | None) -> list[PreflightFinding]:  # noqa: ARG001
    """Check that the folders of node file, records and leases are writable, and that their disks have room."""
    findings = []
    for path in (NODE_FILE, f"{STATE_DIR}/new", f"{NETWORKS_DIR}/new", f"{RUN_DIR}/new"):
        place = path.removesuffix("/new")
        if not files.can_write(path):
            what_to_do = hint.advice(
                f"mount a writable folder at {os.path.dirname(path)}",
                because="mounts belong to the operator",
            )
            findings.append(error("state", place, "is not writable, and a node needs it", what_to_do))
        elif not _has_room(place):
            what_to_do = hint.advice(
                "free some space; df and df -i show how full it is",
                because="only the operator knows which files can be removed",
            )
            findings.append(error("state", place, "is on a full file system", what_to_do))
    return findings


def _has_room(path: str) -> bool:
    free = os.statvfs(install.nearest(os.path.realpath(path)))  # a link's target may not exist yet
    return free.f_bavail > 0 and (free.f_files == 0 or free.f_favail > 0)


def kept(spec: NodeSpec, previous: NodeSpec | None) -> list[PreflightFinding]:
    """Check that the files that restore the node after a boot are writable. Until then it works without them."""
    message = "is not writable here and is left out: the node works without it until the next boot or restart"
    what_to_do = hint.advice(
        "add the file to this host's image or configuration (cnictl init-node on another host shows its text)",
        because="the operator chose a read-only file system",
    )
    paths = inventory.skipped(spec, (previous,) if previous is not None else ())
    return [warning("not-kept", path, message, what_to_do) for path in paths]


def _no_exec(folder: str) -> bool:
    return bool(os.statvfs(install.nearest(folder)).f_flag & os.ST_NOEXEC)


def conf_name(spec: NodeSpec, previous: NodeSpec | None) -> list[PreflightFinding]:  # noqa: ARG001
    """Check that our conf's name is not taken by another tool's file."""
    findings = []
    for folder in runtimes.conf_dirs(runtimes.find()):
        path = f"{folder}/{FILE_NAME}"
        if is_foreign(path):
            findings.append(error("conf-name", path, "exists and is not cnictl's", _move_away(path)))
    return findings


def conf_order(spec: NodeSpec, previous: NodeSpec | None) -> list[PreflightFinding]:  # noqa: ARG001
    """Check that no conf sorts before ours, because runtimes use the first by name."""
    findings = []
    for folder in runtimes.conf_dirs(runtimes.find()):
        try:
            names = sorted(os.listdir(folder))
        except (FileNotFoundError, NotADirectoryError):
            continue
        for name in names:
            if name < FILE_NAME and name.endswith(_CONF_ENDINGS):
                message = f"sorts before {FILE_NAME}, so runtimes would use it instead"
                findings.append(error("conf-order", f"{folder}/{name}", message, _move_away(f"{folder}/{name}")))
    return findings


def bin_dir(spec: NodeSpec, previous: NodeSpec | None) -> list[PreflightFinding]:  # noqa: ARG001
    """Check that root, and only root, can write to each runtime's plugin folder."""
    findings = []
    for folder in runtimes.bin_dirs(runtimes.find()):
        if not runtimes.writable(folder):
            findings.append(error("bin-dir", folder, "is not writable", _WRITABLE))
        elif _no_exec(folder):
            what_to_do = hint.advice(
                "remount its file system with exec, or name another folder in the runtime's configuration",
                because="mounts and the runtime's configuration belong to the operator",
            )
            findings.append(
                error("bin-dir", folder, "is mounted noexec: no runtime can start a plugin there", what_to_do)
            )
        reason = ownership.fault(install.nearest(folder))
        if reason:
            what_to_do = to_root(install.nearest(folder), "its plugins run as root when a pod starts")
            findings.append(error("bin-dir", folder, reason, what_to_do))
    places = ", ".join(runtimes.bin_dirs(runtimes.find()))
    for folder in runtimes.passed_over(runtimes.find()):
        message = f"is not writable and is skipped: the plugin is installed only in {places}"
        what_to_do = hint.advice(
            f"if a runtime looks there, mount it writable and run this again, or name {places} in its configuration",
            because="mounts and the runtime's configuration belong to the operator",
        )
        findings.append(warning("bin-dir", folder, message, what_to_do))
    return findings


def _elsewhere() -> Hint:
    return hint.command("cnictl plugin install --lib-dir /opt/cnictl", "it installs the plugin elsewhere")


def lib_dir(spec: NodeSpec, previous: NodeSpec | None) -> list[PreflightFinding]:  # noqa: ARG001
    """Check that root, and only root, can write to the folder of the plugin's versions."""
    installed = install.installed(runtimes.bin_dirs(runtimes.find()))
    folder = installed.lib_dir
    if not installed.current and not runtimes.writable(folder):
        return [error("lib-dir", folder, "is not writable", _elsewhere())]
    if not installed.current and _no_exec(folder):
        message = "is mounted noexec: the plugin's launcher can't be tried there"
        return [error("lib-dir", folder, message, _elsewhere())]
    reason = ownership.fault(install.nearest(folder))
    if not reason:
        return []
    what_to_do = to_root(install.nearest(folder), "its code runs as root when a pod starts")
    return [error("lib-dir", folder, reason, what_to_do)]


def launcher_name(spec: NodeSpec, previous: NodeSpec | None) -> list[PreflightFinding]:  # noqa: ARG001
    """Check that our launcher's name is not taken by another tool's file."""
    paths = [f"{folder}/{PLUGIN}" for folder in runtimes.bin_dirs(runtimes.find())]
    return [
        error("launcher-name", path, "exists and is not cnictl's", _move_away(path))
        for path in paths
        if install.is_foreign(path)
    ]


def loopback(spec: NodeSpec, previous: NodeSpec | None) -> list[PreflightFinding]:  # noqa: ARG001
    """Check for `loopback`, which the CRI runs for each pod. Without it every pod fails although the node is ready."""
    findings = []
    for runtime in runtimes.find():
        has_loopback = any(os.access(f"{folder}/loopback", os.X_OK) for folder in runtime.bin_dirs)
        if runtime.settled and runtime.needs_loopback and not has_loopback:
            subject = f"{runtime.name}: {', '.join(runtime.bin_dirs)}"
            message = "has no `loopback` plugin, which the CRI runs for every pod"
            findings.append(error("loopback", subject, message, _get_loopback(runtime.bin_dirs[0])))
    return findings


def boot_command(spec: NodeSpec, previous: NodeSpec | None) -> list[PreflightFinding]:  # noqa: ARG001
    """Check that only root can change what the boot unit starts, and that the unit is not masked."""
    if not boot_unit.systemd_runs():
        return []
    if files.is_masked(boot_unit.UNIT_FILE):
        message = "is masked, so the node does not come back after a boot"
        what_to_do = hint.command(f"systemctl unmask {boot_unit.UNIT}")
        return [warning("boot-command", boot_unit.UNIT_FILE, message, what_to_do)]
    reason = ownership.fault(install.nearest(program.HOME))
    if not reason:
        return []
    what_to_do = to_root(install.nearest(program.HOME), "its code runs as root at boot")
    return [error("boot-command", program.HOME, reason, what_to_do)]
