"""Run a hundred sandboxes through containerd's CRI, eight at a time, as the kubelet does on a node that fills up."""

from concurrent.futures import ThreadPoolExecutor

from tests.waiting import wait_for

from . import containerd
from .node import DEBIAN, Wheel, node

SANDBOXES, AT_A_TIME = 100, 8


def test_a_hundred_sandboxes_are_unique_and_none_leaves_a_trace(wheel: Wheel) -> None:
    with node(DEBIAN, wheel) as fresh, containerd.running(fresh.machine) as daemon:
        fresh.init()
        wait_for(daemon.cri.network_ready, "NetworkReady after init-node")
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            sandboxes = list(pool.map(daemon.cri.run_sandbox, [f"pod-{number}" for number in range(SANDBOXES)]))
            assert fresh.leases() == {sandbox.address: sandbox.id for sandbox in sandboxes}
            assert len(fresh.leases()) == len(fresh.veths()) == len(fresh.records()) == SANDBOXES
            list(pool.map(lambda sandbox: daemon.cri.stop(sandbox.id), sandboxes))
        fresh.expect_nothing_left()
