"""Compare with the real host-local: the same answers and files, and each continues where the other left off."""

import json
from typing import Any

import pytest

from tests.kernel.addresses.test_ipam import cnictl
from tests.kernel.plugin.client import LEASES, Host, Json, Pod

DUAL_STACK: Json = {"type": "host-local", "ranges": [[{"subnet": "10.9.0.0/29"}], [{"subnet": "fd00:9::/64"}]]}


def conf(ipam: Json | None = None, kind: str = "cnictl-bridge", name: str = "dual", **keys: Any) -> Json:
    return {"cniVersion": "1.0.0", "name": name, "type": kind, "bridge": "br9", "ipam": ipam or DUAL_STACK, **keys}


def addresses(result: Json) -> list[str]:
    return [str(ip["address"]) for ip in result["ips"]]


def lease_files(host: Host, network: str = "dual") -> dict[str, str]:
    """Return the content of each file in a store, except the lock."""
    folder = host.path(f"{LEASES}/{network}")
    return {file.name: file.read_bytes().decode() for file in folder.iterdir() if file.name != "lock"}


def owner(pod: Pod) -> str:
    return f"{pod.container}\r\n{pod.ifname}"


SEVERAL: dict[str, Json] = {
    "flat": {"subnet": "10.9.0.0/29"},
    "a flat one before others": {"subnet": "10.9.0.0/24", "ranges": [[{"subnet": "10.8.0.0/24"}]]},
    "a part": {"ranges": [[{"subnet": "10.9.0.0/24", "rangeStart": "10.9.0.9", "rangeEnd": "10.9.0.11"}]]},
    "up to the broadcast": {"ranges": [[{"subnet": "10.9.0.0/30", "rangeStart": "10.9.0.0", "rangeEnd": "10.9.0.3"}]]},
    "a gateway amidst": {"ranges": [[{"subnet": "10.9.0.0/29", "gateway": "10.9.0.2"}]]},
    "a gateway elsewhere": {"ranges": [[{"subnet": "10.9.0.0/29", "gateway": "10.1.0.1"}]]},
    "two ranges": {"ranges": [[{"subnet": "10.9.0.0/30"}, {"subnet": "10.8.0.0/30"}]]},
    "both families": DUAL_STACK,
    "three sets": {"ranges": [*DUAL_STACK["ranges"], [{"subnet": "10.7.0.0/24"}]]},
    "a few of a /64": {
        "ranges": [[{"subnet": "fd00:9::/64", "rangeStart": "fd00:9::ffff", "rangeEnd": "fd00:9::1:1"}]]
    },
    "routes": {
        "subnet": "10.9.0.0/24",
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "192.168.0.0/16", "gw": "10.9.0.7"}],
        "resolvConf": "/run/resolv.conf",
    },
}


@pytest.mark.parametrize("what", SEVERAL)
def test_three_pods_get_the_same_addresses_as_from_host_local(host: Host, what: str) -> None:
    host.path("/run/resolv.conf").write_text("nameserver 10.0.0.53\nsearch a.example b.example\n")
    pods = host.pods(3)
    ipam = {"type": "host-local", **SEVERAL[what]}
    for pod in pods:
        ours = host.plugin("ADD", pod, conf(ipam))
        theirs = host.reference("host-local", "ADD", pod, conf(ipam, name="theirs"))
        assert ours.status == theirs.status, (ours, theirs)
        if ours.status:
            assert ours.code == 100
            continue
        given, wanted = ours.result, theirs.result
        assert addresses(given) == addresses(wanted)
        assert [ip["gateway"] for ip in given["ips"]] == [ip["gateway"] for ip in wanted["ips"]]
        assert given["dns"] == wanted["dns"]
        assert [route["dst"] for route in given["routes"]] == [route["dst"] for route in wanted.get("routes", [])]
    assert lease_files(host) == lease_files(host, "theirs")
    for pod in pods:
        host.delete(pod, conf(ipam))
    assert {name for name in lease_files(host) if not name.startswith("last_reserved_ip.")} == set()


ASKED: dict[str, tuple[Json, str, list[str]]] = {
    "CNI_ARGS": ({}, "IP=fd00:9::5", ["10.9.0.2/29", "fd00:9::5/64"]),
    "CNI_ARGS with a prefix": ({}, "IgnoreUnknown=1;IP=10.9.0.5/29", ["10.9.0.5/29", "fd00:9::2/64"]),
    "args": ({"args": {"cni": {"ips": ["10.9.0.4", "fd00:9::4/64"]}}}, "", ["10.9.0.4/29", "fd00:9::4/64"]),
    "runtimeConfig": ({"runtimeConfig": {"ips": ["fd00:9::6/64"]}}, "", ["10.9.0.2/29", "fd00:9::6/64"]),
    "all": ({"args": {"cni": {"ips": ["10.9.0.4"]}}, "runtimeConfig": {"ips": ["fd00:9::6"]}}, "IP=10.9.0.4",
            ["10.9.0.4/29", "fd00:9::6/64"]),
    "ranges of the runtime": ({"runtimeConfig": {"ipRanges": [[{"subnet": "10.7.0.0/24"}]]}}, "",
                              ["10.7.0.2/24", "10.9.0.2/29", "fd00:9::2/64"]),
}  # fmt: skip


