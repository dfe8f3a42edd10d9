"""A reset restores a host's state from before cnictl, whatever was on the host."""

import json

import pytest

from cnictl.lab.lab import Node
from tests.kernel.commands import CONF, DOCKER_FILTER, call, cnictl, drifted, init, outcomes, snapshot, start_pod
from tests.waiting import wait_for

pytestmark = pytest.mark.once

HARDENED_SYSCTLS = {
    "net.ipv4.ip_forward": 0,
    "net.ipv4.conf.all.accept_redirects": 0,
    "net.ipv4.conf.default.accept_redirects": 0,
    "net.ipv4.conf.eth0.accept_redirects": 0,
    "net.ipv4.conf.all.send_redirects": 0,
    "net.ipv4.conf.all.rp_filter": 1,
    "net.ipv4.conf.default.rp_filter": 1,
    "net.ipv4.conf.eth0.forwarding": 1,
}

FOREIGN_NFT = """
table inet firewall {
    chain input { type filter hook input priority filter; policy accept; ct state invalid drop; }
    chain forward { type filter hook forward priority filter; policy drop; jump vpn; }
    chain vpn { iifname "wg0" accept; }
}
table ip strict {
    chain last { type filter hook forward priority 10; policy accept; ip daddr 10.99.0.0/16 accept; reject; }
}
table inet shaping {
    chain marking { type filter hook forward priority mangle; policy accept; meta mark set 7; }
}
"""

FOREIGN_IPTABLES = f"""\
{DOCKER_FILTER}*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -s 10.244.0.0/16 ! -o cni0 -j MASQUERADE
COMMIT
"""


def harden(node: Node) -> None:
    """Give a host strict kernel settings, two firewalls, a container engine's rules, and files in /etc."""
    for name, value in HARDENED_SYSCTLS.items():
        node.run(["sysctl", "-qw", f"{name}={value}"])
    node.run(["nft", "-f", "-"], stdin=FOREIGN_NFT)
    node.run(["iptables-restore"], stdin=FOREIGN_IPTABLES)
    node.run(["sh", "-c", "mkdir -p /etc/sysctl.d && echo net.ipv4.ip_forward=0 > /etc/sysctl.d/50-hardening.conf"])


@pytest.mark.parametrize("backend", ["nft", "iptables"])
def test_hardened_node_is_the_same_after_reset(node: Node, backend: str) -> None:
    harden(node)
    before = snapshot(node)

    first = outcomes(init(node, "--peer", "10.244.1.0/24=10.0.10.51", "--backend", backend, "-o", "json"))
    second = outcomes(init(node, "--peer", "10.244.1.0/24=10.0.10.51", "--backend", backend, "-o", "json"))
    assert set(first.values()) == {"changed"}
    assert set(second.values()) == {"unchanged"}
    assert set(second) == set(first)
    start_pod(node, "pod")

    cnictl(node, "reset-node", "--yes", "--force")
    node.run(["ip", "netns", "delete", "pod"])
    assert snapshot(node) == before


@pytest.mark.parametrize("backend", ["nft", "iptables"])
def test_bare_node_is_the_same_after_reset(node: Node, backend: str) -> None:
    before = snapshot(node)
    init(node, "--backend", backend)
    cnictl(node, "reset-node", "--yes")
    assert snapshot(node) == before


@pytest.mark.parametrize("backend", ["nft", "iptables"])
def test_chains_of_ours_are_not_known_and_stay_after_iptables_is_gone(node: Node, backend: str) -> None:
    node.run(["iptables", "-P", "FORWARD", "DROP"])
    init(node, "--backend", backend)
    links = "mkdir /tmp/bin; ln -s /usr/sbin/* /usr/bin/* /usr/local/bin/* /tmp/bin; rm /tmp/bin/iptables*"
    node.run(["sh", "-c", f"{links} 2>/dev/null; test -e /tmp/bin/cnictl"])
    without = ["env", "PATH=/tmp/bin", "cnictl"]
    told = node.run([*without, "status", "-o", "json"], check=False)
    assert told.status == 1
    states = {row["resource"]: row["state"] for row in json.loads(told.stdout)["resources"]}
    assert states["forward/iptables"] == "not known"
    assert (states["masquerade/mynet"] == "not known") is (backend == "iptables")
    missing = "CNICTL-FORWARD in table filter exists, but the iptables command is missing"
    for words in (("apply",), ("undo", "1", "--yes"), ("reset-node", "--yes")):
        done = node.run([*without, *words], check=False)
        assert (done.status, missing in done.stderr) == (1, True), words
    again = node.run([*without, "reset-node", "--yes"], check=False)
    assert (again.status, "the iptables command is missing" in again.stderr) == (1, True)
    assert "CNICTL-FORWARD" in node.run(["iptables", "-S"]).stdout
    node.run(["rm", "-r", "/tmp/bin"])
    cnictl(node, "reset-node", "--yes")
    assert "CNICTL" not in node.run(["nft", "list", "ruleset"]).stdout
    assert "nothing to remove" in cnictl(node, "reset-node", "--yes").stderr


