"""Parse the plugin's configuration: every accepted key, and every refusal with its code, key and value."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnictl.core.conf.network import interface_name_fault, network_name_fault, parse_conf
from cnictl.core.errors import INVALID_CONFIG, CniError
from cnictl.core.paths import NETWORKS_DIR, PLUGIN_LOG
from tests.unit.confs import HOST_LOCAL, WALK_THROUGH, conf, shown, with_ipam


def test_the_walk_through_s_conf_is_accepted_with_only_its_type_changed() -> None:
    parsed = parse_conf(dict(WALK_THROUGH))
    assert (parsed.name, parsed.cni_version) == ("mynet", "0.4.0")
    assert (shown(parsed.networks), shown(parsed.subnets)) == (["10.244.0.0/20"], ["10.244.0.0/24"])
    assert (shown(parsed.gateways), shown(parsed.sets), parsed.sets[0].size) == (
        ["10.244.0.1/24"], ["10.244.0.0/24"], 253,
    )  # fmt: skip
    assert (parsed.is_gateway, parsed.served, parsed.ipam_type) == (True, True, "host-local")
    assert (parsed.bridge, parsed.mtu, parsed.hairpin) == ("cni0", 0, False)
    assert (parsed.masquerade, parsed.backend) == (False, "nft")
    assert (parsed.default_route, parsed.routes, parsed.dns) == (True, [], {})
    assert (parsed.data_dir, parsed.log_file, parsed.log_level) == (NETWORKS_DIR, PLUGIN_LOG, "info")
    assert parsed.prev_result is None and parsed.valid_attachments is None


def test_every_key_has_its_effect() -> None:
    parsed = conf(
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
    assert (parsed.bridge, parsed.mtu, parsed.hairpin, parsed.masquerade) == ("br7", 1450, True, True)
    assert (parsed.backend, parsed.dns) == ("iptables", {"nameservers": ["10.96.0.10"]})
    assert (parsed.log_file, parsed.log_level, parsed.prev_result) == ("/var/log/net.log", "debug", {"ips": []})


def test_gc_s_list_is_read_as_pairs_and_a_missing_list_is_not_empty() -> None:
    key = "cni.dev/valid-attachments"
    assert conf(**{key: []}).valid_attachments == []
    given_list = [{"containerID": "c1", "ifname": "eth0", "more": 1}]
    assert conf(**{key: given_list}).valid_attachments == [("c1", "eth0")]


# key, value, what the message contains besides the key
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
    ("subnet", "10.244.0.1/24", "did you mean 10.244.0.0/24"),
    ("subnet", "10.244.0.0", "has no prefix length"),
    ("subnet", "10.244.0.300/24", "octet 300 is over 255"),
    ("subnet", "10.99.0.0/24", "10.99.0.0/24 lies outside network 10.244.0.0/20"),
    ("subnet", [5], "5 is not a string"),
    ("subnet", {}, "{} is not a string"),
    ("subnet", "", "missing; it is this node's pod CIDR"),
    ("network", "10.244.0.1/20", "has host bits set; did you mean 10.244.0.0/20"),
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
    ("logLevel", "loud", "'loud' is not one of debug, info, error, off"),
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


@pytest.mark.parametrize("document", [None, [], "conf", 5])
def test_value_that_is_not_an_object_is_refused(document: object) -> None:
    with pytest.raises(CniError, match="is not a JSON object") as refused:
        parse_conf(document)
    assert refused.value.code == INVALID_CONFIG


def test_conflist_in_place_of_a_conf_is_refused_with_the_cause() -> None:
    with pytest.raises(CniError, match="the configuration is a list"):
        parse_conf({"cniVersion": "1.0.0", "name": "mynet", "plugins": [dict(WALK_THROUGH)]})


@pytest.mark.parametrize("name", ["mynet", "a", "9net", "k8s-pod_network.1", "n" * 200])
def test_names_of_networks(name: str) -> None:
    assert not network_name_fault(name)


@pytest.mark.parametrize("name", ["eth0", "a" * 15, "veth.5", "x@y", "-", "ü"])
def test_link_names_that_the_kernel_accepts(name: str) -> None:
    assert interface_name_fault(name) == ""


@pytest.mark.parametrize(
    "name", ["", "a" * 16, "ü" * 8, ".", "..", "a/b", "a:b", "a b", "a\tb", "a\nb", "a\0b", "\x7f"]
)
def test_link_names_that_the_kernel_refuses(name: str) -> None:
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
        parsed = with_ipam(**keys)
    except CniError as refused:
        assert refused.code == INVALID_CONFIG
        assert "\n" not in refused.message
    else:
        assert all(range_set.size > 0 for range_set in parsed.sets)


# --- forms of a configuration, and several range sets
def test_a_conf_in_the_reference_s_form_is_a_gateway_only_if_it_says_so() -> None:
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


def test_keys_are_case_insensitive() -> None:
    parsed = parse_conf(
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
    assert (parsed.name, parsed.bridge, parsed.masquerade, parsed.data_dir) == ("other", "br7", True, "/x")
    assert shown(parsed.sets) == ["10.9.0.9-10.9.0.254"]
    assert [str(route.destination) for route in parsed.routes] == ["10.0.0.0/8"]


def test_the_last_of_two_spellings_counts_unless_it_is_null() -> None:
    """The reference's JSON reader does the same (tests/kernel/plugin/test_values.py compares them)."""
    assert parse_conf({**WALK_THROUGH, "mtu": 1300, "MTU": 1400}).mtu == 1400
    assert parse_conf({**WALK_THROUGH, "MTU": 1400, "mtu": 1300}).mtu == 1300
    assert parse_conf({**WALK_THROUGH, "mtu": 1300, "MTU": None}).mtu == 1300


def test_the_result_s_dns_is_from_the_conf_the_resolver_or_the_former_plugin(tmp_path: Path) -> None:
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
        parse_conf(document).result_dns()  # only here: a DEL needs no resolver
    assert refused.value.code == INVALID_CONFIG
    os.mkfifo(file)
    with pytest.raises(CniError, match=r"ipam.resolvConf: .*resolv.conf': it is not a regular file"):
        parse_conf(document).result_dns()
