"""The folders and files that runtimes read: conf, plugins, and what else starts as root."""

import os
import shlex

from cnictl.node import files, hint, install, program, runtimes, trust
from cnictl.node.hint import Hint
from cnictl.node.library import PLUGIN
from cnictl.node.preflight.finding import Finding, error, warning
from cnictl.node.preflight.root_alone import to_root
from cnictl.node.resources import boot_unit
from cnictl.node.resources.cni_conf import FILE_NAME, is_foreign
from cnictl.node.spec import NodeSpec

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


def conf_dir(spec: NodeSpec, previous: NodeSpec | None) -> list[Finding]:  # noqa: ARG001
    """Each runtime's conf folder can be written to."""
    return [
        error("conf-dir", folder, "can't be written to", _WRITABLE)
        for folder in runtimes.conf_dirs(runtimes.find())
        if not runtimes.writable(folder)
    ]


def conf_name(spec: NodeSpec, previous: NodeSpec | None) -> list[Finding]:  # noqa: ARG001
    """No file of another tool's has our conf's name."""
    found = []
    for folder in runtimes.conf_dirs(runtimes.find()):
        path = f"{folder}/{FILE_NAME}"
        if is_foreign(path):
            found.append(error("conf-name", path, "is there and not cnictl's", _move_away(path)))
    return found


def conf_order(spec: NodeSpec, previous: NodeSpec | None) -> list[Finding]:  # noqa: ARG001
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


def bin_dir(spec: NodeSpec, previous: NodeSpec | None) -> list[Finding]:  # noqa: ARG001
    """Each runtime's plugin folder can be written to, by root alone."""
    found = []
    for folder in runtimes.bin_dirs(runtimes.find()):
        if not runtimes.writable(folder):
            found.append(error("bin-dir", folder, "can't be written to", _WRITABLE))
        reason = trust.fault(install.nearest(folder))
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


def lib_dir(spec: NodeSpec, previous: NodeSpec | None) -> list[Finding]:  # noqa: ARG001
    """The folder for the plugin's versions can be written to, by root alone."""
    found = install.installed(runtimes.bin_dirs(runtimes.find()))
    folder = found.lib_dir
    if not found.current and not runtimes.writable(folder):
        what = hint.command("cnictl plugin install --lib-dir /opt/cnictl", "it installs the plugin elsewhere")
        return [error("lib-dir", folder, "can't be written to", what)]
    reason = trust.fault(install.nearest(folder))
    if not reason:
        return []
    what = to_root(install.nearest(folder), "its code runs as root at every pod's start")
    return [error("lib-dir", folder, reason, what)]


def launcher_name(spec: NodeSpec, previous: NodeSpec | None) -> list[Finding]:  # noqa: ARG001
    """No file of another tool's has our launcher's name."""
    paths = [f"{folder}/{PLUGIN}" for folder in runtimes.bin_dirs(runtimes.find())]
    return [
        error("launcher-name", path, "is there and not cnictl's", _move_away(path))
        for path in paths
        if install.is_foreign(path)
    ]


def loopback(spec: NodeSpec, previous: NodeSpec | None) -> list[Finding]:  # noqa: ARG001
    """The CRI runs `loopback` for each pod; without it every pod fails though the node says ready."""
    found = []
    for runtime in runtimes.find():
        there = any(os.access(f"{folder}/loopback", os.X_OK) for folder in runtime.bin_dirs)
        if runtime.settled and runtime.needs_loopback and not there:
            subject = f"{runtime.name}: {', '.join(runtime.bin_dirs)}"
            message = "has no `loopback` plugin, which the CRI runs for every pod"
            found.append(error("loopback", subject, message, _get_loopback(runtime.bin_dirs[0])))
    return found


def boot_command(spec: NodeSpec, previous: NodeSpec | None) -> list[Finding]:  # noqa: ARG001
    """What the units will start is root's alone."""
    if not boot_unit.systemd_runs():
        return []
    if files.is_masked(boot_unit.UNIT_FILE):
        message = "is masked: no boot will bring the node back"
        what = hint.command(f"systemctl unmask {boot_unit.UNIT}")
        return [warning("boot-command", boot_unit.UNIT_FILE, message, what)]
    reason = trust.fault(install.nearest(program.HOME))
    if not reason:
        return []
    what = to_root(install.nearest(program.HOME), "what is there runs as root at boot")
    return [error("boot-command", program.HOME, reason, what)]
