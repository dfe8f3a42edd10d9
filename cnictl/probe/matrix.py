"""Show reports as tables: each check of one report on a line, or one matrix of several; then the causes of failures."""

from collections.abc import Sequence

from cnictl.probe.checks import CHECKS, FAILED, OK, SKIPPED, UNCERTAIN, CheckResult, Report
from cnictl.probe.failure import FailureCause

TITLES = {
    "own-host": "own host",
    "pod-same-host": "pod, same host",
    "other-host": "other host",
    "pod-other-host": "pod, other host",
    "external": "external",
    "tcp": "TCP",
    "udp": "UDP",
    "dns": "DNS",
    "cluster-ip": "ClusterIP",
    "host-port": "host port",
    "hairpin": "hairpin",
    "path-mtu": "path MTU",
    "ipv6": "IPv6",
}
_HEADINGS = {**TITLES, "pod-same-host": "pod here", "pod-other-host": "pod there"}
"""The matrix's columns, which must fit on a screen of 80 columns."""
_WORST_FIRST = (FAILED, UNCERTAIN, OK, SKIPPED)

Rows = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""The names of columns, and rows."""


def matrix(reports: Sequence[tuple[str, Report]]) -> Rows:
    """Return the matrix: one row for each report and family, and one column for each check.

    Each report comes with the name of its pod's node. A cell is the worst state of a check, with the mean round trip in
    ms, or with how many of several targets are in this state.
    """
    columns = ("pod on", "from", *(_HEADINGS[check] for check in CHECKS))
    rows = []
    for label, report in reports:
        for checks in _families(report):
            cells = (_cell([check for check in checks if check.check == kind]) for kind in CHECKS)
            rows.append((label, checks[0].source or "no address", *cells))
    return columns, rows


def _families(report: Report) -> list[list[CheckResult]]:
    """Return a report's checks, grouped by family."""
    names = dict.fromkeys(check.family for check in report.checks)
    return [[check for check in report.checks if check.family == name] for name in names]


def lines(report: Report) -> Rows:
    """Return the checks of one report, each on a line. The last two columns are the cause of a failure and its hint.

    A cause and its hint are given once; later checks that it explains refer to the first.
    """
    columns: tuple[str, ...] = ("check", "from", "to", "state", "loss", "avg ms", "cause", "hint")
    rows: list[tuple[str, ...]] = [
        (
            check.check,
            check.source or check.family,
            " ".join(filter(None, (check.to, f"({check.detail})" if check.detail else ""))) or "-",
            check.state,
            f"{check.loss}%" if check.sent else "-",
            _times(check) or "-",
            *_cause_cells(check, report),
        )
        for check in report.checks
    ]
    return columns, rows


def _cause_cells(check: CheckResult, report: Report) -> tuple[str, str]:
    """Return a check's cause and hint, or a reference to the first check with the same fault."""
    cause = check.cause
    if cause is None:
        return "-", "-"
    first = next(other for other in report.checks if (other.state, other.cause) == (check.state, cause))
    if first is not check and cause.hint:
        return f"the same as for {' '.join(filter(None, (first.check, first.to)))}", "-"
    return cause.words, cause.hint or "-"


def _cell(checks: Sequence[CheckResult]) -> str:
    if not checks:
        return "-"
    state = next(state for state in _WORST_FIRST if any(check.state == state for check in checks))
    if len(checks) > 1:
        return f"{state}: {sum(check.state == state for check in checks)} of {len(checks)}"
    return f"{state}: {checks[0].rtt_ms[1]:.2f}" if state == OK and checks[0].rtt_ms else state


def _times(check: CheckResult) -> str:
    """Return the mean round trip. With the shortest and longest (see JSON), a check would not fit on one line."""
    return f"{check.rtt_ms[1]:.2f}" if check.rtt_ms else ""


def causes(reports: Sequence[tuple[str, Report]]) -> list[tuple[str, str, str]]:
    """Return each cause once: its state, words that name all the checks of a row that it explains, and the hint."""
    targets_by_cause: dict[tuple[str, str, FailureCause], list[str]] = {}
    for label, report in reports:
        for check in report.checks:
            if check.cause is not None and check.state != OK:
                where = f"{TITLES[check.check]} {check.to}".strip()
                targets_by_cause.setdefault((label, check.state, check.cause), []).append(where)
    return [
        (state, f"{label} → {', '.join(targets)}: {cause.words}", str(cause.hint))
        for (label, state, cause), targets in targets_by_cause.items()
    ]