@pytest.mark.parametrize("way", ASKED)
def test_requested_address_comes_from_its_set_as_with_host_local(host: Host, way: str) -> None:
    keys, args, expected = ASKED[way]
    pod = host.pod()
    ours = host.add(pod, conf(**keys), CNI_ARGS=args)
    assert addresses(ours) == expected
    environment = host.environment("ADD", pod, CNI_ARGS=args)
    stdin = json.dumps(conf(name="theirs", **keys)).encode()
    theirs = host.call(environment, stdin, "/usr/lib/cni/host-local").result
    assert addresses(theirs) == expected


def test_several_addresses_in_cni_args(host: Host) -> None:
    assert addresses(host.add(host.pod(), conf(), CNI_ARGS="IP=fd00:9::5,10.9.0.5")) == ["10.9.0.5/29", "fd00:9::5/64"]


@pytest.mark.parametrize(
    ("keys", "args", "code", "said"),
    [
        ({}, "IP=10.9.0.1", 101, "not available: 10.9.0.1"),
        ({}, "IP=10.9.0.3,10.9.0.4", 101, "not available: 10.9.0.4"),
        ({}, "IP=192.0.2.1", 101, "not available: 192.0.2.1"),
        ({"runtimeConfig": {"ips": ["192.0.2.1"]}}, "", 7, "runtimeConfig.ips[0]: 192.0.2.1"),
        (
            {"args": {"cni": {"ips": ["10.9.0.2"]}}},
            "",
            101,
            "requested address 10.9.0.2 is already leased to held eth0",
        ),
    ],
)
def test_requested_address_that_is_not_available_is_refused(
    host: Host, keys: Json, args: str, code: int, said: str
) -> None:
    assert addresses(host.add(host.pod("held"), conf()))
    before, pod = host.traces(), host.pod()
    error = host.plugin("ADD", pod, conf(**keys), CNI_ARGS=args).error
    assert (error["code"], said in error["msg"]) == (code, True), error
    assert host.traces() == before


@pytest.mark.parametrize("gone", ["its namespace is gone", "its lease is torn"])
def test_requested_address_with_a_stale_lease_is_given(host: Host, gone: str) -> None:
    """A container with a fixed address starts again after its node went down without DEL."""
    before, after = host.pods(2)
    host.add(before, conf(), CNI_ARGS="IP=10.9.0.5")
    if gone == "its lease is torn":
        host.delete(before, conf())
        host.path(f"{LEASES}/dual/10.9.0.5").write_bytes(b"")
    else:
        host.kill(before)
    assert addresses(host.add(after, conf(), CNI_ARGS="IP=10.9.0.5")) == ["10.9.0.5/29", "fd00:9::3/64"]
    assert lease_files(host)["10.9.0.5"] == owner(after)
    assert host.records("dual") == {"pod1@eth0"}


def test_each_continues_after_the_others_last_address(host: Host) -> None:
    pods = host.pods(4)
    kinds = ("bridge", "cnictl-bridge", "bridge", "cnictl-bridge")
    results = []
    for pod, kind in zip(pods, kinds, strict=True):
        call = host.plugin("ADD", pod, conf()) if kind == "cnictl-bridge" else None
        results.append((call or host.reference(kind, "ADD", pod, conf(kind=kind))).result)
    assert [addresses(result) for result in results] == [
        [f"10.9.0.{last}/29", f"fd00:9::{last}/64"] for last in (2, 3, 4, 5)
    ]
    files = lease_files(host)
    for number, pod in enumerate(pods):
        assert files[f"10.9.0.{number + 2}"] == files[f"fd00:9::{number + 2}"] == owner(pod)
    host.delete(pods[0], conf(), results[0])  # our DEL for the reference's pod
    assert host.reference("bridge", "DEL", pods[1], conf(kind="bridge")).status == 0  # the reference's DEL for our pod
    left = {name for name in lease_files(host) if not name.startswith("last")}
    assert left == {"10.9.0.4", "fd00:9::4", "10.9.0.5", "fd00:9::5"}
    assert len(host.ports("br9")) == 2
    again = host.add(pods[0], conf())
    assert addresses(again) == ["10.9.0.6/29", "fd00:9::6/64"]


