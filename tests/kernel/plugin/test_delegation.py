"""Addresses from other IPAM plugins: the reference's static and dhcp, and a short shell script that fails."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.kernel.plugin.client import Host, Pod, plugin_executable
from tests.waiting import wait_for

Json = dict[str, Any]

CONF: Json = {"cniVersion": "1.0.0", "name": "mynet", "type": "cnictl-bridge", "bridge": "cni0", "isGateway": True}
STATIC: Json = {
    "type": "static",
    "addresses": [
        {"address": "10.9.0.7/24", "gateway": "10.9.0.1"},
        {"address": "fd00:9::7/64", "gateway": "fd00:9::1"},
    ],
    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}, {"dst": "10.77.0.0/16", "gw": "10.9.0.3"}],
    "dns": {"nameservers": ["10.9.0.1"]},
}
ANSWER = """echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.9.0.7/24", "gateway": "10.9.0.1"}]}'"""
FAILURE = """echo '{"cniVersion": "1.0.0", "code": 123, "msg": "no lease", "details": "ask later"}'; exit 1"""
PATH = "/run/odd:/usr/lib/cni"
VERSIONS = """echo '{"cniVersion": "1.1.0", "supportedVersions": ["1.0.0", "1.1.0"]}'"""


class Odd:
    """An IPAM plugin on a host that runs a given shell script for each verb and records its calls."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.conf: Json = {**CONF, "ipam": {"type": "odd"}}
        host.run("mkdir", "-p", "/run/odd")
        self.does(ADD=ANSWER)

    def does(self, **verbs: str) -> None:
        """Rewrite the plugin with these scripts, and clear its diary."""
        cases = "".join(f"{verb}) {script} ;;\n" for verb, script in verbs.items())
        script = (
            f'#!/bin/sh\necho "$CNI_COMMAND $CNI_CONTAINERID" >>/run/odd/diary\ncase $CNI_COMMAND in\n{cases}esac\n'
        )
        self.host.path("/run/odd/odd").write_text(script)
        self.host.run("chmod", "755", "/run/odd/odd")
        self.host.path("/run/odd/diary").write_text("")

    @property
    def diary(self) -> list[str]:
        """Return the verb and container of each call."""
        return self.host.path("/run/odd/diary").read_text().splitlines()


@pytest.fixture
def odd(host: Host) -> Odd:
    return Odd(host)


@contextmanager
def running(host: Host, *argv: str) -> Iterator[None]:
    """Run a daemon on the host until the block ends."""
    daemon = subprocess.Popen([*host.enter, *argv], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        daemon.kill()
        daemon.wait()


def test_static_gives_addresses_of_both_families_and_routes(host: Host) -> None:
    conf = {**CONF, "ipam": STATIC}
    pod = host.pod()
    result = host.add(pod, conf)
    assert [(ip["address"], ip["gateway"], ip["interface"]) for ip in result["ips"]] == [
        ("10.9.0.7/24", "10.9.0.1", 2),
        ("fd00:9::7/64", "fd00:9::1", 2),
    ]
    assert result["dns"] == STATIC["dns"]
    assert {(route["dst"], route["gw"]) for route in result["routes"]} == {
        ("0.0.0.0/0", "10.9.0.1"),
        ("::/0", "fd00:9::1"),
        ("10.77.0.0/16", "10.9.0.3"),
    }
    assert host.pings(pod, "10.9.0.1") and host.pings(pod, "fd00:9::1")
    assert host.plugin("CHECK", pod, conf, result).result == {}
    host.inside(pod, "ip", "address", "del", "fd00:9::7/64", "dev", "eth0")
    assert host.plugin("CHECK", pod, conf, result).code == 104
    host.delete(pod, conf, result)
    assert host.records() == set() and host.ports() == set()


def test_requested_address_is_passed_to_the_ipam_plugin(host: Host) -> None:
    conf: Json = {**CONF, "ipam": {"type": "static"}}
    first, second = host.pods(2)
    given = host.add(first, conf, CNI_ARGS="IP=10.9.0.8/24;GATEWAY=10.9.0.1")
    assert [(ip["address"], ip["gateway"]) for ip in given["ips"]] == [("10.9.0.8/24", "10.9.0.1")]
    conf["runtimeConfig"] = {"ips": ["10.9.0.9/24"]}
    assert host.add(second, conf)["ips"][0]["address"] == "10.9.0.9/24"
    assert host.pings(second, "10.9.0.8")


@pytest.mark.parametrize("version", ["0.2.0", "0.4.0"])
def test_an_older_version_is_used_on_both_sides(host: Host, version: str) -> None:
    conf = {**CONF, "cniVersion": version, "ipam": STATIC}
    pod = host.pod()
    result = host.add(pod, conf)
    reference = host.reference("static", "ADD", pod, conf).result
    if version == "0.2.0":
        assert result["ip4"]["ip"] == reference["ip4"]["ip"] and result["ip6"]["ip"] == reference["ip6"]["ip"]
    else:
        assert [ip["version"] for ip in result["ips"]] == [ip["version"] for ip in reference["ips"]] == ["4", "6"]
    host.delete(pod, conf, result)
    assert host.ports() == set()


def test_dhcp_sends_through_the_pods_interface(host: Host) -> None:
    host.run("ip", "link", "add", "cni0", "type", "bridge")
    host.run("ip", "address", "add", "10.9.0.1/24", "dev", "cni0")
    host.run("ip", "link", "set", "cni0", "up")
    host.run("mkdir", "-p", "/run/cni", "/run/udhcpd")
    host.path("/run/udhcpd/leases").write_text("")
    host.path("/run/udhcpd/conf").write_text(
        "start 10.9.0.20\nend 10.9.0.29\ninterface cni0\nlease_file /run/udhcpd/leases\npidfile /run/udhcpd/pid\n"
        "max_leases 10\nopt subnet 255.255.255.0\nopt router 10.9.0.1\nopt lease 600\n"
    )
    conf = {key: value for key, value in CONF.items() if key != "isGateway"} | {"ipam": {"type": "dhcp"}}
    pod = host.pod()
    server = ("busybox", "udhcpd", "-f", "-a", "10", "/run/udhcpd/conf")
    with running(host, *server), running(host, "/usr/lib/cni/dhcp", "daemon"):
        wait_for(host.path("/run/cni/dhcp.sock").exists, "the dhcp daemon's socket")
        result = host.add(pod, conf)
        assert result["ips"][0]["address"].startswith("10.9.0.2") and result["routes"] == [
            {"dst": "0.0.0.0/0", "gw": "10.9.0.1"}
        ]
        assert host.pings(pod, "10.9.0.1")
        assert host.plugin("CHECK", pod, conf, result).result == {}
        host.delete(pod, conf, result)
        assert host.plugin("CHECK", host.pod("other"), conf, result).error
    assert host.records() == set() and host.ports() == set()
    assert host.plugin("ADD", pod, conf).error  # the daemon has ended
    assert host.records() == set() and host.ports() == set()


def test_ipam_plugin_gets_our_environment_and_its_stderr_reaches_ours(odd: Odd) -> None:
    odd.does(ADD=f"env >/run/odd/env; cat >/run/odd/stdin; echo heard >&2; {ANSWER}")
    pod = odd.host.pod()
    environment = odd.host.environment("ADD", pod, CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAME=web", CNI_PATH=PATH)
    stdin = json.dumps({**odd.conf, "unheard": "of"}).encode() + b"\n\n"
    answered = odd.host.call(environment, stdin)
    assert (answered.status, answered.stderr) == (0, b"heard\n")
    assert odd.host.path("/run/odd/stdin").read_bytes() == stdin
    seen = dict(line.split("=", 1) for line in odd.host.path("/run/odd/env").read_text().splitlines())
    assert {key: seen[key] for key in environment} == environment
    assert odd.diary == ["ADD pod"]


@pytest.mark.parametrize(
    ("does", "code", "msg"),
    [
        (FAILURE, 123, "no lease"),
        ("exit 0", 107, "without a CNI result"),
        ("kill -9 $$", 107, "killed by signal 9"),
        ('echo \'{"ips": [{"address": "10.9.0.7"}]}\'', 6, "no prefix length"),
    ],
)
def test_failure_of_the_ipam_plugin_is_reported_and_everything_is_undone(
    odd: Odd, does: str, code: int, msg: str
) -> None:
    pod = odd.host.pod()
    before = odd.host.traces()
    odd.does(ADD=does)
    error = odd.host.plugin("ADD", pod, odd.conf, CNI_PATH=PATH).error
    assert error["code"] == code and msg in error["msg"]
    assert code != 123 or error["details"] == "ask later"
    assert odd.diary == ["ADD pod", "DEL pod"]
    assert odd.host.traces() == before


def test_a_missing_ipam_plugin_is_named_and_nothing_is_left(odd: Odd) -> None:
    pod = odd.host.pod()
    before = odd.host.traces()
    for kind, code in (("nowhere", 2), ("../odd/odd", 7), ("cnictl-bridge", 7)):
        error = odd.host.plugin("ADD", pod, {**odd.conf, "ipam": {"type": kind}}, CNI_PATH=PATH).error
        assert error["code"] == code and "ipam.type" in error["msg"] and kind in error["msg"]
        assert odd.host.traces() == before
    assert odd.diary == []


def test_our_own_failure_releases_the_address(odd: Odd) -> None:
    """The route's gateway is on no link: the kernel refuses the route after the address has been assigned."""
    pod = odd.host.pod()
    before = odd.host.traces()
    routed = ANSWER.replace("}]}", '}], "routes": [{"dst": "10.88.0.0/16", "gw": "10.99.0.1"}]}')
    odd.does(ADD=routed, DEL="exit 1")
    assert odd.host.plugin("ADD", pod, odd.conf, CNI_PATH=PATH).code == 103
    assert odd.diary == ["ADD pod", "DEL pod"]
    assert odd.host.traces() == before


