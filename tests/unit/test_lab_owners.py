"""Choose the host's users to which a lab's users map."""

import pytest

from cnictl.lab.owners import COUNT, FIRST, LAST, draw, given_away


def test_range_is_drawn_from_ids_that_no_distribution_assigns() -> None:
    drawn = {draw([], frozenset()).first for _ in range(50)}
    assert len(drawn) > 25
    assert all(first >= FIRST and first + COUNT <= LAST and first % COUNT == 0 for first in drawn)


def test_range_avoids_ids_that_another_user_has() -> None:
    only = FIRST + 7 * COUNT
    taken = [(FIRST, only - FIRST), (only + 2 * COUNT, LAST)]
    assert draw(taken, frozenset([only + COUNT + 5])).first == only
    with pytest.raises(OSError, match="no free range"):
        draw(taken, frozenset([only, only + COUNT + 5]))


def test_subuid_lines_are_read_and_invalid_ones_ignored() -> None:
    assert given_away(["me:100000:65536", "", "# x", "x:y:z", "1000:7:2\n"]) == [(100000, 65536), (7, 2)]
