"""Convert an IPAM plugin's result from each version's shape to one form."""

from typing import Any

import pytest
from cnictl_plugin.ipam_result import parse_ipam_result

from cnictl.core.errors import CniError

Json = dict[str, Any]

WHOLE: Json = {
    "cniVersion": "1.1.0",
    "ips": [{"address": "10.1.0.5/16", "gateway": "10.1.0.1"}, {"address": "fd00::5/64"}],
    "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}, {"dst": "fd01::/32", "mtu": 1400, "priority": 0}],
    "dns": {"nameservers": ["10.1.0.1"]},
}


def test_the_newest_format_is_kept_unchanged() -> None:
    assert parse_ipam_result(WHOLE, "static") == WHOLE


@pytest.mark.parametrize(
    "answered",
    [
        {
            "cniVersion": "0.2.0",
            "ip4": {"ip": "10.1.0.5/16", "gateway": "10.1.0.1", "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}]},
            "ip6": {"ip": "fd00::5/64", "routes": [{"dst": "fd01::/32"}]},
            "dns": {"nameservers": ["10.1.0.1"]},
        },
        {
            "cniVersion": "0.4.0",
            "interfaces": [{"name": "eth0", "sandbox": "/n"}],
            "ips": [
                {"version": "4", "address": "10.1.0.5/16", "gateway": "10.1.0.1", "interface": 0},
                {"version": "6", "address": "FD00:0::5/64", "gateway": ""},
            ],
            "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}, {"dst": "fd01::1/32"}],
            "dns": {"nameservers": ["10.1.0.1"]},
        },
    ],
    ids=lambda answered: answered["cniVersion"],
)
def test_older_formats_are_converted(answered: Json) -> None:
    parsed = parse_ipam_result(answered, "static")
    assert parsed == {**WHOLE, "routes": [WHOLE["routes"][0], {"dst": "fd01::/32"}]}


def test_result_with_only_addresses_is_accepted() -> None:
    parsed = parse_ipam_result({"ips": [{"address": "10.1.0.5/32"}], "routes": None}, "dhcp")
    assert parsed == {"cniVersion": "1.1.0", "ips": [{"address": "10.1.0.5/32"}], "routes": [], "dns": {}}


@pytest.mark.parametrize(
    ("answered", "said"),
    [
        ({}, "no address"),
        ({"ips": []}, "no address"),
        ({"ips": {"address": "10.1.0.5/16"}}, "ips is not a list"),
        ({"ips": ["10.1.0.5/16"]}, "ips is not a list"),
        ({"ips": [{"address": "10.1.0.5"}]}, "has no prefix length"),
        ({"ips": [{"address": 7}]}, "ips.address"),
        ({"ips": [{"address": "10.1.0.5/33"}]}, "prefix length"),
        ({"ips": [{"address": "10.1.0.5/16", "gateway": "fd00::1"}]}, "not of the same family"),
        ({"ips": [{"address": "10.1.0.5/16", "gateway": 3}]}, "ips.gateway"),
        ({"ips": WHOLE["ips"], "routes": [{"dst": "default"}]}, "routes.dst"),
        ({"ips": WHOLE["ips"], "routes": [{"dst": "10.0.0.0/8", "gw": "fd00::1"}]}, "not of the same family"),
        ({"ips": WHOLE["ips"], "routes": [{"dst": "10.0.0.0/8", "mtu": "1400"}]}, "routes.mtu"),
        ({"ips": WHOLE["ips"], "routes": [{"dst": "10.0.0.0/8", "table": True}]}, "routes.table"),
        ({"ips": WHOLE["ips"], "routes": [{"dst": "10.0.0.0/8", "scope": 256}]}, "routes.scope"),
        ({"ips": WHOLE["ips"], "dns": []}, "dns is not an object"),
        ({"ip4": "10.1.0.5/16"}, "ip4 is not an object"),
        ({"ip4": {"ip": "fd00::5/64"}}, "other family"),
        ({"cniVersion": "9.0.0", "ips": WHOLE["ips"]}, "cniVersion '9.0.0'"),
    ],
)
def test_malformed_value_is_named(answered: Json, said: str) -> None:
    with pytest.raises(CniError, match=said) as refused:
        parse_ipam_result(answered, "odd")
    assert refused.value.code == 6
    assert "ipam.type 'odd'" in refused.value.message
