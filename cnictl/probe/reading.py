"""A report as another host's `test-connectivity -o json` printed it."""

from typing import Any

from cnictl.node.hint import Hint
from cnictl.probe.checks import CheckResult, Report
from cnictl.probe.failure import Cause


def report_from_json(form: dict[str, Any]) -> Report:
    """The report that `Report.as_json` made `form` of. Raises KeyError if it is none."""
    return Report(tuple(_check(one) for one in form["checks"]))


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
        cause=Cause(form["cause_name"], words, Hint(form["mend"] or "")) if words else None,
    )
