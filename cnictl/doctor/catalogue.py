"""Every check, in the order in which they are made, and a run of them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from cnictl.core.errors import CniError, Problem, UsageProblem
from cnictl.doctor import drift, firewall, ipam, kernel, links, managers, path, remnants, runtime
from cnictl.doctor.check import Check, Finding
from cnictl.doctor.facts import Facts

CHECKS: tuple[Check, ...] = (
    *kernel.CHECKS,
    *drift.CHECKS,
    *firewall.CHECKS,
    *links.CHECKS,
    *managers.CHECKS,
    *ipam.CHECKS,
    *path.CHECKS,
    *runtime.CHECKS,
    *remnants.CHECKS,
)


@dataclass(frozen=True)
class Examined:
    """What a run of checks came to."""

    findings: tuple[Finding, ...]
    unable: tuple[tuple[str, str], ...]
    """Checks that couldn't be made, each with its reason."""


def by_id(name: str) -> Check | None:
    """The check of that id."""
    return next((check for check in CHECKS if check.id == name), None)


def examine(facts: Facts, only: Collection[str] = (), skip: Collection[str] = ()) -> Examined:
    """Make the checks; one that another's finding explains says nothing. Raises UsageProblem if none is left."""
    chosen = [check for check in CHECKS if (not only or check.id in only) and check.id not in skip]
    if not chosen:
        raise UsageProblem("every check is skipped, so nothing would be looked at", "name fewer with --skip")
    found: dict[str, list[Finding]] = {}
    unable: list[tuple[str, str]] = []
    for check in chosen:
        try:
            found[check.id] = check.findings(facts)
        except (Problem, CniError) as problem:
            unable.append((check.id, problem.message if isinstance(problem, Problem) else problem.msg))
        except OSError as error:
            unable.append((check.id, f"{error.filename or ''} {error.strerror or error}".strip()))
        except Exception as fault:  # what one check did not reckon with is to cost no other
            unable.append((check.id, f"a fault of cnictl, please report it: {type(fault).__name__}: {fault}"))
    return Examined(tuple(_explained(chosen, found)), tuple(unable))


def _explained(chosen: Sequence[Check], found: dict[str, list[Finding]]) -> list[Finding]:
    left = []
    for check in chosen:
        explaining = [finding for other in check.behind for finding in found.get(other, ())]
        # an error that only a warning explains would leave the exit status at 0
        worst = {finding.severity for finding in explaining}
        if not worst or (check.severity == "error" and "error" not in worst):
            left += found.get(check.id, [])
    return sorted(left, key=lambda finding: finding.severity != "error")
