"""Parse rarely used keys: VLANs, port flags, and what a runtime requests for one pod."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnictl.core.cidr import format_address
from cnictl.core.conf.netconf import NetConf
from cnictl.core.conf.network import parse_conf
from cnictl.core.errors import INVALID_CONFIG, CniError

DUAL_STACK: dict[str, Any] = {"type": "host-local", "ranges": [[{"subnet": "10.9.0.0/24"}], [{"subnet": "fd00::/64"}]]}


def conf(**keys: Any) -> NetConf:
    return parse_conf({"cniVersion": "1.0.0", "name": "other", "type": "cnictl-bridge", "ipam": DUAL_STACK, **keys})


@pytest.mark.parametrize(
    ("key", "field"),
    [
        ("forceAddress", "force_address"),
        ("promiscMode", "promiscuous"),
        ("portIsolation", "isolated"),
        ("macspoofchk", "mac_check"),
        ("enabledad", "dad"),
        ("preserveDefaultVlan", "keep_default_vlan"),
        ("hairpinMode", "hairpin"),
        ("ipMasq", "masquerade"),
    ],
)
def test_a_flag_is_off_unless_it_is_set(key: str, field: str) -> None:
    assert getattr(conf(), field) is False
    assert getattr(conf(**{key: None}), field) is False
    assert getattr(conf(**{key: False}), field) is False
    assert getattr(conf(**{key: True}), field) is True
    with pytest.raises(CniError, match=f"{key}: 'yes' is neither true nor false"):
        conf(**{key: "yes"})


def test_the_interface_of_a_pod_without_addresses_may_stay_down() -> None:
    parsed = conf(ipam={}, disableContainerInterface=True)
    assert (parsed.container_down, parsed.ipam_type, parsed.sets) == (True, "", ())


@pytest.mark.parametrize(
    ("trunk", "spans"),
    [
        ([], []),
        (None, []),
        ([{}], []),
        ([{"id": 7}], [(7, 7)]),
        ([{"minID": 100, "maxID": 110}], [(100, 110)]),
        ([{"minID": 100, "maxID": 110, "id": 7}], [(7, 7), (100, 110)]),
        ([{"id": 5}, {"minID": 1, "maxID": 4}, {"minID": 3, "maxID": 6}, {"id": 8}], [(1, 6), (8, 8)]),
        ([{"minID": 1, "maxID": 4094}], [(1, 4094)]),
    ],
)
def test_a_trunk_becomes_ordered_spans(trunk: Any, spans: list[tuple[int, int]]) -> None:
    assert conf(vlanTrunk=trunk).vlan_trunk == spans


def test_a_vlan_and_a_trunk_beside_it() -> None:
    parsed = conf(vlan=100, vlanTrunk=[{"minID": 200, "maxID": 210}])
    assert (parsed.vlan, parsed.vlan_trunk) == (100, [(200, 210)])
    assert conf(vlan=0).vlan == 0


def test_the_runtime_s_mac_overrides_that_of_args() -> None:
    assert conf().mac == b""
    args = {"args": {"cni": {"mac": "02:00:00:00:00:01"}}}
    assert conf(**args).mac.hex() == "020000000001"
    assert conf(**args, runtimeConfig={"mac": "02:00:00:00:00:02"}).mac.hex() == "020000000002"


def test_requested_addresses_are_read_with_or_without_a_prefix_each_once() -> None:
    parsed = conf(
        args={"cni": {"ips": ["10.9.0.7/24", "fd00::7"], "labels": []}},
        runtimeConfig={"ips": ["10.9.0.7", "::ffff:10.9.0.8", "fd00:0::9/64"], "portMappings": []},
    )
    assert [format_address(packed) for packed in parsed.wanted] == ["10.9.0.7", "fd00::7", "10.9.0.8", "fd00::9"]


def test_requested_addresses_are_not_checked_for_another_ipam_plugin() -> None:
    assert conf(ipam={"type": "static"}, runtimeConfig={"ips": ["192.0.2.9/24"]}).wanted == (b"\xc0\x00\x02\x09",)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"vlan": 4095}, "vlan: 4095 is not a number from 0 to 4094"),
        ({"vlan": -1}, "vlan: -1 is not"),
        ({"vlan": "100"}, "vlan: '100' is not"),
        ({"vlan": True}, "vlan: True is not"),
        ({"vlanTrunk": {}}, "vlanTrunk: {} is not a list"),
        ({"vlanTrunk": [7]}, "vlanTrunk[0]: 7 is not an object with `id`, or `minID` and `maxID`"),
        ({"vlanTrunk": [{"id": 1}, {"id": 0}]}, "vlanTrunk[1].id: 0 is not a number from 1 to 4094"),
        ({"vlanTrunk": [{"minID": 5}]}, "vlanTrunk[0].maxID: missing"),
        ({"vlanTrunk": [{"maxID": 5}]}, "vlanTrunk[0].minID: missing"),
        ({"vlanTrunk": [{"minID": 5, "maxID": 4}]}, "vlanTrunk[0].maxID: 4 is below minID 5"),
        ({"vlanTrunk": [{"minID": 5, "maxID": 4095}]}, "vlanTrunk[0].maxID: 4095 is not"),
        ({"vlan": 5, "vlanTrunk": [{"minID": 1, "maxID": 9}]}, "vlanTrunk: contains 5, which vlan makes untagged"),
        ({"promiscMode": True, "hairpinMode": True}, "promiscMode: true and hairpinMode: true exclude each other"),
        ({"disableContainerInterface": True}, "disableContainerInterface: true, but an interface that is down"),
        ({"disableContainerInterface": True, "ipam": {"type": "dhcp"}}, "can't use ipam dhcp"),
        ({"args": []}, "args: [] is not an object"),
        ({"args": {"cni": 5}}, "args.cni: 5 is not an object"),
        ({"runtimeConfig": "x"}, "runtimeConfig: 'x' is not an object"),
        ({"args": {"cni": {"mac": 5}}}, "args.cni.mac: 5 is not a string"),
        ({"runtimeConfig": {"mac": "01:00:5e:00:00:01"}}, "runtimeConfig.mac: '01:00:5e:00:00:01' is not"),
        ({"runtimeConfig": {"ips": "10.9.0.7"}}, "runtimeConfig.ips: '10.9.0.7' is not a list"),
        ({"runtimeConfig": {"ips": [7]}}, "runtimeConfig.ips[0]: 7 is not a string"),
        ({"args": {"cni": {"ips": ["10.9.0.7", "x"]}}}, "args.cni.ips[1] 'x': has 1 part"),
        ({"runtimeConfig": {"ips": ["10.9.0.7/33"]}}, "runtimeConfig.ips[0] '10.9.0.7/33': prefix length '33'"),
        ({"runtimeConfig": {"ips": ["10.8.0.7"]}}, "runtimeConfig.ips[0]: 10.8.0.7 is not an address for pods"),
        ({"runtimeConfig": {"ips": ["fd00::1"]}}, "runtimeConfig.ips[0]: fd00::1 is not an address for pods"),
        ({"runtimeConfig": {"ipRanges": [[{"subnet": "10.9.0.0/25"}]]}}, "10.9.0.0/25 and 10.9.0.0/24 overlap"),
        ({"runtimeConfig": {"ipRanges": [[5]]}}, "runtimeConfig.ipRanges[0]: [5] is not a list of objects"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_with_key_and_value(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(CniError) as refused:
        conf(**keys)
    assert said in refused.value.message
    assert refused.value.code == INVALID_CONFIG
    assert "\n" not in refused.value.message and len(refused.value.message) < 250


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["cni", "mac", "ips", "ipRanges", "id", "minID", "subnet"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)
KEYS = ("vlan", "vlanTrunk", "args", "runtimeConfig", "promiscMode", "macspoofchk", "VLAN", "RuntimeConfig")


@given(st.dictionaries(st.sampled_from(KEYS), JSON, max_size=4))
def test_no_document_breaks_the_parser(keys: dict[str, Any]) -> None:
    try:
        conf(**keys)
    except CniError as refused:
        assert refused.code == INVALID_CONFIG
