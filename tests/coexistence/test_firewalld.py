"""firewalld as Debian ships it: there before cnictl and after, over its reloads, and given back."""

from collections.abc import Iterator

import pytest

from cnictl.core.process import Finished
from cnictl.lab.lab import Lab, Node
from tests.kernel.cluster import eventually
from tests.kernel.doctor.harness import note
from tests.kernel.operator import cnictl, drifted, init, start_pod

from .packaged import connects, install, serve, start_bus

pytestmark = pytest.mark.once

_EXTERNAL = "192.0.2.10"


def start_firewalld(node: Node) -> None:
    """Until it answers."""
    node.run(["firewalld"])
    eventually(lambda: node.run(["firewall-cmd", "--state"], check=False).status == 0, "firewalld runs")


def firewall_cmd(node: Node, *words: str) -> Finished:
    return node.run(["firewall-cmd", *words], timeout=60)


class Site:
    """Two nodes, firewalld installed on the first, servers in each pod, on each host and outside."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.here, self.there = lab, *lab.nodes
        install(self.here, "firewalld")
        start_bus(self.here)
        for node in (self.here, self.there, lab.outside):
            serve(node.popen)

    def init(self) -> None:
        """Both nodes, and a pod on each."""
        for node, peer in ((self.here, self.there), (self.there, self.here)):
            init(node, "--peer", f"{peer.pod_cidr}={peer.address}")
        self.pod, self.far = start_pod(self.here, "pod"), start_pod(self.there, "far")
        for pod in (self.pod, self.far):
            serve(pod.popen)

    def missing(self) -> list[str]:
        """Who can't connect to whom, of what pods are promised."""
        ways = {
            "pod to its host": (self.pod.run, "10.244.0.1"),
            "pod to outside": (self.pod.run, _EXTERNAL),
            "pod to far pod": (self.pod.run, self.far.address),
            "far pod to pod": (self.far.run, self.pod.address),
            "other node to pod": (lambda *argv, check: self.there.run([*argv], check=check), self.pod.address),
            "host to pod": (lambda *argv, check: self.here.run([*argv], check=check), self.pod.address),
        }
        return [name for name, (run, address) in ways.items() if not connects(run, address)]


@pytest.fixture
def site() -> Iterator[Site]:
    with Lab(nodes=2) as lab:
        yield Site(lab)


def state_of(node: Node) -> tuple[str, ...]:
    """All of firewalld: zones and policies for good and now, its files, the rules."""
    said = (firewall_cmd(node, *words).stdout for words in (["--list-all-zones"], ["--list-all-policies"]))
    return *said, node.run(["ls", "-R", "/etc/firewalld"]).stdout, node.run(["nft", "list", "ruleset"]).stdout


def test_firewalld_started_after_cnictl(site: Site) -> None:
    site.init()
    assert site.missing() == []
    start_firewalld(site.here)
    assert site.missing() == []
    zones = firewall_cmd(site.here, "--get-active-zones").stdout
    assert zones.split() == ["cnictl", "interfaces:", "cni0", "sources:", "10.244.0.0/20"]
    # it has flushed iptables, where nothing drops: no packet needs the accepts there, and watch puts them back
    assert drifted(site.here) == ["forward/iptables"]
    assert cnictl(site.here, "doctor").stdout.startswith("healthy")
    watching = site.here.popen(["cnictl", "watch"])
    eventually(lambda: drifted(site.here) == [], "watch has put the accepts back")
    firewall_cmd(site.here, "--complete-reload")
    eventually(lambda: drifted(site.here) == [], "watch has put them back again")
    assert site.missing() == []
    watching.terminate()


def test_firewalld_that_was_there_first(site: Site) -> None:
    node = site.here
    start_firewalld(node)
    before = state_of(node)
    site.init()
    assert site.missing() == []
    firewall_cmd(node, "--reload")
    assert site.missing() == []

    fault = "rm /etc/firewalld/zones/cnictl.xml /etc/firewalld/policies/cnictl-pods.xml; firewall-cmd --reload"
    node.run(["sh", "-ec", fault])
    assert "far pod to pod" in site.missing()
    found = cnictl(node, "doctor", check=False).stdout
    assert "firewalld/cnictl" in found
    cnictl(node, "doctor", "--fix")
    assert site.missing() == []
    firewall_cmd(node, "--reload")
    assert site.missing() == []
    note("firewalld", fault, "pods of other nodes can't connect to this node's")

    node.run(["ip", "netns", "delete", "pod"])
    cnictl(node, "reset-node", "--yes", "--force")
    firewall_cmd(node, "--reload")
    assert state_of(node) == before
