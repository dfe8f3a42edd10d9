"""Both IPv4 and IPv6, or IPv6 alone: each family's addresses, routes and neighbours work as soon as ADD returns."""

import json
import sys
from typing import Any

import pytest

from tests.kernel.plugin.client import LEASES, Host, Pod, Unexpected

Json = dict[str, Any]

FOUR: Json = {"subnet": "10.9.0.0/24"}
SIX: Json = {"subnet": "fd00:9::/64"}


def conf_of(*ranges: Json, **more: Any) -> Json:
    """Return a network in the form of a reference configuration."""
    ipam = {"type": "host-local", "ranges": [[range_conf] for range_conf in ranges], **more.pop("ipam", {})}
    base = {"cniVersion": "1.1.0", "name": "dual", "type": "cnictl-bridge", "isDefaultGateway": True}
    return {**base, **more, "ipam": ipam}


DUAL = conf_of(FOUR, SIX)
ALONE = conf_of(SIX)


def sysctl(host: Host, pod: Pod | None, name: str) -> str:
    argv = ("sysctl", "-n", name)
    return (host.inside(pod, *argv) if pod else host.run(*argv)).strip()


@pytest.mark.parametrize("disabled", [False, True], ids=["allowed", "disabled by default"])
@pytest.mark.parametrize("conf", [DUAL, ALONE], ids=["dual", "alone"])
def test_pod_communicates_in_every_family_at_the_same_time(host: Host, conf: Json, disabled: bool) -> None:
    """Runtimes commonly disable IPv6 in a pod's namespace until a plugin assigns an IPv6 address."""
    pod, other = host.pods(2)
    for target in (pod, other):
        switches = (f"net.ipv6.conf.{name}.disable_ipv6={int(disabled)}" for name in ("all", "default"))
        host.inside(target, "sysctl", "-qw", *switches)
    result = host.add(pod, conf)
    host.add(other, conf)
    gateways = [ip["gateway"] for ip in result["ips"]]
    assert gateways == (["10.9.0.1", "fd00:9::1"] if conf is DUAL else ["fd00:9::1"])
    assert all(host.pings(pod, gateway) for gateway in gateways)
    assert host.pings(pod, "fd00:9::3")
    assert {route["dst"] for route in result["routes"]} == ({"0.0.0.0/0", "::/0"} if conf is DUAL else {"::/0"})
    inside = host.pod_link(pod)
    assert inside is not None
    assert not [address for address in inside["addr_info"] if address.get("tentative")]
    assert host.plugin("CHECK", pod, conf, result).result == {}
    assert set(host.leases("dual").values()) == {"pod0\r\neth0", "pod1\r\neth0"}
    host.delete(pod, conf)
    host.delete(other, conf)
    assert host.leases("dual") == {} and host.ports() == set()


