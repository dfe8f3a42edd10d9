"""`kill -9` of an operator's commands ahead of what they do to the host: what comes next puts all of it right.

Here ahead of one thing in each of a few scenarios; `make soak` kills each scenario's at several, and then ahead of each
(`make faults`, docs/dev/faults.md). What the sweeps brought to light has tests of its own in test_failed_runs,
test_undo, test_confirm and test_watch.
"""

import pytest

from tests.faults.runs import SCENARIOS, sweep
from tests.soak import SOAK

pytestmark = pytest.mark.once

IN_SOAK = {
    "guard": 2, "undo": 2, "reset cut off": 2, "undo cut off": 2, "undo cut off, iptables": 1,
    "node after a reset cut off": 1, "route": 1, "bridge down": 1, "uninstall": 1, "install elsewhere": 1,
}  # fmt: skip
IN_SUITE = {"guard": 1, "reset cut off": 1, "undo cut off": 1}
"""How many things a scenario's command is cut off ahead of, spread evenly."""


@pytest.mark.parametrize(("name", "points"), (IN_SOAK if SOAK else IN_SUITE).items())
def test_a_run_killed_at_any_point_is_taken_back_or_gone_on_with(name: str, points: int) -> None:
    report = sweep(SCENARIOS[name], points)
    assert report.faults == []
    assert report.kills == points
