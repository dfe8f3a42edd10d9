"""Test cnictl with Debian's firewalld, started before and after cnictl, reloaded, and restored by a reset.

The tests share their nodes and depend on this order.
"""

import json
from collections.abc import Iterator

import pytest

from cnictl.core.process import Finished
from cnictl.lab.lab import Lab, Node
from tests.kernel.commands import Lines, cnictl, doctor, drifted, seen_source
from tests.kernel.doctor.harness import note
from tests.kernel.hints import applies
from tests.waiting import wait_for

from .packaged import install, start_bus
from .world import EXTERNAL, World

pytestmark = pytest.mark.once

ZONE, POLICY = "/etc/firewalld/zones/cnictl.xml", "/etc/firewalld/policies/cnictl-pods.xml"
FAULT = f"rm {ZONE} {POLICY}; firewall-cmd --reload"
THEIRS = '<policy target="CONTINUE"><ingress-zone name="HOST"/><egress-zone name="ANY"/></policy>'
BUS = ["org.fedoraproject.FirewallD1", "/org/fedoraproject/FirewallD1"]
IN_OURS = {"interfaces": ["cni0"], "sources": ["10.244.0.0/20"]}


def start_firewalld(node: Node) -> None:
    """Start firewalld and wait until it answers."""
    node.run(["firewalld"])
    state = ["busctl", "get-property", *BUS, BUS[0], "state"]
    wait_for(lambda: "RUNNING" in node.run(state, check=False).stdout, "firewalld runs")


def firewall_cmd(node: Node, *words: str) -> Finished:
    return node.run(["firewall-cmd", *words], timeout=60)


class Firewalled(World):
    """Two nodes with firewalld. On the first it starts before cnictl, on the second after.

    On the first node, the uplink is in a zone that masquerades, the bridge is in another zone until a reload, and a
    policy of the operator's has the name of our policy file.
    """

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        for node in lab.nodes:
            install(node, "firewalld")
            start_bus(node)
        self.here.run(["firewall-offline-cmd", "--add-masquerade"])
        self.here.run(["sh", "-c", f"echo '{THEIRS}' > {POLICY}"])
        start_firewalld(self.here)
        self.before = state_of(self.here)
        firewall_cmd(self.here, "--zone=work", "--add-interface=cni0")
        self.init("--external", EXTERNAL)
        start_firewalld(self.there)

    def translated(self) -> list[str]:
        """Return the pods whose connections reach the other pod with a source address that is not their own."""
        ways = ((self.pod, self.far), (self.far, self.pod))
        return [sender.name for sender, receiver in ways if seen_source(sender, receiver, "tcp") != sender.address]


@pytest.fixture(scope="module")
def world() -> Iterator[Firewalled]:
    with Lab(nodes=2) as lab:
        yield Firewalled(lab)


def state_of(node: Node) -> tuple[list[str], ...]:
    """Return the sorted lines of firewalld's files and of the rule set, whose chains have no fixed order."""
    said = [node.run(argv).stdout for argv in (["grep", "-r", "", "/etc/firewalld"], ["nft", "list", "ruleset"])]
    return tuple(sorted(text.splitlines()) for text in said)


def zones(node: Node) -> dict[str, dict[str, list[str]]]:
    """Return the active zones with their interfaces and sources, as `firewall-cmd --get-active-zones` shows them."""
    said = node.run(["busctl", "--json=short", "call", *BUS, f"{BUS[0]}.zone", "getActiveZones"]).stdout
    return dict(json.loads(said)["data"][0])


def test_pods_pass_firewalld_started_before_or_after_cnictl_across_reloads(world: Firewalled) -> None:
    assert zones(world.here) == {"trusted": IN_OURS}  # firewalld does not know our zone before a reload
    assert zones(world.there) == {"cnictl": IN_OURS}
    assert (world.missing(), world.translated()) == ([], [])
    # firewalld flushed iptables, which drops nothing, so no packet needs our accept rules there; watch restores them
    assert drifted(world.there) == ["forward/iptables"]
    firewall_cmd(world.here, "--reload")
    firewall_cmd(world.there, "--complete-reload")
    assert zones(world.here) == zones(world.there) == {"cnictl": IN_OURS}
    assert (world.missing(), world.translated()) == ([], [])
    assert doctor(world.here) == []


@applies("node.host.own_host._allow: firewall-cmd --zone=trusted --add-source={}")
def test_missing_files_are_found_and_fixed(world: Firewalled) -> None:
    node = world.here
    node.run(["sh", "-ec", FAULT])
    assert set(world.missing()) >= {"far pod to pod", "other node to pod", "pod to its host"}
    said = json.loads(cnictl(node, "doctor", "-o", "json", check=False).stdout)
    hints = {finding["id"]: finding["hint"] for finding in said["items"]}
    assert hints.keys() == {"firewalld", "own-host"}
    node.run(["sh", "-c", hints["own-host"]["command"]])
    assert doctor(node) == ["firewalld"]
    firewall_cmd(node, "--zone=trusted", "--remove-source=10.244.0.0/24")
    assert doctor(node, "--fix") == []
    assert world.missing() == []
    firewall_cmd(node, "--reload")
    assert world.missing() == []
    assert doctor(node) == []
    note("firewalld", FAULT, "pods of other nodes can't connect to this node's pods")


def test_watch_fixes_drift_that_a_reload_causes(world: Firewalled) -> None:
    watching = world.there.popen(["cnictl", "watch"])
    said = Lines(watching.stderr)
    wait_for(lambda: (said.next() or "").startswith("watching"), "watch has started")
    world.there.run(["sh", "-ec", FAULT])
    wait_for(lambda: drifted(world.there) == [], "watch has repaired it")
    # once firewalld trusts pods, its rules differ; a second repair accepts what they still drop
    wait_for(lambda: world.missing() == [], "watch has looked at firewalld's new rules")
    firewall_cmd(world.there, "--reload")
    assert world.missing() == []
    wait_for(lambda: drifted(world.there) == [], "watch has restored the accept rules")
    watching.terminate()


def split_over(zone: str) -> dict[str, dict[str, list[str]]]:
    """Return the active zones when the bridge is in `zone` and the pods' network is in ours."""
    return {"cnictl": {"sources": IN_OURS["sources"]}, zone: {"interfaces": IN_OURS["interfaces"]}}


def test_operators_zone_entries_are_kept(world: Firewalled) -> None:
    node = world.here
    firewall_cmd(node, "--permanent", "--zone=work", "--change-interface=cni0")
    firewall_cmd(node, "--reload")
    cnictl(node, "apply")
    theirs = zones(node), node.run(["cat", ZONE]).stdout
    assert theirs[0] == split_over("work")
    assert drifted(node) == world.missing() == []

    node.run(["sh", "-ec", "rm /etc/firewalld/zones/work.xml*"])
    cnictl(node, "apply")
    assert zones(node) == split_over("trusted")
    (latest,) = json.loads(cnictl(node, "history", "--limit", "1", "-o", "json").stdout)["items"]
    assert (latest["command"], latest["repair"]) == ("apply", True)  # `undo` reverts a repair only by its number
    cnictl(node, "undo", str(latest["run"]))
    assert (zones(node), node.run(["cat", ZONE]).stdout) == theirs
    cnictl(node, "apply")


def test_reset_restores_the_former_state(world: Firewalled) -> None:
    world.here.run(["ip", "netns", "delete", "pod"])
    cnictl(world.here, "reset-node", "--yes", "--force")
    assert zones(world.here) == {"work": {"interfaces": ["cni0"]}}
    firewall_cmd(world.here, "--reload")
    assert state_of(world.here) == world.before
