"""Each cell of `test-connectivity` beyond its pings passes, fails on a real fault, or reports why it is skipped."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from cnictl.lab.lab import Lab, Node
from tests.kernel.cluster import CHECKS, Outcome, served, shell, traces
from tests.kernel.commands import start_pod
from tests.kernel.connectivity.cells import KUBE_PROXY_NFT, NO_GUARD, SERVER_FAILURE, World, guard, of_node
from tests.kernel.hints import applies
from tests.kernel.node.test_dual_stack import set_up
from tests.soak import SOAK

pytestmark = pytest.mark.once

CELLS = ["tcp", "udp", "dns", "cluster-ip", "host-port", "hairpin", "path-mtu", "ipv6"]
SERVICE = "10.96.0.1"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with Lab(nodes=2) as lab:
        yield World(lab)


def rows(outcome: Outcome, check: str) -> list[dict[str, Any]]:
    return [row for row in outcome.checks if row["check"] == check]


def said(outcome: Outcome, check: str) -> tuple[str, str, str]:
    """Return state, cause and message of a cell's first row that is not ok, or of its last row."""
    matching = rows(outcome, check)
    row = next((row for row in matching if row["state"] != "ok"), matching[-1])
    return row["state"], row["cause_name"] or "", row["cause"] or ""


def test_all_cells_of_a_healthy_node_work_and_nothing_is_left(world: World) -> None:
    world.test("host-port")  # create the folders and the plugins' chains that a first run creates
    with world.served(), served(world.there) as pod:
        before, rules = traces(world.here), shell(world.here, "iptables-save | grep -v '^#' | grep -v '^:'")
        outcome = world.test(options=("--pod", pod))
        assert traces(world.here) == before
        after = shell(world.here, "iptables-save | grep -v '^#' | grep -v '^:'")
    assert outcome.status == 0
    assert list(dict.fromkeys(row["check"] for row in outcome.checks)) == [*CHECKS, *CELLS]
    states = {(row["check"], row["state"]) for row in outcome.checks}
    assert states == {(check, "ok") for check in (*CHECKS, *CELLS[:-1])} | {("ipv6", "skipped")}, outcome.checks
    ours, outside, own = outcome.checks[0]["from"], world.outside.address, world.here.address
    neighbour = outcome.of("pod-same-host")["to"]
    assert [row["to"] for row in rows(outcome, "tcp")] == [neighbour, pod, f"{outside}:443"]
    assert [row["to"] for row in rows(outcome, "udp")] == [neighbour, pod, f"{outside}:53"]
    assert (outcome.of("dns")["to"], outcome.of("dns")["detail"]) == (f"{outside}:53", "this host's /etc/resolv.conf")
    assert outcome.of("cluster-ip")["to"] == f"{SERVICE}:443"
    assert outcome.of("cluster-ip")["detail"] == "default/kubernetes"
    assert [row["from"] for row in rows(outcome, "host-port")] == [own, ours]
    assert outcome.of("hairpin")["from"] == neighbour
    assert {row["detail"] for row in rows(outcome, "path-mtu")} == {"1500 bytes"}
    assert "no IPv6" in outcome.of("ipv6")["cause"]
    kept = [line for line in rules.splitlines() if "CNI-" not in line]
    assert [line for line in after.splitlines() if "CNI-" not in line] == kept


@dataclass(frozen=True)
class Fault:
    """A fault on the first node, and what the cell reports."""

    fault: str
    undo: str
    cell: str
    cause: str
    says: str
    untouched: str = ""
    """A cell that still passes."""


FAULTS = {
    "TCP is dropped": Fault(
        guard("tcp dport 443 ip daddr 192.0.2.10 drop"), NO_GUARD, "tcp", "dropped-here",
        'dropped on this node by rule "tcp dport 443 ip daddr 192.0.2.10 drop" of chain ip guard forward', "udp",
    ),
    "UDP is dropped": Fault(
        guard("udp dport 53 drop"), NO_GUARD, "udp", "dropped-here",
        'dropped on this node by rule "udp dport 53 drop" of chain ip guard forward', "tcp",
    ),
    "DNS is dropped": Fault(
        guard("udp dport 53 drop"), NO_GUARD, "dns", "dropped-here", "UDP to 192.0.2.10:53 does not pass: dropped",
        "cluster-ip",
    ),
    "kube-proxy's last rule is gone": Fault(
        "iptables -t nat -F KUBE-SEP-THEONLYONE000000",
        "iptables -t nat -A KUBE-SEP-THEONLYONE000000 -p tcp -j DNAT --to-destination 192.0.2.10:6443",
        "cluster-ip", "not-sent-on", "the pod's connections are not forwarded to an endpoint", "dns",
    ),
    "the way to the endpoint is dropped": Fault(
        guard("tcp dport 6443 drop"), NO_GUARD, "cluster-ip", "dropped-here", 'by rule "tcp dport 6443 drop"', "tcp",
    ),
    "another rule comes ahead of the port mappings": Fault(
        "iptables -t nat -I PREROUTING -p tcp -d 10.0.0.210 -j ACCEPT",
        "iptables -t nat -D PREROUTING -p tcp -d 10.0.0.210 -j ACCEPT",
        "host-port", "not-sent-on", "do not reach it (10.0.0.210 answers: connection reset)",
    ),
    "pods' connections to the mapped port are dropped": Fault(
        guard("tcp dport 46837 drop"), NO_GUARD, "hairpin", "dropped-here", 'by rule "tcp dport 46837 drop"',
    ),
}  # fmt: skip


