"""The addresses, range sets and routes that a configuration gives to pods."""

from typing import Any

import pytest

from cnictl.core.cidr import format_address
from cnictl.core.conf.network import parse_conf
from cnictl.core.errors import INVALID_CONFIG, CniError
from tests.unit.confs import HOST_LOCAL, conf, shown, with_ipam


def test_host_local_s_range_is_the_pool() -> None:
    parsed = with_ipam(
        ranges=[
            [
                {
                    "subnet": "10.9.0.0/24",
                    "rangeStart": "10.9.0.10",
                    "rangeEnd": "10.9.0.19",
                    "gateway": "10.9.0.254",
                }
            ]
        ],
        dataDir="/srv/cni/",
        routes=[{"dst": "192.168.0.0/16"}, {"dst": "10.50.0.0/16", "gw": "10.9.0.7"}],
    )
    assert (format_address(next(parsed.sets[0].in_turn(b""))), parsed.sets[0].size) == ("10.9.0.10", 10)
    assert parsed.data_dir == "/srv/cni"
    assert [(str(route.destination), route.gateway) for route in parsed.routes] == [
        ("192.168.0.0/16", b""), ("10.50.0.0/16", b"\x0a\x09\x00\x07"),
    ]  # fmt: skip
    assert (parsed.is_gateway, parsed.default_route, parsed.gateways) == (False, False, [])
    assert parsed.networks == parsed.subnets


def test_a_flat_host_local_object_is_accepted() -> None:
    parsed = parse_conf({"name": "other", "ipam": {"type": "host-local", "subnet": "10.9.0.0/24"}})
    assert shown(parsed.subnets) == ["10.9.0.0/24"]
    assert parsed.cni_version == "0.1.0"


@pytest.mark.parametrize(
    ("keys", "code", "said"),
    [
        ({"type": 4}, INVALID_CONFIG, "ipam.type: 4 is not a string"),
        ({"type": "../dhcp"}, INVALID_CONFIG, "ipam.type: '../dhcp' is not a plugin file name"),
        ({"ranges": []}, INVALID_CONFIG, "ipam.ranges: missing"),
        ({"ranges": [[]]}, INVALID_CONFIG, "ipam.ranges[0]: [] is not a list of objects"),
        ({"ranges": [["10.9.0.0/24"]]}, INVALID_CONFIG, "ipam.ranges[0]: ['10.9.0.0/24'] is not a list of objects"),
        ({"ranges": {"subnet": "10.9.0.0/24"}}, INVALID_CONFIG, "ipam.ranges: {'subnet': '10.9.0.0/24'} is not a list"),
        ({"ranges": [[{}]]}, INVALID_CONFIG, "ipam.ranges[0][0].subnet: missing"),
        ({"ranges": [[{"subnet": "10.9.0.1/24"}]]}, INVALID_CONFIG, "subnet '10.9.0.1/24': has host bits set"),
        ({"ranges": [[{"subnet": "::ffff:10.9.0.0/120"}]]}, INVALID_CONFIG, "is an IPv4 subnet in IPv6 notation"),
        (
            {"ranges": [[{"subnet": "10.9.0.0/24"}, {"subnet": "fd00::/64"}]]},
            INVALID_CONFIG,
            "ipam.ranges[0]: 10.9.0.0/24, fd00::/64: IPv4 and IPv6 in one set",
        ),
        (
            {"ranges": [[{"subnet": "10.9.0.0/24"}, {"subnet": "10.9.0.0/25"}]]},
            INVALID_CONFIG,
            "ipam.ranges[0]: 10.9.0.0/24 and 10.9.0.0/25 overlap",
        ),
        (
            {"ranges": [[{"subnet": "10.9.0.0/24"}], [{"subnet": "10.9.0.0/25"}]]},
            INVALID_CONFIG,
            "ipam.ranges: 10.9.0.0/24 and 10.9.0.0/25 overlap",
        ),
        (
            {"ranges": [[{"subnet": "10.9.0.0/24", "rangeStart": "10.8.0.1"}]]},
            INVALID_CONFIG,
            "ipam.ranges[0][0].rangeStart: 10.8.0.1 lies outside 10.9.0.0/24",
        ),
        (
            {"ranges": [[{"subnet": "10.9.0.0/24", "rangeEnd": "10.9.0.x"}]]},
            INVALID_CONFIG,
            "ipam.ranges[0][0].rangeEnd '10.9.0.x': octet 'x' is not a number",
        ),
        (
            {"ranges": [[{"subnet": "10.9.0.0/24", "rangeStart": "10.9.0.9", "rangeEnd": "10.9.0.5"}]]},
            INVALID_CONFIG,
            "has no address for pods from rangeStart to rangeEnd",
        ),
        (
            {"ranges": [[{"subnet": "10.9.0.0/24", "rangeStart": "10.9.0.1", "rangeEnd": "10.9.0.1"}]]},
            INVALID_CONFIG,
            "has no address for pods from rangeStart to rangeEnd",
        ),
        (
            {"ranges": [[{"subnet": "10.9.0.0/24", "gateway": "fd00::1"}]]},
            INVALID_CONFIG,
            "gateway: fd00::1 lies outside 10.9.0.0/24",
        ),
        ({"routes": {}}, INVALID_CONFIG, "ipam.routes: {} is not a list"),
        ({"routes": ["0.0.0.0/0"]}, INVALID_CONFIG, "ipam.routes[0]: '0.0.0.0/0' is not an object"),
        ({"routes": [{"dst": "10.0.0.1/8"}]}, INVALID_CONFIG, "ipam.routes[0].dst '10.0.0.1/8': has host bits set"),
        ({"routes": [{"dst": "10.0.0.0/8", "gw": "x"}]}, INVALID_CONFIG, "ipam.routes[0].gw"),
        ({"dataDir": "var/lib"}, INVALID_CONFIG, "ipam.dataDir: 'var/lib' is not an absolute path"),
        ({"dataDir": 1}, INVALID_CONFIG, "ipam.dataDir: 1 is not a string"),
    ],
)
def test_a_wrong_ipam_object_is_refused(keys: dict[str, Any], code: int, said: str) -> None:
    with pytest.raises(CniError) as refused:
        with_ipam(**keys)
    assert said in refused.value.message
    assert refused.value.code == code


