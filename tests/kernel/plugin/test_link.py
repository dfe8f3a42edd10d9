"""Keys of the link (bridge, port, pod interface, MAC, VLANs): the kernel has them, a failed ADD undoes them."""

import json
import sys
from typing import Any

import pytest

from tests.kernel.plugin.client import Host, Pod

Json = dict[str, Any]

PLAIN: Json = {
    "cniVersion": "1.1.0",
    "name": "linked",
    "type": "cnictl-bridge",
    "isGateway": True,
    "ipam": {"type": "host-local", "subnet": "10.9.0.0/24"},
}
LAYER_2: Json = {"cniVersion": "1.1.0", "name": "wire", "type": "cnictl-bridge"}


def port(host: Host, result: Json) -> Json:
    settings: Json = host.links()[result["interfaces"][1]["name"]]["linkinfo"]["info_slave_data"]
    return settings


def bridge_addresses(host: Host) -> list[str]:
    links = json.loads(host.run("ip", "-j", "-4", "address", "show", "dev", "cni0"))
    return [address["local"] for link in links for address in link["addr_info"]]


def occupied(host: Host) -> Pod:
    """Return a pod that already has eth0, so that ADD fails after most of its steps."""
    pod = host.pod("occupied")
    host.inside(pod, "ip", "link", "add", "eth0", "type", "bridge")
    return pod


def test_bridge_that_is_not_a_gateway_has_no_address_and_pods_reach_each_other(host: Host) -> None:
    pod, other = host.pods(2)
    conf = {**PLAIN, "isGateway": False}
    result = host.add(pod, conf)
    host.add(other, conf)
    assert bridge_addresses(host) == []
    assert result["ips"][0]["gateway"] == "10.9.0.1"
    assert result["routes"] == host.routes(pod) == []
    assert host.pings(pod, "10.9.0.3")
    assert host.plugin("CHECK", pod, conf, result).result == {}


def test_default_route_that_ipam_also_lists_is_added_once(host: Host) -> None:
    pod = host.pod()
    conf = {**PLAIN, "isDefaultGateway": True, "ipam": {**PLAIN["ipam"], "routes": [{"dst": "0.0.0.0/0"}]}}
    result = host.add(pod, conf)
    assert result["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.9.0.1"}]
    assert [route["gateway"] for route in host.routes(pod)] == ["10.9.0.1"]


@pytest.mark.parametrize("fails", [False, True])
def test_forced_address_replaces_a_foreign_one_unless_add_fails(host: Host, fails: bool) -> None:
    host.run("ip", "link", "add", "cni0", "type", "bridge")
    host.run("ip", "address", "add", "10.50.0.1/24", "broadcast", "10.50.0.255", "dev", "cni0")
    pod = occupied(host) if fails else host.pod()
    before = host.traces()
    answer = host.plugin("ADD", pod, {**PLAIN, "forceAddress": True})
    if fails:
        assert answer.code == 102
        assert host.traces() == before
    else:
        assert answer.address == "10.9.0.2"
        assert bridge_addresses(host) == ["10.9.0.1"]
        assert host.pings(pod, "10.9.0.1")


@pytest.mark.parametrize("down", [False, True], ids=["up", "down"])
def test_failed_add_restores_a_manually_created_bridge(host: Host, down: bool) -> None:
    host.run("ip", "link", "add", "cni0", "type", "bridge")
    host.run("ip", "link", "set", "cni0", "down" if down else "up")
    pod = occupied(host)
    before = host.traces()
    conf = {**PLAIN, "promiscMode": True, "macspoofchk": True, "ipMasq": True, "portIsolation": True}
    assert host.plugin("ADD", pod, conf).code == 102
    assert host.traces() == before


def test_promiscuous_bridge(host: Host) -> None:
    pod = host.pod()
    conf = {**PLAIN, "promiscMode": True}
    result = host.add(pod, conf)
    assert "PROMISC" in host.links()["cni0"]["flags"]
    assert host.plugin("CHECK", pod, conf, result).result == {}
    host.run("ip", "link", "set", "cni0", "promisc", "off")
    error = host.plugin("CHECK", pod, conf, result).error
    assert error["code"] == 104 and "promiscMode" in error["msg"]


