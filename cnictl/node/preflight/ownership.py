"""Check that only root can change what root runs or reads: programs, units, and the folders of cnictl's files."""

import glob
import os

from cnictl.core.paths import NETWORKS_DIR, NODE_FILE, PLUGIN_LOG, STATE_DIR, UNIT_DIR
from cnictl.core.programs import find
from cnictl.node import hint
from cnictl.node.hint import Hint
from cnictl.node.host import runtimes
from cnictl.node.plugin import install, ownership
from cnictl.node.plugin.program import HOME
from cnictl.node.preflight.finding import PreflightFinding, error, warning
from cnictl.node.preflight.root_alone import to_root
from cnictl.node.spec.node_spec import NodeSpec

_PROGRAMS = (
    "ip", "nft", "iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore",
    "modprobe", "systemctl", "systemd-run", "networkctl", "nmcli", "firewall-cmd", "busctl", "containerd", "env",
    "bridge", "ethtool", "nsenter", "ebtables", "iptables-legacy", "ip6tables-legacy",
)  # fmt: skip
"""The programs that cnictl starts by name."""
_EXEC = ("ExecStart", "ExecStartPre", "ExecStartPost", "ExecReload", "ExecStop", "ExecStopPost", "ExecCondition")
_PATH = hint.advice(
    "put root's own folders first: PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    because="the shell that starts cnictl sets the PATH",
)
_PREFIXES = "-@:+!|"
"""The prefixes of a command in a unit (systemd.service(5), Command lines)."""


def programs(spec: NodeSpec, previous: NodeSpec | None) -> list[PreflightFinding]:  # noqa: ARG001
    """Check that only root can change each program that cnictl starts by name."""
    findings = []
    for name in _PROGRAMS:
        path = find(name)
        reason = ownership.fault(path) if path else ""
        if path and reason:
            findings.append(error("programs", path, f"root would run it, but {reason}", _PATH))
    return findings


def folders(spec: NodeSpec, previous: NodeSpec | None) -> list[PreflightFinding]:  # noqa: ARG001
    """Check that only root can change what root reads: node file, confs, records, leases and log."""
    log = spec.log_file or PLUGIN_LOG
    node_file = NODE_FILE if os.path.exists(NODE_FILE) else os.path.dirname(NODE_FILE)
    places = [node_file, STATE_DIR, NETWORKS_DIR, os.path.dirname(log), *runtimes.conf_dirs(runtimes.find())]
    findings = []
    for place in dict.fromkeys(places):
        reason = ownership.fault(install.nearest(place))
        if reason:
            what_to_do = to_root(install.nearest(place))
            message = f"{reason}; users who can write there can make root change this host"
            findings.append(warning("ownership", place, message, what_to_do))
    return findings


def unit_code(spec: NodeSpec, previous: NodeSpec | None) -> list[PreflightFinding]:  # noqa: ARG001
    """Check that only root can change the programs that units named cnictl start, such as an old watch unit's."""
    findings = []
    names = ("cnictl*.service", "cnictl*.service.d/*.conf")
    for path in sorted(path for name in names for path in glob.glob(f"{UNIT_DIR}/{name}")):
        for program in _started(path):
            reason = ownership.fault(program) if os.path.lexists(program) else ""
            if reason:
                findings.append(
                    warning("unit-code", path, f"starts {program} as root, but {reason}", _unit(path, program))
                )
    return findings


def _unit(path: str, started: str) -> Hint:
    """Return the hint for a unit named cnictl that starts a program that others can change."""
    name = os.path.basename(path)
    if name == "cnictl-watch.service":
        return hint.command(f"cnictl watch --unit > {path}; systemctl daemon-reload")
    if name == "cnictl.service":
        if started.startswith(f"{HOME}/"):
            return to_root(started)
        return hint.command("cnictl apply", "it rewrites the unit")
    return hint.advice("let it start a program that only root can change", because="the file belongs to the operator")


def _started(unit: str) -> list[str]:
    """Return every absolute path in the commands of a unit."""
    try:
        with open(unit, encoding="utf-8", errors="replace") as file:
            lines = file.read(1 << 20).splitlines()
    except OSError:
        return []
    commands = [line.partition("=") for line in lines]
    words = [word for name, _, command in commands if name.strip() in _EXEC for word in command.split()]
    paths = [word.lstrip(_PREFIXES).strip("\"'") for word in words]
    return list(dict.fromkeys(path for path in paths if path.startswith("/")))
