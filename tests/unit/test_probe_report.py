"""A report says the same as JSON, as plain lines and as a matrix."""

from io import StringIO

import pytest
from rich.console import Console

from cnictl.core.errors import UsageProblem
from cnictl.node import hint
from cnictl.probe import request
from cnictl.probe.checks import CHECKS, FAILED, OK, SKIPPED, UNCERTAIN, CheckResult, Report
from cnictl.probe.failure import FailureCause
from cnictl.probe.matrix import lines, matrix

GATEWAY = FailureCause("gateway-only", "gateway only", hint.advice("use --pod", because="a test"))
ROUTE = FailureCause("no-route", "no route to 1.1.1.1", hint.command("cnictl apply"))
GOOD = CheckResult("own-host", "10.244.0.5", "10.0.0.210", OK, 3, 3, (0.0412345, 0.05, 0.06))
UNSURE = CheckResult("pod-other-host", "10.244.0.5", "10.244.1.1", UNCERTAIN, 3, 3, (0.1, 0.2, 0.3), GATEWAY)
BAD = CheckResult("external", "10.244.0.5", "1.1.1.1", FAILED, 3, 0, None, ROUTE)
LEFT_OUT = CheckResult(
    "other-host", "10.244.0.5", "", SKIPPED, cause=FailureCause("skipped", "no peer in node.toml", hint.NONE)
)


def shown(*reports: tuple[str, Report]) -> str:
    """The matrix as text, 140 columns wide."""
    out = StringIO()
    Console(file=out, width=140, color_system=None).print(matrix(reports))
    return out.getvalue()


def test_overall_is_the_worst_that_counts() -> None:
    assert Report((GOOD, LEFT_OUT)).overall == "ok"
    assert Report((GOOD, UNSURE)).overall == "uncertain"
    assert Report((UNSURE, BAD, GOOD)).overall == "failed"


def test_json_has_every_field_whatever_the_outcome() -> None:
    document = Report((GOOD, BAD, LEFT_OUT)).as_json()
    assert document["overall"] == "failed"
    good, bad, left_out = document["checks"]
    assert set(good) == set(bad) == set(left_out)
    assert good["rtt_ms"] == {"min": 0.041, "avg": 0.05, "max": 0.06}
    assert (good["cause"], good["hint"]) == (None, None)
    assert (bad["from"], bad["to"], bad["sent"], bad["received"]) == ("10.244.0.5", "1.1.1.1", 3, 0)
    assert (bad["cause_name"], bad["cause"], bad["hint"]["text"]) == ("no-route", ROUTE.words, ROUTE.hint)
    assert (left_out["state"], left_out["hint"]) == ("skipped", None)


def test_matrix_has_a_row_for_each_family() -> None:
    six = CheckResult("own-host", "fd00:244::5", "fd00:10::210", OK, 3, 3, (0.1, 0.2, 0.3))
    without = CheckResult(
        "own-host",
        "",
        "",
        FAILED,
        cause=FailureCause("no-address", "pod p has no IPv6 address", hint.NONE),
        family="ipv6",
    )
    assert [one["family"] for one in Report((GOOD, six)).as_json()["checks"]] == ["ipv4", "ipv6"]
    text = shown(("node1", Report((GOOD, BAD, six))), ("node2", Report((GOOD, without))))
    assert text.count("node1") == 3  # its rows, and the cause of the one that failed
    assert "fd00:10::210" in text
    assert "no address" in text


def test_matrix_has_a_column_a_check_and_a_row_a_pod() -> None:
    text = shown(("node1", Report((GOOD, UNSURE, BAD))), ("node2", Report((GOOD,))))
    for title in ("own host", "pod, same host", "other host", "pod, other host", "external"):
        assert f"→ {title}" in text
    assert "✔ ok" in text
    assert "? uncertain: gateway only" in text
    assert "✘ failed" in text
    assert "100% loss" in text
    assert "0.04/0.05/0.06 " in text
    assert "node2" in text


def test_matrix_names_each_failures_cause_and_hint() -> None:
    text = shown(("node1", Report((GOOD, BAD))))
    assert "✘ node1 → external 1.1.1.1: no route to 1.1.1.1" in text
    assert "hint: cnictl apply" in text
    assert "own host 10.0.0.210:" not in text


def test_matrix_names_a_cause_once_for_all_it_explains() -> None:
    also = CheckResult("other-host", "10.244.0.5", "10.0.10.51", FAILED, 3, 0, None, ROUTE)
    text = shown(("node1", Report((GOOD, also, BAD))))
    assert "✘ node1 → other host 10.0.10.51, external 1.1.1.1: no route to 1.1.1.1" in text
    assert text.count("hint:") == 1


def test_lines_are_whole_for_programs_that_cut_columns() -> None:
    columns, rows = lines(Report((GOOD, BAD, LEFT_OUT)))
    assert all(len(row) == len(columns) for row in rows)
    assert all(cell for row in rows for cell in row)
    assert rows[1][3:5] == ("failed", "100%")
    assert {check for check, *_ in rows} <= set(CHECKS)


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400)])
def test_times_are_read(text: str, seconds: float) -> None:
    assert request.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "10d", "-1s", "0", "nan", "inf", "1e99h"])
def test_what_is_no_time_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageProblem, match="not a time such as"):
        request.seconds(text)
