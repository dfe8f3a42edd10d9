"""Errors: one JSON document on stdout with the specification's code, exit status 1, and an unchanged host."""

import fcntl
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.kernel.plugin.client import RECORDS, WALK_THROUGH, Answer, Host, Pod, plugin_executable

pytestmark = pytest.mark.once

Json = dict[str, Any]
IPAM: Json = {"type": "host-local", "subnet": "10.244.0.0/24"}


def conf(**keys: object) -> Json:
    """Return the walk-through's conf with these keys; a key that is None is removed."""
    return {key: value for key, value in {**WALK_THROUGH, **keys}.items() if value is not None}


# error code 7: the wrong keys, and a word that the message must contain
WRONG: list[tuple[Json, str]] = [
    (conf(name=None), "name"),
    (conf(name=""), "name"),
    (conf(name=5), "name"),
    (conf(name="../../etc"), "../../etc"),
    (conf(name="a/b"), "a/b"),
    (conf(name=".hidden"), ".hidden"),
    (conf(name="n" * 201), "name"),
    (conf(subnet=None), "subnet"),
    (conf(subnet=[5]), "subnet"),
    (conf(subnet=["10.244.0.0/24", "10.244.0.128/25"]), "10.244.0.0/24 and 10.244.0.128/25 overlap"),
    (conf(subnet="10.244.0.0"), "did you mean 10.244.0.0/24"),
    (conf(subnet="10.244.0.1/24"), "did you mean 10.244.0.0/24"),
    (conf(subnet="10.244.0.0/33"), "33"),
    (conf(subnet="10.244.0.0/31"), "/31"),
    (conf(subnet="10.244.0.0/32"), "/32"),
    (conf(subnet="10.244.0.300/24"), "octet 300"),
    (conf(subnet="10.244.0.010/24"), "leading zero"),
    (conf(subnet="10.244.0.x/24"), "octet 'x'"),
    (conf(subnet=f"{'9' * 5000}.0.0.0/24"), "over 255"),
    (conf(subnet=f"10.244.0.0/{'2' * 5000}"), "prefix length"),
    (conf(subnet="10.99.0.0/24"), "outside network 10.244.0.0/20"),
    (conf(network="10.244.0.0"), "network"),
    (conf(mtu="1500"), "mtu"),
    (conf(mtu=True), "mtu"),
    (conf(mtu=20), "mtu"),
    (conf(mtu=70000), "mtu"),
    (conf(bridge="sixteen-letters-"), "bridge"),
    (conf(bridge="a/b"), "bridge"),
    (conf(bridge=".."), "bridge"),
    (conf(bridge="br%d"), "br%d"),
    (conf(bridge="br 0"), "bridge"),
    (conf(ipMasq="yes"), "ipMasq"),
    (conf(ipMasqBackend="ebtables"), "ebtables"),
    (conf(hairpinMode=1), "hairpinMode"),
    (conf(logFile="plugin.log"), "logFile"),
    (conf(logLevel="loud"), "loud"),
    (conf(dns=[]), "dns"),
    (conf(ipam="host-local"), "ipam"),
    (conf(subnet=None, ipam={**IPAM, "rangeStart": "10.244.0.9", "rangeEnd": "10.244.0.5"}), "rangeEnd"),
    (conf(subnet=None, ipam={**IPAM, "gateway": "fd00::1"}), "gateway"),
    (conf(subnet=None, ipam={**IPAM, "routes": [{"dst": "10.0.0.1/8"}]}), "routes[0].dst"),
    (conf(subnet=None, ipam={**IPAM, "routes": ["default"]}), "routes[0]"),
    (conf(subnet=None, ipam={**IPAM, "dataDir": "leases"}), "dataDir"),
    (conf(subnet=None, ipam={**IPAM, "ranges": [[IPAM]]}), "overlap"),
    (conf(ipam={"type": "static"}), "static"),
    (conf(vlan=5000), "vlan: 5000"),
    (conf(vlan=5, vlanTrunk=[{"minID": 1, "maxID": 9}]), "vlanTrunk: contains 5"),
    (conf(promiscMode=True, hairpinMode=True), "promiscMode"),
    (conf(disableContainerInterface=True), "disableContainerInterface"),
    (conf(args={"cni": {"mac": "01:00:5e:00:00:01"}}), "args.cni.mac"),
    (conf(runtimeConfig={"ips": ["10.244.0.1/24"]}), "runtimeConfig.ips[0]: 10.244.0.1"),
    (conf(prevResult=5), "prevResult"),
    (conf(prevResult={"interfaces": 5}), "prevResult.interfaces"),
    (conf(prevResult={"ips": [{"address": None}]}), "prevResult.ips"),
    (conf(prevResult={"routes": [{}]}), "prevResult.routes"),
    ({"cniVersion": "1.0.0", "name": "mynet", "plugins": [WALK_THROUGH]}, "plugins"),
]


