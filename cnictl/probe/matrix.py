"""Render a report: a matrix with the causes below it on a terminal, aligned plain lines in a pipe."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

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
_STYLES = {OK: "green", FAILED: "bold red", UNCERTAIN: "yellow", SKIPPED: "dim"}
_SIGNS = {OK: "✔", FAILED: "✘", UNCERTAIN: "?", SKIPPED: "-"}


def matrix(reports: Sequence[tuple[str, Report]], title: str = "") -> RenderableType:
    """Return the matrix: one row per report and family, one column per check, the causes of failures below.

    Each report comes with the name of its pod's node.
    """
    rows = [(label, part) for label, report in reports for part in _families(report)]
    table = Table(title=title or None, title_justify="left", header_style="bold", show_lines=len(rows) > 1)
    table.add_column("pod on", overflow="fold")
    for check in CHECKS:
        table.add_column(f"→ {TITLES[check]}", overflow="fold")
    for label, checks in rows:
        cells = [[check for check in checks if check.check == kind] for kind in CHECKS]
        source = checks[0].source or "no address"
        table.add_row(Text.assemble(label, "\n", (source, "dim")), *(_cell(cell) for cell in cells))
    if any(check.rtt_ms for _, report in reports for check in report.checks):
        table.caption, table.caption_justify = "round trips in ms: shortest/mean/longest", "left"
    causes = _causes(reports)
    return Group(table, *causes) if causes else table


def _families(report: Report) -> list[list[CheckResult]]:
    """Return a report's checks, grouped by family."""
    names = dict.fromkeys(check.family for check in report.checks)
    return [[check for check in report.checks if check.family == name] for name in names]


def lines(report: Report) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the column names and the rows of the plain text."""
    columns: tuple[str, ...] = ("check", "from", "to", "state", "loss", "rtt ms", "cause", "hint")
    rows: list[tuple[str, ...]] = [
        (
            check.check,
            check.source or check.family,
            " ".join(filter(None, (check.to, f"({check.detail})" if check.detail else ""))) or "-",
            check.state,
            f"{check.loss}%" if check.sent else "-",
            _times(check) or "-",
            check.cause.words if check.cause else "-",
            (check.cause.hint if check.cause else "") or "-",
        )
        for check in report.checks
    ]
    return columns, rows


def _cell(checks: Sequence[CheckResult]) -> Text:
    cell = Text()
    for check in checks:
        if cell:
            cell.append("\n")
        cell.append(f"{_SIGNS[check.state]} {_word(check)}", _STYLES[check.state])
        if check.sent:
            cell.append(f"\n{check.to}", "dim")
            cell.append(f"\n{check.loss}% loss", "dim")
            if check.rtt_ms:
                cell.append(f"\n{_times(check)}", "dim")
    return cell


def _word(check: CheckResult) -> str:
    if check.state == UNCERTAIN and check.cause is not None and check.cause.name == "gateway-only":
        return "uncertain: gateway only"
    return check.state


def _times(check: CheckResult) -> str:
    """Return the shortest, mean and longest round trip, separated by slashes."""
    return "/".join(f"{time:.2f}" for time in check.rtt_ms) if check.rtt_ms else ""


def _causes(reports: Sequence[tuple[str, Report]]) -> list[Text]:
    """Return each cause once, with all the checks of a row that it explains."""
    targets_by_cause: dict[tuple[str, str, FailureCause], list[str]] = {}
    for label, report in reports:
        for check in report.checks:
            if check.cause is not None and check.state != OK:
                where = f"{TITLES[check.check]} {check.to}".strip()
                targets_by_cause.setdefault((label, check.state, check.cause), []).append(where)
    texts = []
    for (label, state, cause), targets in targets_by_cause.items():
        text = Text.assemble((f"{_SIGNS[state]} {label} → {', '.join(targets)}: ", _STYLES[state]), cause.words)
        if cause.hint:
            text.append(f"\n    hint: {cause.hint}", "cyan")
        texts.append(text)
    return texts
