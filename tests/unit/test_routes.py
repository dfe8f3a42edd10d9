"""How ADD interprets the routes in a configuration."""

from cnictl.core.cidr import format_address, parse_address, parse_cidr
from cnictl.core.conf.routes import SCOPE_LINK, Route, complete

FOUR, SIX = parse_address("10.9.0.1"), parse_address("fd00::1")


def made(routes: list[Route], *gateways: bytes, default: bool = True) -> list[str]:
    return [
        f"{route.destination} {format_address(route.gateway) if route.gateway else '-'}"
        for route in complete(routes, gateways, default)
    ]


def route(text: str, gateway: str = "", table: int | None = None, scope: int | None = None) -> Route:
    return Route(parse_cidr(text), parse_address(gateway) if gateway else b"", table=table, scope=scope)


def test_each_family_gets_its_default_route() -> None:
    assert made([], FOUR, SIX) == ["0.0.0.0/0 10.9.0.1", "::/0 fd00::1"]
    assert made([], SIX) == ["::/0 fd00::1"]
    assert made([], FOUR, SIX, default=False) == []
    assert made([]) == []


def test_a_listed_default_route_is_not_added_twice() -> None:
    assert made([route("0.0.0.0/0")], FOUR, SIX) == ["0.0.0.0/0 10.9.0.1", "::/0 fd00::1"]
    assert made([route("0.0.0.0/0", "10.9.0.7"), route("::/0")], FOUR, SIX) == ["0.0.0.0/0 10.9.0.7", "::/0 fd00::1"]
    assert made([route("0.0.0.0/0", table=100)], FOUR) == ["0.0.0.0/0 10.9.0.1"] * 2


def test_a_route_without_gateway_goes_through_the_first_of_its_family() -> None:
    other = parse_address("10.8.0.1")
    listed = [route("10.0.0.0/8"), route("fd01::/64"), route("192.168.0.0/16", "10.9.0.7")]
    assert made(listed, FOUR, other, SIX, default=False) == [
        "10.0.0.0/8 10.9.0.1", "fd01::/64 fd00::1", "192.168.0.0/16 10.9.0.7",
    ]  # fmt: skip


def test_on_link_route_or_family_without_gateway_has_no_gateway() -> None:
    assert made([route("10.0.0.0/8", scope=SCOPE_LINK), route("fd01::/64")], FOUR, default=False) == [
        "10.0.0.0/8 -", "fd01::/64 -",
    ]  # fmt: skip


def test_other_keys_of_a_route_stay() -> None:
    listed = Route(parse_cidr("10.0.0.0/8"), b"", 1400, 1300, 5, 100, 0)
    (route,) = complete([listed], [FOUR], default=False)
    assert (route.mtu, route.advmss, route.priority, route.table, route.scope) == (1400, 1300, 5, 100, 0)
    assert listed.gateway == b""
