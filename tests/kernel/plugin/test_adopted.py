"""ADD's changes to a bridge that already existed are undone with its last pod, a failed ADD or a reset."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kernel.plugin.client import Host, Pod, new_host
from tests.waiting import wait_for

Json = dict[str, Any]

ADDRESS, ADDRESS6 = "192.168.77.10/24", "fd00:77::10/64"
RANGES: Json = {
    "type": "host-local",
    "ranges": [[{"subnet": "10.9.0.0/24"}], [{"subnet": "fd00:9::/64"}]],
}
CONF: Json = {"cniVersion": "1.0.0", "name": "lan", "type": "cnictl-bridge", "bridge": "br0", "ipam": RANGES}
FORWARDING = "net.ipv6.conf.all.forwarding"
ACCEPT_RA = "net.ipv6.conf.br0.accept_ra"


@pytest.fixture(scope="module")
def shared_host() -> Iterator[Host]:
    """A host for tests that remove their bridge and pods."""
    with new_host() as host:
        yield host


@pytest.fixture
def bridged(shared_host: Host) -> Iterator[Host]:
    """A host with a bridge br0 that cnictl did not create: up, accept_ra 1, without address or port."""
    host = shared_host
    host.run("sysctl", "-qw", f"{FORWARDING}=0", "net.ipv4.ip_forward=0")
    host.run("ip", "link", "add", "br0", "address", "02:00:00:00:77:01", "type", "bridge")
    host.run("sysctl", "-qw", f"{ACCEPT_RA}=1")
    host.run("ip", "link", "set", "br0", "up")
    yield host
    host.run("ip", "-all", "netns", "delete")
    host.run("ip", "link", "delete", "br0")
    # the namespace ends later: until then, a link into it keeps the routes learned there
    for link in ("uplink", "wan0"):
        host.run("ip", "link", "delete", link, check=False)
    host.run("sh", "-c", "rm -rf /run/cnictl/bridges /var/lib/cni/networks/* /var/lib/cnictl/attachments/*")


def uplink(host: Host) -> None:
    """Give br0 the node's addresses, and a port to a router."""
    host.run("ip", "netns", "add", "router")
    host.run("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "eth0", "netns", "router")
    host.run("ip", "link", "set", "uplink", "master", "br0", "up")
    host.run("ip", "-n", "router", "link", "set", "eth0", "up")
    for address in (ADDRESS, ADDRESS6):
        host.run("ip", "address", "add", address, "dev", "br0")


ADVERTISE = """
import socket, time
advertisement = bytes.fromhex("86000000" "40000708" "00000000" "00000000")
link = socket.if_nametoindex("eth0")
router = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
router.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
router.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
router.sendto(advertisement, ("ff02::1", 0, 0, link))
"""


def learns(host: Host, sender: str, link: str = "br0", rounds: int = 1) -> bool:
    """Return whether the host learns a default route from an advertisement sent in namespace `sender`."""

    def advertised() -> bool:
        host.run("ip", "netns", "exec", sender, "python3", "-ISc", ADVERTISE, check=False)
        return learned(host, link)

    if rounds > 1:
        wait_for(advertised, f"a route through {link} from the advertisement")
        return True
    advertised()
    host.run("ping", "-6", "-c1", "-W1", f"ff02::1%{link}", check=False)  # the RA arrives meanwhile
    return learned(host, link)


def learned(host: Host, link: str = "br0") -> bool:
    return f"dev {link} proto ra" in host.run("ip", "-6", "route", "show", "default")


def settings(host: Host) -> Json:
    """Return all that ADD could change on br0. Forwarding is not included: it stays on, as with the reference."""
    link = host.links()["br0"]
    data = link["linkinfo"]["info_data"]
    addresses = json.loads(host.run("ip", "-j", "address", "show", "dev", "br0"))[0]["addr_info"]
    names = [
        *(f"net.ipv6.conf.br0.{key}" for key in ("accept_ra", "disable_ipv6", "accept_dad", "autoconf")),
        *(f"net.ipv4.conf.br0.{key}" for key in ("rp_filter", "arp_notify", "arp_ignore", "proxy_arp")),
        *(f"net.ipv4.conf.br0.{key}" for key in ("route_localnet", "send_redirects", "arp_announce")),
    ]
    return {
        "flags": sorted(set(link["flags"]) - {"NO-CARRIER", "LOWER_UP"}),
        "mtu": link["mtu"],
        "address": link["address"],
        "alias": link.get("ifalias"),
        "bridge": {key: data.get(key) for key in ("vlan_filtering", "nf_call_iptables", "stp_state", "mcast_snooping")},
        "addresses": sorted(
            f"{address['local']}/{address['prefixlen']}"
            for address in addresses
            if not address["local"].startswith("fe80:")
        ),
        "routes": sorted(
            line.strip()
            for family in ("-4", "-6")
            for line in host.run("ip", family, "route", "show", "dev", "br0").splitlines()
            if "fe80" not in line and "expires" not in line
        ),
        "sysctl": host.run("sysctl", *names),
    }


def notes(host: Host) -> list[str]:
    folder = host.path("/run/cnictl/bridges")
    return sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []


FORMS: dict[str, Json] = {
    "layer 2": {**CONF, "ipam": {}},
    "addresses": CONF,
    "gateway": {**CONF, "isGateway": True},
    "promiscuous": {**CONF, "isGateway": True, "promiscMode": True},
    "forced": {**CONF, "isGateway": True, "forceAddress": True},
    "smaller mtu": {**CONF, "mtu": 1400},
    "walk-through": {
        "cniVersion": "1.0.0",
        "name": "lan",
        "type": "cnictl-bridge",
        "bridge": "br0",
        "network": "10.9.0.0/16",
        "subnet": "10.9.0.0/24",
    },
}


@pytest.mark.parametrize("way", ["DEL", "GC", "a failed ADD"])
@pytest.mark.parametrize("form", FORMS)
def test_adopted_bridge_is_fully_restored_with_its_last_pod(bridged: Host, form: str, way: str) -> None:
    host, conf = bridged, FORMS[form]
    if form == "forced":
        host.run("ip", "address", "add", "10.50.0.1/24", "broadcast", "10.50.0.255", "dev", "br0")
        host.run("ip", "route", "add", "198.51.100.0/24", "via", "10.50.0.9")
    host.run("sysctl", "-qw", "net.ipv6.conf.br0.disable_ipv6=1" if form == "gateway" else f"{ACCEPT_RA}=1")
    before = settings(host)
    if way == "a failed ADD":
        pod = host.pod("occupied")
        host.inside(pod, "ip", "link", "add", "eth0", "type", "bridge")
        assert host.plugin("ADD", pod, conf).code == 102
        host.plugin("DEL", Pod("occupied", ""), conf)
    else:
        first, other = host.pods(2)
        host.add(first, conf)
        host.add(other, conf)
        assert settings(host)["sysctl"] != before["sysctl"]
        if way == "GC":
            assert host.plugin("GC", conf={**conf, "cniVersion": "1.1.0", "cni.dev/valid-attachments": []}).result == {}
        else:
            host.delete(first, conf)
            assert settings(host)["sysctl"] != before["sysctl"]
            host.delete(other, conf)
    assert settings(host) == before
    assert notes(host) == []


@pytest.mark.parametrize("forwards", [False, True], ids=["host", "router"])
def test_a_bridge_with_an_uplink_keeps_accepting_advertisements(bridged: Host, forwards: bool) -> None:
    host, pod = bridged, bridged.pod()
    uplink(host)
    host.run("sysctl", "-qw", f"{FORWARDING}={int(forwards)}", f"{ACCEPT_RA}=1")
    before = settings(host)
    host.add(pod, CONF)
    assert host.run("sysctl", "-n", ACCEPT_RA).strip() == ("2" if forwards else "1")
    assert learns(host, "router", rounds=9)
    host.delete(pod, CONF)
    assert settings(host) == before and notes(host) == []


def test_advertisements_of_a_router_that_starts_after_the_first_add_are_accepted(bridged: Host) -> None:
    """One router is behind br0, another behind a separate uplink. The first ADD enables forwarding."""
    host, pod = bridged, bridged.pod()
    uplink(host)
    host.run("ip", "netns", "add", "other")
    host.run("ip", "link", "add", "wan0", "type", "veth", "peer", "name", "eth0", "netns", "other")
    host.run("ip", "link", "set", "wan0", "up")
    host.run("ip", "-n", "other", "link", "set", "eth0", "up")
    conf = {**CONF, "isGateway": True, "ipam": {"type": "host-local", "subnet": "fd00:9::/64"}}
    host.add(pod, conf)
    assert host.run("sysctl", "-n", FORWARDING).strip() == "1"
    for sender, link in (("router", "br0"), ("other", "wan0")):
        assert host.run("sysctl", "-n", f"net.ipv6.conf.{link}.accept_ra").strip() == "2"
        assert learns(host, sender, link, rounds=9)
    host.delete(pod, conf)
    assert learned(host) and learned(host, "wan0")  # the host still forwards, as with the reference
    assert ADDRESS6.partition("/")[0] in host.run("ip", "address", "show", "dev", "br0") and notes(host) == []


def test_a_learned_route_is_kept_after_the_last_del(bridged: Host) -> None:
    """No port belongs to anyone else: only the route shows that the bridge is an uplink."""
    host, pod = bridged, bridged.pod()
    host.run("ip", "-6", "route", "add", "default", "via", "fe80::1", "dev", "br0", "proto", "ra")
    host.add(pod, {**CONF, "isGateway": True})
    assert learned(host) and host.run("sysctl", "-n", ACCEPT_RA).strip() == "2"
    host.delete(pod, CONF)
    assert learned(host)


def test_a_pods_advertisement_is_not_accepted_on_a_bridge_of_pods(bridged: Host) -> None:
    host, pod = bridged, bridged.pod()
    host.add(pod, CONF)
    assert host.run("sysctl", "-n", ACCEPT_RA).strip() == "0"
    assert not learns(host, "pod")
    host.delete(pod, CONF)
    assert host.run("sysctl", "-n", ACCEPT_RA).strip() == "1"


def test_a_port_added_later_makes_the_bridge_an_uplink_at_the_next_add(bridged: Host) -> None:
    host = bridged
    first, other = host.pods(2)
    host.add(first, CONF)
    assert host.run("sysctl", "-n", ACCEPT_RA).strip() == "0"
    uplink(host)
    host.add(other, CONF)
    assert host.run("sysctl", "-n", ACCEPT_RA).strip() == "1"
    for pod in (first, other):
        host.delete(pod, CONF)
    assert host.run("sysctl", "-n", ACCEPT_RA).strip() == "1" and notes(host) == []


def test_settings_that_an_operator_changed_since_stay(bridged: Host) -> None:
    host = bridged
    first, other = host.pods(2)
    host.add(first, CONF)
    host.run("sysctl", "-qw", f"{ACCEPT_RA}=2")
    host.run("ip", "address", "add", "172.30.0.1/24", "dev", "br0")
    host.add(other, CONF)
    for pod in (first, other):
        host.delete(pod, CONF)
    assert host.run("sysctl", "-n", ACCEPT_RA).strip() == "2"
    assert "172.30.0.1/24" in settings(host)["addresses"] and notes(host) == []


def test_a_bridge_of_two_networks_is_restored_after_the_last_pod_of_both(bridged: Host) -> None:
    host = bridged
    first, other = host.pods(2)
    second = {**CONF, "name": "second", "promiscMode": True, "ipam": {}}
    before = settings(host)
    host.add(first, CONF)
    host.add(other, second)
    host.delete(first, CONF)
    between = settings(host)
    assert "PROMISC" in between["flags"] and between["sysctl"] != before["sysctl"]
    host.delete(other, second)
    assert settings(host) == before and notes(host) == []


def test_a_bridge_that_was_down_is_down_again_unless_others_use_it(bridged: Host) -> None:
    host, pod = bridged, bridged.pod()
    host.run("ip", "link", "set", "br0", "down")
    for used in (False, True):
        host.add(pod, {**CONF, "isGateway": True})
        if used:
            host.run("ip", "address", "add", "172.30.0.1/24", "dev", "br0")
        host.delete(pod, CONF)
        assert ("UP" in host.links()["br0"]["flags"]) == used


def test_the_note_of_a_bridge_that_is_gone_is_removed_by_the_next_del(bridged: Host) -> None:
    host, pod = bridged, bridged.pod()
    host.add(pod, CONF)
    host.run("ip", "link", "delete", "br0")
    host.run("ip", "link", "add", "br0", "type", "bridge")
    host.run("sysctl", "-qw", f"{ACCEPT_RA}=2")
    host.delete(pod, CONF)
    assert notes(host) == [] and host.run("sysctl", "-n", ACCEPT_RA).strip() == "2"


def test_our_own_bridge_has_no_note(shared_host: Host) -> None:
    pod = shared_host.pod("own")
    conf = {**CONF, "bridge": "cni9", "isGateway": True}
    shared_host.add(pod, conf)
    assert notes(shared_host) == []
    shared_host.delete(pod, conf)
    assert "10.9.0.1/24" in shared_host.run("ip", "address", "show", "dev", "cni9")
    shared_host.run("ip", "link", "delete", "cni9")
    shared_host.run("ip", "netns", "delete", "own")
