"""`kill -9` of an operator's commands ahead of what they do to the host: what comes next puts all of it right.

Here ahead of some of it, spread evenly; `make faults` does it ahead of each (docs/faults.md).
"""

import pytest

from tests.faults.runs import SCENARIOS, sweep

pytestmark = pytest.mark.once

POINTS = {"guards": 3, "undo": 3, "reset cut off": 3, "undo cut off": 3}
"""What each scenario's command is cut off ahead of; of the others one, in its middle."""
FEWER = 1


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_run_killed_at_any_point_is_taken_back_or_gone_on_with(name: str) -> None:
    points = POINTS.get(name, FEWER)
    report = sweep(SCENARIOS[name], points)
    assert report.faults == []
    assert report.kills == points
