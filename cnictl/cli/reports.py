"""Show connectivity reports: one report as a line for each check, several as a matrix with the causes below it."""

from collections.abc import Sequence

from cnictl.cli import layout, output
from cnictl.node import hint
from cnictl.probe import matrix
from cnictl.probe.checks import FAILED, UNCERTAIN, Report

_STYLES = {FAILED: "bold red", UNCERTAIN: "yellow"}


def show(report: Report) -> None:
    """Print each check of a report, with the cause and the hint of a failure under it."""
    columns, rows = matrix.lines(report)
    hints = [check.cause.hint if check.cause else hint.NONE for check in report.checks]
    split = [
        (*row[:-1], *(("-", row[-1]) if each.command or each.option else (row[-1], "-")))
        for row, each in zip(rows, hints, strict=True)
    ]
    output.print_table((*columns, columns[-1]), split, whole=1, prose=2)


def show_matrix(reports: Sequence[tuple[str, Report]]) -> None:
    """Print the matrix of several nodes' reports, and each cause of a failure once."""
    output.print_layout(lines(reports, output.screen_width()))
    for state, words, what_to_do in matrix.causes(reports):
        output.print_hanging(f"{state}: ", words, _STYLES.get(state, "dim"))
        if what_to_do:
            output.print_lines([("cyan", f"    hint: {what_to_do}")])


def lines(reports: Sequence[tuple[str, Report]], width: int | None) -> list[layout.Line]:
    """Return the matrix's lines, with a line that explains its numbers."""
    columns, rows = matrix.matrix(reports)
    laid_out = layout.table(columns, rows, width)
    if any(check.rtt_ms for _, report in reports for check in report.checks):
        laid_out.append([layout.Segment("numbers after ok: mean round trip in ms")])
    return laid_out
