"""After `kill -9` at any step of ADD, DEL or GC, a DEL and one `ipam gc` leave nothing, and no packet is lost.

These tests kill before a few evenly spread system calls; `make soak` before more, then each (docs/dev/faults.md).
"""

from collections import Counter

import pytest

from tests.faults.pinging import pinging
from tests.faults.sweep import SCENARIOS, ground, sweep
from tests.soak import SOAK

pytestmark = pytest.mark.once

POINTS = {"dual-stack": 16, "first pod": 10 if SOAK else 4}
"""The number of points at which each verb of the scenario is killed; FEWER for other scenarios."""
FEWER = 8 if SOAK else 2


@pytest.mark.parametrize("name", SCENARIOS)
def test_leftovers_of_a_kill_are_found_and_undone_without_effect_on_others(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario, points = SCENARIOS[name], POINTS.get(name, FEWER)
    with ground(scenario) as where:
        enter = where.host.enter
        pods, told = where.live, [str(ips[0]["address"]).partition("/")[0] for ips in where.addresses]
        with pinging(lambda place: [*enter, "nsenter", f"--net={pods[place - 1].netns}"], told):
            reports = [sweep(where, verb, points) for verb in scenario.verbs]
            where.fill()
    left: Counter[str] = Counter()
    for report in reports:
        left.update({f"{report.verb}: {state}": count for state, count in report.states.items()})
        assert report.faults == []
        assert 0 < report.kills <= points
    if name == "dual-stack":  # enough to stop calls before, within and after what they create or undo
        assert len(left) >= 5 and any(state.endswith("link, address") for state in left), left
    with capsys.disabled():
        print(f"\n{name}: left by kill -9:", *(f"{count:4} {what}" for what, count in sorted(left.items())), sep="\n  ")