def test_isolated_ports_reach_the_gateway_and_not_each_other(host: Host) -> None:
    first, other, open_one = host.pods(3)
    conf = {**PLAIN, "portIsolation": True}
    results = [host.add(pod, conf) for pod in (first, other)]
    host.add(open_one, PLAIN)
    assert [port(host, result)["isolated"] for result in results] == [True, True]
    assert host.pings(first, "10.9.0.1")
    assert host.pings(first, "10.9.0.4")
    assert not host.pings(first, "10.9.0.3")
    assert host.plugin("CHECK", first, conf, results[0]).result == {}
    host.run("bridge", "link", "set", "dev", results[0]["interfaces"][1]["name"], "isolated", "off")
    error = host.plugin("CHECK", first, conf, results[0]).error
    assert error["code"] == 104 and "portIsolation" in error["msg"]


def test_check_reports_missing_hairpin(host: Host) -> None:
    pod = host.pod()
    conf = {**PLAIN, "hairpinMode": True}
    result = host.add(pod, conf)
    assert host.plugin("CHECK", pod, conf, result).result == {}
    host.run("bridge", "link", "set", "dev", result["interfaces"][1]["name"], "hairpin", "off")
    error = host.plugin("CHECK", pod, conf, result).error
    assert error["code"] == 104 and "hairpinMode" in error["msg"]


@pytest.mark.parametrize("key", [None, "ipMasq"])
def test_layer_2_is_a_link_and_nothing_else(host: Host, key: str | None) -> None:
    conf = {**LAYER_2, key: True} if key else LAYER_2
    first, other = host.pods(2)
    before = host.traces()
    result = host.add(first, conf)
    host.add(other, conf)
    assert (result["ips"], result["routes"]) == ([], [])
    assert host.leases("wire") == {}
    for pod, address in ((first, "192.0.2.1/24"), (other, "192.0.2.2/24")):
        host.inside(pod, "ip", "address", "add", address, "dev", "eth0")
    assert host.pings(first, "192.0.2.2")
    assert host.plugin("CHECK", first, conf, result).result == {}
    for pod in (first, other):
        host.delete(pod, conf, result)
    host.run("ip", "link", "delete", "cni0")
    assert host.traces() == before


def test_pods_interface_stays_down_if_requested(host: Host) -> None:
    pod = host.pod()
    conf = {**LAYER_2, "disableContainerInterface": True}
    result = host.add(pod, conf)
    inside = host.pod_link(pod)
    assert inside is not None and "UP" not in inside["flags"]
    assert host.plugin("CHECK", pod, conf, result).result == {}
    host.inside(pod, "ip", "link", "set", "eth0", "up")
    error = host.plugin("CHECK", pod, conf, result).error
    assert error["code"] == 104 and "disableContainerInterface" in error["msg"]
    host.delete(pod, conf)
    assert host.ports() == set()


@pytest.mark.parametrize(
    ("sources", "mac"),
    [
        (("environment",), "02:00:00:00:00:0e"),
        (("environment", "args"), "02:00:00:00:00:0a"),
        (("environment", "args", "runtime"), "02:00:00:00:00:0c"),
    ],
)
def test_mac_of_the_runtime_precedes_args_and_the_environment(host: Host, sources: tuple[str, ...], mac: str) -> None:
    conf = dict(PLAIN)
    if "args" in sources:
        conf["args"] = {"cni": {"mac": "02:00:00:00:00:0a"}}
    if "runtime" in sources:
        conf["runtimeConfig"] = {"mac": "02:00:00:00:00:0c"}
    pod = host.pod()
    assert host.add(pod, conf, CNI_ARGS="MAC=02:00:00:00:00:0e")["interfaces"][2]["mac"] == mac
    inside = host.pod_link(pod)
    assert inside is not None and inside["address"] == mac


