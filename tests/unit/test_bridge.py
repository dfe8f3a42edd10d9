"""The MAC of a bridge follows from its gateways."""

import pytest

from cnictl.core.bridge import gateway_mac
from cnictl.core.cidr import parse_interface
from cnictl.core.netlink.rtnetlink import format_mac, parse_mac


@pytest.mark.parametrize(
    ("gateways", "mac"),
    [
        (["10.244.0.1/24"], "0e:63:0a:f4:00:01"),
        (["fd00:10:244::1/64", "10.244.0.1/24"], "0e:63:0a:f4:00:01"),
        (["10.244.9.1/24", "10.244.0.1/24"], "0e:63:0a:f4:00:01"),
        (["fd00:10:244::1/64"], "0e:63:ff:44:00:11"),
    ],
)
def test_mac_is_derived_from_the_lowest_gateway(gateways: list[str], mac: str) -> None:
    given = gateway_mac([parse_interface(gateway) for gateway in gateways])
    assert format_mac(given) == mac
    assert parse_mac(mac) == given, "it must be a unicast address"


def test_nodes_of_a_network_have_different_macs() -> None:
    texts = [f"10.244.{node}.1/24" for node in range(256)] + [f"fd00:10:244:{node:x}::1/64" for node in range(256)]
    assert len({gateway_mac([parse_interface(text)]) for text in texts}) == 512


def test_mac_without_a_gateway_is_random() -> None:
    assert gateway_mac([]) != gateway_mac([])
