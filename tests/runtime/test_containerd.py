"""Run pods through containerd's CRI as the kubelet does, with only the files that init-node wrote."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import grpc
import pytest

from tests.waiting import wait_for

from . import containerd, image
from .containerd import Containerd
from .machine import Failed
from .node import ADDRESS, LAYOUTS, OUTSIDE, Layout, Node, Wheel, node


@pytest.fixture(scope="module", params=LAYOUTS, ids=lambda layout: layout.name)
def kubelet_node(request: pytest.FixtureRequest, wheel: Wheel) -> Iterator[tuple[Node, Containerd]]:
    """A node that was set up while containerd was already running."""
    layout: Layout = request.param
    with node(layout, wheel) as fresh, containerd.running(fresh.machine) as daemon:
        assert not daemon.cri.network_ready()
        fresh.init()
        wait_for(daemon.cri.network_ready, "NetworkReady after init-node")
        yield fresh, daemon


@pytest.fixture
def pods(kubelet_node: tuple[Node, Containerd]) -> Iterator[tuple[Node, Containerd]]:
    """The node. After each test, check that nothing of its pods is left."""
    yield kubelet_node
    node, daemon = kubelet_node
    daemon.cri.end(*daemon.cri.sandboxes())  # those of a test that failed before it ended its pods
    node.expect_nothing_left()


def test_two_pods_reach_each_other_the_node_and_the_outside(pods: tuple[Node, Containerd]) -> None:
    node, daemon = pods
    cri = daemon.cri
    first, second = cri.run_sandbox("first"), cri.run_sandbox("second")
    assert node.leases() == {first.address: first.id, second.address: second.id}
    assert node.records() == sorted([f"{first.id}@eth0", f"{second.id}@eth0"])

    cri.expect_ping(cri.run_sleeper(first), second.address, ADDRESS, OUTSIDE)
    cri.expect_ping(cri.run_sleeper(second), first.address, ADDRESS, OUTSIDE)

    cri.end(first.id, second.id)


def test_host_port_leads_to_the_pod(pods: tuple[Node, Containerd]) -> None:
    node, daemon = pods
    sandbox = daemon.cri.run_sandbox("web", host_ports={8080: 80})
    daemon.cri.run_container(sandbox, "httpd", "-f", "-h", "/www")
    assert node.fetch(8080) == "hello from the pod\n"
    daemon.cri.end(sandbox.id)


def test_pods_need_nothing_of_the_environment_that_installed_the_plugin(pods: tuple[Node, Containerd]) -> None:
    node, daemon = pods
    cri = daemon.cri
    node.cnictl("status")
    before = cri.run_sandbox("before")
    node.remove_venv()
    after = cri.run_sandbox("after")
    cri.expect_ping(cri.run_sleeper(after), before.address, OUTSIDE)
    cri.end(before.id, after.id)


def test_sandbox_stopped_after_containerd_was_killed_is_cleaned_up(pods: tuple[Node, Containerd]) -> None:
    node, daemon = pods
    first, second = daemon.cri.run_sandbox("first"), daemon.cri.run_sandbox("second")
    container = daemon.cri.run_sleeper(first)

    daemon.kill()
    daemon.start()

    daemon.cri.expect_ping(container, second.address)
    daemon.cri.end(first.id)
    assert node.leases() == {second.address: second.id}
    third = daemon.cri.run_sandbox("third")
    assert third.address not in (first.address, second.address)
    daemon.cri.end(second.id, third.id)


def test_sandbox_without_its_namespace_is_cleaned_up(pods: tuple[Node, Containerd]) -> None:
    node, daemon = pods
    sandbox = daemon.cri.run_sandbox("rebooted")
    daemon.lose_pods()
    daemon.start()
    assert node.leases() == {sandbox.address: sandbox.id}

    daemon.cri.end(sandbox.id)


def test_twenty_simultaneous_sandboxes(pods: tuple[Node, Containerd]) -> None:
    node, daemon = pods
    with ThreadPoolExecutor(20) as pool:
        sandboxes = list(pool.map(daemon.cri.run_sandbox, [f"pod-{number}" for number in range(20)]))
        assert node.leases() == {sandbox.address: sandbox.id for sandbox in sandboxes}
        assert len(node.leases()) == len(node.veths()) == len(node.records()) == 20
        daemon.cri.expect_ping(daemon.cri.run_sleeper(sandboxes[0]), *(sandbox.address for sandbox in sandboxes[1:]))
        list(pool.map(lambda sandbox: daemon.cri.end(sandbox.id), sandboxes))


def test_containerd_killed_while_pods_start_leaves_only_what_can_be_freed(
    pods: tuple[Node, Containerd],
) -> None:
    node, daemon = pods

    def start(name: str) -> None:
        with suppress(grpc.RpcError):  # containerd is killed during most of these calls
            daemon.cri.run_sandbox(name)

    with ThreadPoolExecutor(8) as pool:
        started = [pool.submit(start, f"pod-{number}") for number in range(8)]
        wait_for(lambda: len(node.leases()) >= 3, "the first leases")
        daemon.kill()
        for call in started:
            call.result()
    wait_for(lambda: not node.machine.processes("cnictl"), "the end of the last plugin process")
    daemon.start()
    known = daemon.cri.sandboxes()
    assert set(node.leases().values()) <= set(known)
    daemon.cri.end(*known)


def test_pod_that_fails_to_start_leaves_nothing(pods: tuple[Node, Containerd]) -> None:
    """If a later plugin of the chain fails, nothing of our ADD may be left."""
    node, daemon = pods
    conflist = node.machine.path("/etc/cni/net.d/10-cnictl.conflist")
    good = conflist.read_text()
    conf = json.loads(good)
    conf["plugins"].append({"type": "tuning", "sysctl": {"net.no_such_setting": "1"}})
    conflist.write_text(json.dumps(conf))

    def refused() -> bool:
        """Return whether a pod fails to start. Pods start until containerd has reread the conf."""
        try:
            daemon.cri.end(daemon.cri.run_sandbox("late").id)
        except grpc.RpcError:
            return True
        return False

    wait_for(refused, "the first pod that fails")
    conflist.write_text(good)
    node.expect_nothing_left()
    daemon.cri.end(*daemon.cri.sandboxes())
    wait_for(lambda: not refused(), "the first pod that starts again")


def test_reset_and_init_again_reach_a_containerd_that_ran_all_the_while(pods: tuple[Node, Containerd]) -> None:
    node, daemon = pods
    node.cnictl("reset-node", "--yes")
    wait_for(lambda: not daemon.cri.network_ready(), "NetworkReady gone after reset-node")
    assert not node.machine.path(f"{node.layout.bin_dir}/cnictl-bridge").exists()
    node.init()
    wait_for(daemon.cri.network_ready, "NetworkReady after init-node")
    sandbox = daemon.cri.run_sandbox("again")
    daemon.cri.end(sandbox.id)


def test_reset_by_force_deletes_the_attachments_of_pods_that_run(pods: tuple[Node, Containerd]) -> None:
    """containerd must be able to stop the sandbox after the forced reset, once it has a CNI conf again.

    Without a CNI conf it stops no sandbox.
    """
    node, daemon = pods
    sandbox = daemon.cri.run_sandbox("doomed")
    with pytest.raises(Failed, match="default/doomed"):
        node.cnictl("reset-node", "--yes")
    assert node.leases() == {sandbox.address: sandbox.id}
    node.cnictl("reset-node", "--yes", "--force")
    assert node.left() == {}
    node.init()
    wait_for(daemon.cri.network_ready, "NetworkReady after init-node")
    daemon.cri.end(sandbox.id)


def test_ipam_gc_frees_leases_of_a_client_without_del(pods: tuple[Node, Containerd]) -> None:
    """`ipam gc` must free the lease of a task that is gone: `ctr run --detach --cni` calls ADD and never DEL."""
    node, _ = pods
    group = f"{node.machine.cgroup}/ctr"
    ctr = ("ctr", "--namespace", "k8s.io")
    node.machine.run(*ctr, "run", "--detach", "--cni", "--cgroup", group, image.NAME, "leaky", "sleep", "100000")
    node.cnictl("ipam", "gc")
    assert list(node.leases().values()) == ["k8s.io-leaky"]
    assert node.records() == ["k8s.io-leaky@eth0"]

    node.machine.run(*ctr, "task", "delete", "--force", "leaky")
    node.machine.run(*ctr, "container", "delete", "leaky")
    assert list(node.leases().values()) == ["k8s.io-leaky"]
    node.cnictl("ipam", "gc", "--dry-run")
    assert list(node.leases().values()) == ["k8s.io-leaky"]
    node.cnictl("ipam", "gc")
    assert node.left() == {}