@pytest.mark.parametrize("together", [False, True])
def test_two_subnets_of_a_family_have_a_gateway_each(host: Host, together: bool) -> None:
    """The reference's bridge accepts only one IPv4 address: its ADD fails once the first range is used up."""
    small, more = {"subnet": "10.9.0.0/30"}, {"subnet": "10.8.0.0/24"}
    both = {"type": "host-local", "ranges": [[small], [more]] if together else [[small, more]]}
    pods = host.pods(1 if together else 2)
    results = [host.add(pod, conf(both, isDefaultGateway=True)) for pod in pods]
    given = [address for result in results for address in addresses(result)]
    assert given == ["10.9.0.2/30", "10.8.0.2/24"]
    for pod, result in zip(pods, results, strict=True):
        assert [route["dst"] for route in result["routes"]] == ["0.0.0.0/0"]
        assert all(host.pings(pod, ip["gateway"]) for ip in result["ips"])
        assert host.plugin("CHECK", pod, conf(both, isDefaultGateway=True), result).result == {}


def test_an_interrupted_add_of_host_local_is_not_a_duplicate(host: Host) -> None:
    pod = host.pod()
    assert host.reference("host-local", "ADD", pod, conf()).status == 0  # its bridge then died without a link
    assert addresses(host.add(pod, conf())) == ["10.9.0.3/29", "fd00:9::3/64"]
    assert {name for name in lease_files(host) if not name.startswith("last")} == {"10.9.0.3", "fd00:9::3"}


def test_a_live_pod_of_the_reference_is_not_attached_twice(host: Host) -> None:
    pod = host.pod()
    assert host.reference("bridge", "ADD", pod, conf(kind="bridge")).status == 0
    before = lease_files(host)
    for _ in range(2):
        assert host.plugin("ADD", pod, conf()).error["code"] == 102
    assert lease_files(host) == before
    assert host.pod_link(pod) is not None


def test_sets_that_torn_leases_fill_are_freed_of_them(host: Host) -> None:
    small = {"type": "host-local", "ranges": [[{"subnet": "10.9.0.0/29"}], [{"subnet": "fd00:9::/125"}]]}
    first = host.pod("first")
    host.add(first, conf(small))
    for name in ("10.9.0.3", "10.9.0.4", "10.9.0.5", "10.9.0.6", *(f"fd00:9::{last}" for last in range(3, 7))):
        host.path(f"{LEASES}/dual/{name}").write_bytes(b"")
    host.path(f"{LEASES}/dual/fd00:9::7").mkdir()
    assert addresses(host.add(host.pod("second"), conf(small))) == ["10.9.0.3/29", "fd00:9::3/125"]
    assert host.path(f"{LEASES}/dual/fd00:9::7").is_dir()


def test_an_attachment_without_address_is_listed_and_freed(host: Host) -> None:
    flat = conf(name="flat")
    del flat["ipam"]
    pods = host.pods(2)
    for pod in pods:
        assert host.add(pod, flat).get("ips", []) == []
    said = cnictl(host, "ipam", "list").stdout.splitlines()
    assert [line.split()[:3] for line in said[1:3]] == [["-", "pod0", "eth0"], ["-", "pod1", "eth0"]]
    assert cnictl(host, "ipam", "release", "pod1").returncode == 1
    host.kill(pods[0])
    assert cnictl(host, "ipam", "gc").stderr.splitlines()[-1] == "flat: 1 freed, 1 kept"
    assert host.records("flat") == {"pod1@eth0"}
    host.delete(pods[1], flat)
    assert host.records("flat") == set()


def test_ipam_lists_both_families_and_frees_them_together(host: Host) -> None:
    host.path("/etc/cni/net.d").mkdir(parents=True)
    document = {**conf(), "plugins": [conf()]}
    host.path("/etc/cni/net.d/10-dual.conflist").write_text(json.dumps(document))
    pods = host.pods(2)
    for pod in pods:
        host.add(pod, conf())
    said = cnictl(host, "ipam", "list").stdout.splitlines()
    assert [line.split()[0] for line in said[1:5]] == ["10.9.0.2", "10.9.0.3", "fd00:9::2", "fd00:9::3"]
    assert said[5:] == [
        f"dual 10.9.0.0/29  {'█' * 8}{'░' * 12} 2 used, 3 of 5 free",
        f"dual fd00:9::/64  █{'░' * 19} 2 used, 16777213 of the first 16777215 free",
    ]
    (shown,) = json.loads(cnictl(host, "ipam", "show", "FD00:9:0::2", "-o", "json").stdout)["items"]
    assert (shown["address"], shown["state"]) == ("fd00:9::2", "live")
    host.kill(pods[0])
    done = cnictl(host, "ipam", "release", "fd00:9::2")
    assert done.returncode == 0, done
    assert {name for name in lease_files(host) if not name.startswith("last")} == {"10.9.0.3", "fd00:9::3"}
    assert host.records("dual") == {"pod1@eth0"}
    host.kill(pods[1])
    assert cnictl(host, "ipam", "gc").stderr.splitlines()[-1] == "dual: 2 freed"
    assert host.records("dual") == set()