def test_a_failure_keeps_what_another_attachment_uses(odd: Odd) -> None:
    """The failing ADD created the bridge and set its mode; a pod that was attached meanwhile needs both."""
    host = odd.host
    late, quick = host.pods(2)
    conf = {**CONF, "name": "quick", "promiscMode": True, "ipam": {"type": "host-local", "subnet": "10.9.0.0/24"}}
    host.path("/run/odd/quick").write_text(json.dumps(conf))
    given = " ".join(f"{name}={value}" for name, value in host.environment("ADD", quick).items())
    add_quick = f"env -i {given} {plugin_executable()} </run/odd/quick >/run/odd/result"
    odd.does(ADD=f"{add_quick}; {FAILURE}")
    failing = {**odd.conf, "promiscMode": True}
    assert host.plugin("ADD", late, failing, CNI_PATH=PATH).code == 123
    result = json.loads(host.path("/run/odd/result").read_text())
    assert host.plugin("CHECK", quick, conf, result).result == {}
    odd.does(ADD=FAILURE)
    host.run("ip", "link", "set", "cni0", "promisc", "off")
    before = host.traces()
    assert host.plugin("ADD", late, failing, CNI_PATH=PATH).code == 123
    assert host.traces() == before


@pytest.mark.once  # in an ordinary user's namespace, records on a read-only disk count as the host's
def test_a_failed_undo_is_reported_with_the_original_cause(odd: Odd) -> None:
    pod, state = odd.host.pod(), "/var/lib/cnictl"
    odd.does(ADD=f"mount --bind {state} {state} && mount -o remount,bind,ro {state}; {FAILURE}")
    error = odd.host.plugin("ADD", pod, odd.conf, CNI_PATH=PATH).error
    assert error["code"] == 123 and error["msg"] == "no lease"
    assert error["details"].startswith("ask later; ") and "Read-only" in error["details"]
    assert odd.host.records() == {"pod@eth0"}
    odd.host.run("umount", state)
    odd.host.delete(pod, odd.conf, CNI_PATH=PATH)
    assert odd.host.records() == set() and odd.host.ports() == set()


