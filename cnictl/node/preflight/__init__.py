"""Everything that must hold before a host is touched. All checks run; then a run fails once, with all findings."""

from cnictl.core.errors import CniError, Problem
from cnictl.node import hint
from cnictl.node.preflight import addresses, forward, host, ownership, places
from cnictl.node.preflight.finding import Check, Finding
from cnictl.node.spec import NodeSpec

__all__ = ["CHECKS", "Finding", "run"]

CHECKS: dict[str, Check] = {
    "root": host.root,
    "firewall-tool": host.firewall_tool,
    "kernel": host.kernel,
    "ipv6": addresses.ipv6,
    "bridge": addresses.bridge,
    "subnet-overlap": addresses.subnet_overlap,
    "network-overlap": addresses.network_overlap,
    "peer-link": addresses.peer_link,
    "forward": forward.passed_over,
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


def run(spec: NodeSpec, previous_spec: NodeSpec | None) -> list[Finding]:
    """Look at the host for all that would keep `spec` from working; nothing is changed.

    `previous_spec`: what the node is now, whose own bridge and routes are no obstacle. A check that can't be made is
    a finding too.
    """
    found = []
    for name, check in CHECKS.items():
        try:
            found += check(spec, previous_spec)
        except Problem as problem:
            what = hint.advice(problem.mend, because="what was raised is text")
            found.append(Finding(name, "error", name, f"can't be checked: {problem.message}", what))
        except (OSError, CniError) as fault:
            found.append(Finding(name, "error", name, f"can't be checked: {fault}", hint.NONE))
    return found