@pytest.mark.parametrize("ipam", [None, {}, {"type": ""}])
def test_without_ipam_a_pod_gets_no_address(ipam: Any) -> None:
    parsed = parse_conf({"cniVersion": "1.0.0", "name": "flat", "ipam": ipam, "isGateway": True})
    assert (parsed.ipam_type, parsed.served, parsed.sets, parsed.subnets, parsed.networks) == ("", False, (), (), ())
    assert parsed.gateways == []


def test_another_ipam_plugin_is_named_and_its_keys_are_not_checked() -> None:
    parsed = parse_conf({"name": "other", "ipam": {"type": "dhcp", "ranges": 5, "routes": "none", "dataDir": 7}})
    assert (parsed.ipam_type, parsed.served, parsed.sets) == ("dhcp", False, ())


def test_subnets_and_networks_of_both_families() -> None:
    parsed = conf(subnet=["10.244.0.0/24", "fd00:244::/64"], network=["10.244.0.0/20", "fd00:244::/48"])
    assert shown(parsed.sets) == ["10.244.0.0/24", "fd00:244::/64"]
    assert shown(parsed.networks) == ["10.244.0.0/20", "fd00:244::/48"]
    assert shown(parsed.gateways) == ["10.244.0.1/24", "fd00:244::1/64"]
    one_network = conf(subnet=["10.244.0.0/24", "fd00:244::/64"])
    assert shown(one_network.networks) == ["10.244.0.0/20", "fd00:244::/64"]
    with pytest.raises(CniError, match=r"subnet: fd01::/64 lies outside network fd00:244::/48"):
        conf(subnet=["10.244.0.0/24", "fd01::/64"], network=["10.244.0.0/20", "fd00:244::/48"])


