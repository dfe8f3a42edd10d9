"""A report has the same content as JSON, as lines and as a matrix."""

import pytest

from cnictl.cli import layout, reports
from cnictl.core.errors import UsageProblem
from cnictl.node import hint
from cnictl.probe import request
from cnictl.probe.checks import CHECKS, FAILED, OK, SKIPPED, UNCERTAIN, CheckResult, Report
from cnictl.probe.failure import FailureCause
from cnictl.probe.matrix import causes, lines

GATEWAY = FailureCause("gateway-only", "gateway only", hint.advice("use --pod", because="a test"))
ROUTE = FailureCause("no-route", "no route to 1.1.1.1", hint.command("cnictl apply"))
GOOD = CheckResult("own-host", "10.244.0.5", "10.0.0.210", OK, 3, 3, (0.0412345, 0.05, 0.06))
UNSURE = CheckResult("pod-other-host", "10.244.0.5", "10.244.1.1", UNCERTAIN, 3, 3, (0.1, 0.2, 0.3), GATEWAY)
BAD = CheckResult("external", "10.244.0.5", "1.1.1.1", FAILED, 3, 0, None, ROUTE)
LEFT_OUT = CheckResult(
    "other-host", "10.244.0.5", "", SKIPPED, cause=FailureCause("skipped", "no peer in node.toml", hint.NONE)
)


def shown(*of: tuple[str, Report], width: int = 80) -> list[str]:
    """Return the lines of the matrix."""
    return [layout.text_of(line) for line in reports.lines(of, width)]


def test_overall_is_the_worst_relevant_state() -> None:
    assert Report((GOOD, LEFT_OUT)).overall == "ok"
    assert Report((GOOD, UNSURE)).overall == "uncertain"
    assert Report((UNSURE, BAD, GOOD)).overall == "failed"


def test_json_has_every_field_with_any_outcome() -> None:
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
    assert [check["family"] for check in Report((GOOD, six)).as_json()["checks"]] == ["ipv4", "ipv6"]
    _, *rows, _ = shown(("node1", Report((GOOD, BAD, six))), ("node2", Report((GOOD, without))))
    assert [row.split()[:2] for row in rows[:2]] == [["node1", "10.244.0.5"], ["node1", "fd00:244::5"]]
    assert rows[3].startswith("node2   no address")


def test_matrix_has_a_column_a_check_and_a_row_a_pod() -> None:
    assert shown(("node1", Report((GOOD, UNSURE, BAD))), ("node2", Report((GOOD,)))) == [
        "POD ON  FROM        OWN HOST  POD HERE  OTHER HOST  POD THERE  EXTERNAL",
        "node1   10.244.0.5  ok: 0.05  -         -           uncertain  failed",
        "node2   10.244.0.5  ok: 0.05  -         -           -          -",
        "numbers after ok: mean round trip in ms",
    ]


def test_matrix_counts_several_targets_of_a_check_by_the_worst_state() -> None:
    also = CheckResult("external", "10.244.0.5", "1.0.0.1", OK, 3, 3, (0.1, 0.2, 0.3))
    assert shown(("node1", Report((BAD, also))))[1].endswith("failed: 1 of 2")


@pytest.mark.parametrize("width", [40, 60, 80, 140])
def test_matrix_fits_the_screen(width: int) -> None:
    rows = shown(("node1", Report((GOOD, UNSURE, BAD, LEFT_OUT))), ("node2", Report((GOOD,))), width=width)
    assert all(len(row) <= width for row in rows), rows


def test_matrix_names_each_failures_cause_and_hint() -> None:
    assert causes([("node1", Report((GOOD, BAD)))]) == [
        ("failed", "node1 → external 1.1.1.1: no route to 1.1.1.1", "cnictl apply")
    ]


def test_matrix_names_a_shared_cause_once() -> None:
    also = CheckResult("other-host", "10.244.0.5", "10.0.10.51", FAILED, 3, 0, None, ROUTE)
    ((_, words, _),) = causes([("node1", Report((GOOD, also, BAD)))])
    assert words == "node1 → other host 10.0.10.51, external 1.1.1.1: no route to 1.1.1.1"


def test_lines_in_a_pipe_have_no_empty_cells() -> None:
    columns, rows = lines(Report((GOOD, BAD, LEFT_OUT)))
    assert all(len(row) == len(columns) for row in rows)
    assert all(cell for row in rows for cell in row)
    assert rows[1][3:5] == ("failed", "100%")
    assert {check for check, *_ in rows} <= set(CHECKS)


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400)])
def test_times_are_read(text: str, seconds: float) -> None:
    assert request.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "10d", "-1s", "0", "nan", "inf", "1e99h"])
def test_invalid_time_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageProblem, match="not a time such as"):
        request.seconds(text)
