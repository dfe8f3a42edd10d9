"""Show connectivity reports: one report as a line for each check, several as a matrix with the causes below it."""

from collections.abc import Sequence

from cnictl.cli import layout, output
from cnictl.probe import matrix
from cnictl.probe.checks import FAILED, UNCERTAIN, Report

_STYLES = {FAILED: "bold red", UNCERTAIN: "yellow"}


def show(report: Report) -> None:
    """Print each check of a report, with the cause and the hint of a failure under it."""
    columns, rows = matrix.lines(report)
    output.print_table(columns, rows, whole=1, prose=1)


def show_matrix(reports: Sequence[tuple[str, Report]]) -> None:
    """Print the matrix of several nodes' reports, and each cause of a failure once."""
    output.print_layout(lines(reports, output.screen_width()))
    for state, words, hint in matrix.causes(reports):
        output.print_lines([(_STYLES.get(state, "dim"), f"{state}: {words}")])
        if hint:
            output.print_lines([("cyan", f"    hint: {hint}")])


def lines(reports: Sequence[tuple[str, Report]], width: int | None) -> list[layout.Line]:
    """Return the matrix's lines, with a line that explains its numbers."""
    columns, rows = matrix.matrix(reports)
    laid_out = layout.table(columns, rows, width)
    if any(check.rtt_ms for _, report in reports for check in report.checks):
        laid_out.append([layout.Segment("numbers after ok: mean round trip in ms")])
    return laid_out
