"""CHECK accepts a healthy attachment without output, and names each deviation from what ADD made."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.kernel.plugin.client import LEASES, RECORDS, WALK_THROUGH, Host, Pod

Json = dict[str, Any]
CONF: Json = {**WALK_THROUGH, "cniVersion": "1.1.0"}


def veth_of(result: Json) -> str:
    return str(result["interfaces"][1]["name"])


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0", "1.1.0"])
@pytest.mark.parametrize("backend", ["", "nftables", "iptables"])
def test_healthy_attachment_passes(host: Host, version: str, backend: str) -> None:
    host.conf |= {"cniVersion": version}
    if backend:
        host.conf |= {"ipMasq": True, "ipMasqBackend": backend}
    first, other = host.pods(2)
    results = [host.add(first), host.add(other, CNI_ARGS="MAC=02:00:00:00:00:aa")]
    before = host.traces()
    for pod, result in zip((first, other), results, strict=True):
        assert host.plugin("CHECK", pod, prev=result).result == {}
    assert host.traces() == before


Spoil = Callable[[Host, Pod, Json], object]

DEVIATIONS: dict[str, tuple[Spoil, str]] = {
    "pod's address gone": (
        lambda host, pod, _: host.inside(pod, "ip", "address", "flush", "dev", "eth0"),
        "eth0 has lost the address 10.244.0.2/24",
    ),
    "pod's address has another prefix": (
        lambda host, pod, _: (
            host.inside(pod, "ip", "address", "flush", "dev", "eth0"),
            host.inside(pod, "ip", "address", "add", "10.244.0.2/16", "dev", "eth0"),
        ),
        "eth0 has lost the address 10.244.0.2/24",
    ),
    "default route gone": (
        lambda host, pod, _: host.inside(pod, "ip", "route", "delete", "default"),
        "route to 0.0.0.0/0 through 10.244.0.1",
    ),
    "default route through another gateway": (
        lambda host, pod, _: host.inside(pod, "ip", "route", "replace", "default", "via", "10.244.0.9"),
        "route to 0.0.0.0/0 through 10.244.0.1",
    ),
    "pod's interface down": (
        lambda host, pod, _: host.inside(pod, "ip", "link", "set", "eth0", "down"),
        "eth0 is down in the container",
    ),
    "pod's interface renamed": (
        lambda host, pod, _: host.inside(pod, "ip", "link", "set", "eth0", "down", "name", "eth9"),
        "eth0 is missing in the container",
    ),
    "pod's MAC changed": (
        lambda host, pod, _: host.inside(pod, "ip", "link", "set", "eth0", "address", "02:00:00:00:00:99"),
        "eth0 has the MAC 02:00:00:00:00:99",
    ),
    "host veth off the bridge": (
        lambda host, _, result: host.run("ip", "link", "set", veth_of(result), "nomaster"),
        "is not on bridge cni0",
    ),
    "host veth on another bridge": (
        lambda host, _, result: (
            host.run("ip", "link", "add", "other0", "type", "bridge"),
            host.run("ip", "link", "set", veth_of(result), "master", "other0"),
        ),
        "is not on bridge cni0",
    ),
    "host veth down": (
        lambda host, _, result: host.run("ip", "link", "set", veth_of(result), "down"),
        "is down",
    ),
    "host veth's MAC changed": (
        lambda host, _, result: host.run("ip", "link", "set", veth_of(result), "address", "02:00:00:00:00:99"),
        "has the MAC 02:00:00:00:00:99",
    ),
    "pair gone": (
        lambda host, _, result: host.run("ip", "link", "delete", veth_of(result)),
        "is missing",
    ),
    "bridge down": (lambda host, *_: host.run("ip", "link", "set", "cni0", "down"), "bridge cni0 is down"),
    "bridge gone": (lambda host, *_: host.run("ip", "link", "delete", "cni0"), "bridge cni0 is missing"),
    "bridge's address gone": (
        lambda host, *_: host.run("ip", "address", "flush", "dev", "cni0"),
        "bridge cni0 has lost its address 10.244.0.1/24",
    ),
    "lease gone": (
        lambda host, *_: host.path(f"{LEASES}/mynet/10.244.0.2").unlink(),
        "the lease of 10.244.0.2 is lost: nobody holds it",
    ),
    "lease another's": (
        lambda host, *_: host.path(f"{LEASES}/mynet/10.244.0.2").write_bytes(b"thief\r\neth0"),
        "the lease of 10.244.0.2 is lost: thief eth0 holds it",
    ),
}


@pytest.mark.parametrize("deviation", DEVIATIONS)
def test_deviation_is_named(host: Host, deviation: str) -> None:
    spoil, words = DEVIATIONS[deviation]
    pod = host.pod()
    result = host.add(pod, CONF)
    spoil(host, pod, result)
    before = host.traces()
    error = host.plugin("CHECK", pod, CONF, result).error
    assert error["code"] == 104
    assert words in error["msg"]
    assert host.traces() == before  # CHECK changes nothing


@pytest.mark.parametrize(
    ("backend", "flush"),
    [
        ("nftables", "nft flush ruleset"),
        ("nftables", "nft flush chain inet cnictl identity-mynet"),
        ("nftables", "nft delete chain inet cnictl masquerade-mynet"),
        ("iptables", "nft flush ruleset"),
        ("iptables", "iptables -t nat -F POSTROUTING"),
        ("iptables", "iptables -t nat -F"),
    ],
)
def test_flushed_masquerade_is_named(host: Host, backend: str, flush: str) -> None:
    conf = {**CONF, "ipMasq": True, "ipMasqBackend": backend}
    pod = host.pod()
    result = host.add(pod, conf)
    host.run(*flush.split())
    error = host.plugin("CHECK", pod, conf, result).error
    assert error["code"] == 104
    assert "masquerade rules of mynet" in error["msg"]


def test_attachment_that_never_existed_is_unknown(host: Host) -> None:
    pod, stranger = host.pods(2)
    result = host.add(pod, CONF)
    assert host.plugin("CHECK", Pod("stranger", pod.netns), CONF, result).code in (3, 104)
    host.delete(pod, CONF)
    assert host.plugin("CHECK", pod, CONF, result).code in (3, 104)
    assert host.plugin("CHECK", Pod("pod0", "/run/netns/gone"), CONF, result).code == 3
    assert host.plugin("CHECK", stranger, CONF, result).status == 1


def test_lost_record_is_noticed(host: Host) -> None:
    pod = host.pod()
    result = host.add(pod, CONF)
    host.path(f"{RECORDS}/mynet/{pod.container}@eth0").unlink()
    assert host.plugin("CHECK", pod, CONF, result).code == 3


@pytest.mark.parametrize(
    "spoiled",
    [None, {}, {"interfaces": 5}, {"interfaces": []}, {"ips": [{"address": 5}]}, {"ips": []}, {"routes": [7]}],
)
def test_incomplete_prev_result_is_a_configuration_error(host: Host, spoiled: Json | None) -> None:
    pod = host.pod()
    result = host.add(pod, CONF)
    previous = None if spoiled is None else ({**result, **spoiled} if spoiled else {})
    assert host.plugin("CHECK", pod, CONF, previous).code == 7


def test_check_ignores_what_other_plugins_of_the_chain_created(host: Host) -> None:
    pod = host.pod()
    result = host.add(pod, CONF)
    result["interfaces"].append({"name": "net9", "mac": "02:00:00:00:00:09", "sandbox": pod.netns})
    result["ips"].append({"address": "192.0.2.9/24", "interface": 3})
    assert host.plugin("CHECK", pod, CONF, result).result == {}
