"""A network whose ranges come with each ADD (capability ipRanges); no other call gets or needs them."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.kernel.plugin.client import Host, new_host

Json = dict[str, Any]
CONF: Json = {
    "cniVersion": "1.1.0",
    "name": "late",
    "type": "cnictl-bridge",
    "isGateway": True,
    "ipMasq": True,
    "capabilities": {"ipRanges": True, "ips": True, "mac": True, "portMappings": True},
    "ipam": {"type": "host-local", "dataDir": "/var/lib/cni/elsewhere"},
}
GIVEN: Json = {"runtimeConfig": {"ipRanges": [[{"subnet": "10.9.0.0/24"}], [{"subnet": "fd00:9::/64"}]]}}
STRIPPED = {key: value for key, value in CONF.items() if key != "capabilities"}
"""The conf without `capabilities`, as a runtime passes it that follows the specification, section 4."""


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """A host for all tests here; each test removes what it created."""
    with new_host() as host:
        host.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        yield host


@pytest.mark.parametrize("conf", [CONF, STRIPPED], ids=["with capabilities", "stripped"])
def test_status_and_gc_need_no_ranges_before_and_after_the_first_pod(host: Host, conf: Json) -> None:
    assert host.plugin("STATUS", conf=conf).result == {}
    assert host.collect([], conf).result == {}
    pod = host.pod(f"pod{len(conf)}")
    host.add(pod, {**conf, **GIVEN})
    assert host.plugin("STATUS", conf=conf).result == {}
    assert host.collect([pod], conf).result == {}
    assert host.pod_link(pod)
    assert host.collect([], conf).result == {}
    assert not host.pod_link(pod) and not host.records("late")
    assert "10.9.0.0/24" not in host.run("nft", "list", "ruleset")


@pytest.mark.parametrize("conf", [CONF, STRIPPED], ids=["with capabilities", "stripped"])
def test_check_and_del_need_neither_ranges_nor_prev_result(host: Host, conf: Json) -> None:
    pod = host.pod(f"checked{len(conf)}")
    result = host.add(pod, {**conf, **GIVEN})
    host.plugin("CHECK", pod, conf, result).result  # noqa: B018  # raises if CHECK failed
    host.run("nft", "flush", "ruleset")
    assert host.plugin("CHECK", pod, conf, result).code == 104
    host.delete(pod, conf)
    assert not host.pod_link(pod) and not host.records("late")
    assert [file.name for file in host.path("/var/lib/cni/elsewhere/late").iterdir() if file.name[0] in "1f"] == []


def test_check_of_a_conf_with_its_own_ranges_uses_the_pods_ranges(host: Host) -> None:
    conf = {**CONF, "ipam": {"type": "host-local", "subnet": "10.8.0.0/24"}}
    pod = host.pod("both")
    result = host.add(pod, {**conf, **GIVEN})
    host.plugin("CHECK", pod, conf, result).result  # noqa: B018  # raises if CHECK failed
    host.delete(pod, conf)


def test_add_without_ranges_names_the_capability(host: Host) -> None:
    error = host.plugin("ADD", host.pod("none"), CONF).error
    assert error["code"] == 7 and "ipam.ranges" in error["msg"] and "ipRanges" in error["details"]


def test_status_reports_a_conf_that_can_get_no_ranges(host: Host) -> None:
    error = host.plugin("STATUS", conf={**CONF, "capabilities": {"mac": True}}).error
    assert "capabilities.ipRanges" in error["msg"]
