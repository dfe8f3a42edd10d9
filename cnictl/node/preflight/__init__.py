"""Check a host before it is changed. All checks run; then the run fails once, with all findings.

As with kubeadm, an operator can ignore the findings of a check by its name. `_NEVER` lists the exceptions.
"""

from collections.abc import Collection, Iterable
from dataclasses import replace

from cnictl.core import untrusted_text
from cnictl.core.errors import Problem, UsageProblem
from cnictl.node import hint
from cnictl.node.preflight import addresses, forward, host, ownership, places
from cnictl.node.preflight.finding import PreflightCheck, PreflightFinding
from cnictl.node.spec.node_spec import NodeSpec

__all__ = ["CHECKS", "IGNORABLE", "PreflightFinding", "parse_ignored", "run", "without_ignored"]

_ALL = "all"
_NEVER = {"root": "only root can set up a node"}
"""Checks that can't be ignored, with the reason."""

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
"""The names that `--ignore` takes, in addition to `all`."""


def parse_ignored(texts: Iterable[str]) -> frozenset[str]:
    """Return the check names in the values of `--ignore`: one name, several separated by commas, or `all`.

    Raises UsageProblem for a name of no check, or of a check that can't be ignored.
    """
    names = {name.strip().lower() for text in texts for name in text.split(",")} - {""}
    for name in sorted(names - {_ALL}):
        if name in _NEVER:
            raise UsageProblem(f"preflight check {name} can't be ignored: {_NEVER[name]}")
        if name not in CHECKS:
            listed = ", ".join((*IGNORABLE, _ALL))
            raise UsageProblem(
                f"there is no preflight check {untrusted_text.line(name)!r}", f"the checks are: {listed}"
            )
    return frozenset(IGNORABLE) if _ALL in names else frozenset(names)


def without_ignored(findings: Iterable[PreflightFinding], ignored: Collection[str]) -> list[PreflightFinding]:
    """Return the findings, with those of ignored checks marked. A marked finding does not stop a run."""
    return [replace(finding, ignored=True) if finding.name in ignored else finding for finding in findings]


def run(spec: NodeSpec, previous_spec: NodeSpec | None) -> list[PreflightFinding]:
    """Return everything on the host that would keep `spec` from working. Nothing is changed.

    `previous_spec` is the node's present spec, whose bridge and routes are no obstacle. A check that can't be made is a
    finding too.
    """
    findings = []
    for name, check in CHECKS.items():
        try:
            findings += check(spec, previous_spec)
        except Problem as problem:
            what_to_do = hint.advice(problem.hint, because="the error's hint is text")
            findings.append(PreflightFinding(name, "error", name, f"can't be checked: {problem.message}", what_to_do))
        except OSError as fault:
            findings.append(PreflightFinding(name, "error", name, f"can't be checked: {fault}", hint.NONE))
    return findings
