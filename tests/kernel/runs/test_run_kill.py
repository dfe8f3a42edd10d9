"""After `kill -9` of an operator's command before one of its changes, the next command completes or reverts the run.

Here, a few scenarios are killed at one point each. `make soak` kills each scenario at several points, and `make faults`
at every point (docs/dev/faults.md). What those sweeps found has its own tests in test_failed_runs, test_undo,
test_confirm and test_watch.
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
"""The number of points, spread evenly, at which a scenario's command is killed."""


@pytest.mark.parametrize(("name", "points"), (IN_SOAK if SOAK else IN_SUITE).items())
def test_a_run_killed_at_any_point_is_undone_or_continued(name: str, points: int) -> None:
    report = sweep(SCENARIOS[name], points)
    assert report.faults == []
    assert report.kills == points