def test_configuration_error_names_the_value_and_nothing_is_created(host: Host) -> None:
    pod = host.pod()
    before = host.traces()
    for wrong, word in WRONG:
        error = host.plugin("ADD", pod, wrong).error
        assert error["code"] == 7, error
        assert word in error["msg"], error
        assert len(error["msg"]) < 300
    assert host.traces() == before
    assert host.pod_link(pod) is None


def test_error_has_the_requested_version(host: Host) -> None:
    for version in ("0.1.0", "0.4.0", "1.0.0", "1.1.0"):
        assert (
            host.plugin("ADD", host.pod(f"pod{version}"), conf(cniVersion=version, mtu=-1)).error["cniVersion"]
            == version
        )


@pytest.mark.parametrize(
    "stdin",
    [
        b"",
        b" \n",
        b"{",
        b'{"cniVersion": "1.0.0", "name": "my',
        b'{"name": }',
        b"[]",
        b"7",
        b"null",
        b'"text"',
        b"{} {}",
        b'{"name": NaN}',
        b'{"mtu": 1' + b"0" * 5000 + b"}",
        b'{"name": "\xff"}',
        b"\xef\xbb\xbf{}",
        '{"name": "mynet"}'.encode("utf-16"),
        b"[" * 100_000,
        b'{"a":' * 5000,
        b'{"cniVersion": 1}',
        b'{"cniVersion": ["1.0.0"]}',
        b"\0" * 4096,
    ],
    ids=lambda stdin: stdin[:16].decode("latin-1"),
)
@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_stdin_that_is_not_a_configuration_is_error_6(host: Host, verb: str, stdin: bytes) -> None:
    answer = host.call(host.environment(verb, Pod("pod", "/run/netns/pod")), stdin)
    assert answer.code == 6
    assert host.traces()["files"] == {}


ENVIRONMENT: list[tuple[str, dict[str, str], str]] = [
    ("", {}, "CNI_COMMAND: missing"),
    ("add", {}, "'add'"),
    ("EXPLODE", {}, "'EXPLODE'"),
    ("ADD", {"CNI_CONTAINERID": ""}, "CNI_CONTAINERID"),
    ("ADD", {"CNI_CONTAINERID": "a/b"}, "CNI_CONTAINERID"),
    ("ADD", {"CNI_CONTAINERID": ".."}, "CNI_CONTAINERID"),
    ("ADD", {"CNI_CONTAINERID": "a@b"}, "CNI_CONTAINERID"),
    ("ADD", {"CNI_CONTAINERID": "x" * 300}, "CNI_CONTAINERID"),
    ("DEL", {"CNI_CONTAINERID": "../../etc/passwd"}, "CNI_CONTAINERID"),
    ("ADD", {"CNI_IFNAME": ""}, "CNI_IFNAME"),
    ("ADD", {"CNI_IFNAME": "sixteen-letters-"}, "CNI_IFNAME"),
    ("ADD", {"CNI_IFNAME": "../x"}, "CNI_IFNAME"),
    ("ADD", {"CNI_IFNAME": ".."}, "CNI_IFNAME"),
    ("ADD", {"CNI_IFNAME": "eth%d"}, "CNI_IFNAME"),
    ("ADD", {"CNI_IFNAME": "a b"}, "CNI_IFNAME"),
    ("ADD", {"CNI_IFNAME": "a:1"}, "CNI_IFNAME"),
    ("DEL", {"CNI_IFNAME": ""}, "CNI_IFNAME"),
    ("ADD", {"CNI_NETNS": ""}, "CNI_NETNS"),
    ("CHECK", {"CNI_NETNS": ""}, "CNI_NETNS"),
    ("ADD", {"CNI_ARGS": "IP"}, "CNI_ARGS"),
    ("ADD", {"CNI_ARGS": "IP=10.244.0"}, "CNI_ARGS IP"),
    ("ADD", {"CNI_ARGS": "MAC=01:00:00:00:00:01"}, "CNI_ARGS MAC"),
    ("ADD", {"CNI_ARGS": "MAC=nonsense"}, "CNI_ARGS MAC"),
    ("ADD", {"CNI_ARGS": os.fsdecode(b"K8S_POD_NAME=\xff")}, "CNI_ARGS"),
]


