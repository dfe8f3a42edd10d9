"""The pool map: it finds a free address as a plain scan would, and says nothing once it is torn."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnictl.core.cidr import format_address, parse_address, parse_cidr
from cnictl.core.leases.pool import Range, RangeSet
from cnictl.core.leases.pool_map import PoolMap, mapped


def ranges(*subnets: str) -> RangeSet:
    return RangeSet([Range(parse_cidr(subnet)) for subnet in subnets])


def naive_next(free: set[int], size: int, start: int) -> int:
    """The answer that a scan of one address after the other gives."""
    for step in range(size):
        if (start + step) % size in free:
            return (start + step) % size
    return -1


@given(
    st.integers(20, 30),
    st.lists(st.tuples(st.booleans(), st.integers(0, 4096)), max_size=60),
    st.lists(st.integers(0, 4096), min_size=1, max_size=8),
    st.booleans(),
)
def test_next_free_equals_a_plain_scan(
    tmp_path_factory: pytest.TempPathFactory,
    prefix: int,
    changes: list[tuple[bool, int]],
    starts: list[int],
    full: bool,
) -> None:
    pool = ranges(f"10.244.0.0/{prefix}")
    span = pool.places
    gateway = 0
    free = set() if full else set(range(span)) - {gateway}
    with PoolMap(str(tmp_path_factory.mktemp("index") / "mynet")) as known:
        known.rebuild([pool], [pool.nth(n) for n in range(span)] if full else [], claimed=False)
        for taken, number in changes:
            place = number % span
            if place != gateway:
                known.mark(pool.nth(place), taken)
                (free.discard if taken else free.add)(place)
        for start in starts:
            assert known.next_free(0, start % (span + 1)) == naive_next(free, span, start % (span + 1) % span)
        for place in range(0, span, 7):
            assert known.free(pool.nth(place)) == (place in free)


def test_the_map_is_found_again_as_it_was_settled(tmp_path: Path) -> None:
    pool, path = ranges("10.244.0.0/24"), f"{tmp_path}/index/mynet"
    with PoolMap(path) as known:
        known.rebuild([pool], [parse_address("10.244.0.2")], claimed=False)
        known.mark(parse_address("10.244.0.3"), taken=True)
        known.settle(123456789, claimed=True)
    with PoolMap(path) as known:
        assert known.covers([pool]) and not known.covers([ranges("10.244.0.0/25")])
        assert (known.store_mtime, known.claimed) == (123456789, True)
        assert pool.nth(known.next_free(0, 0)) == parse_address("10.244.0.4")


def test_one_that_was_rebuilt_and_not_settled_is_true_for_no_store(tmp_path: Path) -> None:
    path = f"{tmp_path}/mynet"
    with PoolMap(path) as known:
        known.rebuild([ranges("10.244.0.0/24")], [], claimed=False)
        known.settle(5, claimed=True)
        known.rebuild([ranges("10.244.0.0/24")], [], claimed=True)
    with PoolMap(path) as known:
        assert known.store_mtime == -1


@pytest.mark.parametrize("damage", ["empty", "cut", "longer", "garbage", "other magic"])
def test_a_torn_map_counts_as_none(tmp_path: Path, damage: str) -> None:
    pool, path = ranges("10.244.0.0/24"), tmp_path / "mynet"
    with PoolMap(str(path)) as known:
        known.rebuild([pool], [], claimed=False)
        known.settle(5, claimed=True)
    raw = path.read_bytes()
    torn = {
        "empty": b"",
        "cut": raw[:-5],
        "longer": raw + b"x",
        "garbage": b"\xff" * len(raw),
        "other magic": b"cnx1" + raw[4:],
    }[damage]
    path.write_bytes(torn)
    with PoolMap(str(path)) as known:
        assert not known.covers([pool])
        assert known.store_mtime == -1 and not known.claimed
        known.mark(parse_address("10.244.0.2"), taken=True)
    assert mapped(str(path)) == ()


def test_one_who_only_looks_sees_the_ranges_and_makes_no_file(tmp_path: Path) -> None:
    assert mapped(f"{tmp_path}/mynet") == ()
    assert not list(tmp_path.iterdir())
    part = Range(parse_cidr("10.9.0.0/24"), 0x0A09000A, 0x0A09001E, parse_address("10.9.0.254"))
    sets = [RangeSet([part, *ranges("10.8.0.0/24").ranges]), ranges("fd00::/64")]
    with PoolMap(f"{tmp_path}/mynet") as known:
        known.rebuild(sets, [], claimed=False)
    seen = mapped(f"{tmp_path}/mynet")
    assert [str(one) for one in seen] == ["10.9.0.10-10.9.0.30, 10.8.0.0/24", "fd00::/64"]
    assert [one.size for one in seen] == [one.size for one in sets]
    assert (seen[0].ranges[0].gateway, str(seen[0].ranges[0].subnet)) == (part.gateway, "10.9.0.0/24")


def test_each_set_has_its_own_places(tmp_path: Path) -> None:
    four, six = ranges("10.9.0.0/30", "10.8.0.0/29"), ranges("fd00::/64")
    with PoolMap(f"{tmp_path}/mynet") as known:
        known.rebuild([four, six], [parse_address("fd00::2"), parse_address("fd00::5:0")], claimed=False)
        found = []
        while (place := known.next_free(0, 0)) >= 0:
            found.append(format_address(four.nth(place)))
            known.mark(four.nth(place), taken=True)
        assert found == ["10.9.0.2", *(f"10.8.0.{last}" for last in range(2, 7))]
        assert format_address(six.nth(known.next_free(1, 0))) == "fd00::3"
        assert not known.free(parse_address("fd00::5:0")) and known.free(parse_address("fd00::5:1"))
        known.mark(parse_address("fd00::ffff:ffff"), taken=True)  # never handed out in turn: left out


def test_a_map_of_a_large_range_is_a_hole_for_the_most_part(tmp_path: Path) -> None:
    six = ranges("fd00::/64")
    with PoolMap(f"{tmp_path}/mynet") as known:
        known.rebuild([six], [six.nth(place) for place in range(700_000)], claimed=False)
        assert known.next_free(0, 5) == 700_000
        known.mark(six.nth(700_000), taken=True)
        assert known.next_free(0, 5) == 700_001
        assert known.next_free(0, (1 << 24) - 1) == (1 << 24) - 1
        known.mark(six.nth((1 << 24) - 1), taken=True)
        assert known.next_free(0, (1 << 24) - 1) == 700_001
    assert (tmp_path / "mynet").stat().st_blocks * 512 < 200_000
