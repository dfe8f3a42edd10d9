"""Several networks in one pod: each attachment has its own routes, reports them, and removes only them."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kernel.plugin.client import Host, Pod, new_host

Json = dict[str, Any]

NAMES = ("red", "green", "blue")
INTERFACES = ("eth0", "net1", "net2")
SHARED = ("192.0.2.0/24", "2001:db8::/32")


@pytest.fixture(scope="module")
def shared_host() -> Iterator[Host]:
    """A host for tests that remove their pods."""
    with new_host() as host:
        yield host


def conf(place: int, version: str = "1.1.0", **ipam: object) -> Json:
    subnets = (f"10.20.{place}.0/24", f"fd00:20:{place}::/64")
    return {
        "cniVersion": version,
        "name": NAMES[place],
        "type": "cnictl-bridge",
        "bridge": f"br-{NAMES[place]}",
        "isDefaultGateway": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": subnet}] for subnet in subnets],
            "routes": [{"dst": destination} for destination in SHARED],
            **ipam,
        },
    }


def routes(host: Host, pod: Pod) -> set[tuple[str, str, str, int]]:
    """Return the destination, gateway, interface and metric of each route through a gateway."""
    listed = [
        route | {"dst": {"default": default}.get(route["dst"], route["dst"])}
        for family, default in (("-4", "0.0.0.0/0"), ("-6", "::/0"))
        for route in json.loads(host.inside(pod, "ip", family, "-j", "route"))
    ]
    return {
        (route["dst"], route["gateway"], route["dev"], route.get("metric", 0)) for route in listed if "gateway" in route
    }


def reported(result: Json, ifname: str) -> set[tuple[str, str, str, int]]:
    """Return the same from a result; a route without a priority gets the kernel's default metric."""
    return {
        (route["dst"], route["gw"], ifname, route.get("priority") or (1024 if ":" in route["dst"] else 0))
        for route in result["routes"]
    }


def attached(host: Host, name: str, *confs: Json) -> tuple[list[Pod], list[Json]]:
    pod = host.pod(name)
    pods = [Pod(pod.container, pod.netns, ifname) for ifname in INTERFACES[: len(confs)]]
    return pods, [host.add(interface, conf) for interface, conf in zip(pods, confs, strict=True)]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=lambda order: "-".join(map(str, order)))
def test_each_attachment_adds_and_removes_its_own_routes(shared_host: Host, order: tuple[int, ...]) -> None:
    host, confs = shared_host, [conf(place) for place in range(3)]
    pods, results = attached(host, "pod" + "".join(map(str, order)), *confs)
    own = [reported(result, pod.ifname) for result, pod in zip(results, pods, strict=True)]
    assert [len(route_set) for route_set in own] == [4, 4, 4]
    assert routes(host, pods[0]) == set().union(*own)
    left = set(order)
    for place in order:
        for there in left:
            answer = host.plugin("CHECK", pods[there], confs[there], results[there])
            assert answer.result == {}, (place, there)
            first = min(left)
            way = json.loads(host.inside(pods[0], "ip", "-j", "route", "get", "198.51.100.1"))[0]
            assert way["dev"] == INTERFACES[first]
            way = json.loads(host.inside(pods[0], "ip", "-6", "-j", "route", "get", "2001:db8::1"))[0]
            assert way["dev"] == INTERFACES[first]
        host.delete(pods[place], confs[place], results[place])
        left.discard(place)
        assert routes(host, pods[0]) == set().union(*(own[there] for there in left))


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0", "1.1.0"])
def test_a_network_that_requests_a_metric_in_use_gets_the_next(shared_host: Host, version: str) -> None:
    listed = [{"dst": "0.0.0.0/0", "priority": 50}, {"dst": "::/0", "priority": 50}]
    host, confs = shared_host, [conf(place, version, routes=listed) for place in range(2)]
    pods, results = attached(host, f"priority{version.replace('.', '')}", *confs)
    assert {(dst, dev, metric) for dst, _, dev, metric in routes(host, pods[0])} == {
        (dst, dev, metric) for dst in ("0.0.0.0/0", "::/0") for dev, metric in (("eth0", 50), ("net1", 51))
    }
    if version == "1.1.0":
        assert {route["priority"] for route in results[1]["routes"]} == {51}
    for pod, network_conf, result in zip(pods, confs, results, strict=True):
        assert host.plugin("CHECK", pod, network_conf, result).result == {}
        host.delete(pod, network_conf, result)


def test_the_same_subnet_on_both_networks(shared_host: Host) -> None:
    """Gateway and destinations are the same: only the interface distinguishes the routes, for CHECK too."""
    host = shared_host
    confs = [conf(0), {**conf(0), "name": "twin", "bridge": "br-twin"}]
    pods, results = attached(host, "same", *confs)
    own = [reported(result, pod.ifname) for result, pod in zip(results, pods, strict=True)]
    assert routes(host, pods[0]) == own[0] | own[1] and len(own[0] | own[1]) == 8
    for pod, network_conf, result in zip(pods, confs, results, strict=True):
        assert host.plugin("CHECK", pod, network_conf, result).result == {}
    host.inside(pods[0], "ip", "route", "delete", "default", "dev", "net1")
    error = host.plugin("CHECK", pods[1], confs[1], results[1]).error
    assert error["code"] == 104 and "lost its route to 0.0.0.0/0" in error["msg"]
    assert host.plugin("CHECK", pods[0], confs[0], results[0]).result == {}
    host.delete(pods[0], confs[0], results[0])
    assert {dev for _, _, dev, _ in routes(host, pods[0])} == {"net1"}
    host.delete(pods[1], confs[1], results[1])


def test_a_listed_route_to_the_own_subnet_is_the_kernels_route(shared_host: Host) -> None:
    host, network_conf = shared_host, conf(0, routes=[{"dst": "10.20.0.0/24"}, {"dst": "fd00:20::/64"}])
    pods, results = attached(host, "connected", network_conf)
    assert {route["dst"] for route in results[0]["routes"]} == {"0.0.0.0/0", "::/0"} | (
        {"fd00:20::/64"} if "fd00:20::/64" in {dst for dst, *_ in routes(host, pods[0])} else set()
    )
    assert routes(host, pods[0]) == reported(results[0], "eth0")
    assert host.plugin("CHECK", pods[0], network_conf, results[0]).result == {}
    host.delete(pods[0], network_conf, results[0])


def test_a_foreign_route_is_skipped_and_stays(shared_host: Host) -> None:
    host, network_conf = shared_host, conf(0)
    pod = host.pod("blackhole")
    host.inside(pod, "ip", "route", "add", "blackhole", "192.0.2.0/24")
    result = host.add(pod, network_conf)
    assert ("192.0.2.0/24", "10.20.0.1", "eth0", 1) in routes(host, pod)
    assert routes(host, pod) == reported(result, "eth0")
    assert host.plugin("CHECK", pod, network_conf, result).result == {}
    host.delete(pod, network_conf, result)
    assert "blackhole 192.0.2.0/24" in host.inside(pod, "ip", "route")