_SELDOM = ("UDP is dropped", "the way to the endpoint is dropped", "pods' connections to the mapped port are dropped")
"""Faults that are tested only with CNICTL_SOAK=1, because others have nearly the same result."""


@pytest.mark.parametrize("name", [name for name in FAULTS if SOAK or name not in _SELDOM])
def test_a_fault_fails_its_cell_with_the_cause_and_no_other(world: World, name: str) -> None:
    fault = FAULTS[name]
    cells = [cell for cell in (fault.cell, fault.untouched) if cell]
    with world.served(), world.broken(fault.fault, fault.undo):
        outcome = world.test(*cells)
        state, cause, words = said(outcome, fault.cell)
        assert (state, cause) == ("failed", fault.cause), outcome.checks
        assert fault.says in words
        assert outcome.status == 1
        if fault.untouched:
            assert said(outcome, fault.untouched)[0] == "ok"


@applies("probe.cells.stops._accept: cnictl apply")
def test_hint_fixes_a_firewall_that_only_passes_pings(world: World) -> None:
    fault = "; ".join(
        (
            "nft add table ip guard",
            "nft add chain ip guard forward '{ type filter hook forward priority 0; policy drop; }'",
            "nft add rule ip guard forward ip protocol icmp accept",
        )
    )
    with world.served(), served(world.here) as pod, world.broken(fault, NO_GUARD):
        failed = world.test("dns", options=("--from", pod))
        assert said(failed, "dns")[:2] == ("failed", "dropped-here")
        assert "by the policy drop of chain ip guard forward" in said(failed, "dns")[2]
        hint = failed.of("dns")["hint"]
        assert hint["command"] == "cnictl apply"
        shell(world.here, hint["command"])
        assert said(world.test("dns", options=("--from", pod)), "dns")[0] == "ok"
    shell(world.here, "cnictl apply")


def test_a_dns_server_that_is_down_is_distinguished_from_one_without_upstream(world: World) -> None:
    state, cause, words = said(world.test("dns"), "dns")
    assert (state, cause) == ("failed", "dns-silent")
    assert "connection refused, and this host gets no answer either" in words
    with world.served(SERVER_FAILURE):
        state, cause, words = said(world.test("dns"), "dns")
    assert (state, cause) == ("uncertain", "dns-error")
    assert "192.0.2.10 answers: server failure" in words


def test_an_endpoint_that_refuses_is_not_a_fault_of_the_network(world: World) -> None:
    try:
        world.send_on("6444")
        state, cause, words = said(world.test("cluster-ip"), "cluster-ip")
    finally:
        world.send_on("6443")
    assert (state, cause) == ("uncertain", "refused")
    assert words.endswith("is forwarded to an endpoint, which refuses connections")


def test_services_of_kube_proxys_nftables_mode_are_found(world: World) -> None:
    rules = KUBE_PROXY_NFT.replace("ENDPOINT", world.outside.address)
    try:
        shell(world.here, "iptables -t nat -F")
        world.here.run(["nft", "-f", "-"], rules)
        with world.served():
            outcome = world.test("cluster-ip")
        assert (outcome.of("cluster-ip")["state"], outcome.of("cluster-ip")["detail"]) == ("ok", "default/kubernetes")
        shell(world.here, "nft flush chain ip kube-proxy endpoint-A-default/kubernetes/tcp/https__10.0.0.1/6443")
        with world.served():
            assert said(world.test("cluster-ip"), "cluster-ip")[:2] == ("failed", "not-sent-on")
    finally:
        shell(world.here, "nft delete table ip kube-proxy")
        world.send_on("6443")


