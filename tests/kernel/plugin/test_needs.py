"""STATUS answers 50 and names the cause if every ADD would fail, and only then."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.kernel.plugin.client import LEASES, RECORDS, Host

Json = dict[str, Any]
SUBNET, SIX = "10.9.0.0/24", "fd00:9::/64"
CONF: Json = {
    "cniVersion": "1.1.0",
    "name": "net",
    "type": "cnictl-bridge",
    "bridge": "cni0",
    "isGateway": True,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": SUBNET}]]},
}
DUAL: Json = {"ipam": {"type": "host-local", "ranges": [[{"subnet": SUBNET}], [{"subnet": SIX}]]}}
MASQUERADE: Json = {"ipMasq": True, "ipMasqBackend": "nftables"}
BY_IPTABLES: Json = {"ipMasq": True, "ipMasqBackend": "iptables"}
_BARE = "/run/bare"
"""A PATH without the packet filters' programs."""


@dataclass(frozen=True)
class Case:
    """A fault of the node, and the word that both answers must contain."""

    names: str
    breaks: Callable[[Host], object] = lambda _: None
    conf: Json = field(default_factory=dict)
    """Keys that replace those of `CONF`."""
    environment: Json = field(default_factory=dict)


def sh(script: str) -> Callable[[Host], object]:
    return lambda host: host.run("sh", "-ec", script)


def ipam(**more: object) -> Json:
    return {"ipam": {**CONF["ipam"], **more}}


def ports(host: Host) -> None:
    """Give the bridge 1,023 ports: both ends of 511 pairs, and one end of another pair."""
    lines = ["link add cni0 address 02:00:00:00:00:01 type bridge", "link add last type veth peer name other"]
    lines += [f"link add a{number} type veth peer name b{number}" for number in range(511)]
    names = ["last", *(f"{side}{number}" for side in "ab" for number in range(511))]
    lines += [f"link set {name} master cni0" for name in names]
    host.run("ip", "-batch", "-", stdin="\n".join(lines) + "\n")


def full(host: Host) -> None:
    small(f"{LEASES}/net")(host)
    host.run("sh", "-c", f"head -c 64k /dev/zero > {LEASES}/net/.filler", check=False)


def small(folder: str) -> Callable[[Host], object]:
    return sh(f"mkdir -p {folder}; mount -t tmpfs -o size=16k none {folder}")


def only(program: str, says: str) -> Callable[[Host], object]:
    """Return a step that adds packet filter programs to `_BARE`; they fail as if the kernel refused."""
    text = f"#!/bin/sh\\necho {says} >&2\\nexit 3\\n"
    return sh(f"mkdir {_BARE}; for one in {program}; do printf '{text}' > {_BARE}/$one; chmod 755 {_BARE}/$one; done")


_NO_SUCH: Json = {"PATH": _BARE}
_RO = "mount --bind {0} {0}; mount -o remount,bind,ro {0}"

