"""Reach Services of cnictl's pods through kube-proxy's rules, with the expected source address.

The tests run with each of cnictl's masquerade backends and each of kube-proxy's modes.
"""

import json
from collections.abc import Callable, Iterator

import pytest

from cnictl.core.process import Finished
from cnictl.lab.lab import Lab
from tests.kernel.cluster import shell
from tests.kernel.commands import cnictl, start_pod

from . import kube_proxy
from .kube_proxy import PORT, Service
from .world import World, on

pytestmark = pytest.mark.once

_GREET = f"""
import socket
server = socket.create_server(("0.0.0.0", {kube_proxy.TARGET_PORT}))
print("ready", flush=True)
while True:
    connection, (address, _) = server.accept()
    connection.sendall(address.encode())
    connection.close()
"""
_ASK = """
import socket, sys
print(socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).recv(99).decode())
"""


class Cluster(World):
    """Two pods on the first node and one on the second. Each answers a client with the source address that it sees."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self.init()
        self.other = start_pod(self.here, "other")
        for pod in (self.pod, self.other, self.far):
            greeting = pod.popen(["/usr/bin/python3", "-c", _GREET])
            assert greeting.stdout is not None and greeting.stdout.readline() == "ready\n"
        self.services = (
            Service("NEAR", "10.96.0.11", [self.other.address], node_port=30011),
            Service("SELF", "10.96.0.12", [self.pod.address]),
            Service("FAR", "10.96.0.13", [self.far.address], node_port=30013),
            Service("BOTH", "10.96.0.14", [self.other.address, self.far.address]),
            Service("LOCAL", "10.96.0.15", [self.other.address], node_port=30015, local=True),
        )


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Lab(nodes=2) as lab:
        yield Cluster(lab)


@pytest.fixture(params=["nft", "iptables"])
def masqueraded(cluster: Cluster, request: pytest.FixtureRequest) -> Cluster:
    """A cluster that masquerades with one of cnictl's backends."""
    cnictl(cluster.here, "nat", "enable", "--backend", request.param)
    return cluster


@pytest.fixture(params=[kube_proxy.load_iptables, kube_proxy.load_nftables], ids=["iptables", "nftables"])
def proxied(masqueraded: Cluster, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster with kube-proxy's rules, which are loaded later and come first."""
    for argv, text in request.param(masqueraded.services):
        masqueraded.here.run(argv, stdin=text)
    yield masqueraded
    shell(masqueraded.here, kube_proxy.flush())


def seen(run: Callable[..., Finished], address: str, port: int = PORT) -> str:
    """Return the source address that the answering pod sees; empty if no pod answers."""
    return run("/usr/bin/python3", "-c", _ASK, address, str(port), check=False).stdout.strip()


def test_services(proxied: Cluster) -> None:
    here, pod, far = proxied.here, proxied.pod, proxied.far
    near, itself, away, both, _ = (service.cluster_ip for service in proxied.services)
    bridge = "10.244.0.1"
    outside = proxied.lab.outside
    sources = {
        "pod to a pod of its node": seen(pod.run, near),
        "pod to itself": seen(pod.run, itself),
        "pod to a pod of the other node": seen(pod.run, away),
        "pod to either": seen(pod.run, both),
        "host to a pod of its own": seen(on(here), near),
        "host to a pod of the other node": seen(on(here), away),
        "outside to a node port, the pod is on that node": seen(on(outside), here.address, 30011),
        "outside to a node port, the pod is on the other node": seen(on(outside), here.address, 30013),
        "outside to a node port with policy Local": seen(on(outside), here.address, 30015),
        "pod to a node port of its node": seen(pod.run, here.address, 30011),
        "pod to a node port with policy Local": seen(pod.run, here.address, 30015),
        "pod of the other node to a node port": seen(far.run, here.address, 30011),
    }
    assert sources == {
        "pod to a pod of its node": pod.address,
        "pod to itself": bridge,
        "pod to a pod of the other node": pod.address,
        "pod to either": pod.address,
        "host to a pod of its own": bridge,
        "host to a pod of the other node": here.address,
        "outside to a node port, the pod is on that node": bridge,
        "outside to a node port, the pod is on the other node": here.address,
        "outside to a node port with policy Local": outside.address,
        "pod to a node port of its node": bridge,
        "pod to a node port with policy Local": pod.address,
        "pod of the other node to a node port": bridge,
    }
    assert cnictl(here, "doctor").stdout.startswith("healthy")
    for cluster_ip in (near, away):
        way = json.loads(cnictl(here, "pod", pod.name, "--to", cluster_ip, "-o", "json").stdout)["way"]
        assert way["answered"] is True, way
        assert way["service"]["ports"] == [{"protocol": "tcp", "port": PORT, "state": "answers"}]
        assert any("dnat" in rule.lower() or "KUBE-S" in rule or "service" in rule for rule in way["rules"]), way
    said = cnictl(here, "pod", pod.name, "--to", near).stdout
    assert f"a Service address, which does not answer pings: {PORT}/tcp answers" in said
    assert "not answered" not in said
    unreachable = cnictl(here, "pod", pod.name, "--to", "10.96.0.99", "-o", "json").stdout
    assert "service" not in json.loads(unreachable)["way"]
