"""Everything that must hold before a host is touched. All checks run; then a run fails once, with all findings.

A finding can be ignored by its check's name, as with kubeadm, but for what makes going on impossible.
"""

from collections.abc import Collection, Iterable
from dataclasses import replace

from cnictl.core import outside
from cnictl.core.errors import Problem, UsageProblem
from cnictl.node import hint
from cnictl.node.preflight import addresses, forward, host, ownership, places
from cnictl.node.preflight.finding import PreflightCheck, PreflightFinding
from cnictl.node.spec.node_spec import NodeSpec

__all__ = ["CHECKS", "IGNORABLE", "PreflightFinding", "parse_ignored", "run", "without_ignored"]

_ALL = "all"
_NEVER = {"root": "no user but root can set a node up"}
"""Checks whose errors no option passes over, with the reason."""

CHECKS: dict[str, PreflightCheck] = {
    "root": host.root,
    "firewall-tool": host.firewall_tool,
    "kernel": host.kernel,
    "ipv6": addresses.ipv6,
    "bridge": addresses.bridge,
    "subnet-overlap": addresses.subnet_overlap,
    "policy-rules": addresses.policy_rules,
    "network-overlap": addresses.network_overlap,
    "peer-link": addresses.peer_link,
    "forward": forward.passed_over,
    "state": places.state,
    "not-kept": places.kept,
    "conf-dir": places.conf_dir,
    "conf-name": places.conf_name,
    "conf-order": places.conf_order,
    "bin-dir": places.bin_dir,
    "lib-dir": places.lib_dir,
    "launcher-name": places.launcher_name,
    "loopback": places.loopback,
    "boot-command": places.boot_command,
    "programs": ownership.programs,
    "ownership": ownership.folders,
    "unit-code": ownership.unit_code,
}


IGNORABLE = tuple(name for name in CHECKS if name not in _NEVER)
"""The names that `--ignore` takes, beside `all`."""


def parse_ignored(texts: Iterable[str]) -> frozenset[str]:
    """Return the names in what `--ignore` was given: one, several with commas, or `all`.

    Raises UsageProblem for a name that no check has, or whose check can't be ignored.
    """
    names = {name.strip().lower() for text in texts for name in text.split(",")} - {""}
    for name in sorted(names - {_ALL}):
        if name in _NEVER:
            raise UsageProblem(f"preflight check {name} can't be ignored: {_NEVER[name]}")
        if name not in CHECKS:
            known = ", ".join((*IGNORABLE, _ALL))
            raise UsageProblem(f"there is no preflight check {outside.line(name)!r} to ignore", f"they are: {known}")
    return frozenset(IGNORABLE) if _ALL in names else frozenset(names)


def without_ignored(findings: Iterable[PreflightFinding], ignored: Collection[str]) -> list[PreflightFinding]:
    """Return the findings with those that are ignored marked so; they stand in no run's way."""
    return [replace(one, ignored=True) if one.name in ignored else one for one in findings]


def run(spec: NodeSpec, previous_spec: NodeSpec | None) -> list[PreflightFinding]:
    """Look at the host for all that would keep `spec` from working; nothing is changed.

    `previous_spec`: what the node is now, whose own bridge and routes are no obstacle. A check that can't be made is
    a finding too.
    """
    found = []
    for name, check in CHECKS.items():
        try:
            found += check(spec, previous_spec)
        except Problem as problem:
            what = hint.advice(problem.hint, because="what was raised is text")
            found.append(PreflightFinding(name, "error", name, f"can't be checked: {problem.message}", what))
        except OSError as fault:
            found.append(PreflightFinding(name, "error", name, f"can't be checked: {fault}", hint.NONE))
    return found
