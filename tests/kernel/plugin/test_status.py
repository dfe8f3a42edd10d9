"""STATUS answers 50 if no ADD can succeed and 51 if running pods are affected, and neither on a mere suspicion."""

from typing import Any

import pytest

from tests.kernel.plugin.client import LEASES, WALK_THROUGH, Host
from tests.waiting import wait_for

Json = dict[str, Any]
CONF: Json = {**WALK_THROUGH, "cniVersion": "1.1.0", "subnet": "10.244.0.0/30"}
REFERENCE: Json = {
    "cniVersion": "1.1.0",
    "name": "mynet",
    "type": "cnictl-bridge",
    "bridge": "cni0",
    "ipam": {"type": "host-local", "subnet": "10.244.0.0/24"},
}


@pytest.fixture(autouse=True)
def forwarding(host: Host) -> None:
    """Enable forwarding, as `cnictl init-node` does."""
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    host.conf = dict(CONF)


def status(host: Host) -> int:
    """Return 0 or the code with which STATUS failed, and check that it changed nothing."""
    before = host.traces()
    answer = host.plugin("STATUS")
    assert host.traces() == before
    return answer.code if answer.status else 0


def test_fresh_host_can_serve(host: Host) -> None:
    assert status(host) == 0


def test_answer_is_empty(host: Host) -> None:
    answer = host.plugin("STATUS")
    assert (answer.status, answer.stdout, answer.stderr) == (0, b"", b"")


def test_status_is_50_while_no_address_is_free(host: Host) -> None:
    pod = host.pod()
    host.add(pod)
    error = host.plugin("STATUS").error
    assert error["code"] == 50
    assert "10.244.0.0/30" in error["msg"]
    assert status(host) == 50
    host.delete(pod)
    assert status(host) == 0


def test_addresses_of_stale_leases_count_as_free(host: Host) -> None:
    pod = host.pod()
    host.add(pod)
    host.kill(pod)
    veths = host.ports()
    for veth in veths:
        host.run("ip", "link", "delete", veth, check=False)
    assert status(host) == 0
    assert host.plugin("ADD", host.pod("new")).address == "10.244.0.2"


def test_address_of_a_torn_lease_becomes_free(host: Host) -> None:
    folder = host.path(f"{LEASES}/mynet")
    folder.mkdir(parents=True)
    (folder / "10.244.0.2").write_bytes(b"")
    assert status(host) == 0
    assert host.plugin("ADD", host.pod()).address == "10.244.0.2"
    assert host.leases() == {"10.244.0.2": "pod\r\neth0"}


def test_leases_outside_the_subnet_do_not_count(host: Host) -> None:
    folder = host.path(f"{LEASES}/mynet")
    folder.mkdir(parents=True)
    (folder / "10.244.9.2").write_bytes(b"old\r\neth0")
    assert status(host) == 0
    assert host.plugin("ADD", host.pod()).address == "10.244.0.2"


def test_forwarding_off_is_51(host: Host) -> None:
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
    error = host.plugin("STATUS").error
    assert error["code"] == 51
    assert "ip_forward" in error["msg"]


def test_forwarding_counts_for_each_family_of_the_network(host: Host) -> None:
    both = {**CONF, "subnet": ["10.244.0.0/24", "fd00:244::/64"], "network": ["10.244.0.0/20", "fd00:244::/48"]}
    error = host.plugin("STATUS", conf=both).error
    assert error["code"] == 51 and "net.ipv6.conf.all.forwarding" in error["msg"]
    host.run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=1", "net.ipv4.ip_forward=0")
    assert "ip_forward" in host.plugin("STATUS", conf=both).error["msg"]
    six = {**CONF, "subnet": "fd00:244::/64", "network": "fd00:244::/48"}
    assert host.plugin("STATUS", conf=six).result == {}


def test_forwarding_that_an_add_turns_on_is_missed_only_once_pods_run(host: Host) -> None:
    """Otherwise a node would never become ready for the ADD that enables forwarding."""
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
    host.conf = {**REFERENCE, "isGateway": True}
    assert status(host) == 0
    host.add(host.pod())
    assert status(host) == 0
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
    assert status(host) == 51


def test_layer_2_and_a_bridge_that_is_not_a_gateway_need_no_forwarding(host: Host) -> None:
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
    for conf in (REFERENCE, {**REFERENCE, "ipam": {}}):
        host.conf = conf
        host.add(host.pod(f"pod{len(conf['ipam'])}"))
        assert status(host) == 0


def test_one_exhausted_set_is_status_50_until_one_of_its_leases_is_stale(host: Host) -> None:
    """ADD takes an address from each set, so one exhausted set is enough."""
    ranges = [[{"subnet": "10.245.0.0/24"}], [{"subnet": "10.244.0.0/30"}], [{"subnet": "fd00:244::/64"}]]
    host.conf = {**REFERENCE, "ipam": {"type": "host-local", "ranges": ranges}}
    pod = host.pod()
    veth = host.add(pod)["interfaces"][1]["name"]
    error = host.plugin("STATUS").error
    assert error["code"] == 50 and "10.244.0.0/30" in error["msg"]
    assert host.plugin("ADD", host.pod("late")).code == 100
    host.kill(pod)
    wait_for(lambda: veth not in host.links(), "the veth disappears with its namespace")
    assert status(host) == 0
    assert host.add(host.pod("new"))["ips"][1]["address"] == "10.244.0.2/30"


def test_bridge_that_cannot_be_created_is_50(host: Host) -> None:
    host.run("ip", "link", "add", "cni0", "type", "veth", "peer", "name", "cni1")
    assert status(host) == 50


def test_bridge_with_another_address_is_50_and_without_one_is_ready(host: Host) -> None:
    host.run("ip", "link", "add", "cni0", "type", "bridge")
    assert status(host) == 0
    host.run("ip", "address", "add", "10.50.0.1/24", "dev", "cni0")
    error = host.plugin("STATUS").error
    assert error["code"] == 50
    assert "10.50.0.1/24" in error["msg"]


def test_add_succeeds_whenever_status_is_ready(host: Host) -> None:
    """ADD accepts a bridge that has our address and another one, so STATUS must too."""
    host.run("ip", "link", "add", "cni0", "type", "bridge")
    for address in ("10.50.0.1/24", "10.244.0.1/30"):
        host.run("ip", "address", "add", address, "dev", "cni0")
    assert status(host) == 0
    assert host.plugin("ADD", host.pod()).address == "10.244.0.2"
