"""ADD refuses a requested MAC or address that something on the bridge already has, and leaves nothing."""

import fcntl
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kernel.plugin.client import Host, Pod, new_host

Json = dict[str, Any]

FREE, HELD = "02:00:5e:00:53:01", "02:00:5e:00:53:02"
CONF: Json = {
    "cniVersion": "1.1.0",
    "name": "macs",
    "type": "cnictl-bridge",
    "isGateway": True,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.9.0.0/24"}], [{"subnet": "fd00:9::/64"}]]},
}
KEYS: dict[str, Any] = {
    "runtimeConfig.mac": lambda mac: {"conf": {**CONF, "runtimeConfig": {"mac": mac}}},
    "args.cni.mac": lambda mac: {"conf": {**CONF, "args": {"cni": {"mac": mac}}}},
    "CNI_ARGS MAC": lambda mac: {"conf": CONF, "CNI_ARGS": f"IgnoreUnknown=1;MAC={mac}"},
}


@pytest.fixture(scope="module")
def shared_host() -> Iterator[Host]:
    """A host whose bridge has a pod with the MAC that the tests request, and a port that is not a pod's."""
    with new_host() as host:
        host.add(host.pod("held"), **KEYS["runtimeConfig.mac"](HELD))
        host.run("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "far")
        host.run("ip", "link", "set", "uplink", "master", "cni0", "up")
        yield host


@pytest.fixture
def pod(shared_host: Host) -> Iterator[Pod]:
    """A container that is removed after the test."""
    container = shared_host.pod("wants")
    yield container
    shared_host.delete(container, CONF)
    shared_host.run("ip", "netns", "delete", "wants")


def holders(host: Host) -> dict[str, str]:
    """Return each MAC in use, by the words with which the message describes it."""
    links = host.links()
    veth = next(name for name in host.ports() if name.startswith("veth"))
    return {
        "the MAC of bridge cni0": links["cni0"]["address"],
        f"the MAC of {veth}, a port of bridge cni0": links[veth]["address"],
        "the MAC of uplink, a port of bridge cni0": links["uplink"]["address"],
        f"the MAC of the interface behind {veth}": HELD,
    }


@pytest.mark.parametrize("key", KEYS)
def test_a_mac_that_somebody_on_the_bridge_has_is_refused(shared_host: Host, pod: Pod, key: str) -> None:
    before = shared_host.traces()
    for words, mac in holders(shared_host).items():
        for written in (mac, mac.upper()):
            error = shared_host.plugin("ADD", pod, **KEYS[key](written)).error
            assert error["code"] == 101 and error["msg"].startswith(f"{key}: {mac} is already in use"), error
            assert words in error["msg"]
    assert shared_host.traces() == before


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("mac", ["01:00:5e:00:00:01", "33:33:00:00:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"])
def test_a_mac_that_no_interface_can_have_is_refused(shared_host: Host, pod: Pod, key: str, mac: str) -> None:
    before = shared_host.traces()
    error = shared_host.plugin("ADD", pod, **KEYS[key](mac)).error
    assert error["code"] == (4 if key.startswith("CNI_ARGS") else 7)
    assert key in error["msg"] and mac in error["msg"] and "unicast MAC" in error["msg"]
    assert shared_host.traces() == before


def test_a_mac_that_the_pod_got_later_counts(shared_host: Host, pod: Pod) -> None:
    """The MAC changes after ADD, as with the tuning plugin, so no record contains it."""
    held, other = Pod("held", "/run/netns/held"), "02:00:5e:00:53:03"
    shared_host.inside(held, "ip", "link", "set", "eth0", "address", other)
    try:
        error = shared_host.plugin("ADD", pod, **KEYS["runtimeConfig.mac"](other)).error
        assert error["code"] == 101 and "(cnictl:macs/held)" in error["msg"]
    finally:
        shared_host.inside(held, "ip", "link", "set", "eth0", "address", HELD)


def test_a_mac_of_a_running_add_counts(shared_host: Host, pod: Pod) -> None:
    """Its record exists, but its interface does not exist yet."""
    folder = shared_host.path("/var/lib/cnictl/attachments/other")
    folder.mkdir()
    record = folder / "early@eth0"
    record.write_text(
        json.dumps({"complete": 0, "version": 1, "bridge": "cni0", "mac": FREE, "host_veth": "vethearly"})
    )
    with record.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        error = shared_host.plugin("ADD", pod, **KEYS["runtimeConfig.mac"](FREE)).error
    assert error["code"] == 101 and "early eth0 on network other" in error["msg"]
    assert shared_host.add(pod, **KEYS["runtimeConfig.mac"](FREE))["interfaces"][2]["mac"] == FREE  # that ADD is dead
    record.unlink()
    folder.rmdir()


def test_a_mac_is_free_again_after_del_and_on_another_bridge(shared_host: Host, pod: Pod) -> None:
    asked = KEYS["runtimeConfig.mac"]
    elsewhere = {**asked(HELD)["conf"], "name": "elsewhere", "bridge": "cni1", "ipam": {}}
    twin = Pod(pod.container, pod.netns, "net1")
    assert shared_host.add(twin, elsewhere)["interfaces"][2]["mac"] == HELD
    shared_host.delete(twin, elsewhere)
    for _ in range(2):
        assert shared_host.add(pod, **asked(FREE))["interfaces"][2]["mac"] == FREE
        shared_host.delete(pod, CONF)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("10.9.0.1", "the gateway's"),
        ("10.9.0.0", "the address of the subnet"),
        ("10.9.0.255", "the broadcast address"),
        ("fd00:9::1", "the gateway's"),
        ("fd00:9::", "the address of the subnet"),
    ],
)
def test_a_special_address_is_refused(shared_host: Host, pod: Pod, address: str, reason: str) -> None:
    before = shared_host.traces()
    asked: list[Json] = [
        {"conf": {**CONF, "runtimeConfig": {"ips": [address]}}},
        {"conf": {**CONF, "args": {"cni": {"ips": [address]}}}},
        {"conf": CONF, "CNI_ARGS": f"IgnoreUnknown=1;IP={address}"},
    ]
    for request in asked:
        error = shared_host.plugin("ADD", pod, **request).error
        assert error["code"] == (101 if "CNI_ARGS" in request else 7) and address in error["msg"]
        assert reason in error["details"]
    assert shared_host.traces() == before
