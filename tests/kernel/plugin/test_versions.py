"""VERSION, and the exact keys of the result for each version of the specification."""

import pytest

from tests.kernel.plugin.client import WALK_THROUGH, Host, Pod

pytestmark = pytest.mark.once

VERSIONS = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]


def test_version_names_every_version_served(host: Host) -> None:
    answer = host.plugin("VERSION", conf={"cniVersion": "1.0.0"}).result
    assert answer == {"cniVersion": "1.0.0", "supportedVersions": VERSIONS}


def test_version_needs_neither_container_nor_stdin(host: Host) -> None:
    answer = host.call({"CNI_COMMAND": "VERSION"}, b"").result
    assert answer == {"cniVersion": "1.1.0", "supportedVersions": VERSIONS}


def test_version_reads_nothing_else_of_the_conf(host: Host) -> None:
    answer = host.call({"CNI_COMMAND": "VERSION", "CNI_IFNAME": "dummy"}, b'{"cniVersion": "0.4.0", "name": 5}').result
    assert answer["cniVersion"] == "0.4.0"


def versioned(version: str) -> dict[str, object]:
    return {**WALK_THROUGH, "cniVersion": version}


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_result_before_interfaces_were_listed(host: Host, version: str) -> None:
    result = host.add(host.pod(), versioned(version))
    routes = [{"dst": "0.0.0.0/0", "gw": "10.244.0.1"}]
    assert result == {
        "cniVersion": version,
        "ip4": {"ip": "10.244.0.2/24", "gateway": "10.244.0.1", "routes": routes},
        "dns": {},
    }


@pytest.mark.parametrize("version", ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_result_lists_bridge_host_veth_and_container_interface(host: Host, version: str) -> None:
    pod = host.pod()
    result = host.add(pod, versioned(version))
    assert set(result) == {"cniVersion", "interfaces", "ips", "routes", "dns"}
    assert result["cniVersion"] == version
    assert result["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.244.0.1"}]
    assert result["dns"] == {}
    family = {"version": "4"} if version.startswith("0.") else {}
    assert result["ips"] == [{**family, "address": "10.244.0.2/24", "gateway": "10.244.0.1", "interface": 2}]

    bridge, veth, interface = result["interfaces"]
    size = {"mtu"} if version == "1.1.0" else set()
    assert set(bridge) == set(veth) == {"name", "mac"} | size
    assert set(interface) == {"name", "mac", "sandbox"} | size
    assert bridge["name"] == "cni0"
    assert interface["name"] == "eth0"
    assert interface["sandbox"] == pod.netns

    links = host.links()
    inside = host.pod_link(pod)
    assert inside is not None
    for said, link in ((bridge, links["cni0"]), (veth, links[veth["name"]]), (interface, inside)):
        assert said["mac"] == link["address"]
        assert said.get("mtu", link["mtu"]) == link["mtu"] == 1500


def test_conf_without_a_version_has_the_first_version(host: Host) -> None:
    conf = {key: value for key, value in WALK_THROUGH.items() if key != "cniVersion"}
    result = host.add(host.pod(), conf)
    assert result["cniVersion"] == "0.1.0"
    assert result["ip4"]["ip"] == "10.244.0.2/24"


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_deletes_what_it_added(host: Host, version: str) -> None:
    pod = host.pod()
    result = host.add(pod, versioned(version))
    if version not in ("0.1.0", "0.2.0", "0.3.0", "0.3.1"):
        host.plugin("CHECK", pod, versioned(version), result).result  # noqa: B018 (raises unless it succeeded)
    host.delete(pod, versioned(version))
    assert host.ports() == set()
    assert host.leases() == {}
    assert host.records() == set()


@pytest.mark.parametrize(
    ("verb", "version"),
    [("CHECK", "0.3.1"), ("GC", "1.0.0"), ("STATUS", "1.0.0"), ("ADD", "1.2.0"), ("DEL", "0.5.0"), ("ADD", "nonsense")],
)
def test_unsupported_verb_or_version_is_error_1_in_a_version_the_runtime_reads(
    host: Host, verb: str, version: str
) -> None:
    error = host.plugin(verb, Pod("none", "/run/netns/none"), versioned(version)).error
    assert error["code"] == 1
    assert version in error["msg"]


def test_chained_plugin_keeps_the_previous_plugins_result(host: Host) -> None:
    pod = host.pod()
    before = {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "other0"}, {"name": "net0", "sandbox": pod.netns}],
        "ips": [{"address": "192.0.2.7/24", "interface": 1}],
        "routes": [{"dst": "192.0.2.0/24"}],
        "dns": {"nameservers": ["192.0.2.53"]},
    }
    result = host.plugin("ADD", pod, versioned("1.0.0"), before).result
    assert [interface["name"] for interface in result["interfaces"]][3:] == ["other0", "net0"]
    assert len(result["interfaces"]) == 5
    assert result["ips"] == [
        {"address": "10.244.0.2/24", "gateway": "10.244.0.1", "interface": 2},
        {"address": "192.0.2.7/24", "interface": 4},
    ]
    assert result["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.244.0.1"}, {"dst": "192.0.2.0/24"}]
    assert result["dns"] == {"nameservers": ["192.0.2.53"]}
    host.plugin("CHECK", pod, versioned("1.0.0"), {**result, "routes": result["routes"][:1]}).result  # noqa: B018
