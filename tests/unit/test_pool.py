"""The pool and its map: which addresses pods get, and finding a free one as a plain scan would."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnictl.core.cidr import format_address, parse_address, parse_cidr
from cnictl.core.pool import Pool, PoolMap, mapped


def pool_of(text: str, start: str = "", end: str = "", gateway: str = "") -> Pool:
    edges = [int.from_bytes(parse_address(edge), "big") if edge else 0 for edge in (start, end)]
    return Pool(parse_cidr(text), edges[0], edges[1], parse_address(gateway) if gateway else b"")


def every_address(pool: Pool) -> list[str]:
    subnet = pool.subnet
    return [
        format_address(subnet.nth(n)) for n in range(1 << (subnet.bits - subnet.prefix)) if pool.holds(subnet.nth(n))
    ]


@pytest.mark.parametrize(
    ("pool", "first", "last", "size"),
    [
        (pool_of("10.244.0.0/24"), "10.244.0.2", "10.244.0.254", 253),
        (pool_of("10.244.0.0/30"), "10.244.0.2", "10.244.0.2", 1),
        (pool_of("10.244.0.0/24", gateway="10.244.0.254"), "10.244.0.1", "10.244.0.253", 253),
        (pool_of("10.244.0.0/24", "10.244.0.10", "10.244.0.19"), "10.244.0.10", "10.244.0.19", 10),
        (pool_of("10.244.0.0/24", "10.244.0.1", "10.244.0.3"), "10.244.0.2", "10.244.0.3", 2),
        (pool_of("10.244.0.0/16"), "10.244.0.2", "10.244.255.254", 65533),
    ],
)
def test_pods_get_all_but_network_gateway_and_broadcast(pool: Pool, first: str, last: str, size: int) -> None:
    addresses = every_address(pool)
    assert (addresses[0], addresses[-1], len(addresses), pool.size) == (first, last, size, size)
    assert format_address(pool.gateway) not in addresses


def test_a_place_and_its_address_are_inverse() -> None:
    pool = pool_of("10.244.0.0/28")
    for place in range(14):
        assert pool.offset(pool.nth(place)) == place
    for outside in ("10.244.0.0", "10.244.0.15", "10.245.0.1", "::1"):
        assert pool.offset(parse_address(outside)) == -1
        assert not pool.holds(parse_address(outside))


def test_an_enormous_subnet_is_bounded() -> None:
    pool = pool_of("fd00::/64")
    assert pool.size == (1 << 24) - 1
    assert pool.offset(pool.nth((1 << 24) - 1)) == (1 << 24) - 1


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
    pool = pool_of(f"10.244.0.0/{prefix}")
    span = pool.end - pool.start + 1
    gateway = pool.offset(pool.gateway)
    free = set() if full else set(range(span)) - {gateway}
    with PoolMap(str(tmp_path_factory.mktemp("index") / "mynet")) as known:
        known.rebuild(pool, [pool.nth(n) for n in range(span)] if full else [], claimed=False)
        for taken, number in changes:
            place = number % span
            if place != gateway:
                known.mark(pool.nth(place), taken)
                (free.discard if taken else free.add)(place)
        for start in starts:
            assert known.next_free(start % (span + 1)) == naive_next(free, span, start % (span + 1) % span)
        for place in range(0, span, 7):
            assert known.free(pool.nth(place)) == (place in free)


def test_the_map_is_found_again_as_it_was_settled(tmp_path: Path) -> None:
    pool, path = pool_of("10.244.0.0/24"), f"{tmp_path}/index/mynet"
    with PoolMap(path) as known:
        known.rebuild(pool, [parse_address("10.244.0.2")], claimed=False)
        known.mark(parse_address("10.244.0.3"), taken=True)
        known.settle(123456789, claimed=True)
    with PoolMap(path) as known:
        assert known.covers(pool) and not known.covers(pool_of("10.244.0.0/25"))
        assert (known.store_mtime, known.claimed) == (123456789, True)
        assert pool.nth(known.next_free(0)) == parse_address("10.244.0.4")


def test_one_that_was_rebuilt_and_not_settled_is_true_for_no_store(tmp_path: Path) -> None:
    path = f"{tmp_path}/mynet"
    with PoolMap(path) as known:
        known.rebuild(pool_of("10.244.0.0/24"), [], claimed=False)
        known.settle(5, claimed=True)
        known.rebuild(pool_of("10.244.0.0/24"), [], claimed=True)
    with PoolMap(path) as known:
        assert known.store_mtime == -1


@pytest.mark.parametrize("damage", ["empty", "cut", "longer", "garbage", "other magic"])
def test_a_torn_map_counts_as_none(tmp_path: Path, damage: str) -> None:
    pool, path = pool_of("10.244.0.0/24"), tmp_path / "mynet"
    with PoolMap(str(path)) as known:
        known.rebuild(pool, [], claimed=False)
        known.settle(5, claimed=True)
    raw = path.read_bytes()
    torn = {
        "empty": b"",
        "cut": raw[:-5],
        "longer": raw + b"x",
        "garbage": b"\xff" * len(raw),
        "other magic": b"cnx0" + raw[4:],
    }[damage]
    path.write_bytes(torn)
    with PoolMap(str(path)) as known:
        assert not known.covers(pool)
        assert known.store_mtime == -1 and not known.claimed
        known.mark(parse_address("10.244.0.2"), taken=True)
    assert mapped(str(path)) is None


def test_one_who_only_looks_sees_the_pool_and_makes_no_file(tmp_path: Path) -> None:
    assert mapped(f"{tmp_path}/mynet") is None
    assert not list(tmp_path.iterdir())
    pool = pool_of("10.244.0.0/24", "10.244.0.10", "10.244.0.30")
    with PoolMap(f"{tmp_path}/mynet") as known:
        known.rebuild(pool, [], claimed=False)
    seen = mapped(f"{tmp_path}/mynet")
    assert seen is not None
    assert (seen.size, seen.start, seen.end, seen.gateway) == (pool.size, pool.start, pool.end, pool.gateway)
