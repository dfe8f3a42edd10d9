"""Read the report that another host's `test-connectivity -o json` printed."""

from typing import Any

from cnictl.node import hint
from cnictl.probe.checks import CheckResult, Report
from cnictl.probe.failure import FailureCause


def report_from_json(form: dict[str, Any]) -> Report:
    """Return the report that `Report.as_json` turned into `form`. Raises KeyError if `form` is not a report."""
    return Report(tuple(_check(check) for check in form["checks"]))


def _check(form: dict[str, Any]) -> CheckResult:
    times, words = form["rtt_ms"], form["cause"]
    return CheckResult(
        check=form["check"],
        family=form["family"],
        source=form["from"],
        to=form["to"],
        state=form["state"],
        sent=form["sent"],
        received=form["received"],
        rtt_ms=(times["min"], times["avg"], times["max"]) if times else None,
        cause=FailureCause(form["cause_name"], words, hint.from_json(form["hint"])) if words else None,
    )
