"""After `kill -9` of `watch` while it follows a source whose peers change, no route is stale or lost.

Here it is killed at a few points. `make soak` kills it at many points, and `make faults` at every point.
"""

import pytest

from tests.faults.following import sweep
from tests.soak import SOAK

pytestmark = pytest.mark.once


def test_watch_killed_at_any_point_leaves_a_complete_list_and_the_next_one_continues() -> None:
    points = 60 if SOAK else 3
    report = sweep(points)
    assert report.faults == []
    assert report.kills > points // 2  # not every run makes all the changes of the counted run
