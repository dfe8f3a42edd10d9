"""Test containerd and the kubelet's calls on a node whose pod CIDR is full."""

from collections.abc import Iterator

import grpc
import pytest

from tests.waiting import wait_for

from . import containerd
from .containerd import Containerd
from .node import DEBIAN, Node, Wheel, node

SUBNET = "10.244.0.0/29"
ROOM = 5
"""The number of pod addresses in the /29, without network, broadcast and gateway."""


@pytest.fixture
def full(wheel: Wheel) -> Iterator[tuple[Node, Containerd]]:
    """A node with as many pods as it has addresses."""
    with node(DEBIAN, wheel) as fresh, containerd.running(fresh.machine) as daemon:
        fresh.init(SUBNET)
        wait_for(daemon.cri.network_ready, "NetworkReady after init-node")
        for number in range(ROOM):
            daemon.cri.run_sandbox(f"pod-{number}")
        yield fresh, daemon


def test_pod_beyond_a_full_subnet_is_refused_until_another_ends(full: tuple[Node, Containerd]) -> None:
    node, daemon = full
    before = node.left()
    with pytest.raises(grpc.RpcError, match=rf"no address left in {SUBNET}"):
        daemon.cri.run_sandbox("too-many")
    assert node.left() == before
    lease, ended = next(iter(node.leases().items()))

    daemon.cri.end(ended)
    assert daemon.cri.run_sandbox("after-all").address == lease

    daemon.cri.end(*daemon.cri.sandboxes())
    node.expect_nothing_left()


def test_addresses_of_dead_pods_are_reused(full: tuple[Node, Containerd]) -> None:
    """An ADD must free the leases of vanished pods, for which nothing called DEL, if the subnet is full."""
    node, daemon = full
    daemon.lose_pods()
    daemon.start()
    assert len(node.leases()) == ROOM
    old = daemon.cri.sandboxes()

    new = [daemon.cri.run_sandbox(f"new-{number}") for number in range(ROOM)]
    daemon.cri.end(*old)
    assert node.leases() == {sandbox.address: sandbox.id for sandbox in new}

    daemon.cri.end(*(sandbox.id for sandbox in new))
    node.expect_nothing_left()
