"""Preflight finds each fault that would keep a node from working, names it and gives a hint, before any change."""

import json
import os
import subprocess
import sys

import pytest

from cnictl.lab.lab import Lab, Node
from cnictl.node import preflight
from cnictl.node.preflight import PreflightFinding
from cnictl.node.spec.node_spec import NodeSpec, Peer, as_data

pytestmark = pytest.mark.once

SPEC = NodeSpec(subnets=("10.244.0.0/24",), networks=("10.244.0.0/20",))
PEER = Peer("10.244.1.0/24", "10.0.10.51")

RUN = """
import json, sys
from dataclasses import asdict
from cnictl.node import preflight
from cnictl.node.spec.node_spec import from_data
wanted, previous = json.load(sys.stdin)
found = preflight.run(from_data(wanted), from_data(previous) if previous else None)
json.dump([asdict(one) for one in found], sys.stdout)
"""


def findings(node: Node, spec: NodeSpec = SPEC, previous: NodeSpec | None = None) -> list[PreflightFinding]:
    """Return the findings on the node."""
    both = json.dumps([as_data(spec), as_data(previous) if previous else None])
    items = json.loads(node.run([sys.executable, "-c", RUN], both).stdout)
    return [PreflightFinding(**item) for item in items]


def errors(node: Node, spec: NodeSpec = SPEC, previous: NodeSpec | None = None) -> dict[str, PreflightFinding]:
    """Return the errors by the name of their check."""
    return {finding.name: finding for finding in findings(node, spec, previous) if finding.severity == "error"}


def test_a_bare_host_with_a_peer_on_the_link_passes_and_is_not_changed(lab: Lab) -> None:
    node = lab.nodes[0]
    sysctls = "sysctl -a --pattern ^net 2>/dev/null"
    state = ["sh", "-c", f"ip -j link; ip -j route; nft list ruleset; iptables-save; {sysctls}"]
    folders = ["find", "/etc", "/var", "/opt", "/run/cnictl", "/usr/local/lib", "-xdev"]
    before = (node.run(state).stdout, node.run(folders, check=False).stdout)
    spec = NodeSpec(subnets=("10.244.0.0/24",), networks=("10.244.0.0/20",), peers=(PEER,))
    assert errors(node, spec) == {}
    assert errors(node, NodeSpec(subnets=("10.244.0.0/24",), networks=("10.244.0.0/20",), backend="iptables")) == {}
    assert (node.run(state).stdout, node.run(folders, check=False).stdout) == before


def test_all_checks_run_and_give_one_report(node: Node) -> None:
    node.run(["ip", "link", "add", "cni0", "type", "bridge"])
    node.run(["ip", "address", "add", "10.9.0.1/24", "dev", "cni0"])
    node.run(["sh", "-c", "echo '{}' > /etc/cni/net.d/05-other.conflist; echo x > /opt/cni/bin/cnictl-bridge"])
    spec = NodeSpec(subnets=("10.0.0.0/24",), networks=("10.0.0.0/16",), peers=(Peer("10.0.5.0/24", "192.0.2.1"),))
    names = set(errors(node, spec))
    assert {"bridge", "subnet-overlap", "peer-link", "conf-order", "launcher-name"} <= names
    assert all(finding.hint for finding in findings(node, spec))
    assert names <= set(preflight.CHECKS)


def test_a_manually_created_bridge_with_the_right_address_passes(node: Node) -> None:
    node.run(["sh", "-c", "ip link add cni0 type bridge; ip addr add 10.244.0.1/24 dev cni0; ip link set cni0 up"])
    assert errors(node) == {}


def test_a_bridge_with_another_address_is_named_with_both(node: Node) -> None:
    node.run(["sh", "-c", "ip link add cni0 type bridge; ip addr add 10.9.0.1/24 dev cni0"])
    finding = errors(node)["bridge"]
    assert finding.subject == "cni0"
    assert "10.9.0.1/24" in finding.message
    assert "10.244.0.1/24" in finding.message
    assert "--bridge" in finding.hint


def test_our_own_bridge_may_move_to_another_subnet(node: Node) -> None:
    node.run(["sh", "-c", "ip link add cni0 type bridge; ip addr add 10.244.0.1/24 dev cni0; ip link set cni0 up"])
    moved = NodeSpec(subnets=("10.244.2.0/24",), networks=("10.244.0.0/20",))
    assert errors(node, moved, SPEC) == {}
    assert "bridge" in errors(node, moved)


def test_a_link_of_another_kind_under_the_bridges_name(node: Node) -> None:
    node.run(["ip", "link", "add", "cni0", "type", "veth", "peer", "name", "other"])
    assert "is a veth link, not a bridge" in errors(node)["bridge"].message


