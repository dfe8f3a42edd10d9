"""The plugin's configuration: every key taken, and every refusal with its code, key and value."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnictl.core.cidr import format_address
from cnictl.core.conf.netconf import NetConf
from cnictl.core.conf.network import interface_name_fault, network_name_fault, parse_conf
from cnictl.core.errors import INVALID_CONFIG, CniError
from cnictl.core.paths import NETWORKS_DIR, PLUGIN_LOG

WALK_THROUGH: dict[str, Any] = {
    "cniVersion": "0.4.0",
    "name": "mynet",
    "type": "cnictl-bridge",
    "network": "10.244.0.0/20",
    "subnet": "10.244.0.0/24",
}
HOST_LOCAL: dict[str, Any] = {"type": "host-local", "ranges": [[{"subnet": "10.9.0.0/24"}]]}


def conf(**keys: Any) -> NetConf:
    return parse_conf({**WALK_THROUGH, **keys})


def with_ipam(**keys: Any) -> NetConf:
    """A conf in the reference's form: no subnet but that of `ipam`."""
    return parse_conf({"cniVersion": "1.0.0", "name": "other", "type": "cnictl-bridge", "ipam": {**HOST_LOCAL, **keys}})


def shown(values: Iterable[object]) -> list[str]:
    return [str(one) for one in values]


def test_the_walk_through_s_conf_is_taken_unchanged_but_for_its_type() -> None:
    found = parse_conf(dict(WALK_THROUGH))
    assert (found.name, found.cni_version) == ("mynet", "0.4.0")
    assert (shown(found.networks), shown(found.subnets)) == (["10.244.0.0/20"], ["10.244.0.0/24"])
    assert (shown(found.gateways), shown(found.sets), found.sets[0].size) == (
        ["10.244.0.1/24"], ["10.244.0.0/24"], 253,
    )  # fmt: skip
    assert (found.is_gateway, found.served, found.ipam_type) == (True, True, "host-local")
    assert (found.bridge, found.mtu, found.hairpin, found.masquerade, found.backend) == ("cni0", 0, False, False, "nft")
    assert (found.default_route, found.routes, found.dns) == (True, [], {})
    assert (found.data_dir, found.log_file, found.log_level) == (NETWORKS_DIR, PLUGIN_LOG, "info")
    assert found.prev_result is None and found.valid_attachments is None


def test_every_key_has_its_effect() -> None:
    found = conf(
        bridge="br7",
        mtu=1450,
        hairpinMode=True,
        ipMasq=True,
        ipMasqBackend="iptables",
        isGateway=True,
        isDefaultGateway=True,
        dns={"nameservers": ["10.96.0.10"]},
        logFile="/var/log/net.log",
        logLevel="DEBUG",
        prevResult={"ips": []},
        capabilities={"ips": True},
        runtimeConfig={},
    )
    assert (found.bridge, found.mtu, found.hairpin, found.masquerade) == ("br7", 1450, True, True)
    assert (found.backend, found.dns) == ("iptables", {"nameservers": ["10.96.0.10"]})
    assert (found.log_file, found.log_level, found.prev_result) == ("/var/log/net.log", "debug", {"ips": []})


