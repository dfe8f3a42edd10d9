"""STATUS: 50 where no ADD can be served, 51 where pods that run suffer, and neither of a mere doubt."""

from typing import Any

import pytest

from .plugin_client import LEASES, WALK_THROUGH, Host

Json = dict[str, Any]
CONF: Json = {**WALK_THROUGH, "cniVersion": "1.1.0", "subnet": "10.244.0.0/30"}


@pytest.fixture(autouse=True)
def forwarding(host: Host) -> None:
    """On, as `cnictl init-node` has it."""
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    host.conf = dict(CONF)


def status(host: Host) -> int:
    """0, or the code STATUS failed with; it changes nothing either way."""
    before = host.traces()
    answer = host.plugin("STATUS")
    assert host.traces() == before
    return answer.code if answer.status else 0


def test_fresh_host_can_serve(host: Host) -> None:
    assert status(host) == 0


def test_answer_is_empty(host: Host) -> None:
    answer = host.plugin("STATUS")
    assert (answer.status, answer.stdout, answer.stderr) == (0, b"", b"")


def test_last_address_leased_is_50_and_freed_again_is_fine(host: Host) -> None:
    pod = host.pod()
    host.add(pod)
    error = host.plugin("STATUS").error
    assert error["code"] == 50
    assert "10.244.0.0/30" in error["msg"]
    assert status(host) == 50
    host.delete(pod)
    assert status(host) == 0


def test_addresses_that_stale_leases_hold_count_as_free(host: Host) -> None:
    pod = host.pod()
    host.add(pod)
    host.kill(pod)
    veths = host.ports()
    for veth in veths:
        host.run("ip", "link", "delete", veth, check=False)
    assert status(host) == 0
    assert host.plugin("ADD", host.pod("new")).address == "10.244.0.2"


def test_torn_lease_holds_no_address_for_ever(host: Host) -> None:
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


def test_bridge_that_can_not_be_made_is_50(host: Host) -> None:
    host.run("ip", "link", "add", "cni0", "type", "veth", "peer", "name", "cni1")
    assert status(host) == 50


def test_bridge_with_another_address_is_50_and_with_none_is_fine(host: Host) -> None:
    host.run("ip", "link", "add", "cni0", "type", "bridge")
    assert status(host) == 0
    host.run("ip", "address", "add", "10.50.0.1/24", "dev", "cni0")
    error = host.plugin("STATUS").error
    assert error["code"] == 50
    assert "10.50.0.1/24" in error["msg"]


def test_what_status_promises_add_keeps(host: Host) -> None:
    """A bridge that has our address and one more is served by ADD, so STATUS must not call it lost."""
    host.run("ip", "link", "add", "cni0", "type", "bridge")
    for address in ("10.50.0.1/24", "10.244.0.1/30"):
        host.run("ip", "address", "add", address, "dev", "cni0")
    assert status(host) == 0
    assert host.plugin("ADD", host.pod()).address == "10.244.0.2"