def test_several_range_sets_in_host_local_s_order() -> None:
    parsed = parse_conf(
        {
            "cniVersion": "1.0.0",
            "name": "other",
            "isGateway": True,
            "runtimeConfig": {"ipRanges": [[{"subnet": "10.7.0.0/24"}]]},
            "ipam": {
                "type": "host-local",
                "subnet": "10.8.0.0/24",
                "gateway": "10.8.0.254",
                "ranges": [
                    [
                        {"subnet": "10.9.0.0/24", "rangeEnd": "10.9.0.9"},
                        {"subnet": "10.9.0.0/24", "rangeStart": "10.9.0.20"},
                    ],
                    [{"subnet": "fd00::/64"}],
                ],
            },
        }
    )
    assert shown(parsed.sets) == [
        "10.7.0.0/24", "10.8.0.0/24", "10.9.0.1-10.9.0.9, 10.9.0.20-10.9.0.254", "fd00::/64",
    ]  # fmt: skip
    assert shown(parsed.subnets) == ["10.7.0.0/24", "10.8.0.0/24", "10.9.0.0/24", "fd00::/64"]
    assert shown(parsed.gateways) == ["10.7.0.1/24", "10.8.0.254/24", "10.9.0.1/24", "fd00::1/64"]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"ipam": {"type": "static"}}, "ipam.type: 'static' and subnet would both give addresses"),
        ({"subnet": ["10.244.0.0/24", "10.244.1.0/24"], "ipam": {"rangeStart": "10.244.0.9"}},
         "ipam.rangeStart: '10.244.0.9' belongs to only one of 2 subnets"),
        ({"subnet": ["10.244.0.0/24", "10.244.1.0/24"], "cniVersion": "0.2.0"},
         "cniVersion: 0.2.0 has room for one address of each family"),
    ],
)  # fmt: skip
def test_contradictory_conf_is_refused(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(CniError) as refused:
        conf(**keys)
    assert refused.value.code == INVALID_CONFIG
    assert said in refused.value.message


def test_both_families_fit_the_oldest_version() -> None:
    assert len(conf(subnet=["10.244.0.0/24", "fd00::/64"], network=None, cniVersion="0.2.0").sets) == 2


def test_a_gateway_may_be_outside_its_subnet_as_in_host_local() -> None:
    document = {"name": "other", "ipam": {**HOST_LOCAL, "ranges": [[{"subnet": "10.9.0.0/24", "gateway": "10.1.0.1"}]]}}
    parsed = parse_conf({**document, "isGateway": True})
    assert shown(parsed.gateways) == ["10.1.0.1/24"]
    assert parsed.sets[0].size == 254


def test_a_route_may_have_every_key_of_host_local() -> None:
    (route, six, plain) = with_ipam(
        routes=[
            {
                "dst": "10.0.0.0/8",
                "gw": "10.9.0.7",
                "mtu": 1400,
                "advmss": 1300,
                "priority": 5,
                "table": 100,
                "scope": 0,
            },
            {"dst": "fd01::5/64", "mtu": 0, "advmss": 0, "priority": 0, "table": 254, "scope": 253},
            {"dst": "0.0.0.0/0"},
        ]
    ).routes
    assert (route.mtu, route.advmss, route.priority, route.table, route.scope) == (1400, 1300, 5, 100, 0)
    assert (str(six.destination), six.gateway) == ("fd01::/64", b"")
    assert (six.mtu, six.advmss, six.priority, six.table, six.scope) == (None, None, None, None, 253)
    assert (plain.mtu, plain.table, plain.scope) == (None, None, None)


@pytest.mark.parametrize(
    ("route", "said"),
    [
        ({"dst": "10.0.0.0/8", "mtu": "1400"}, "ipam.routes[0].mtu: '1400' is not a number from 0 to 65535"),
        ({"dst": "10.0.0.0/8", "scope": 256}, "ipam.routes[0].scope: 256 is not"),
        ({"dst": "10.0.0.0/8", "table": -1}, "ipam.routes[0].table: -1 is not"),
        ({"dst": "10.0.0.0/8", "priority": 2**32}, "ipam.routes[0].priority"),
        ({"dst": "10.0.0.0/8", "gw": "fd00::1"}, "ipam.routes[0].gw: fd00::1 is not of the same family as 10.0.0.0/8"),
        ({"gw": "10.9.0.7"}, "ipam.routes[0].dst '': is empty"),
    ],
)
def test_a_wrong_route_is_refused(route: dict[str, Any], said: str) -> None:
    with pytest.raises(CniError) as refused:
        with_ipam(routes=[route])
    assert said in refused.value.message