def test_host_local_s_range_is_the_pool() -> None:
    found = with_ipam(
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
    assert (format_address(found.sets[0].nth(0)), found.sets[0].size) == ("10.9.0.10", 10)
    assert found.data_dir == "/srv/cni"
    assert [(str(route.destination), route.gateway) for route in found.routes] == [
        ("192.168.0.0/16", b""), ("10.50.0.0/16", b"\x0a\x09\x00\x07"),
    ]  # fmt: skip
    assert (found.is_gateway, found.default_route, found.gateways) == (False, False, [])
    assert found.networks == found.subnets


def test_a_flat_host_local_object_is_taken() -> None:
    found = parse_conf({"name": "other", "ipam": {"type": "host-local", "subnet": "10.9.0.0/24"}})
    assert shown(found.subnets) == ["10.9.0.0/24"]
    assert found.cni_version == "0.1.0"


def test_gc_s_list_is_taken_as_pairs_and_none_is_not_empty() -> None:
    key = "cni.dev/valid-attachments"
    assert conf(**{key: []}).valid_attachments == []
    given_list = [{"containerID": "c1", "ifname": "eth0", "more": 1}]
    assert conf(**{key: given_list}).valid_attachments == [("c1", "eth0")]


# key, value, what the message says besides the key
WRONG: list[tuple[str, Any, str]] = [
    ("name", 5, "5 is not a string"),
    ("name", "", "missing; a network needs one"),
    ("name", None, "missing"),
    ("name", "../etc", "'../etc' may contain only letters, digits"),
    ("name", ".hidden", "the first a letter or digit"),
    ("name", "n" * 201, "nnn…"),
    ("name", "my net", "'my net' may contain only"),
    ("cniVersion", 1.0, "1.0 is not a string"),
    ("subnet", "10.244.0.0/31", "no room for a gateway and a pod"),
    ("subnet", "10.244.0.1/24", "probably meant 10.244.0.0/24"),
    ("subnet", "10.244.0.0", "has no prefix length"),
    ("subnet", "10.244.0.300/24", "octet 300 is over 255"),
    ("subnet", "10.99.0.0/24", "10.99.0.0/24 lies outside network 10.244.0.0/20"),
    ("subnet", [5], "5 is not a string"),
    ("subnet", {}, "{} is not a string"),
    ("subnet", "", "missing; it is this node's pod CIDR"),
    ("network", "10.244.0.1/20", "has host bits set, probably meant 10.244.0.0/20"),
    ("network", 20, "20 is not a string"),
    ("bridge", "a" * 16, "has over 15 characters"),
    ("bridge", "cni/0", "has a `/`"),
    ("bridge", "..", "is a folder's name"),
    ("bridge", True, "True is not a string"),
    ("mtu", 67, "67 is not a number of bytes from 68 to 65535"),
    ("mtu", 65536, "65536 is not"),
    ("mtu", -1, "-1 is not"),
    ("mtu", True, "True is not"),
    ("mtu", "1500", "'1500' is not"),
    ("mtu", 1500.0, "1500.0 is not"),
    ("hairpinMode", "yes", "'yes' is neither true nor false"),
    ("ipMasq", 1, "1 is neither true nor false"),
    ("ipMasqBackend", "ebtables", "'ebtables' is neither nftables nor iptables"),
    ("ipMasqBackend", 1, "1 is not a string"),
    ("isGateway", "true", "'true' is neither"),
    ("logFile", "plugin.log", "'plugin.log' is not an absolute path"),
    ("logFile", "/a\0b", "is not an absolute path"),
    ("logLevel", "loud", "'loud' is none of debug, info, error, off"),
    ("dns", [], "[] is not an object"),
    ("dns", {"nameservers": "10.0.0.53"}, "dns.nameservers: '10.0.0.53' is not a list"),
    ("dns", {"search": ["a.example", 5]}, "dns.search[1]: 5 is not a string"),
    ("dns", {"domain": 5}, "dns.domain: 5 is not a string"),
    ("prevResult", "x", "'x' is not an object"),
    ("cni.dev/valid-attachments", {}, "{} is not a list"),
    ("cni.dev/valid-attachments", [{"containerID": "c1"}], "is not an object with containerID and ifname"),
    ("cni.dev/valid-attachments", ["c1"], "'c1' is not an object with"),
    ("ipam", "host-local", "'host-local' is not an object"),
]


@pytest.mark.parametrize(("key", "value", "said"), WRONG)
def test_a_wrong_value_is_refused_with_key_value_and_code_7(key: str, value: Any, said: str) -> None:
    with pytest.raises(CniError) as refused:
        conf(**{key: value})
    assert refused.value.code == INVALID_CONFIG, refused.value.message
    assert said in refused.value.message
    assert re.split(r"[:. []", refused.value.message)[0] == key.partition(".")[0]
    assert "\n" not in refused.value.message and len(refused.value.message) < 250


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
            "rangeEnd: no address in",
        ),
        (
            {"ranges": [[{"subnet": "10.9.0.0/24", "rangeStart": "10.9.0.1", "rangeEnd": "10.9.0.1"}]]},
            INVALID_CONFIG,
            "rangeEnd: no address in",
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


@pytest.mark.parametrize("document", [None, [], "conf", 5])
def test_what_is_no_object_is_refused(document: object) -> None:
    with pytest.raises(CniError, match="is not a JSON object") as refused:
        parse_conf(document)
    assert refused.value.code == INVALID_CONFIG


def test_a_whole_list_is_refused_with_the_cause() -> None:
    with pytest.raises(CniError, match="the configuration is a list"):
        parse_conf({"cniVersion": "1.0.0", "name": "mynet", "plugins": [dict(WALK_THROUGH)]})


@pytest.mark.parametrize("name", ["mynet", "a", "9net", "k8s-pod_network.1", "n" * 200])
def test_names_of_networks(name: str) -> None:
    assert not network_name_fault(name)


@pytest.mark.parametrize("name", ["eth0", "a" * 15, "veth.5", "x@y", "-", "ü"])
def test_names_the_kernel_takes_for_a_link(name: str) -> None:
    assert interface_name_fault(name) == ""


@pytest.mark.parametrize(
    "name", ["", "a" * 16, "ü" * 8, ".", "..", "a/b", "a:b", "a b", "a\tb", "a\nb", "a\0b", "\x7f"]
)
def test_names_the_kernel_refuses_for_a_link(name: str) -> None:
    assert interface_name_fault(name)


KEYS = sorted({key for key, _, _ in WRONG} | {"vlan", "isDefaultGateway"})
IPAM_KEYS = (
    "type",
    "ranges",
    "subnet",
    "routes",
    "dataDir",
    "gateway",
    "rangeStart",
    "rangeEnd",
    "resolvConf",
    "Ranges",
)
TEXTS = st.sampled_from(
    [
        "",
        "host-local",
        "10.9.0.0/24",
        "10.9.0.0/25",
        "10.9.0.9",
        "10.9.0.1",
        "fd00::/64",
        "fd00::5",
        "0.0.0.0/0",
        "::/0",
        "x",
    ]
)
INNER = st.sampled_from(
    ["subnet", "rangeStart", "rangeEnd", "gateway", "dst", "gw", "mtu", "scope", "table", "RANGEEND"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(INNER | st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
SPAN = st.dictionaries(INNER, TEXTS | JSON, max_size=4)


@given(st.dictionaries(st.sampled_from(KEYS), JSON, max_size=4))
def test_no_document_breaks_the_parser(keys: dict[str, Any]) -> None:
    try:
        conf(**keys)
    except CniError as refused:
        assert refused.code == INVALID_CONFIG


@given(
    st.dictionaries(st.sampled_from(IPAM_KEYS), JSON, max_size=4),
    st.none() | st.lists(st.lists(SPAN, max_size=3), max_size=3),
    st.none() | st.lists(SPAN, max_size=3),
)
def test_no_ipam_object_breaks_the_parser(keys: dict[str, Any], ranges: Any, routes: Any) -> None:
    keys |= {key: value for key, value in (("ranges", ranges), ("routes", routes)) if value is not None}
    try:
        found = with_ipam(**keys)
    except CniError as refused:
        assert refused.code == INVALID_CONFIG
        assert "\n" not in refused.message
    else:
        assert all(one.size > 0 for one in found.sets)


# --- forms of a configuration, and several range sets


def test_a_conf_in_the_reference_s_form_is_no_gateway_unless_it_says_so() -> None:
    plain = with_ipam()
    assert (plain.is_gateway, plain.default_route, plain.gateways) == (False, False, [])
    document = {"cniVersion": "1.0.0", "name": "other", "ipam": HOST_LOCAL}
    bridge = parse_conf({**document, "isGateway": True})
    assert (bridge.is_gateway, bridge.default_route, shown(bridge.gateways)) == (True, False, ["10.9.0.1/24"])
    both = parse_conf({**document, "isGateway": False, "isDefaultGateway": True})
    assert (both.is_gateway, both.default_route) == (True, True)


def test_the_walk_through_s_bridge_is_a_gateway_unless_it_says_so() -> None:
    assert (conf().is_gateway, conf().default_route) == (True, True)
    assert (conf(isDefaultGateway=False).is_gateway, conf(isDefaultGateway=False).default_route) == (True, False)
    alone = conf(isGateway=False)
    assert (alone.is_gateway, alone.default_route, alone.gateways) == (False, False, [])


@pytest.mark.parametrize("ipam", [None, {}, {"type": ""}])
def test_without_ipam_a_pod_gets_no_address(ipam: Any) -> None:
    found = parse_conf({"cniVersion": "1.0.0", "name": "flat", "ipam": ipam, "isGateway": True})
    assert (found.ipam_type, found.served, found.sets, found.subnets, found.networks) == ("", False, (), (), ())
    assert found.gateways == []


def test_another_ipam_plugin_is_named_and_its_keys_are_its_own() -> None:
    found = parse_conf({"name": "other", "ipam": {"type": "dhcp", "ranges": 5, "routes": "none", "dataDir": 7}})
    assert (found.ipam_type, found.served, found.sets) == ("dhcp", False, ())


def test_subnets_and_networks_of_both_families() -> None:
    found = conf(subnet=["10.244.0.0/24", "fd00:244::/64"], network=["10.244.0.0/20", "fd00:244::/48"])
    assert shown(found.sets) == ["10.244.0.0/24", "fd00:244::/64"]
    assert shown(found.networks) == ["10.244.0.0/20", "fd00:244::/48"]
    assert shown(found.gateways) == ["10.244.0.1/24", "fd00:244::1/64"]
    one_network = conf(subnet=["10.244.0.0/24", "fd00:244::/64"])
    assert shown(one_network.networks) == ["10.244.0.0/20", "fd00:244::/64"]
    with pytest.raises(CniError, match=r"subnet: fd01::/64 lies outside network fd00:244::/48"):
        conf(subnet=["10.244.0.0/24", "fd01::/64"], network=["10.244.0.0/20", "fd00:244::/48"])


def test_several_range_sets_in_host_local_s_order() -> None:
    found = parse_conf(
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
    assert shown(found.sets) == [
        "10.7.0.0/24", "10.8.0.0/24", "10.9.0.1-10.9.0.9, 10.9.0.20-10.9.0.254", "fd00::/64",
    ]  # fmt: skip
    assert shown(found.subnets) == ["10.7.0.0/24", "10.8.0.0/24", "10.9.0.0/24", "fd00::/64"]
    assert shown(found.gateways) == ["10.7.0.1/24", "10.8.0.254/24", "10.9.0.1/24", "fd00::1/64"]


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
def test_what_contradicts_itself_is_refused(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(CniError) as refused:
        conf(**keys)
    assert refused.value.code == INVALID_CONFIG
    assert said in refused.value.message


def test_both_families_fit_the_oldest_version() -> None:
    assert len(conf(subnet=["10.244.0.0/24", "fd00::/64"], network=None, cniVersion="0.2.0").sets) == 2


def test_a_gateway_may_lie_outside_its_subnet_as_host_local_lets_it() -> None:
    document = {"name": "other", "ipam": {**HOST_LOCAL, "ranges": [[{"subnet": "10.9.0.0/24", "gateway": "10.1.0.1"}]]}}
    found = parse_conf({**document, "isGateway": True})
    assert shown(found.gateways) == ["10.1.0.1/24"]
    assert found.sets[0].size == 254


def test_a_route_says_all_that_host_local_lets_it_say() -> None:
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


def test_keys_are_taken_whatever_the_case_of_their_letters() -> None:
    found = parse_conf(
        {
            "cniVersion": "1.0.0",
            "Name": "other",
            "BRIDGE": "br7",
            "ipmasq": True,
            "isGATEWAY": True,
            "Ipam": {
                "Type": "host-local",
                "Ranges": [[{"Subnet": "10.9.0.0/24", "rangestart": "10.9.0.9"}]],
                "DATADIR": "/x",
                "Routes": [{"DST": "10.0.0.0/8", "Gw": "10.9.0.7"}],
            },
        }
    )
    assert (found.name, found.bridge, found.masquerade, found.data_dir) == ("other", "br7", True, "/x")
    assert shown(found.sets) == ["10.9.0.9-10.9.0.254"]
    assert [str(route.destination) for route in found.routes] == ["10.0.0.0/8"]


def test_of_two_spellings_the_last_counts_unless_it_is_null() -> None:
    """As with the reference's JSON reader (tests/kernel/plugin/test_values.py compares)."""
    assert parse_conf({**WALK_THROUGH, "mtu": 1300, "MTU": 1400}).mtu == 1400
    assert parse_conf({**WALK_THROUGH, "MTU": 1400, "mtu": 1300}).mtu == 1300
    assert parse_conf({**WALK_THROUGH, "mtu": 1300, "MTU": None}).mtu == 1300


def test_the_result_s_dns_is_the_conf_s_else_the_resolver_s_else_the_former_plugin_s(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text(
        "; a comment\n# another\nnameserver 10.0.0.53\nnameserver\nnameserver fd00::53 \nsearch a.example b.example\n"
        "domain example\noptions ndots:5\noptions edns0\nsortlist x\n\n"
    )
    told = {"dns": {"nameservers": ["10.96.0.10"]}}
    before = {"prevResult": {"dns": {"domain": "before"}}}
    document = {"name": "other", "cniVersion": "1.0.0", "ipam": {**HOST_LOCAL, "resolvConf": str(file)}}
    assert parse_conf({**document, **told, **before}).result_dns() == told["dns"]
    assert parse_conf({**document, **before, "dns": {"nameservers": []}}).result_dns() == {
        "nameservers": ["10.0.0.53", "fd00::53"],
        "search": ["a.example", "b.example"],
        "domain": "example",
        "options": ["ndots:5", "edns0"],
    }
    assert parse_conf({"name": "other", **before}).result_dns() == {"domain": "before"}
    assert parse_conf({"name": "other"}).result_dns() == {}
    file.unlink()
    with pytest.raises(CniError, match=r"ipam.resolvConf: .*resolv.conf': No such file") as refused:
        parse_conf(document).result_dns()  # not before: a DEL needs no resolver
    assert refused.value.code == INVALID_CONFIG
    os.mkfifo(file)
    with pytest.raises(CniError, match=r"ipam.resolvConf: .*resolv.conf': it is no regular file"):
        parse_conf(document).result_dns()