CASES: dict[str, Case] = {
    "1,023 ports": Case("cni0", ports),
    "mtu below 1280 with IPv6": Case("mtu", conf={"mtu": 1200, **DUAL}),
    "a bridge's MTU below 1280 with IPv6": Case("cni0", sh("ip link add cni0 mtu 1200 type bridge"), DUAL),
    "no nft": Case("nft", conf=MASQUERADE, environment=_NO_SUCH),
    "no nft for macspoofchk": Case("macspoofchk", conf={"macspoofchk": True}, environment=_NO_SUCH),
    "no program for portIsolation": Case("portIsolation", conf={"portIsolation": True}, environment=_NO_SUCH),
    "no iptables": Case("iptables", conf=BY_IPTABLES, environment=_NO_SUCH),
    "no ip6tables": Case("ip6tables", only("iptables iptables-restore", "x"), {**BY_IPTABLES, "ipam": {
        "type": "host-local", "subnet": SIX}}, _NO_SUCH),
    "a kernel without nf_tables": Case("unsupported", only("nft", "unsupported"), MASQUERADE, _NO_SUCH),
    "a kernel without iptables' nat": Case(
        "unsupported", only("iptables iptables-restore", "unsupported"), BY_IPTABLES, _NO_SUCH
    ),
    "resolvConf missing": Case("resolvConf", conf=ipam(resolvConf="/run/none")),
    "resolvConf a folder": Case("resolvConf", conf=ipam(resolvConf="/run")),
    "resolvConf a pipe": Case("resolvConf", sh("mkfifo /run/resolv"), ipam(resolvConf="/run/resolv")),
    "the bridge's name a veth's": Case("cni0", sh("ip link add cni0 type veth peer name cni1")),
    "another address on the bridge": Case(
        "cni0", sh("ip link add cni0 type bridge; ip address add 10.5.0.1/24 dev cni0")
    ),
    "no IPv6 in the kernel": Case("IPv6", sh("mount -t tmpfs none /proc/sys/net/ipv6"), DUAL),
    "IPv6 off and read-only": Case(
        "disable_ipv6", sh(f"sysctl -qw net.ipv6.conf.default.disable_ipv6=1; {_RO.format('/proc/sys')}"), DUAL
    ),
    "IPv6 off on the bridge and read-only": Case(
        "cni0",
        sh(f"ip link add cni0 type bridge; sysctl -qw net.ipv6.conf.cni0.disable_ipv6=1; {_RO.format('/proc/sys')}"),
        DUAL,
    ),
    "forwarding off and read-only": Case(
        "ip_forward", sh(f"sysctl -qw net.ipv4.ip_forward=0; {_RO.format('/proc/sys')}")
    ),
    "a VLAN gateway's name too long": Case("vlan", conf={"bridge": "bridge-of-14-c", "vlan": 100}),
    "a store read-only": Case(LEASES, sh(f"mkdir -p {LEASES}/net; {_RO.format(f'{LEASES}/net')}")),
    "a store full": Case(LEASES, full),
    "a store that is a file": Case(LEASES, sh(f"mkdir -p {LEASES}; touch {LEASES}/net")),
    "a lock that is a folder": Case("lock", sh(f"mkdir -p {LEASES}/net/lock")),
    "a last address that is a folder": Case("last_reserved_ip.0", sh(f"mkdir -p {LEASES}/net/last_reserved_ip.0")),
    "records read-only": Case(RECORDS, sh(f"mkdir -p {RECORDS}/net; {_RO.format(f'{RECORDS}/net')}")),
    "records that are a file": Case(RECORDS, sh(f"mkdir -p {RECORDS}; touch {RECORDS}/net")),
    "a claim mark that is a folder": Case(".claimed", sh(f"mkdir -p {RECORDS}/net/.claimed")),
    "a dataDir that leads nowhere": Case("/run/data", sh("ln -s /mnt/none /run/data"), ipam(dataDir="/run/data")),
    "a dataDir below a file": Case("/run/data", sh("touch /run/data"), ipam(dataDir="/run/data/leases")),
    "the node's lock a folder": Case("node.lock", sh("mkdir -p /run/cnictl/node.lock")),
    "ranges exhausted": Case(
        "10.9.0.0/30",
        sh(f"mkdir -p {LEASES}/net; printf 'elsewhere\\r\\neth0' > {LEASES}/net/10.9.0.2"),
        ipam(ranges=[[{"subnet": "10.9.0.0/30"}]]),
    ),
    "no such IPAM plugin": Case("none-such", conf={"ipam": {"type": "none-such"}}),
    "an IPAM plugin that can't be executed": Case(
        "/run/ipam/plain", sh("mkdir /run/ipam; touch /run/ipam/plain"), {"ipam": {"type": "plain"}},
        {"CNI_PATH": "/run/ipam"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_cause_that_fails_every_add_is_status_50(host: Host, name: str) -> None:
    case = CASES[name]
    conf = {**CONF, **case.conf}
    case.breaks(host)
    before = host.traces()
    error = host.plugin("STATUS", conf=conf, **case.environment).error
    assert error["code"] == 50, error
    assert case.names in json.dumps(error), error
    assert host.traces() == before
    refused = host.plugin("ADD", host.pod(), conf, **case.environment).error
    assert case.names in json.dumps(refused), refused
    assert host.leases("net").keys() <= {"10.9.0.2", ".filler"} and host.ports() <= set(before["links"])


@pytest.mark.parametrize("bridge", ["missing", "there"])
def test_vlans_are_status_50_if_the_kernels_bridge_lacks_them(host: Host, bridge: str) -> None:
    conf = {**CONF, "vlan": 100}
    if bridge == "there":
        host.run("ip", "link", "add", "cni0", "type", "bridge")
    before = host.traces()
    promised = host.plugin("STATUS", conf=conf)
    assert host.traces() == before
    kept = host.plugin("ADD", host.pod(), conf)
    assert promised.status == kept.status
    if promised.status:
        assert (promised.code, kept.code) == (50, 2)
        assert promised.error["msg"] == kept.error["msg"]


@pytest.mark.parametrize(
    "conf", [{}, DUAL, MASQUERADE, {"macspoofchk": True}, {"portIsolation": True}, {"ipam": {}}], ids=str
)
def test_a_healthy_node_is_ready_and_add_works(host: Host, conf: Json) -> None:
    before = host.traces()
    assert host.plugin("STATUS", conf={**CONF, **conf}).result == {}
    assert host.traces() == before
    host.add(host.pod(), {**CONF, **conf})
    assert host.plugin("STATUS", conf={**CONF, **conf}).result == {}


def test_failures_of_one_pod_leave_the_node_ready(host: Host) -> None:
    pod, other = host.pods(2)
    mac: Json = {"CNI_ARGS": "IgnoreUnknown=1;MAC=02:00:00:00:00:77"}
    host.add(pod, CONF, **mac)
    host.inside(other, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "x")
    third = host.pod("third")
    refused = [
        host.plugin("ADD", pod, CONF),
        host.plugin("ADD", other, CONF),
        host.plugin("ADD", third, CONF, **mac),
        host.plugin("ADD", third, CONF, CNI_ARGS="IgnoreUnknown=1;IP=10.9.0.2"),
        host.plugin("ADD", third, CONF, CNI_ARGS="IgnoreUnknown=1;IP=10.8.0.2"),
        host.plugin("ADD", third, CONF, CNI_NETNS="/run/netns/none"),
    ]
    for answer in refused:
        assert answer.code != 50
        assert host.plugin("STATUS", conf=CONF).result == {}


def test_status_reports_no_temporary_or_unproven_obstacle(host: Host) -> None:
    """Loaded rules need no program, and a lock held by another process will be released."""
    conf = {**CONF, **MASQUERADE}
    host.add(host.pod(), conf)
    assert host.plugin("STATUS", conf=conf, **_NO_SUCH).result == {}
    host.add(host.pod("second"), conf, **_NO_SUCH)
    lock = f"{LEASES}/net/lock"
    held = host.run("flock", "-x", lock, "sh", "-c", "echo held")
    assert held == "held\n" and host.plugin("STATUS", conf=conf).result == {}