def test_manually_created_bridge_keeps_its_mac_from_the_first_add_on(host: Host) -> None:
    host.run("ip", "link", "add", "cni0", "type", "bridge")
    pod, other = host.pods(2)
    mac = host.add(pod, PLAIN)["interfaces"][0]["mac"]
    host.run("ip", "link", "add", "low", "address", "02:00:00:00:00:01", "type", "veth", "peer", "name", "low-peer")
    host.run("ip", "link", "set", "low", "master", "cni0", "up")
    assert host.add(other, PLAIN)["interfaces"][0]["mac"] == mac == host.links()["cni0"]["address"]


def test_check_accepts_a_changed_bridge_mac(host: Host) -> None:
    pod = host.pod()
    result = host.add(pod, PLAIN)
    host.run("ip", "link", "set", "cni0", "address", "02:00:00:00:00:42")
    assert host.plugin("CHECK", pod, PLAIN, result).result == {}


def test_check_reports_a_replaced_veth_pair(host: Host) -> None:
    """Name, MAC and address are the same, but the packets go elsewhere."""
    pod = host.pod()
    result = host.add(pod, PLAIN)
    mac = result["interfaces"][2]["mac"]
    for argv in (
        "link set eth0 down",
        "link set eth0 name was",
        f"link add eth0 address {mac} type veth peer name elsewhere",
        "link set eth0 up",
        "link set elsewhere up",
        "address add 10.9.0.2/24 dev eth0",
    ):
        host.inside(pod, "ip", *argv.split())
    error = host.plugin("CHECK", pod, PLAIN, result).error
    assert error["code"] == 104 and "not the other end" in error["msg"]


@pytest.mark.parametrize("mtu", [68, 1280, 9000])
def test_any_mtu_that_the_kernel_accepts(host: Host, mtu: int) -> None:
    pod = host.pod()
    result = host.add(pod, {**PLAIN, "mtu": mtu})
    assert [interface["mtu"] for interface in result["interfaces"]] == [mtu] * 3
    assert host.links()["cni0"]["mtu"] == mtu


def filters_vlans(host: Host) -> bool:
    """Return whether the kernel's bridge filters VLANs: without support, it accepts the setting but ignores it."""
    host.run("ip", "link", "add", "try0", "type", "bridge", "vlan_filtering", "1", check=False)
    options: Json = host.links().get("try0", {}).get("linkinfo", {}).get("info_data", {})
    host.run("ip", "link", "delete", "try0", check=False)
    return bool(options.get("vlan_filtering"))


VLANS: dict[str, Json] = {
    "vlan: 100": {"vlan": 100},
    "vlanTrunk: 200-210, 300": {"vlanTrunk": [{"minID": 200, "maxID": 210}, {"id": 300}]},
}


@pytest.mark.parametrize("key", VLANS)
def test_vlan_is_an_error_that_names_the_key_if_the_kernel_lacks_vlans(host: Host, key: str) -> None:
    if filters_vlans(host):
        pytest.skip("this kernel's bridge filters VLANs: the tests below cover it")
    pod = host.pod()
    before = host.traces()
    error = host.plugin("ADD", pod, {**PLAIN, **VLANS[key]}).error
    assert error["code"] == 2
    assert error["msg"] == f"{key}: this kernel's bridge has no VLAN filtering"
    assert host.traces() == before
    host.delete(pod, {**PLAIN, **VLANS[key]})


def vlans_of(host: Host, name: str) -> dict[int, set[str]]:
    """Return the flags of each VLAN of a port, as `bridge vlan` prints them."""
    flags_by_vid: dict[int, set[str]] = {}
    for entry in json.loads(host.run("bridge", "-j", "vlan", "show", "dev", name)):
        for span in entry["vlans"]:
            for vid in range(span["vlan"], span.get("vlanEnd", span["vlan"]) + 1):
                flags_by_vid[vid] = set(span.get("flags", ()))
    return flags_by_vid


