"""Configurations with many routes, ranges or pod routes: more than one netlink answer can hold."""

from ipaddress import ip_network
from typing import Any

import pytest

from tests.kernel.plugin.client import Host, Json

pytestmark = pytest.mark.once

PREFIX = {4: "10.{0}.{1}.0/24", 6: "fd01:{0:x}:{1:x}::/48"}
GATEWAY = {4: "10.244.0.1", 6: "fd00:10:244::1"}
SUBNET = {4: "10.244.0.0/24", 6: "fd00:10:244::/64"}


def destinations(family: int, count: int) -> list[str]:
    """Return `count` subnets that don't overlap."""
    return [str(ip_network(PREFIX[family].format(number // 256, number % 256))) for number in range(count)]


def reference_form(families: tuple[int, ...], routes: list[Json], **more: Any) -> Json:
    """Return a conf in the form of the reference's bridge plugin."""
    ipam = {"type": "host-local", "ranges": [[{"subnet": SUBNET[family]}] for family in families], "routes": routes}
    return {"cniVersion": "1.0.0", "name": "many", "type": "cnictl-bridge", "isGateway": True, "ipam": ipam, **more}


@pytest.mark.parametrize(("families", "count"), [((4,), 600), ((6,), 600), ((4, 6), 2500)], ids=["4", "6", "both"])
def test_every_route_of_a_long_list_is_added_checked_and_removed(
    host: Host, families: tuple[int, ...], count: int
) -> None:
    wanted = {family: destinations(family, count) for family in families}
    conf = reference_form(families, [{"dst": destination} for family in families for destination in wanted[family]])
    pod = host.pod()
    result = host.add(pod, conf)
    assert len(result["routes"]) == count * len(families)
    for family in families:
        shown = host.inside(pod, "ip", f"-{family}", "route", "show", "via", GATEWAY[family])
        assert sum(line.split()[0] in set(wanted[family]) for line in shown.splitlines()) == count
    assert host.plugin("CHECK", pod, conf, result).result == {}
    family = families[-1]
    host.inside(pod, "ip", f"-{family}", "route", "delete", wanted[family][count // 2])
    assert f"lost its route to {wanted[family][count // 2]}" in host.plugin("CHECK", pod, conf, result).error["msg"]
    host.delete(pod, conf, result)
    assert host.pod_link(pod) is None and not host.leases("many") and not host.records("many")


def test_a_route_late_in_the_list_that_the_kernel_refuses_is_named_and_all_is_undone(host: Host) -> None:
    routes: list[Json] = [{"dst": destination} for destination in destinations(4, 600)]
    routes[500] = {"dst": "10.1.244.0/24", "gw": "192.0.2.9"}  # not on any of the pod's links
    pod = host.pod()
    error = host.plugin("ADD", pod, reference_form((4,), routes)).error
    assert "route to 10.1.244.0/24 through 192.0.2.9" in error["msg"]
    assert host.pod_link(pod) is None and not host.leases("many") and not host.records("many")


def test_many_routes_that_another_network_also_has_get_their_own_metric(host: Host) -> None:
    routes = [{"dst": destination} for destination in destinations(4, 600)]
    first, pod = reference_form((4,), routes), host.pod()
    host.add(pod, first)
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.245.0.0/24"}]], "routes": routes}
    second = {**first, "name": "second", "bridge": "cni1", "ipam": ipam}
    result = host.plugin("ADD", pod, second, CNI_IFNAME="eth1").result
    assert len(result["routes"]) == 600
    shown = host.inside(pod, "ip", "route", "show", "via", "10.245.0.1").splitlines()
    assert len(shown) == 600 and all("metric 1" in line for line in shown)
    assert host.plugin("CHECK", pod, second, result, CNI_IFNAME="eth1").result == {}


def test_addresses_are_given_from_many_ranges_and_freed(host: Host) -> None:
    spans = [{"subnet": f"10.{number // 256}.{number % 256}.0/29", "gateway": "10.0.0.1"} for number in range(1000)]
    ipam = {"type": "host-local", "ranges": [spans]}
    conf = {**reference_form((4,), []), "isGateway": False, "ipam": ipam}
    pods = host.pods(2)
    for pod in pods:
        result = host.add(pod, conf)
        assert host.plugin("CHECK", pod, conf, result).result == {}
        host.delete(pod, conf, result)
    assert not host.leases("many")