def test_cells_that_do_not_apply_say_why(world: World) -> None:
    save = "cp /etc/resolv.conf /tmp/resolv.conf; echo nameserver 127.0.0.53 > /etc/resolv.conf; iptables -t nat -F"
    try:
        with world.broken(save, "cp /tmp/resolv.conf /etc/resolv.conf"):
            outcome = world.test("dns", "cluster-ip", "ipv6")
    finally:
        world.send_on("6443")
    assert {row["state"] for row in outcome.checks} == {"skipped"}
    assert "no DNS server is known" in outcome.of("dns")["cause"]
    assert "no IPv4 Service has rules on this host" in outcome.of("cluster-ip")["cause"]
    assert outcome.overall == "failed"  # no cell was checked
    with served(world.here) as pod:
        outcome = world.test("host-port", "hairpin", options=("--from", pod))
    assert [row["cause"] for row in outcome.checks] == [
        "--from checks a running pod, and only a probe pod gets a mapped port"
    ] * 2


def conf(world: World, name: str, **portmap: Any) -> str:
    """Write this node's conf with changed keys for the port-mapping plugin, or without that plugin. Return the path."""
    document = json.loads(shell(world.here, "cat /etc/cni/net.d/10-cnictl.conflist"))
    assert document["plugins"][-1]["type"] == "portmap"
    document["plugins"][-1].update(portmap)
    if not portmap:
        del document["plugins"][-1]
    path = f"/tmp/{name}.conflist"
    world.here.run(["sh", "-c", f"cat > {path}"], json.dumps(document))
    return path


def test_ports_are_skipped_without_a_portmap_plugin(world: World) -> None:
    outcome = world.test("host-port", "hairpin", "tcp", options=("--conf", conf(world, "unmapped")))
    for cell in ("host-port", "hairpin"):
        assert said(outcome, cell)[0] == "skipped"
        assert "no plugin of the conf maps ports (capability portMappings): cnictl-bridge" in said(outcome, cell)[2]
    assert said(outcome, "tcp")[0] == "ok"


def test_a_pod_that_sees_its_own_source_address_does_not_reach_itself(world: World) -> None:
    outcome = world.test("host-port", "hairpin", options=("--conf", conf(world, "unmasqueraded", snat=False)))
    state, cause, words = said(outcome, "hairpin")
    assert (state, cause) == ("failed", "hairpin-off"), outcome.checks
    assert "its connection comes back with the pod's own source address" in words
    assert said(outcome, "host-port")[0] == "ok"


def test_a_port_without_hairpin_is_named_if_bridged_packets_pass_iptables(world: World) -> None:
    path = conf(world, "unbent", capabilities={"portMappings": True})
    shell(world.here, f'sed -i \'s/"hairpinMode": true/"hairpinMode": false/\' {path}')
    shell(world.here, "sysctl -qw net.bridge.bridge-nf-call-iptables=1")  # the kernel's default
    outcome = world.test("host-port", "hairpin", options=("--conf", path))
    state, cause, words = said(outcome, "hairpin")
    assert (state, cause) == ("failed", "hairpin-off"), outcome.checks
    assert "hairpin mode is off on its bridge port" in words
    assert said(outcome, "host-port")[0] == "ok"


def test_a_plugin_that_refuses_a_mapping_fails_only_that_cell(world: World) -> None:
    stub = (
        "#!/bin/sh\\n"
        'conf=$(cat); case "$CNI_COMMAND$conf" in\\n'
        'ADD*hostPort*) echo \\\'{"code": 999, "msg": "no more ports"}\\\'; exit 1;;\\n'
        "*) exec /usr/lib/cni/portmap <<EOF\\n$conf\\nEOF\\n"
        "esac\\n"
    )
    shell(world.here, f"mkdir -p /tmp/stub; printf '{stub}' > /tmp/stub/portmap".replace("\\'", "'\"'\"'"))
    shell(world.here, "chmod +x /tmp/stub/portmap")
    folder = shell(world.here, "dirname $(find /opt/cni/bin /usr/lib/cni -name cnictl-bridge | head -1)").strip()
    outcome = world.test("host-port", "tcp", options=("--bin-dir", "/tmp/stub", "--bin-dir", folder))
    state, cause, words = said(outcome, "host-port")
    assert (state, cause, words) == ("failed", "no-mapping", "plugin portmap, ADD: no more ports (CNI code 999)")
    assert said(outcome, "tcp")[0] == "ok"
    assert traces(world.here)["leases"] == ""


