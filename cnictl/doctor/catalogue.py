"""Every check, in the order in which they are made, and a run of them."""

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from difflib import get_close_matches

from cnictl.core.errors import Problem, UsageProblem
from cnictl.doctor import drift, firewall, ipam, kernel, links, managers, path, remnants, routing, runtime
from cnictl.doctor.check import Check, Finding
from cnictl.doctor.facts import Facts
from cnictl.node.host import reading

CHECKS: tuple[Check, ...] = (
    *kernel.CHECKS,
    *drift.CHECKS,
    *firewall.CHECKS,
    *links.CHECKS,
    *managers.CHECKS,
    *ipam.CHECKS,
    *path.CHECKS,
    *routing.CHECKS,
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
    """Make the checks; one that another's finding explains says nothing. Raises UsageProblem if none is left.

    Those that wait for other hosts are made beside the rest, so that the whole takes as long as the slowest.
    """
    chosen = [check for check in CHECKS if (not only or check.id in only) and check.id not in skip]
    if not chosen:
        raise UsageProblem("every check is skipped, so nothing would be looked at", "name fewer with --skip")
    waiting = [check for check in chosen if check.waits]
    findings_by_check: dict[str, list[Finding]] = {}
    unable: list[tuple[str, str]] = []
    with reading.once(), ThreadPoolExecutor(max(1, len(waiting))) as pool:
        begun = {check.id: pool.submit(_made, check, facts) for check in waiting}
        made = {check.id: _made(check, facts) for check in chosen if not check.waits}
        made |= {name: future.result() for name, future in begun.items()}
    for check in chosen:
        findings, why = made[check.id]
        if why is not None:
            unable.append((check.id, why))
        else:
            findings_by_check[check.id] = findings
    return Examined(tuple(_explained(chosen, findings_by_check)), tuple(unable))


def _made(check: Check, facts: Facts) -> tuple[list[Finding], str | None]:
    """What a check found, None; or why it could not be made."""
    try:
        return check.findings(facts), None
    except Problem as problem:
        return [], problem.message
    except OSError as error:
        return [], f"{error.filename or ''} {error.strerror or error}".strip()
    except Exception as fault:  # what one check did not reckon with is to cost no other
        return [], f"a fault of cnictl, please report it: {type(fault).__name__}: {fault}"


def _explained(chosen: Sequence[Check], findings_by_check: dict[str, list[Finding]]) -> list[Finding]:
    left = []
    for check in chosen:
        explaining = [finding for other in check.behind for finding in findings_by_check.get(other, ())]
        # an error that only a warning explains would leave the exit status at 0
        worst = {finding.severity for finding in explaining}
        if not worst or (check.severity == "error" and "error" not in worst):
            left += findings_by_check.get(check.id, [])
    return sorted(left, key=lambda finding: finding.severity != "error")


def require_known(name: str) -> None:
    """Raise UsageProblem, with the nearest name, unless there is a check of this name."""
    if by_id(name) is None:
        near = get_close_matches(name, [check.id for check in CHECKS], 1)
        raise UsageProblem(
            f"there is no check {name!r}", f"did you mean {near[0]}?" if near else "cnictl doctor --list"
        )
