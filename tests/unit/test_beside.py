"""A route gets another metric if the pod already has it through another interface."""

import pytest
from cnictl_plugin.beside import by_destination, destination_of, next_metric

from cnictl.core.cidr import parse_cidr
from cnictl.core.conf.routes import Route
from cnictl.core.netlink.kernel_routes import KernelRoute
from cnictl.core.netlink.rtnetlink import add_route

DEFAULT, NET = parse_cidr("0.0.0.0/0"), parse_cidr("192.0.2.0/24")


@pytest.mark.parametrize(
    ("asked", "taken", "metric"),
    [
        (0, [0], 1),
        (0, [0, 1, 2], 3),
        (0, [0, 100], 1),
        (50, [50, 51], 52),
        (1024, [1024], 1025),
        (2**32 - 1, [2**32 - 1, 2**32 - 2], 2**32 - 3),
    ],
)
def test_a_later_route_gets_the_next_metric_after_the_one_it_meets(asked: int, taken: list[int], metric: int) -> None:
    assert next_metric(asked, taken) == metric


def test_only_routes_to_the_same_destination_in_the_same_table_are_met() -> None:
    def kernel(destination: bytes | None, prefix: int, table: int = 254) -> KernelRoute:
        return KernelRoute(add_route(7, destination, prefix, b"\x0a\0\0\1", table=table)[2])

    routes = [kernel(None, 0), kernel(None, 0, 100), kernel(NET.packed, 24), kernel(NET.packed, 25)]
    met = by_destination(routes)
    assert met[destination_of(Route(DEFAULT))] == [routes[0]]
    assert met[destination_of(Route(DEFAULT, table=100))] == [routes[1]]
    assert met[destination_of(Route(NET))] == [routes[2]]
    assert routes[0].links == [7]