@pytest.mark.parametrize("former", ["1", "2"])
def test_a_failure_restores_accept_ra_of_an_existing_bridge(odd: Odd, former: str) -> None:
    odd.host.run("ip", "link", "add", "cni0", "type", "bridge")
    switch = "net.ipv6.conf.cni0.accept_ra"
    odd.host.run("sysctl", "-qw", f"{switch}={former}")
    odd.does(ADD=FAILURE)
    assert odd.host.plugin("ADD", odd.host.pod(), odd.conf, CNI_PATH=PATH).code == 123
    assert odd.host.run("sysctl", "-n", switch) == f"{former}\n"


def test_del_always_calls_the_ipam_plugin_and_reports_its_failure_last(odd: Odd) -> None:
    host, pod = odd.host, odd.host.pod()
    result = host.add(pod, odd.conf, CNI_PATH=PATH)
    assert host.records() == {"pod@eth0"}
    odd.does(DEL=FAILURE)
    assert host.plugin("DEL", pod, odd.conf, result, CNI_PATH=PATH).code == 123
    assert host.records() == set() and host.ports() == set() and host.pod_link(pod) is None
    odd.does()
    host.delete(pod, odd.conf, result, CNI_PATH=PATH)
    host.delete(Pod("stranger", ""), odd.conf, CNI_PATH=PATH)
    assert odd.diary == ["DEL pod", "DEL stranger"]


