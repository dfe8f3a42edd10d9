"""After only a conf's `type` is changed, every verb serves the reference's attachments before our first ADD."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.kernel.addresses.test_ipam import LONG_AGO, as_json, cnictl
from tests.kernel.plugin.client import LEASES, Host, Pod

pytestmark = pytest.mark.once

Json = dict[str, Any]

V4, V6 = {"subnet": "10.244.0.0/24"}, {"subnet": "fd00:244::/64"}


def conf(**keys: Any) -> Json:
    ipam = {"type": "host-local", "ranges": [[V4]], "routes": [{"dst": "10.99.0.0/16"}]}
    return {"cniVersion": "1.0.0", "name": "mynet", "type": "cnictl-bridge", "bridge": "cni0", "ipam": ipam, **keys}


def dual(**keys: Any) -> Json:
    return conf(ipam={"type": "host-local", "ranges": [[V4], [V6]]}, isGateway=True, **keys)


CONFS: dict[str, Json] = {
    "plain": conf(ipam={"type": "host-local", "ranges": [[V4]]}),
    "isGateway": conf(isGateway=True),
    "isDefaultGateway": conf(isDefaultGateway=True),
    "ipMasq": conf(isGateway=True, ipMasq=True),
    "ipMasq by iptables": conf(isGateway=True, ipMasq=True, ipMasqBackend="iptables"),
    "dual stack": dual(),
    "dual stack with ipMasq": dual(isDefaultGateway=True, ipMasq=True),
    "hairpinMode and mtu": conf(isGateway=True, hairpinMode=True, mtu=1400),
    "promiscMode": conf(promiscMode=True),
    "layer 2": {"cniVersion": "1.0.0", "name": "mynet", "type": "cnictl-bridge", "bridge": "cni0"},
    "0.4.0": {**conf(isGateway=True), "cniVersion": "0.4.0"},
}


def attached(host: Host, name: str, like: Json) -> tuple[Pod, Json]:
    """Attach a pod with the reference, and return the pod and the answer."""
    pod = host.pod(name)
    return pod, host.reference("bridge", "ADD", pod, {**like, "type": "bridge"}).result


@pytest.mark.parametrize("kind", CONFS)
def test_check_succeeds_before_any_add_of_ours(host: Host, kind: str) -> None:
    pod, result = attached(host, "theirs", CONFS[kind])
    before = host.traces()
    assert host.plugin("CHECK", pod, CONFS[kind], result).result == {}
    assert host.traces() == before
    own = host.pod("ours")
    host.add(own, CONFS[kind])
    assert host.plugin("CHECK", pod, CONFS[kind], result).result == {}
    host.delete(own, CONFS[kind])
    host.delete(pod, CONFS[kind], result)
    assert host.pod_link(pod) is None and host.ports() == set() and host.leases() == {}
    assert "CNI-" not in host.run("nft", "list", "ruleset")
    assert host.plugin("CHECK", pod, CONFS[kind], result).code in (3, 104)


Spoil = Callable[[Host, Pod, Json], object]

DEVIATIONS: dict[str, tuple[Spoil, str]] = {
    "port down": (lambda host, _, made: host.run("ip", "link", "set", veth(made), "down"), "is down"),
    "port off the bridge": (
        lambda host, _, made: host.run("ip", "link", "set", veth(made), "nomaster"), "is not on bridge cni0",
    ),
    "pair gone": (lambda host, _, made: host.run("ip", "link", "delete", veth(made)), "is missing"),
    "address gone": (
        lambda host, pod, _: host.inside(pod, "ip", "address", "flush", "dev", "eth0"), "has lost the address",
    ),
    "lease gone": (lambda host, *_: host.path(f"{LEASES}/mynet/10.244.0.2").unlink(), "nobody holds it"),
    "lease another's": (
        lambda host, *_: host.path(f"{LEASES}/mynet/10.244.0.2").write_bytes(b"thief\r\neth0"), "thief eth0 holds it",
    ),
    "rules gone": (lambda host, *_: host.run("nft", "flush", "ruleset"), "masquerade rules"),
    "jump gone": (lambda host, *_: host.run("iptables", "-t", "nat", "-F", "POSTROUTING"), "masquerade rules"),
    "gateway gone": (lambda host, *_: host.run("ip", "address", "flush", "dev", "cni0"), "has lost its address"),
}  # fmt: skip


def veth(result: Json) -> str:
    return str(result["interfaces"][1]["name"])


@pytest.mark.parametrize("deviation", DEVIATIONS)
def test_a_deviation_of_a_reference_attachment_is_named(host: Host, deviation: str) -> None:
    spoil, words = DEVIATIONS[deviation]
    like = CONFS["ipMasq"]
    pod, result = attached(host, "theirs", like)
    spoil(host, pod, result)
    error = host.plugin("CHECK", pod, like, result).error
    assert (error["code"], words in error["msg"]) == (104, True), error


def test_check_of_another_container_in_its_namespace_fails(host: Host) -> None:
    pod, result = attached(host, "theirs", CONFS["isGateway"])
    other = Pod("stranger", pod.netns)
    assert host.plugin("CHECK", other, CONFS["isGateway"], result).code in (3, 104)


def test_gc_status_and_add_treat_it_as_live_at_any_age(host: Host) -> None:
    """The lease's time stamp is before the boot, as from a clock that was wrong."""
    small = conf(ipam={"type": "host-local", "subnet": "10.244.0.0/30"}, isGateway=True, cniVersion="1.1.0")
    pod, _ = attached(host, "theirs", {**small, "cniVersion": "1.0.0"})
    host.run("touch", "-d", LONG_AGO, f"{LEASES}/mynet/10.244.0.2")
    assert host.plugin("STATUS", conf=small).code == 50
    for container in ("first", "second"):  # the first ADD gives the lease a record
        own = host.pod(container)
        assert host.plugin("ADD", own, small).code == 100
        host.delete(own, small)
    assert host.plugin("STATUS", conf=small).code == 50
    assert host.collect([pod], small).result == {}
    assert list(host.leases().values()) == ["theirs\r\neth0"] and host.pings(pod, "10.244.0.1")
    assert host.collect([], small).result == {}  # the runtime reports that the pod is gone
    assert host.pod_link(pod) is None and host.leases() == {}


