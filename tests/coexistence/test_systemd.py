"""Test the units under a real systemd: at a boot, and when another service is restarted."""

import json
from collections.abc import Iterator

import pytest

from cnictl.lab.lab import Lab, Node
from tests.kernel.cluster import shell
from tests.kernel.commands import cnictl, drifted, init, start_pod
from tests.kernel.doctor.harness import note
from tests.waiting import wait_for

from .booted import Booted, booted

pytestmark = pytest.mark.once

SECOND = "10.244.2.0/24"
"""The pod CIDR of a peer that comes and goes."""


@pytest.fixture(scope="module")
def machine() -> Iterator[Booted]:
    """A booted machine that `init-node` has set up."""
    with Lab(nodes=2) as lab, booted(lab.nodes[0]) as running:
        init(running.node, "--peer", "10.244.1.0/24=10.0.10.51")
        yield running


def findings(node: Node, *words: str) -> list[str]:
    """Return doctor's findings, without those about the peer's pods: the peer is a bare host without pods."""
    asked = () if "--only" in words else ("--skip", "peer-pods", "--skip", "peer-silent")
    said = cnictl(node, "doctor", "-o", "json", *asked, *words, check=False)
    return [finding["id"] for finding in json.loads(said.stdout)["items"]]


def leases(node: Node) -> list[dict[str, str]]:
    listed: list[dict[str, str]] = json.loads(cnictl(node, "ipam", "list", "-o", "json").stdout)["items"]
    return listed


def routes(node: Node) -> str:
    return shell(node, "ip route")


def test_reboot_restores_the_node_with_only_what_was_confirmed(machine: Booted) -> None:
    assert machine.systemctl("is-enabled", "cnictl.service") == "enabled"
    start_pod(machine.node, "pod")
    assert len(leases(machine.node)) == 1
    cnictl(machine.node, "route", "add-peer", SECOND, "10.0.10.52", "--confirm-within", "600")
    assert SECOND in routes(machine.node)
    before = shell(machine.node, "cat /proc/sys/kernel/random/boot_id")

    machine.reboot()
    assert shell(machine.node, "cat /proc/sys/kernel/random/boot_id") != before
    assert machine.systemctl("is-active", "cnictl.service") == "active"
    assert SECOND not in routes(machine.node) and "10.244.1.0/24" in routes(machine.node)
    assert leases(machine.node) == []
    assert findings(machine.node) == []
    assert start_pod(machine.node, "pod").pings("10.244.0.1")


def test_disabled_unit(machine: Booted) -> None:
    fault = "systemctl disable cnictl.service"
    shell(machine.node, fault)
    assert findings(machine.node) == ["boot-unit"]
    machine.reboot()
    assert "cni0" not in shell(machine.node, "ip -br link")
    assert findings(machine.node, "--fix") == []
    assert machine.systemctl("is-enabled", "cnictl.service") == "enabled"
    note("boot-unit", fault, "after a reboot no pod has a network")


@pytest.mark.parametrize("verbs", [("restart",), ("reload",), ("stop", "start")], ids=" and ".join)
def test_watch_restores_rules_that_a_firewall_service_flushed(machine: Booted, verbs: tuple[str, ...]) -> None:
    shell(machine.node, "echo 'flush ruleset' > /etc/nftables.conf; systemctl start cnictl nftables")
    for verb in verbs:
        machine.systemctl(verb, "nftables.service")
    wait_for(lambda: drifted(machine.node) == [], "cnictl.service has run again")


def test_watch_runs_as_a_service(machine: Booted) -> None:
    unit = "/etc/systemd/system/cnictl-watch.service"
    shell(machine.node, f"cnictl watch --unit > {unit}; systemctl daemon-reload; systemctl enable --now cnictl-watch")
    assert machine.systemctl("is-active", "cnictl-watch.service") == "active"
    shell(machine.node, "nft flush ruleset; ip address flush dev cni0")
    wait_for(lambda: drifted(machine.node) == [], "watch has restored the rules and the address")
    assert "changed by nft" in shell(machine.node, "journalctl -u cnictl-watch --no-pager")
    machine.systemctl("disable", "--now", "cnictl-watch.service")


def test_timer_undoes_an_unconfirmed_run_after_its_guard_was_killed(machine: Booted) -> None:
    cnictl(machine.node, "route", "add-peer", SECOND, "10.0.10.52", "--confirm-within", "2")
    shell(machine.node, "while pkill -9 -x cnictl-guard; do :; done")
    assert machine.systemctl("is-active", "cnictl-confirm.timer") == "active"
    wait_for(lambda: SECOND not in routes(machine.node), "the unconfirmed run is undone", 20)
    assert drifted(machine.node) == []
