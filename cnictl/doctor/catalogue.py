"""List every check, and run them in that order."""

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from difflib import get_close_matches

from cnictl.core import skipped_entries
from cnictl.core.errors import Problem, UsageProblem
from cnictl.doctor import drift, firewall, ipam, kernel, links, managers, path, remnants, routing, runtime, source
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
    *source.CHECKS,
    *runtime.CHECKS,
    *remnants.CHECKS,
)


@dataclass(frozen=True)
class Examined:
    """The results of the checks."""

    findings: tuple[Finding, ...]
    unable: tuple[tuple[str, str], ...]
    """The checks that could not be run, with the reasons."""

    def with_read_failures(self) -> "Examined":
        """Return the results with the leases and records that could not be read, which `stale-lease` counts."""
        return replace(self, unable=(*self.unable, *(("stale-lease", line) for line in skipped_entries.failures())))

    def is_healthy(self, is_node: bool) -> bool:
        """Return whether every check ran and found nothing, on a host that is a node."""
        return is_node and not self.findings and not self.unable

    def fails(self, is_node: bool) -> bool:
        """Return whether the exit status is 1: on errors, if a check did not run, or if the host is not a node."""
        return not is_node or bool(self.unable) or any(finding.severity == "error" for finding in self.findings)


def by_id(name: str) -> Check | None:
    """Return the check with this id; None if there is none."""
    return next((check for check in CHECKS if check.id == name), None)


def _ignore_progress(_: str) -> None:
    """Ignore the name of a check that starts."""


def examine(
    facts: Facts, only: Collection[str] = (), skip: Collection[str] = (), tell: Callable[[str], None] = _ignore_progress
) -> Examined:
    """Run the checks. Findings that another finding explains are left out. Raises UsageProblem if no check is left.

    Checks that wait for other hosts run in parallel with the rest. `tell` is called with each check's name before it
    runs.
    """
    chosen = [check for check in CHECKS if (not only or check.id in only) and check.id not in skip]
    if not chosen:
        raise UsageProblem("every check is skipped", "skip fewer checks")
    waiting = [check for check in chosen if check.waits]
    findings_by_check: dict[str, list[Finding]] = {}
    unable: list[tuple[str, str]] = []
    with reading.cached_pass(), ThreadPoolExecutor(max(1, len(waiting)), initializer=reading.joining()) as pool:
        started = {check.id: pool.submit(_run_check, check, facts) for check in waiting}
        results: dict[str, tuple[list[Finding], str | None]] = {}
        for check in (check for check in chosen if not check.waits):
            tell(f"check {len(results) + 1} of {len(chosen)}: {check.id}")
            results[check.id] = _run_check(check, facts)
        for name, future in started.items():
            tell(f"check {len(results) + 1} of {len(chosen)}: {name} (waits for other hosts)")
            results[name] = future.result()
    for check in chosen:
        findings, why = results[check.id]
        if why is not None:
            unable.append((check.id, why))
        else:
            findings_by_check[check.id] = findings
    return Examined(tuple(_explained(chosen, findings_by_check)), tuple(unable))


def _run_check(check: Check, facts: Facts) -> tuple[list[Finding], str | None]:
    """Return a check's findings and None, or no findings and the reason why it could not be run."""
    try:
        return check.findings(facts), None
    except Problem as problem:
        return [], problem.message
    except OSError as error:
        return [], f"{error.filename or ''} {error.strerror or error}".strip()
    except Exception as fault:  # an unexpected error in one check must not stop the others
        return [], f"a bug in cnictl, please report it: {type(fault).__name__}: {fault}"


def _explained(chosen: Sequence[Check], findings_by_check: dict[str, list[Finding]]) -> list[Finding]:
    left = []
    for check in chosen:
        explaining = [finding for other in check.behind for finding in findings_by_check.get(other, ())]
        # hiding an error behind a warning would leave the exit status at 0
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
