"""Run containers through podman with its CNI backend, with only the files that init-node wrote."""

import json
from collections.abc import Iterator

import pytest

from .machine import Failed
from .node import ADDRESS, DEBIAN, LAYOUTS, NETWORK, OUTSIDE, Layout, Node, Wheel, node
from .podman import Podman


@pytest.fixture(scope="module", params=LAYOUTS, ids=lambda layout: layout.name)
def podman_node(request: pytest.FixtureRequest, wheel: Wheel) -> Iterator[tuple[Node, Podman]]:
    """A node with podman at its defaults."""
    layout: Layout = request.param
    with node(layout, wheel) as fresh:
        fresh.init()
        yield fresh, Podman(fresh.machine, NETWORK)


@pytest.fixture
def podman(podman_node: tuple[Node, Podman]) -> Iterator[tuple[Node, Podman]]:
    """The node. After each test, check that nothing of its containers is left."""
    yield podman_node
    machine, podman = podman_node
    podman("rm", "--force", "--time", "0", "--all")
    machine.expect_nothing_left()


def test_two_containers_reach_each_other_the_node_and_the_outside(podman: tuple[Node, Podman]) -> None:
    node, run = podman
    first = run.run("first", "sleep", "100000")
    second = run.run("second", "sleep", "100000")
    assert node.leases() == {first: run.id("first"), second: run.id("second")}

    run.expect_ping("first", second, ADDRESS, OUTSIDE)
    run.expect_ping("second", first, ADDRESS, OUTSIDE)


def test_published_port_leads_to_the_container(podman: tuple[Node, Podman]) -> None:
    node, run = podman
    run.run("web", "httpd", "-f", "-h", "/www", options=("--publish", "8080:80"))
    assert node.fetch(8080) == "hello from the pod\n"


def test_containers_need_nothing_of_the_environment_that_installed_the_plugin(podman: tuple[Node, Podman]) -> None:
    node, run = podman
    node.cnictl("status")
    before = run.run("before", "sleep", "100000")
    node.remove_venv()
    run.run("after", "sleep", "100000")
    run.expect_ping("after", before, OUTSIDE)


def test_restart_frees_one_address_and_gets_another(podman: tuple[Node, Podman]) -> None:
    node, run = podman
    run.run("restarted", "sleep", "100000")
    run("restart", "--time", "0", "restarted")
    assert node.leases() == {run.address("restarted"): run.id("restarted")}
    run.expect_ping("restarted", OUTSIDE)


def test_killed_container_is_cleaned_up_and_can_start_again(podman: tuple[Node, Podman]) -> None:
    """A killed container must be cleaned up by conmon, to which `podman kill` leaves it."""
    node, run = podman
    run.run("killed", "sleep", "100000")
    run("kill", "killed")
    node.expect_nothing_left()
    run("start", "killed")
    run.expect_ping("killed", OUTSIDE)


def test_requested_address_and_mac_are_given_once(podman: tuple[Node, Podman]) -> None:
    node, run = podman
    mac = "02:00:00:00:00:77"
    options = ("--ip", "10.244.0.77", "--mac-address", mac)
    assert run.run("asked", "sleep", "100000", options=options) == "10.244.0.77"
    assert run.exec("asked", "cat", "/sys/class/net/eth0/address").strip() == mac

    with pytest.raises(Failed, match=r"10\.244\.0\.77"):
        run.run("second", "sleep", "100000", options=("--ip", "10.244.0.77"))
    assert node.leases() == {"10.244.0.77": run.id("asked")}
    assert len(node.veths()) == len(node.records()) == 1


def test_dual_stack_containers_reach_each_other_and_the_node_in_both_families(wheel: Wheel) -> None:
    with node(DEBIAN, wheel) as fresh:
        fresh.init("10.244.0.0/24,fd00:244::/64", "10.244.0.0/20,fd00:244::/48")
        run = Podman(fresh.machine, NETWORK)
        first = run.run("first", "sleep", "100000")
        second = run.run("second", "sleep", "100000")
        networks = json.loads(run("inspect", "second"))[0]["NetworkSettings"]["Networks"]
        six = networks[NETWORK]["GlobalIPv6Address"]
        assert (first, second, six) == ("10.244.0.2", "10.244.0.3", "fd00:244::3")
        assert set(fresh.leases()) == {"10.244.0.2", "10.244.0.3", "fd00:244::2", "fd00:244::3"}
        run.expect_ping("first", second, six, "10.244.0.1", "fd00:244::1", OUTSIDE)
        run("restart", "--time", "0", "first")
        run.expect_ping("first", second, six)
        run("rm", "--force", "--time", "0", "--all")
        fresh.expect_nothing_left()