def test_reset_refuses_if_it_cannot_ask(node: Node) -> None:
    init(node)
    refused = cnictl(node, "reset-node", check=False)
    assert refused.status == 1
    assert "use --yes" in refused.stderr
    assert drifted(node) == []


def test_reset_dry_run_changes_nothing(node: Node) -> None:
    init(node, "--peer", "10.244.1.0/24=10.0.10.51")
    start_pod(node, "pod")
    before = snapshot(node)
    shown = cnictl(node, "reset-node", "--dry-run")
    assert "ip link delete cni0" in shown.stdout and "would delete the attachment of pod" in shown.stderr
    assert snapshot(node) == before


def test_live_pods_refuse_a_reset_and_are_named(node: Node) -> None:
    init(node)
    pod = start_pod(node, "pod")
    refused = cnictl(node, "reset-node", "--yes", check=False)
    assert refused.status == 1
    assert pod.address in refused.stderr and "--force" in refused.stderr
    assert drifted(node) == []
    assert pod.pings("10.244.0.1")


def test_forced_reset_deletes_attachments_before_the_plugin(node: Node) -> None:
    init(node)
    pod = start_pod(node, "pod")
    done = json.loads(cnictl(node, "reset-node", "--yes", "--force", "-o", "json").stdout)
    assert len(done["detached"]) == 1 and pod.address in done["detached"][0]
    removed = [step["resource"].partition("/")[0] for step in done["steps"]]
    assert (removed[0], removed[-1]) == ("cni-conf", "plugin")
    assert "eth0" not in pod.run("ip", "-br", "link").stdout
    assert node.run(["ls", "/var/lib/cni/networks"], check=False).stdout == ""


def test_leases_of_dead_pods_are_freed_without_force(node: Node) -> None:
    before = snapshot(node)
    init(node)
    start_pod(node, "pod")
    node.run(["ip", "netns", "delete", "pod"])
    wait_for(lambda: "veth" not in node.run(["ip", "-br", "link"]).stdout, "the pod's veth is gone")
    cnictl(node, "reset-node", "--yes")
    assert snapshot(node) == before


def test_counters_are_removed_with_the_node(node: Node) -> None:
    before = snapshot(node)
    init(node)
    start_pod(node, "pod")
    node.run(["ip", "netns", "delete", "pod"])
    cnictl(node, "metrics")
    watch = node.popen(["cnictl", "watch"])
    wait_for(lambda: node.run(["test", "-e", "/run/cnictl/watch.json"], check=False).status == 0, "watch runs")
    watch.kill()
    watch.communicate()
    cnictl(node, "reset-node", "--yes")
    assert snapshot(node) == before


@pytest.mark.parametrize("is_node", [True, False])
def test_plugin_in_folders_that_the_operator_chose_is_removed_too(node: Node, is_node: bool) -> None:
    before = snapshot(node)
    if is_node:
        init(node)
        cnictl(node, "plugin", "install", "--bin-dir", "/opt/bin")
    else:
        cnictl(node, "plugin", "install", "--lib-dir", "/opt/lib", "--bin-dir", "/opt/bin")
    assert "/opt/bin/cnictl-bridge" in node.run(["find", "/opt"]).stdout
    cnictl(node, "reset-node", "--yes")
    assert snapshot(node) == before


def test_second_reset_says_that_nothing_is_left(node: Node) -> None:
    init(node)
    cnictl(node, "reset-node", "--yes")
    again = cnictl(node, "reset-node", "--yes")
    assert again.status == 0
    assert "nothing to remove" in again.stderr


def test_foreign_ports_of_the_bridge_and_files_of_the_store_stay(node: Node) -> None:
    node.run(
        [
            "sh",
            "-ec",
            "mkdir -p /var/lib/cni/networks/other; printf 'x\\r\\neth0' > /var/lib/cni/networks/other/10.9.0.2",
        ]
    )
    init(node)
    node.run(["sh", "-ec", "ip link add tap7 type veth peer name tap8; ip link set tap7 master cni0"])
    refused = cnictl(node, "reset-node", "--yes", check=False)
    assert refused.status == 1
    assert "cni0 still has 1 port: tap7" in refused.stderr and "ip link set tap7 nomaster" in refused.stderr
    assert drifted(node) == []
    node.run(["ip", "link", "set", "tap7", "nomaster"])
    cnictl(node, "reset-node", "--yes")
    assert node.run(["ls", "/var/lib/cni/networks/other"]).stdout.strip() == "10.9.0.2"


