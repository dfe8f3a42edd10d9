"""Pods through containerd's CRI, as the kubelet runs them, with only the files that init-node wrote."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import grpc
import pytest

from . import containerd
from .containerd import Containerd
from .cri import Cri, Sandbox
from .machine import wait_for
from .node import ADDRESS, LAYOUTS, OUTSIDE, Layout, Node, Wheel, node


@pytest.fixture(scope="module", params=LAYOUTS, ids=lambda layout: layout.name)
def kubelet_node(request: pytest.FixtureRequest, wheel: Wheel) -> Iterator[tuple[Node, Containerd]]:
    """A node that was set up while containerd ran already."""
    layout: Layout = request.param
    with node(layout, wheel) as fresh, containerd.running(fresh.machine) as daemon:
        assert not daemon.cri.network_ready()
        fresh.init()
        wait_for(daemon.cri.network_ready, "NetworkReady after init-node")
        yield fresh, daemon


@pytest.fixture
def pods(kubelet_node: tuple[Node, Containerd]) -> Iterator[tuple[Node, Containerd]]:
    """The node, and the proof after each test that nothing of its pods is left."""
    yield kubelet_node
    node, daemon = kubelet_node
    end(daemon.cri, *daemon.cri.sandboxes())  # of a test that failed before it ended its pods
    node.expect_nothing_left()


def end(cri: Cri, *sandboxes: str) -> None:
    """End pods as the kubelet does: it stops a sandbox more than once."""
    for sandbox in sandboxes:
        cri.stop(sandbox)
        cri.stop(sandbox)
        cri.remove(sandbox)


def sleeper(cri: Cri, sandbox: Sandbox) -> str:
    """A container in the sandbox to run commands in."""
    return cri.run_container(sandbox, "sleep", "100000")


def expect_ping(cri: Cri, container: str, *addresses: str) -> None:
    """Raise Failed unless each address answers."""
    for address in addresses:
        cri.run_in(container, "ping", "-c", "1", "-W", "2", address)


def test_two_pods_reach_each_other_the_node_and_the_outside(pods: tuple[Node, Containerd]) -> None:
    node, daemon = pods
    cri = daemon.cri
    first, second = cri.run_sandbox("first"), cri.run_sandbox("second")
    assert node.leases() == {first.address: first.id, second.address: second.id}
    assert node.records() == sorted([f"{first.id}@eth0", f"{second.id}@eth0"])

    expect_ping(cri, sleeper(cri, first), second.address, ADDRESS, OUTSIDE)
    expect_ping(cri, sleeper(cri, second), first.address, ADDRESS, OUTSIDE)

    end(cri, first.id, second.id)


def test_host_port_leads_to_the_pod(pods: tuple[Node, Containerd]) -> None:
    node, daemon = pods
    sandbox = daemon.cri.run_sandbox("web", host_ports={8080: 80})
    daemon.cri.run_container(sandbox, "httpd", "-f", "-h", "/www")
    assert node.fetch(8080) == "hello from the pod\n"
    end(daemon.cri, sandbox.id)


def test_pods_need_nothing_of_the_environment_that_installed_the_plugin(pods: tuple[Node, Containerd]) -> None:
    node, daemon = pods
    cri = daemon.cri
    node.cnictl("status")
    before = cri.run_sandbox("before")
    node.remove_venv()
    after = cri.run_sandbox("after")
    expect_ping(cri, sleeper(cri, after), before.address, OUTSIDE)
    end(cri, before.id, after.id)


def test_sandbox_stopped_after_containerd_was_killed_is_cleaned_up(pods: tuple[Node, Containerd]) -> None:
    node, daemon = pods
    first, second = daemon.cri.run_sandbox("first"), daemon.cri.run_sandbox("second")
    container = sleeper(daemon.cri, first)

    daemon.kill()
    daemon.start()

    expect_ping(daemon.cri, container, second.address)
    end(daemon.cri, first.id)
    assert node.leases() == {second.address: second.id}
    third = daemon.cri.run_sandbox("third")
    assert third.address not in (first.address, second.address)
    end(daemon.cri, second.id, third.id)


def test_sandbox_whose_namespace_is_gone_is_cleaned_up(pods: tuple[Node, Containerd]) -> None:
    """What a reboot leaves: containerd's own state, leases and records, and nothing of the pods."""
    node, daemon = pods
    machine = node.machine
    sandbox = daemon.cri.run_sandbox("rebooted")
    daemon.kill()
    machine.run("kill", "-9", *machine.processes("^/usr/bin/containerd-shim"), *machine.processes("^/bin/sleep"))
    for netns in machine.run("find", "/run/netns", "-name", "cni-*").split():
        machine.run("umount", netns)
        machine.run("rm", netns)
    daemon.start()
    assert node.leases() == {sandbox.address: sandbox.id}

    end(daemon.cri, sandbox.id)


