"""The result of ADD in the form of each CNI version, and the verbs of each version."""

from typing import Any

import pytest

from cnictl.core.errors import INCOMPATIBLE_VERSION, CniError
from cnictl.core.result import SUPPORTED_VERSIONS, check_version, shape

INTERFACES: list[dict[str, Any]] = [
    {"name": "cni0", "mac": "02:00:00:00:00:01", "mtu": 1500},
    {"name": "veth1234abcd", "mac": "02:00:00:00:00:02", "mtu": 1500},
    {"name": "eth0", "mac": "02:00:00:00:00:03", "mtu": 1500, "sandbox": "/run/netns/a"},
]
IPS: list[dict[str, Any]] = [{"address": "10.244.0.2/24", "gateway": "10.244.0.1", "interface": 2}]
ROUTES: list[dict[str, Any]] = [
    {"dst": "0.0.0.0/0", "gw": "10.244.0.1"},
    {"dst": "10.9.0.0/16", "gw": "10.244.0.1", "mtu": 1400},
]
DNS = {"nameservers": ["10.96.0.10"]}


def shaped(version: str) -> dict[str, Any]:
    return shape(version, INTERFACES, IPS, ROUTES, DNS)


def test_1_1_0_has_everything() -> None:
    assert shaped("1.1.0") == {
        "cniVersion": "1.1.0",
        "interfaces": INTERFACES,
        "ips": IPS,
        "routes": ROUTES,
        "dns": DNS,
    }


def test_1_0_0_has_no_mtu() -> None:
    result = shaped("1.0.0")
    assert result["interfaces"] == [{k: v for k, v in interface.items() if k != "mtu"} for interface in INTERFACES]
    assert result["routes"] == [{k: v for k, v in route.items() if k != "mtu"} for route in ROUTES]
    assert result["ips"] == IPS


@pytest.mark.parametrize("version", ["0.3.0", "0.3.1", "0.4.0"])
def test_0_3_and_0_4_name_the_family_of_each_address(version: str) -> None:
    result = shaped(version)
    assert result["cniVersion"] == version
    assert result["ips"] == [{"version": "4", **IPS[0]}]
    assert all("mtu" not in interface for interface in result["interfaces"])
    six = shape(version, INTERFACES, [{"address": "fd00::2/64", "interface": 2}], [], {})
    assert six["ips"][0]["version"] == "6"


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_0_1_and_0_2_have_one_address_a_family(version: str) -> None:
    assert shaped(version) == {
        "cniVersion": version,
        "ip4": {"ip": "10.244.0.2/24", "gateway": "10.244.0.1", "routes": ROUTES},
        "dns": DNS,
    }
    both = shape(version, INTERFACES, [*IPS, {"address": "fd00::2/64"}], [*ROUTES, {"dst": "::/0"}], {})
    assert both["ip6"] == {"ip": "fd00::2/64", "routes": [{"dst": "::/0"}]}
    assert both["ip4"]["routes"] == ROUTES


def test_shaping_does_not_change_its_input() -> None:
    before = [dict(interface) for interface in INTERFACES]
    for version in SUPPORTED_VERSIONS:
        shaped(version)
    assert before == INTERFACES


@pytest.mark.parametrize("version", SUPPORTED_VERSIONS)
def test_every_version_has_add_and_del(version: str) -> None:
    for verb in ("ADD", "DEL", "VERSION"):
        check_version(version, verb)


@pytest.mark.parametrize(("verb", "since"), [("CHECK", "0.4.0"), ("GC", "1.1.0"), ("STATUS", "1.1.0")])
def test_a_version_without_the_verb_is_refused_with_the_one_that_added_it(verb: str, since: str) -> None:
    for version in SUPPORTED_VERSIONS:
        if SUPPORTED_VERSIONS.index(version) >= SUPPORTED_VERSIONS.index(since):
            check_version(version, verb)
            continue
        with pytest.raises(CniError, match=f"cniVersion {version} has no {verb}; {since} introduced it") as refused:
            check_version(version, verb)
        assert refused.value.code == INCOMPATIBLE_VERSION


@pytest.mark.parametrize("version", ["", "0.5.0", "1.2.0", "2.0.0", "1.0", "v1.0.0", "1.0.0 "])
def test_an_unknown_version_is_refused_with_the_supported_ones(version: str) -> None:
    with pytest.raises(CniError, match="is not supported") as refused:
        check_version(version, "ADD")
    assert refused.value.code == INCOMPATIBLE_VERSION
    assert refused.value.hint == "supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0"
