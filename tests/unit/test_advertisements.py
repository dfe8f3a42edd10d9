"""Decide which links keep accepting router advertisements, and with which value."""

from dataclasses import dataclass
from typing import Any

import pytest

from cnictl.core import advertisements


@dataclass
class FakeLink:
    """The attributes of a link on which the decision depends."""

    index: int
    name: str
    kind: str = ""
    master: int = 0
    alias: str = ""
    flags: int = 1


LINKS: list[Any] = [
    FakeLink(1, "lo", flags=0x9),
    FakeLink(2, "eth0"),
    FakeLink(3, "wlan0"),
    FakeLink(4, "wg0", "wireguard"),
    FakeLink(5, "cni0", "bridge", alias="cnictl:mynet"),
    FakeLink(6, "veth0a0a0a0a", "veth", master=5, alias="cnictl:mynet/default/web"),
    FakeLink(7, "docker0", "bridge"),
    FakeLink(8, "vethd0d0d0d", "veth", master=7),
    FakeLink(9, "cali12345678901", "veth"),
    FakeLink(10, "uplink", "veth"),
    FakeLink(11, "br0", "bridge"),
    FakeLink(12, "eth1", master=11),
    FakeLink(13, "veth0b0b0b0b", "veth", master=11, alias="cnictl:lan/vm"),
    FakeLink(14, "br1", "bridge"),
    FakeLink(15, "veth0c0c0c0c", "veth", master=14, alias="cnictl:closed/pod"),
]


def kept(*routes: int, **values: str) -> set[str]:
    return set(advertisements.to_keep(LINKS, set(routes), lambda name: values.get(name, "1")))


def test_plain_links_keep_advertisements_even_without_a_route() -> None:
    assert kept() == {"eth0", "wlan0", "wg0", "uplink", "br0"}


def test_a_bridge_keeps_advertisements_if_it_has_a_route_or_is_an_uplink_with_our_pods() -> None:
    assert kept(7) - kept() == {"docker0"}
    assert kept(14) - kept() == {"br1"}


def test_only_a_link_with_accept_ra_1_is_changed() -> None:
    assert kept(eth0="0", wlan0="2", wg0="") == {"uplink", "br0"}


@pytest.mark.parametrize(
    ("original", "keeps", "forwards", "value"),
    [
        ("1", True, False, "1"),
        ("1", True, True, "2"),
        ("2", True, False, "2"),
        ("2", True, True, "2"),
        ("1", False, False, "0"),
        ("1", False, True, "0"),
        ("2", False, True, "0"),
        ("0", True, True, "0"),
        ("0", False, False, "0"),
        ("", True, True, ""),
    ],
)
def test_accept_ra_of_an_adopted_bridge(original: str, keeps: bool, forwards: bool, value: str) -> None:
    assert advertisements.wanted(original, keeps, forwards) == value


def test_an_uplink_has_a_route_or_a_port_that_is_not_ours() -> None:
    by_name = {link.name: link for link in LINKS}
    assert advertisements.is_uplink(by_name["br0"], LINKS, set())
    assert not advertisements.is_uplink(by_name["br1"], LINKS, set())
    assert advertisements.is_uplink(by_name["br1"], LINKS, {14})
    assert not advertisements.is_uplink(by_name["cni0"], LINKS, set())