def test_a_route_into_the_pod_cidr_is_named_and_a_free_one_suggested(node: Node) -> None:
    uplink = node.interface
    node.run(["ip", "route", "add", "10.244.0.128/25", "via", "10.0.10.51"])
    finding = errors(node)["subnet-overlap"]
    assert finding.subject == "10.244.0.0/24"
    assert "10.244.0.128/25 via 10.0.10.51" in finding.message
    assert "--subnet 10.244.1.0/24" in finding.hint, (uplink, finding)


def test_our_routes_and_identical_manual_ones_are_not_an_overlap(lab: Lab) -> None:
    node = lab.nodes[0]
    node.run(["ip", "route", "add", "10.244.1.0/24", "via", "10.0.10.51"])
    spec = NodeSpec(subnets=("10.244.0.0/24",), networks=("10.244.0.0/20",), peers=(PEER,))
    node.run(["ip", "route", "add", "10.244.0.0/25", "via", "10.0.10.51", "proto", "67"])
    assert errors(node, spec) == {}
    elsewhere = NodeSpec(
        subnets=("10.244.0.0/24",), networks=("10.244.0.0/20",), peers=(Peer("10.244.1.0/24", "10.0.10.52"),)
    )
    assert "subnet-overlap" in errors(node, elsewhere)
    assert "subnet-overlap" not in errors(node, elsewhere, spec)


def test_a_host_address_within_the_pod_network_is_a_warning(node: Node) -> None:
    spec = NodeSpec(subnets=("10.244.0.0/24",), networks=("10.0.0.0/8",))
    overlaps = [finding for finding in findings(node, spec) if finding.name == "network-overlap"]
    assert [finding.severity for finding in overlaps] == ["warning"]
    assert overlaps[0].subject == "10.0.0.210"


def test_a_peer_behind_a_gateway_is_reported_with_the_cause(node: Node) -> None:
    node.run(["ip", "route", "add", "172.20.0.0/16", "via", "10.0.0.99"])
    spec = NodeSpec(
        subnets=("10.244.0.0/24",), networks=("10.244.0.0/20",), peers=(Peer("10.244.1.0/24", "172.20.0.5"),)
    )
    finding = errors(node, spec)["peer-link"]
    assert "172.20.0.5" in finding.subject
    assert finding.message == (
        "is not on a network segment of this host, but behind the gateway 10.0.0.99: "
        "plain routes can't carry pods' packets there"
    )


def test_a_peer_without_a_route_over_another_link_or_at_our_own_address(node: Node) -> None:
    node.run(["sh", "-c", "ip route del default 2>/dev/null; true"])
    lost = NodeSpec(
        subnets=("10.244.0.0/24",), networks=("10.244.0.0/20",), peers=(Peer("10.244.1.0/24", "192.0.2.9"),)
    )
    assert "no route to 192.0.2.9" in errors(node, lost)["peer-link"].message
    elsewhere = NodeSpec(
        subnets=("10.244.0.0/24",), networks=("10.244.0.0/20",), peers=(Peer("10.244.1.0/24", "10.0.10.51", "lo"),)
    )
    assert "not over lo" in errors(node, elsewhere)["peer-link"].message
    own = NodeSpec(
        subnets=("10.244.0.0/24",), networks=("10.244.0.0/20",), peers=(Peer("10.244.1.0/24", "10.0.0.210"),)
    )
    assert "this host's own address" in errors(node, own)["peer-link"].message


def test_only_a_conf_that_sorts_before_ours_is_an_obstacle(node: Node) -> None:
    node.run(["sh", "-c", "cd /etc/cni/net.d; touch 00-notes.txt 87-podman-bridge.conflist 100-crio-bridge.conf"])
    assert errors(node) == {}
    node.run(["touch", "/etc/cni/net.d/10-bridge.conf"])
    finding = errors(node)["conf-order"]
    assert finding.subject == "/etc/cni/net.d/10-bridge.conf"


def test_foreign_files_with_our_names_are_errors(node: Node) -> None:
    node.run(["sh", "-c", "echo theirs > /usr/lib/cni/cnictl-bridge; echo '{}' > /etc/cni/net.d/10-cnictl.conflist"])
    by_check = errors(node)
    assert by_check["launcher-name"].subject == "/usr/lib/cni/cnictl-bridge"
    assert by_check["conf-name"].subject == "/etc/cni/net.d/10-cnictl.conflist"
    node.run(["sh", "-c", "echo '{' > /etc/cni/net.d/10-cnictl.conflist"])
    assert "conf-name" in errors(node)  # torn, so nothing shows that cnictl wrote it