def test_environment_error_is_4_and_names_the_variable(host: Host) -> None:
    pod = host.pod()
    before = host.traces()
    for verb, variables, word in ENVIRONMENT:
        error = host.plugin(verb, pod, None, None, **variables).error
        assert error["code"] == 4, (verb, variables, error)
        assert word in error["msg"], error
    assert host.traces() == before


def test_environment_error_names_every_wrong_variable(host: Host) -> None:
    error = host.call({"CNI_COMMAND": "ADD"}, host.stdin()).error
    assert error["code"] == 4
    assert all(word in error["msg"] for word in ("CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS"))


def test_unreadable_stdin_is_error_5(host: Host) -> None:
    done = subprocess.run(
        [*host.enter, "sh", "-c", 'exec "$0" <&-', plugin_executable()],
        env=host.environment("ADD", host.pod()),
        capture_output=True,
        check=False,
    )
    assert Answer(done.returncode, done.stdout, done.stderr).code == 5


def test_unreadable_store_is_error_5(host: Host) -> None:
    host.path("/var/lib/cni").write_text("a file in the way")
    pod = host.pod()
    before = host.traces()
    assert host.plugin("ADD", pod).code == 5
    assert host.traces() == before


def test_route_that_the_kernel_refuses_is_undone(host: Host) -> None:
    pod = host.pod()
    before = host.traces()
    routed = {**IPAM, "routes": [{"dst": "198.51.100.0/24", "gw": "203.0.113.1"}]}
    error = host.plugin("ADD", pod, conf(subnet=None, ipam=routed)).error
    assert error["code"] == 103
    assert "198.51.100.0/24" in error["msg"]
    assert host.traces() == before
    assert host.pod_link(pod) is None


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_firewall_tool_that_fails_or_is_missing_undoes_the_add(host: Host, backend: str) -> None:
    pod = host.pod()
    before = host.traces()
    masquerading = conf(ipMasq=True, ipMasqBackend=backend)
    error = host.plugin("ADD", pod, masquerading, PATH="/nowhere").error
    assert error["code"] == 2
    assert "command not found" in error["msg"]
    host.run("mkdir", "/run/broken")
    for tool in ("nft", "iptables", "iptables-restore"):
        path = host.path(f"/run/broken/{tool}")
        path.write_text("#!/bin/sh\necho 'the kernel says no' >&2\nexit 1\n")
        path.chmod(0o755)
    error = host.plugin("ADD", pod, masquerading, PATH="/run/broken").error
    assert error["code"] == 106
    assert "the kernel says no" in error["msg"]
    assert host.traces() == before
    assert host.pod_link(pod) is None


@contextmanager
def held(host: Host, path: str) -> Iterator[None]:
    """Hold a file's lock, as a stuck process does."""
    file = host.path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def impatient(host: Host, verb: str, pod: Pod) -> Answer:
    """Call a plugin that waits half a second for a lock instead of 20."""
    return host.call(host.environment(verb, pod), host.stdin(), plugin_executable(0.5))


def test_attachment_in_use_by_another_call_is_try_again(host: Host) -> None:
    pod = host.pod()
    result = host.add(pod)
    with held(host, f"{RECORDS}/mynet/pod@eth0"):
        before = host.traces()
        assert impatient(host, "ADD", pod).code == 11
        assert impatient(host, "DEL", pod).code == 11
        assert host.traces() == before
        assert host.plugin("CHECK", pod, prev=result).result == {}


def test_stdout_has_only_the_document(host: Host) -> None:
    answer = host.plugin("ADD", Pod("pod", "/run/netns/gone"))
    assert answer.stdout.endswith(b"}\n") and answer.stdout.count(b"\n") == 1
    assert json.loads(answer.stdout) == answer.error
    result = host.plugin("ADD", host.pod())
    assert json.loads(result.stdout) == result.result