@applies("probe.cells.mtu_cell._smaller: cnictl bridge up --mtu {}")
def test_packets_lost_without_a_report_fail_and_the_hint_helps(world: World) -> None:
    loss = "nft add table ip hole; nft add chain ip hole i '{ type filter hook input priority 0; }'; "
    shell(world.outside, loss + "nft add rule ip hole i ip length gt 1400 drop")
    try:
        outcome = world.test("path-mtu", "external")
        state, cause, words = said(outcome, "path-mtu")
        assert (state, cause) == ("failed", "mtu"), outcome.checks
        assert words == "packets of up to 1400 bytes pass to 192.0.2.10, larger ones are lost, and no router reports it"
        assert (said(outcome, "external")[0], rows(outcome, "path-mtu")[0]["state"]) == ("ok", "ok")
        hint = rows(outcome, "path-mtu")[-1]["hint"]["command"]
        assert hint == "cnictl bridge up --mtu 1400"
        shell(world.here, hint)
        assert said(world.test("path-mtu"), "path-mtu")[0] == "ok"
    finally:
        shell(world.outside, "nft delete table ip hole")
        shell(world.here, "cnictl undo --yes")


def test_a_router_that_reports_its_mtu_is_in_order(world: World) -> None:
    way = f"{world.outside.address} via $(ip route show default | cut -d' ' -f3)"
    with world.broken(f"ip route add {way} mtu 1340", f"ip route delete {way}"):
        outcome = world.test("path-mtu")
    last = rows(outcome, "path-mtu")[-1]
    assert (last["to"], last["state"], last["detail"]) == (
        world.outside.address, "ok", "1340 bytes, as 10.244.0.1 reports",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--only", "hairpins"), "there is no check 'hairpins'"),
        (("--only", "dns", "--skip", "dns"), "--skip leaves out every check"),
        (("--interval", "1"), "--interval has no effect"),
        (("--serve", "--watch"), "leave out --watch"),
    ],
)
def test_options_that_would_do_nothing_are_refused(world: World, arguments: tuple[str, ...], words: str) -> None:
    done = world.here.run(["cnictl", "test-connectivity", *arguments], check=False)
    assert (done.status, done.stdout) == (2, "")
    assert words in done.stderr


@pytest.fixture(scope="module")
def dual() -> Iterator[Node]:
    with Lab(nodes=2, dual_stack=True) as lab:
        set_up(lab, both=True)
        yield lab.nodes[0]


def test_every_cell_has_a_row_in_each_family(dual: Node) -> None:
    tables = shell(dual, "nft list tables")
    ports = [row for row in of_node(dual).checks if row["check"] in ("host-port", "hairpin")]
    assert [row["state"] for row in ports] == ["skipped"] * 4
    assert "no pod of this host has had a host port yet" in ports[0]["cause"]
    assert "--only host-port runs it" in ports[0]["cause"]
    assert shell(dual, "nft list tables") == tables
    assert {row["state"] for row in of_node(dual, "--only", "host-port").checks} == {"ok"}
    outcome = of_node(dual)
    by_family = {
        family: [row["check"] for row in outcome.checks if row["family"] == family] for family in ("ipv4", "ipv6")
    }
    assert list(dict.fromkeys(by_family["ipv4"])) == [*CHECKS, *CELLS[:-1]]
    assert list(dict.fromkeys(by_family["ipv6"])) == [*CHECKS, *CELLS]
    assert [row for row in outcome.checks if row["state"] == "failed"] == []
    assert (outcome.of("ipv6")["to"], outcome.of("ipv6")["state"]) == ("fd00:244::1", "ok")
    ports = [row for row in outcome.checks if row["check"] in ("host-port", "hairpin", "tcp", "udp")]
    assert {row["state"] for row in ports} == {"ok"}


def test_broken_ipv6_is_explained(dual: Node) -> None:
    pod = start_pod(dual, "six")
    shell(dual, "nft add table ip6 g; nft add chain ip6 g i '{ type filter hook input priority 0; }'")
    shell(dual, "nft add rule ip6 g i ip6 daddr fd00:244::1 icmpv6 type echo-request drop")
    outcome = of_node(dual, "--only", "ipv6")
    shell(dual, "nft delete table ip6 g")
    assert said(outcome, "ipv6")[:2] == ("failed", "dropped-here")
    assert "of chain ip6 g i" in said(outcome, "ipv6")[2]
    shell(dual, f"ip netns exec {pod.name} sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1")
    outcome = of_node(dual, "--only", "ipv6", "--from", "six")
    assert said(outcome, "ipv6")[:2] == ("failed", "no-address")
    assert "no longer has its address fd00:244::" in said(outcome, "ipv6")[2]