def test_twenty_sandboxes_at_once(pods: tuple[Node, Containerd]) -> None:
    node, daemon = pods
    with ThreadPoolExecutor(20) as pool:
        sandboxes = list(pool.map(daemon.cri.run_sandbox, [f"pod-{number}" for number in range(20)]))
        assert node.leases() == {sandbox.address: sandbox.id for sandbox in sandboxes}
        assert len(node.leases()) == len(node.veths()) == len(node.records()) == 20
        expect_ping(daemon.cri, sleeper(daemon.cri, sandboxes[0]), *(one.address for one in sandboxes[1:]))
        list(pool.map(lambda sandbox: end(daemon.cri, sandbox.id), sandboxes))


def test_containerd_killed_while_pods_start_leaves_nothing_that_cannot_be_freed(
    pods: tuple[Node, Containerd],
) -> None:
    node, daemon = pods

    def start(name: str) -> None:
        with suppress(grpc.RpcError):  # containerd dies under most of these calls
            daemon.cri.run_sandbox(name)

    with ThreadPoolExecutor(8) as pool:
        started = [pool.submit(start, f"pod-{number}") for number in range(8)]
        wait_for(lambda: len(node.leases()) >= 3, "the first leases")
        daemon.kill()
        for call in started:
            call.result()
    wait_for(lambda: not node.machine.processes("cnictl-bridge|cnictl_plugin"), "the last plugin's end")
    daemon.start()
    known = daemon.cri.sandboxes()
    assert set(node.leases().values()) <= set(known)
    end(daemon.cri, *known)


def test_pod_that_fails_to_start_leaves_nothing(pods: tuple[Node, Containerd]) -> None:
    """Another plugin of the chain fails after the ADD of ours was done."""
    node, daemon = pods
    conflist = node.machine.path("/etc/cni/net.d/10-cnictl.conflist")
    good = conflist.read_text()
    conf = json.loads(good)
    conf["plugins"].append({"type": "tuning", "sysctl": {"net.no_such_setting": "1"}})
    conflist.write_text(json.dumps(conf))

    def refused() -> bool:
        """Until containerd has read the file anew, pods start."""
        try:
            end(daemon.cri, daemon.cri.run_sandbox("late").id)
        except grpc.RpcError:
            return True
        return False

    wait_for(refused, "the first pod that fails")
    conflist.write_text(good)
    node.expect_nothing_left()
    end(daemon.cri, *daemon.cri.sandboxes())
    wait_for(lambda: not refused(), "the first pod that starts again")


def test_reset_and_init_again_reach_a_containerd_that_ran_all_the_while(pods: tuple[Node, Containerd]) -> None:
    node, daemon = pods
    node.cnictl("reset-node", "--yes")
    wait_for(lambda: not daemon.cri.network_ready(), "NetworkReady gone after reset-node")
    assert not node.machine.path(f"{node.layout.bin_dir}/cnictl-bridge").exists()
    node.init()
    wait_for(daemon.cri.network_ready, "NetworkReady after init-node")
    sandbox = daemon.cri.run_sandbox("again")
    end(daemon.cri, sandbox.id)