NATIVE = {"PVID", "Egress Untagged"}


@pytest.mark.parametrize("keep", [False, True], ids=["without default", "default kept"])
def test_vlans_of_a_port(host: Host, keep: bool) -> None:
    if not filters_vlans(host):
        pytest.skip("not on this kernel: its bridge has no VLAN filtering")
    conf = {**LAYER_2, "vlan": 100, "vlanTrunk": [{"minID": 200, "maxID": 202}], "preserveDefaultVlan": keep}
    pod = host.pod()
    result = host.add(pod, conf)
    expected: dict[int, set[str]] = {100: NATIVE, 200: set(), 201: set(), 202: set()}
    veth = result["interfaces"][1]["name"]
    assert vlans_of(host, veth) == expected | ({1: {"Egress Untagged"}} if keep else {})
    assert host.plugin("CHECK", pod, conf, result).result == {}
    host.run("bridge", "vlan", "del", "vid", "201", "dev", veth)
    error = host.plugin("CHECK", pod, conf, result).error
    assert error["code"] == 104 and "VLAN 201" in error["msg"]


_GATEWAY = """
import sys
from cnictl_plugin import vlan
from cnictl.core.bridge import ensure_bridge
from cnictl.core.netlink import rtnetlink
from cnictl.core.conf.netconf import NetConf
conf = NetConf("mynet", "1.0.0")
conf.vlan = 100
with rtnetlink.Netlink() as netlink:
    bridge = ensure_bridge(netlink, "cni0", owner="cnictl:mynet")
    try:
        vlan.ensure_gateway(netlink, bridge, conf, "cnictl:mynet")
    except Exception as error:
        print(error)
"""


@pytest.mark.parametrize("there", ["", "ours", "a router's", "anybody's"])
def test_gateway_of_a_vlan_ignores_router_advertisements_of_pods(host: Host, there: str) -> None:
    """This also holds for the interface that is created if the kernel's bridge does not support VLANs."""
    accept_ra = "net.ipv6.conf.cni0/100.accept_ra"
    if there == "ours":
        host.run(sys.executable, "-c", _GATEWAY)
        host.run("sysctl", "-qw", f"{accept_ra}=1")  # as the first release left it
    elif there:
        host.run("ip", "link", "add", "cni0.100", "type", "veth", "peer", "name", "elsewhere")
        host.run("ip", "link", "set", "cni0.100", "up")
        host.run("sysctl", "-qw", f"{accept_ra}=1", "net.ipv6.conf.all.forwarding=0")
    if there == "a router's":
        host.run("ip", "-6", "route", "add", "default", "via", "fe80::1", "dev", "cni0.100", "proto", "ra")
    said = host.run(sys.executable, "-c", _GATEWAY)
    if not filters_vlans(host):
        assert "VLANs 100" in said or (there and said == "")  # the VLANs of a link that is not ours stay as they are
    assert host.run("sysctl", "-n", accept_ra).strip() == ("1" if there == "a router's" else "0")


def test_gateway_of_a_vlan_is_a_separate_interface(host: Host) -> None:
    if not filters_vlans(host):
        pytest.skip("not on this kernel: its bridge has no VLAN filtering")
    conf = {**PLAIN, "vlan": 100}
    pod, other, outside = host.pods(3)
    result = host.add(pod, conf)
    assert [link["name"] for link in result["interfaces"]][3] == "cni0.100"
    host.add(other, conf)
    host.add(outside, {**PLAIN, "name": "untagged", "isGateway": False})
    assert bridge_addresses(host) == []
    assert host.pings(pod, "10.9.0.1") and host.pings(pod, "10.9.0.3")
    assert not host.pings(outside, "10.9.0.3")
    assert host.plugin("CHECK", pod, conf, result).result == {}
    occupant = occupied(host)
    before = host.traces()
    assert host.plugin("ADD", occupant, conf).code == 102
    assert host.traces() == before
