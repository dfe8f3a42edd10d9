"""How a report looks: a matrix at a terminal, with the causes below; aligned plain lines in a pipe."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cnictl.probe.checks import CHECKS, FAILED, OK, SKIPPED, UNCERTAIN, CheckResult, Report
from cnictl.probe.failure import Cause

TITLES = {
    "own-host": "own host",
    "pod-same-host": "pod, same host",
    "other-host": "other host",
    "pod-other-host": "pod, other host",
    "external": "external",
}
_STYLES = {OK: "green", FAILED: "bold red", UNCERTAIN: "yellow", SKIPPED: "dim"}
_SIGNS = {OK: "✔", FAILED: "✘", UNCERTAIN: "?", SKIPPED: "-"}


def matrix(reports: Sequence[tuple[str, Report]], title: str = "") -> RenderableType:
    """One row a report and family, labelled with where its pod stands; one column a check; causes of failures below."""
    rows = [(label, part) for label, report in reports for part in _families(report)]
    table = Table(title=title or None, title_justify="left", header_style="bold", show_lines=len(rows) > 1)
    table.add_column("pod on", overflow="fold")
    for check in CHECKS:
        table.add_column(f"→ {TITLES[check]}", overflow="fold")
    for label, checks in rows:
        cells = [[one for one in checks if one.check == check] for check in CHECKS]
        source = checks[0].source or "no address"
        table.add_row(Text.assemble(label, "\n", (source, "dim")), *(_cell(cell) for cell in cells))
    if any(check.rtt_ms for _, report in reports for check in report.checks):
        table.caption, table.caption_justify = "round trips in ms: shortest/mean/longest", "left"
    causes = _causes(reports)
    return Group(table, *causes) if causes else table


def _families(report: Report) -> list[list[CheckResult]]:
    """A report's checks, those of each family by themselves."""
    names = dict.fromkeys(one.family for one in report.checks)
    return [[one for one in report.checks if one.family == name] for name in names]


def lines(report: Report) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Column names and rows of plain text."""
    columns: tuple[str, ...] = ("check", "from", "to", "state", "loss", "rtt ms", "cause", "hint")
    rows: list[tuple[str, ...]] = [
        (
            one.check,
            one.source or one.family,
            one.to or "-",
            one.state,
            f"{one.loss}%" if one.sent else "-",
            _times(one) or "-",
            one.cause.words if one.cause else "-",
            (one.cause.mend if one.cause else "") or "-",
        )
        for one in report.checks
    ]
    return columns, rows


def _cell(checks: Sequence[CheckResult]) -> Text:
    cell = Text()
    for one in checks:
        if cell:
            cell.append("\n")
        cell.append(f"{_SIGNS[one.state]} {_word(one)}", _STYLES[one.state])
        if one.sent:
            cell.append(f"\n{one.to}", "dim")
            cell.append(f"\n{one.loss}% loss", "dim")
            if one.rtt_ms:
                cell.append(f"\n{_times(one)}", "dim")
    return cell


def _word(one: CheckResult) -> str:
    if one.state == UNCERTAIN and one.cause is not None and one.cause.name == "gateway-only":
        return "uncertain: gateway only"
    return one.state


def _times(one: CheckResult) -> str:
    """Shortest/mean/longest round trip."""
    return "/".join(f"{time:.2f}" for time in one.rtt_ms) if one.rtt_ms else ""


def _causes(reports: Sequence[tuple[str, Report]]) -> list[Text]:
    """Each cause once, with all the checks of a row that it explains."""
    found: dict[tuple[str, str, Cause], list[str]] = {}
    for label, report in reports:
        for one in report.checks:
            if one.cause is not None and one.state != OK:
                where = f"{TITLES[one.check]} {one.to}".strip()
                found.setdefault((label, one.state, one.cause), []).append(where)
    texts = []
    for (label, state, cause), targets in found.items():
        text = Text.assemble((f"{_SIGNS[state]} {label} → {', '.join(targets)}: ", _STYLES[state]), cause.words)
        if cause.mend:
            text.append(f"\n    hint: {cause.mend}", "cyan")
        texts.append(text)
    return texts
