"""`kill -9` of an operator's commands ahead of what they do to the host: what comes next puts all of it right.

Here ahead of some of it, spread evenly; `make faults` does it ahead of each (docs/faults.md).
"""

import pytest

from tests.faults.runs import SCENARIOS, sweep

pytestmark = pytest.mark.once

POINTS = {
    "guards": 2, "undo": 2, "reset cut off": 2, "undo cut off": 2, "undo cut off, iptables": 1,
    "node after a reset cut off": 1, "route": 1, "bridge down": 1, "uninstall": 1, "install elsewhere": 1,
}  # fmt: skip
"""What a scenario's command is cut off ahead of, spread evenly."""


@pytest.mark.parametrize(("name", "points"), POINTS.items())
def test_a_run_killed_at_any_point_is_taken_back_or_gone_on_with(name: str, points: int) -> None:
    report = sweep(SCENARIOS[name], points)
    assert report.faults == []
    assert report.kills == points