@pytest.mark.parametrize("torn", ["{", ""])
def test_torn_conf_of_ours_is_drift_that_apply_repairs_and_a_reset_removes(node: Node, torn: str) -> None:
    before = snapshot(node)
    init(node)
    node.run(["sh", "-c", f"cat > {CONF}"], torn)
    assert drifted(node) == ["cni-conf/10-cnictl.conflist"]
    cnictl(node, "bridge", "up")
    node.run(["sh", "-c", f"cat > {CONF}"], torn)
    assert init(node).stderr == ""
    node.run(["sh", "-c", f"cat > {CONF}"], torn)
    cnictl(node, "apply")
    assert drifted(node) == []
    node.run(["sh", "-c", f"cat > {CONF}"], torn)
    cnictl(node, "reset-node", "--yes")
    assert snapshot(node) == before


def test_foreign_conf_with_our_name_stays_and_the_rest_is_removed(node: Node) -> None:
    theirs = '{"cniVersion": "1.0.0", "name": "x", "plugins": [{"type": "bridge"}]}'
    init(node)
    node.run(["sh", "-c", f"cat > {CONF}"], theirs)
    assert "is not cnictl's" in cnictl(node, "apply", check=False).stderr
    assert f"[conf-name] {CONF}: exists and is not cnictl's" in init(node, check=False).stderr
    done = cnictl(node, "reset-node", "--yes")
    assert f"{CONF} is not cnictl's" in done.stderr
    assert node.run(["cat", CONF]).stdout == theirs
    assert "cni0" not in node.run(["ip", "-br", "link"]).stdout
    assert node.run(["ls", "/var/lib/cnictl", "/usr/local/lib/cnictl"], check=False).stdout == ""


def test_sysctl_that_was_on_before_stays_on(node: Node) -> None:
    node.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"])
    before = snapshot(node)
    init(node)
    node.run(["sysctl", "-qw", "net.ipv4.ip_forward=0"])
    cnictl(node, "apply")
    cnictl(node, "reset-node", "--yes")
    assert snapshot(node)["sysctl"] == before["sysctl"]
    assert node.run(["sysctl", "-n", "net.ipv4.ip_forward"]).stdout.strip() == "1"


def test_setting_changed_since_by_the_operator_is_kept(node: Node) -> None:
    init(node)
    node.run(["sysctl", "-qw", "net.ipv4.conf.eth0.accept_redirects=0"])
    cnictl(node, "reset-node", "--yes")
    assert node.run(["sysctl", "-n", "net.ipv4.conf.eth0.accept_redirects"]).stdout.strip() == "0"


def test_networks_that_only_the_plugin_knows_are_removed_too(node: Node) -> None:
    before = snapshot(node)
    init(node)
    conf = {
        "cniVersion": "1.0.0", "name": "other", "type": "cnictl-bridge", "bridge": "other0", "ipMasq": True,
        "network": "10.88.0.0/16", "subnet": "10.88.0.0/24",
    }  # fmt: skip
    node.run(["ip", "netns", "add", "pod"])
    call(node, "ADD", "pod", conf)
    refused = cnictl(node, "reset-node", "--yes", check=False)
    assert refused.status == 1 and "10.88.0." in refused.stderr
    cnictl(node, "reset-node", "--yes", "--force")
    node.run(["ip", "netns", "delete", "pod"])
    after = snapshot(node)
    for kind in ("sysctl", "links", "routes", "nft", "iptables", "contents", "tree"):
        assert after[kind] == before[kind], kind


def test_store_that_host_local_leased_from_keeps_its_folder(node: Node) -> None:
    store = "/var/lib/cni/networks/other"
    theirs = f"mkdir -p {store}; cd {store}; printf 'theirs\\r\\neth0' > 10.88.0.2; touch lock last_reserved_ip.0"
    node.run(["sh", "-ec", theirs])
    init(node)
    conf = {
        "cniVersion": "1.0.0", "name": "other", "type": "cnictl-bridge", "bridge": "other0",
        "network": "10.88.0.0/16", "subnet": "10.88.0.0/24",
    }  # fmt: skip
    node.run(["ip", "netns", "add", "pod"])
    call(node, "ADD", "pod", conf)
    cnictl(node, "reset-node", "--yes", "--force")
    assert {"last_reserved_ip.0", "lock"} <= set(node.run(["ls", store]).stdout.split())


def test_each_network_is_named_when_its_masquerade_is_removed(node: Node) -> None:
    init(node)
    conf = {
        "cniVersion": "1.0.0", "name": "other", "type": "cnictl-bridge", "bridge": "other0", "ipMasq": True,
        "network": "10.88.0.0/16", "subnet": "10.88.0.0/24",
    }  # fmt: skip
    node.run(["ip", "netns", "add", "pod"])
    call(node, "ADD", "pod", conf)
    table = cnictl(node, "reset-node", "--yes", "--force").stdout
    for name in ("mynet", "other"):
        assert f"remove the masquerade rules of {name} (nft)" in table