@pytest.mark.parametrize("claimed", [False, True])
def test_commands_show_it_as_live_and_free_it_completely(host: Host, claimed: bool) -> None:
    pod, result = attached(host, "theirs", CONFS["dual stack with ipMasq"])
    host.run("touch", "-d", LONG_AGO, f"{LEASES}/mynet/10.244.0.2")
    if claimed:
        own = host.pod("ours")
        host.add(own, CONFS["dual stack with ipMasq"])
        host.delete(own, CONFS["dual stack with ipMasq"])
    listed = as_json(host, "list", "--name", "mynet")["items"]
    assert [(row["address"], row["state"]) for row in listed] == [("10.244.0.2", "live"), ("fd00:244::2", "live")]
    assert all(veth(result) in row["reason"] for row in listed)
    assert {outcome["action"] for outcome in as_json(host, "gc", "--name", "mynet")["items"][0]["outcomes"]} == {"left"}
    (shown,) = as_json(host, "show", "10.244.0.2", "--name", "mynet")["items"]
    assert (shown["host_veth"]["name"], shown["host_veth"]["bridge"]) == (veth(result), "cni0")
    told = cnictl(host, "pod", "10.244.0.2", "--name", "mynet", "-o", "json")
    assert told.returncode == 0, told.stderr
    about = json.loads(told.stdout)
    assert about["host_end"]["ifname"] == veth(result) and about["port"]["master"] == "cni0"
    assert about["inside"]["ifname"] == "eth0" and about["routes"]
    assert cnictl(host, "ipam", "check", "--name", "mynet").returncode == 0
    assert cnictl(host, "ipam", "release", "theirs", "--name", "mynet").returncode == 1
    dry = cnictl(host, "ipam", "release", "theirs", "--name", "mynet", "--force", "--dry-run")
    assert f"ip link delete {veth(result)}" in dry.stdout
    assert host.pings(pod, "10.244.0.1")
    assert cnictl(host, "ipam", "release", "theirs", "--name", "mynet", "--force").returncode == 0
    assert host.pod_link(pod) is None and host.leases() == {} and host.records() == set()
    assert "CNI-" not in host.run("nft", "list", "ruleset")