def test_a_configured_runtime_without_loopback_is_an_error(node: Node) -> None:
    config = 'version = 2\n[plugins."io.containerd.grpc.v1.cri".cni]\nbin_dir = "/opt/empty"\n'
    node.run(["sh", "-c", "mkdir /etc/containerd; cat > /etc/containerd/config.toml"], config)
    finding = errors(node)["loopback"]
    assert "/opt/empty" in finding.subject
    node.run(["sh", "-c", "mkdir /opt/empty; cp /usr/bin/true /opt/empty/loopback"])
    assert errors(node) == {}


def test_a_plugin_folder_that_others_can_write_is_an_error(node: Node) -> None:
    node.run(["chmod", "777", "/opt/cni/bin"])
    assert "/opt/cni/bin is writable by everyone" in errors(node)["bin-dir"].message


def test_a_read_only_plugin_folder_is_skipped_with_a_warning(node: Node) -> None:
    wanted = json.dumps([as_data(SPEC), None])
    bind = 'mount --bind /opt /opt; mount -o remount,bind,ro /opt; exec "$@"'
    reported = json.loads(
        node.run(["unshare", "-m", "sh", "-ec", bind, "sh", sys.executable, "-c", RUN], wanted).stdout
    )
    told = [finding for finding in reported if finding["name"] == "bin-dir"]
    assert [(finding["severity"], finding["subject"]) for finding in told] == [("warning", "/opt/cni/bin")]
    assert "only in /usr/lib/cni" in told[0]["message"]
    assert "mount it writable" in told[0]["hint"]


def test_an_unusable_library_folder_is_reported_with_a_hint(node: Node) -> None:
    node.run(["chmod", "777", "/usr/local/lib"])
    assert "/usr/local/lib is writable by everyone" in errors(node)["lib-dir"].message
    wanted = json.dumps([as_data(SPEC), None])
    bind = 'mount -o remount,bind,ro /usr/local/lib; exec "$@"'
    reported = json.loads(
        node.run(["unshare", "-m", "sh", "-ec", bind, "sh", sys.executable, "-c", RUN], wanted).stdout
    )
    assert ["--lib-dir" in finding["hint"] for finding in reported if finding["name"] == "lib-dir"] == [True]


def test_a_missing_firewall_tool_names_the_other_backend(node: Node) -> None:
    program = (
        "import os; os.environ['PATH'] = '/nowhere'\n"
        "from cnictl.node.preflight import host\n"
        "from cnictl.node.spec.node_spec import NodeSpec\n"
        "spec = NodeSpec(subnets=('10.244.0.0/24',), networks=('10.244.0.0/20',))\n"
        "print(host.firewall_tool(spec, None)[0].message)\n"
        "os.mkdir('/tmp/bin'); os.symlink('/usr/sbin/iptables', '/tmp/bin/iptables')\n"
        "os.symlink('/usr/sbin/iptables-restore', '/tmp/bin/iptables-restore'); os.environ['PATH'] = '/tmp/bin'\n"
        "print(host.firewall_tool(spec, None)[0].hint)\n"
    )
    message, hint = node.run([sys.executable, "-c", program]).stdout.splitlines()
    assert message == "nft not found in PATH"
    assert hint == "add --backend iptables; or install nftables"


def test_forwarding_that_cannot_be_switched_on_is_an_error(node: Node) -> None:
    wanted = json.dumps([as_data(SPEC), None])
    bind = 'mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys; exec "$@"'
    reported = json.loads(
        node.run(["unshare", "-m", "sh", "-ec", bind, "sh", sys.executable, "-c", RUN], wanted).stdout
    )
    assert ("kernel", "net.ipv4.ip_forward") in {(finding["name"], finding["subject"]) for finding in reported}


def test_missing_root_is_reported_first() -> None:
    command = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*command, sys.executable, "-c", RUN],
        input=json.dumps([as_data(SPEC), None]),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert json.loads(done.stdout)[0]["name"] == "root"


def test_program_that_others_can_change_is_an_error_and_our_own_folder_is_reported(node: Node) -> None:
    node.run(["sh", "-c", "mkdir -p /opt/open /etc/cnictl; cp /usr/bin/true /opt/open/nft; chmod 777 /opt/open"])
    node.run(["chmod", "777", "/etc/cnictl"])
    body = json.dumps([as_data(SPEC), None])
    path = f"/opt/open:{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    said = json.loads(node.run(["env", f"PATH={path}", sys.executable, "-c", RUN], body).stdout)
    by_check = {finding["name"]: finding for finding in said}
    assert by_check["programs"]["severity"] == "error"
    assert by_check["programs"]["subject"] == "/opt/open/nft"
    assert "/opt/open is writable by everyone" in by_check["programs"]["message"]
    assert (by_check["ownership"]["severity"], by_check["ownership"]["subject"]) == ("warning", "/etc/cnictl")