def test_check_is_passed_to_the_ipam_plugin(odd: Odd) -> None:
    pod = odd.host.pod()
    result = odd.host.add(pod, odd.conf, CNI_PATH=PATH)
    assert odd.host.plugin("CHECK", pod, odd.conf, result, CNI_PATH=PATH).result == {}
    odd.does(CHECK=FAILURE)
    assert odd.host.plugin("CHECK", pod, odd.conf, result, CNI_PATH=PATH).code == 123


def test_the_next_add_releases_the_address_of_a_dead_pod(odd: Odd) -> None:
    host, pod = odd.host, odd.host.pod()
    veth = host.add(pod, odd.conf, CNI_PATH=PATH)["interfaces"][1]["name"]
    host.kill(pod)
    wait_for(lambda: veth not in host.links(), "the veth disappears with its namespace")
    odd.does(ADD=ANSWER)
    host.add(host.pod(), odd.conf, CNI_PATH=PATH)
    assert odd.diary == ["DEL pod", "ADD pod"]


def test_gc_releases_invalid_attachments_and_is_passed_to_the_ipam_plugin(odd: Odd) -> None:
    host = odd.host
    kept, lost = host.pods(2)
    odd.conf["cniVersion"] = "1.1.0"
    for pod in (kept, lost):
        host.add(pod, odd.conf, CNI_PATH=PATH)
    valid = [{"containerID": kept.container, "ifname": "eth0"}]
    conf = {**odd.conf, "cni.dev/valid-attachments": valid}
    odd.does(VERSION=VERSIONS, GC="cat >/run/odd/stdin")
    assert host.plugin("GC", conf=conf, CNI_PATH=PATH).result == {}
    assert odd.diary == [f"DEL {lost.container}", "VERSION ", "GC "]
    assert json.loads(host.path("/run/odd/stdin").read_text())["cni.dev/valid-attachments"] == valid
    assert host.records() == {f"{kept.container}@eth0"}
    odd.does(VERSION=VERSIONS, GC=FAILURE)
    assert host.plugin("GC", conf=conf, CNI_PATH=PATH).code == 123


def test_status_is_passed_on_and_names_an_ipam_plugin_that_cannot_add(odd: Odd) -> None:
    host = odd.host
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    conf = {**odd.conf, "cniVersion": "1.1.0"}
    odd.does(VERSION=VERSIONS)
    assert host.plugin("STATUS", conf=conf, CNI_PATH=PATH).result == {}
    odd.does(VERSION=VERSIONS, STATUS=FAILURE)
    assert host.plugin("STATUS", conf=conf, CNI_PATH=PATH).code == 123
    for kind in ("static", "nowhere"):  # Debian's static does not support 1.1.0
        error = host.plugin("STATUS", conf={**conf, "ipam": {**STATIC, "type": kind}}, CNI_PATH=PATH).error
        assert error["code"] == 50 and kind in error["msg"]