@pytest.mark.parametrize("version", ["0.2.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_result_has_both_families_in_every_versions_shape(host: Host, version: str) -> None:
    result = host.add(host.pod(), {**DUAL, "cniVersion": version})
    if version == "0.2.0":
        for key, address, gateway, default in (
            ("ip4", "10.9.0.2/24", "10.9.0.1", "0.0.0.0/0"),
            ("ip6", "fd00:9::2/64", "fd00:9::1", "::/0"),
        ):
            routes = [{"dst": default, "gw": gateway}]
            assert result[key] == {"ip": address, "gateway": gateway, "routes": routes}
        return
    assert [(ip["address"], ip.get("version")) for ip in result["ips"]] == [
        ("10.9.0.2/24", "4" if version < "1" else None),
        ("fd00:9::2/64", "6" if version < "1" else None),
    ]


def test_router_advertisements_of_a_pod_are_ignored(host: Host) -> None:
    """Router advertisements from one pod must affect neither the node nor another pod (CVE-2020-10749)."""
    pod = host.pod()
    host.add(pod, conf_of(FOUR))
    host.run("sysctl", "-qw", "net.ipv6.conf.cni0.accept_ra=1")  # the default of a bridge that an operator creates
    host.add(host.pod("second"), conf_of(FOUR))
    assert sysctl(host, None, "net.ipv6.conf.cni0.accept_ra") == "0"
    assert sysctl(host, pod, "net.ipv6.conf.eth0.accept_ra") == "0"


def test_failed_add_restores_a_bridges_ipv6_settings(host: Host) -> None:
    host.run("mkdir", "-p", f"{LEASES}/dual")
    host.path(f"{LEASES}/dual/10.9.0.5").write_bytes(b"theirs\r\neth0")
    full = conf_of({**FOUR, "rangeStart": "10.9.0.5", "rangeEnd": "10.9.0.5"}, SIX)
    pod = host.pod()
    assert host.plugin("ADD", pod, full).code == 100  # this gives the lease a record, which could belong to a new pod
    host.run("ip", "link", "add", "cni0", "type", "bridge")
    former = {"disable_ipv6": "1", "accept_ra": "1"}
    host.run("sysctl", "-qw", *(f"net.ipv6.conf.cni0.{name}={value}" for name, value in former.items()))
    assert host.plugin("ADD", pod, full).code == 100
    assert {name: sysctl(host, None, f"net.ipv6.conf.cni0.{name}") for name in former} == former


def test_a_node_that_is_a_gateway_forwards_for_the_families_it_serves(host: Host) -> None:
    names = ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")
    host.run("sysctl", "-qw", *(f"{name}=0" for name in names))
    first, other, third = host.pods(3)
    host.add(first, {**conf_of(FOUR), "isDefaultGateway": False})
    assert [sysctl(host, None, name) for name in names] == ["0", "0"]
    host.add(other, {**conf_of(FOUR), "name": "four", "bridge": "cni4"})
    assert [sysctl(host, None, name) for name in names] == ["1", "0"]
    host.add(third, {**ALONE, "name": "six", "bridge": "cni6"})
    assert [sysctl(host, None, name) for name in names] == ["1", "1"]


def test_node_keeps_accepting_router_advertisements_on_all_its_own_links(host: Host) -> None:
    """A forwarding node ignores router advertisements and loses its learned route unless accept_ra is 2."""
    host.run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=0")
    host.run("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "router")
    for link in ("uplink", "router"):
        host.run("ip", "link", "set", link, "up")
    host.run("ip", "-6", "route", "add", "default", "via", "fe80::1", "dev", "uplink", "proto", "ra")
    host.add(host.pod(), DUAL)
    assert sysctl(host, None, "net.ipv6.conf.all.forwarding") == "1"
    assert sysctl(host, None, "net.ipv6.conf.uplink.accept_ra") == "2"
    assert sysctl(host, None, "net.ipv6.conf.router.accept_ra") == "2"  # a router may appear on this link at any time
    assert sysctl(host, None, "net.ipv6.conf.cni0.accept_ra") == "0"


def test_kernel_without_ipv6_is_named_and_nothing_is_left(host: Host) -> None:
    pod = host.pod()
    hide = ("mount", "-t", "tmpfs", "none", "/proc/sys/net/ipv6")  # each namespace has its own
    host.run(*hide)
    host.inside(pod, *hide)
    before = host.traces()
    for conf in (DUAL, {**DUAL, "isDefaultGateway": False}):
        error = host.plugin("ADD", pod, conf).error
        assert error["code"] == 2
        assert "fd00:9::" in error["msg"] and "this kernel has no IPv6" in error["msg"]
        assert host.traces() == before


def test_duplicate_addresses_on_the_link_are_found_if_requested(host: Host) -> None:
    conf = {**DUAL, "enabledad": True}
    pod, squatter = host.pods(2)
    result = host.add(pod, conf)
    inside = host.pod_link(pod)
    assert inside is not None
    assert not [address for address in inside["addr_info"] if address.get("tentative")]
    assert host.pings(pod, "fd00:9::1")
    assert host.plugin("CHECK", pod, conf, result).result == {}
    host.inside(pod, "ip", "address", "add", "fd00:9::3/64", "dev", "eth0", "nodad")
    before = host.traces()
    error = host.plugin("ADD", squatter, conf).error
    assert error["code"] == 101
    assert "fd00:9::3" in error["msg"]
    assert host.traces() == before


def test_neighbours_learn_immediately_who_has_a_former_pods_address(host: Host) -> None:
    """Otherwise they lose packets for half a minute until they resolve it again, or until the bridge forgets it too."""
    neighbour, former, later = host.pods(3)
    host.add(neighbour, DUAL)
    host.add(former, DUAL)
    addresses = ("10.9.0.3", "fd00:9::3")
    for address in addresses:
        assert host.pings(neighbour, address)
        host.run("ping", "-n", "-c1", "-W2", address)
    host.delete(former, DUAL)
    mac = host.add(later, DUAL, CNI_ARGS=f"IP={','.join(addresses)}")["interfaces"][2]["mac"]
    for known in (host.inside(neighbour, "ip", "-j", "neigh"), host.run("ip", "-j", "neigh")):
        macs = {entry["dst"]: entry["lladdr"] for entry in json.loads(known) if entry["dst"] in addresses}
        assert macs == dict.fromkeys(addresses, mac)


CONNECTIONS = """
from cnictl.core.netlink.messages import NETLINK_NETFILTER, Netlink, attributes
for family, source in ((2, 1), (10, 3)):
    with Netlink(NETLINK_NETFILTER) as netlink:
        for entry in netlink.dump(1 << 8 | 1, bytes((family, 0, 0, 0))):
            parts = attributes(entry, 4)
            print(*(attributes(attributes(parts[kind])[1])[source].hex() for kind in (1, 2)))
"""
"""Print the source of the request and of the reply for each connection that the host tracks."""


SEND = """
import socket, sys
for to in sys.argv[1:]:
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    socket.socket(family, socket.SOCK_DGRAM).sendto(b"?", (to, 9))
"""


def test_connections_of_an_addresss_former_owner_are_forgotten_and_no_others(host: Host) -> None:
    """With the former pod's NAT binding, the new pod's packets would go to the former pod's destination."""
    for family in ("ip", "ip6"):
        track = f"table {family} t {{ chain c {{ type filter hook input priority 0; ct state new counter; }}; }}"
        host.run("nft", "-f", "-", stdin=track)
    former, later, other = host.pods(3)
    for pod in (former, other):
        host.add(pod, DUAL)
        host.inside(pod, "python3", "-ISc", SEND, "10.9.0.1", "fd00:9::1")
    host.run("python3", "-ISc", SEND, "10.9.0.2", "fd00:9::2")
    host.delete(former, DUAL)

    def known() -> set[str]:
        return set(host.run(sys.executable, "-c", CONNECTIONS).split())

    mine = {"0a090002", "fd000009000000000000000000000002"}
    others = {"0a090003", "fd000009000000000000000000000003"}
    before = known()
    assert mine | others <= before, before
    host.add(later, DUAL, CNI_ARGS="IP=10.9.0.2,fd00:9::2")
    after = known()
    assert not mine & after, after
    assert others <= after, after


ROUTES: list[Json] = [
    {"dst": "192.0.2.0/24", "mtu": 1400, "advmss": 1300, "priority": 7, "table": 100},
    {"dst": "198.51.100.0/24", "gw": "10.9.0.9"},
    {"dst": "203.0.113.0/24", "scope": 253},
    {"dst": "2001:db8::/32", "mtu": 1380, "priority": 9},
    {"dst": "2001:db8:1::/48", "gw": "fd00:9::9", "table": 5000},
    {"dst": "0.0.0.0/0"},
]


@pytest.mark.parametrize("version", ["1.0.0", "1.1.0"])
def test_routes_have_their_metrics_and_check_reports_each_missing_one(host: Host, version: str) -> None:
    conf = conf_of(FOUR, SIX, ipam={"routes": ROUTES}, cniVersion=version)
    pod = host.pod()
    result = host.add(pod, conf)
    listed = [*json.loads(host.inside(pod, *["ip", "-d", "-j", "-4", "route", "show", "table", "all"]))]
    listed += json.loads(host.inside(pod, *["ip", "-d", "-j", "-6", "route", "show", "table", "all"]))
    unicast = {route["dst"]: route for route in listed if route.get("type") == "unicast"}
    first = unicast["192.0.2.0/24"]
    assert (first["gateway"], first["metric"], first["table"]) == ("10.9.0.1", 7, "100")
    assert first["metrics"] == [{"mtu": 1400, "advmss": 1300}]
    assert unicast["198.51.100.0/24"]["gateway"] == "10.9.0.9"
    assert "gateway" not in unicast["203.0.113.0/24"] and unicast["203.0.113.0/24"]["scope"] == "link"
    assert (unicast["2001:db8::/32"]["gateway"], unicast["2001:db8::/32"]["metric"]) == ("fd00:9::1", 9)
    assert (unicast["2001:db8:1::/48"]["gateway"], unicast["2001:db8:1::/48"]["table"]) == ("fd00:9::9", "5000")
    assert sorted(route["gateway"] for route in listed if route["dst"] == "default") == ["10.9.0.1", "fd00:9::1"]
    promised = {route["dst"]: route for route in result["routes"]}
    if version == "1.1.0":
        assert promised["192.0.2.0/24"] == {**ROUTES[0], "gw": "10.9.0.1"}
    else:
        assert promised["192.0.2.0/24"] == {"dst": "192.0.2.0/24", "gw": "10.9.0.1"}
    assert host.plugin("CHECK", pod, conf, result).result == {}
    for change, words in (
        (
            "change 2001:db8::/32 via fd00:9::1 dev eth0 metric 9 mtu 1300",
            "route to 2001:db8::/32 has lost its mtu 1380",
        ),
        ("del 2001:db8::/32", "lost its route to 2001:db8::/32 through fd00:9::1"),
    ):
        host.inside(pod, "ip", "-6", "route", *change.split())
        error = host.plugin("CHECK", pod, conf, result).error
        assert (error["code"], words in error["msg"]) == (104, True), error


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ("pod ip -6 address del fd00:9::2/64 dev eth0", "lost the address fd00:9::2/64"),
        ("pod ip -6 route del default", "lost its route to ::/0 through fd00:9::1"),
        ("host ip -6 address del fd00:9::1/64 dev cni0", "lost its address fd00:9::1/64"),
        ("host rm /var/lib/cni/networks/dual/fd00:9::2", "lease of fd00:9::2"),
    ],
)
def test_check_reports_missing_ipv6_parts(host: Host, spoil: str, words: str) -> None:
    pod = host.pod()
    result = host.add(pod, DUAL)
    where, *argv = spoil.split()
    if where == "pod":
        host.inside(pod, *argv)
    else:
        host.run(*argv)
    error = host.plugin("CHECK", pod, DUAL, result).error
    assert (error["code"], words in error["msg"]) == (104, True), error


def test_exhausted_second_set_releases_the_first_sets_address(host: Host) -> None:
    conf = conf_of(FOUR, {"subnet": "fd00:9::/126"})
    *pods, last = host.pods(3)
    for pod in pods:
        host.add(pod, conf)
    before = host.traces()
    with pytest.raises(Unexpected):
        host.add(last, conf)
    assert host.traces() == before
