"""firewalld as Debian ships it: there before cnictl on one node, after it on the other, over reloads, given back.

The tests stand on each other's node, in this order.
"""

import json
from collections.abc import Iterator

import pytest

from cnictl.core.process import Finished
from cnictl.lab.lab import Lab, Node
from tests.kernel.cluster import Cluster, eventually
from tests.kernel.doctor.harness import note
from tests.kernel.operator import Lines, cnictl, doctor, drifted, seen_source, start_pod

from .packaged import connects, install, serve, start_bus

pytestmark = pytest.mark.once

FAULT = "rm /etc/firewalld/zones/cnictl.xml /etc/firewalld/policies/cnictl-pods.xml; firewall-cmd --reload"
ZONE = "/etc/firewalld/zones/cnictl.xml"


def start_firewalld(node: Node) -> None:
    """Until it answers."""
    node.run(["firewalld"])
    eventually(lambda: node.run(["firewall-cmd", "--state"], check=False).status == 0, "firewalld runs")


def firewall_cmd(node: Node, *words: str) -> Finished:
    return node.run(["firewall-cmd", *words], timeout=60)


class Site:
    """Two nodes with firewalld, on the first from before cnictl, and servers in each pod, on each host and outside.

    The first one's uplink is in a zone that masquerades, and its bridge is in another, until a reload.
    """

    def __init__(self, lab: Lab) -> None:
        self.here, self.there = lab.nodes
        for node in lab.nodes:
            install(node, "firewalld")
            start_bus(node)
        for node in (*lab.nodes, lab.outside):
            serve(node.popen)
        self.here.run(["firewall-offline-cmd", "--add-masquerade"])
        start_firewalld(self.here)
        self.before = state_of(self.here)
        firewall_cmd(self.here, "--zone=work", "--add-interface=cni0")
        Cluster(lab).init()
        self.external = lab.outside.address
        self.pod, self.far = start_pod(self.here, "pod"), start_pod(self.there, "far")
        for pod in (self.pod, self.far):
            serve(pod.popen)
        start_firewalld(self.there)

    def missing(self) -> list[str]:
        """Who can't connect to whom, of what pods are promised."""
        ways = {
            "pod to its host": (self.pod.run, "10.244.0.1"),
            "far pod to its host": (self.far.run, "10.244.1.1"),
            "pod to outside": (self.pod.run, self.external),
            "far pod to outside": (self.far.run, self.external),
            "pod to far pod": (self.pod.run, self.far.address),
            "far pod to pod": (self.far.run, self.pod.address),
            "other node to pod": (lambda *argv, check: self.there.run([*argv], check=check), self.pod.address),
            "other node to far pod": (lambda *argv, check: self.here.run([*argv], check=check), self.far.address),
            "host to pod": (lambda *argv, check: self.here.run([*argv], check=check), self.pod.address),
        }
        return [name for name, (run, address) in ways.items() if not connects(run, address)]

    def translated(self) -> list[str]:
        """Which pods' connections come to the other pod from another address than their own."""
        ways = ((self.pod, self.far), (self.far, self.pod))
        return [sender.name for sender, receiver in ways if seen_source(sender, receiver, "tcp") != sender.address]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Lab(nodes=2) as lab:
        yield Site(lab)


def state_of(node: Node) -> tuple[list[str], ...]:
    """All of firewalld: zones and policies for good and now, its files, the rules; chains come in no certain order."""
    said = [firewall_cmd(node, *words).stdout for words in (["--list-all-zones"], ["--list-all-policies"])]
    said += [node.run(["ls", "-R", "/etc/firewalld"]).stdout, node.run(["nft", "list", "ruleset"]).stdout]
    return tuple(sorted(text.splitlines()) for text in said)


def zones(node: Node) -> list[str]:
    """The zones that are in use, with what is in them."""
    return firewall_cmd(node, "--get-active-zones").stdout.split()


IN_OURS = ["cnictl", "interfaces:", "cni0", "sources:", "10.244.0.0/20"]


def test_pods_pass_a_firewalld_that_came_first_and_one_that_came_later_over_reloads(site: Site) -> None:
    assert zones(site.here) == ["trusted", *IN_OURS[1:]]  # our zone is one that it doesn't know yet
    assert zones(site.there) == IN_OURS
    assert (site.missing(), site.translated()) == ([], [])
    # it has flushed iptables, where nothing drops: no packet needs the accepts there, and watch puts them back
    assert drifted(site.there) == ["forward/iptables"]
    firewall_cmd(site.here, "--reload")
    firewall_cmd(site.there, "--complete-reload")
    assert zones(site.here) == zones(site.there) == IN_OURS
    assert (site.missing(), site.translated()) == ([], [])
    assert doctor(site.here) == []


def test_lost_files_are_found_and_mended(site: Site) -> None:
    node = site.here
    node.run(["sh", "-ec", FAULT])
    assert set(site.missing()) >= {"far pod to pod", "other node to pod", "pod to its host"}
    assert [one["id"] for one in json.loads(cnictl(node, "doctor", "-o", "json", check=False).stdout)] == ["firewalld"]
    assert doctor(node, "--fix") == []
    assert site.missing() == []
    firewall_cmd(node, "--reload")
    assert site.missing() == []
    assert doctor(node) == []
    note("firewalld", FAULT, "pods of other nodes can't connect to this node's")


def test_watch_puts_back_what_a_reload_brought_to_light(site: Site) -> None:
    watching = site.there.popen(["cnictl", "watch"])
    said = Lines(watching.stderr)
    while "watching" not in (said.next() or "watching"):
        pass
    site.there.run(["sh", "-ec", FAULT])
    eventually(lambda: drifted(site.there) == [], "watch has mended it")
    assert site.missing() == []
    firewall_cmd(site.there, "--reload")
    assert site.missing() == []
    eventually(lambda: drifted(site.there) == [], "watch has put the accepts back")
    watching.terminate()


def test_what_the_operator_has_in_a_zone_stays_there(site: Site) -> None:
    node = site.here
    firewall_cmd(node, "--permanent", "--zone=work", "--change-interface=cni0")
    firewall_cmd(node, "--reload")
    cnictl(node, "apply")
    theirs = zones(node), node.run(["cat", ZONE]).stdout
    assert theirs[0] == ["cnictl", *IN_OURS[3:], "work", *IN_OURS[1:3]]
    assert drifted(node) == site.missing() == []

    node.run(["sh", "-ec", "rm /etc/firewalld/zones/work.xml*"])
    cnictl(node, "apply")
    assert zones(node) == ["cnictl", *IN_OURS[3:], "trusted", *IN_OURS[1:3]]
    cnictl(node, "undo")
    assert (zones(node), node.run(["cat", ZONE]).stdout) == theirs
    cnictl(node, "apply")


def test_reset_gives_back_what_was_there(site: Site) -> None:
    site.here.run(["ip", "netns", "delete", "pod"])
    cnictl(site.here, "reset-node", "--yes", "--force")
    assert zones(site.here) == ["work", *IN_OURS[1:3]]
    firewall_cmd(site.here, "--reload")
    assert state_of(site.here) == site.before
