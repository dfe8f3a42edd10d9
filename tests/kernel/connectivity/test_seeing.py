"""`status` shows the node on one screen, `logs` shows its plugin's calls, and `metrics` shows both as numbers."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cnictl.doctor.catalogue import CHECKS
from cnictl.lab.lab import Lab, Node
from tests.kernel.commands import Lines, cnictl, init, start_pod

pytestmark = pytest.mark.once

PROMTOOL = Path(__file__).parents[3] / ".venv" / "packages" / "prometheus" / "usr" / "bin" / "promtool"


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[Node]]:
    """Yield a node that has a pod and two peers, one of which answers, and the peer that answers."""
    with Lab(nodes=2) as lab:
        here, there = lab.nodes
        init(here, "--peer", f"{there.pod_cidr}={there.address}", "--peer", "10.244.7.0/24=10.0.0.99")
        init(there, "--peer", f"{here.pod_cidr}={here.address}")
        start_pod(here, "web1")
        yield [here, there]


@pytest.fixture
def node(nodes: list[Node]) -> Node:
    """Return the node."""
    return nodes[0]


@pytest.fixture
def there(nodes: list[Node]) -> Node:
    """Return the peer that answers."""
    return nodes[1]


def test_status_is_one_screen(node: Node) -> None:
    said = cnictl(node, "status").stdout
    assert said.startswith("in doubt: no answer from peer 10.0.0.99\n")
    for words in (
        r"bridge +cni0 up, 10.244.0.1/24, MTU 1500",
        r"addresses +1 of 253 used in 10.244.0.0/24",
        r"conf +/etc/cni/net.d: 10-cnictl.conflist\n",
        r"veth\w+ +up +web1 +10.244.0.2",
        r"10.244.1.0/24 +10.0.10.51 +eth0 +ok +answers +answers\n",
        r"10.244.7.0/24 +10.0.0.99 +eth0 +ok +silent +unknown\n",
        r"10.244.0.0/24 +all but 10.244.0.0/20 +\d+ +inet cnictl masquerade-mynet",
        r"bridge/cni0 +ok",
    ):
        assert re.search(words, said), (words, said)


def test_status_counts_packets_and_reports_drift_and_another_conf(node: Node) -> None:
    pod = start_pod(node, "web2")
    pod.run("ping", "-q", "-c1", "-W1", "192.0.2.10", check=False)
    node.run(["sh", "-c", "echo '{}' > /etc/cni/net.d/05-other.conf; ip route del 10.244.7.0/24"])
    try:
        done = cnictl(node, "status", "-o", "json", check=False)
        document = json.loads(done.stdout)
        assert (done.status, document["drifted"]) == (1, 1)
        assert sum(rule["packets"] for rule in document["rules"]) > 0
        assert document["confs"]["/etc/cni/net.d"][0] == "05-other.conf"
        assert "05-other.conf, not 10-cnictl.conflist" in cnictl(node, "status", check=False).stdout
    finally:
        node.run(["rm", "/etc/cni/net.d/05-other.conf"])
        cnictl(node, "apply")


def test_status_watch_repeats_the_screen(node: Node) -> None:
    running = node.popen(["cnictl", "status", "--watch", "-o", "json"])
    lines = Lines(running.stdout)
    for _ in range(2):
        line = lines.next()
        assert line is not None
        assert json.loads(line)["node"]["name"] == "mynet"
    running.kill()
    running.communicate()


def test_logs_are_filtered_and_followed_across_rotation(node: Node) -> None:
    assert [call["verb"] for call in json.loads(cnictl(node, "logs", "web1", "-o", "json").stdout)["items"]] == ["ADD"]
    assert json.loads(cnictl(node, "logs", "--failed", "-o", "json").stdout)["items"] == []
    assert json.loads(cnictl(node, "logs", "--verb", "del", "-o", "json").stdout)["items"] == []
    assert json.loads(cnictl(node, "logs", "10.244.0.2", "-o", "json").stdout)["items"][0]["container"] == "web1"
    assert cnictl(node, "logs", "--verb", "EAT", check=False).status == 2
    following = node.popen(["cnictl", "logs", "-f", "-n", "0", "-o", "json"])
    lines = Lines(following.stdout)
    try:
        for number in range(3):
            while (line := lines.next(0.5)) is None:  # until the command follows the log
                start_pod(node, f"next{number}-{len(node.run(['ip', 'netns']).stdout)}")
            assert json.loads(line)["verb"] == "ADD"
            node.run(["sh", "-c", "cd /var/log/cnictl; mv plugin.log plugin.log.1"])
    finally:
        following.kill()
        following.communicate()


def value(text: str, name: str) -> float:
    """Return the value of the only sample whose line starts with `name`."""
    (line,) = [line for line in text.splitlines() if line.startswith(name)]
    return float(line.rpartition(" ")[2])


def test_metrics_are_valid_and_only_grow(node: Node) -> None:
    adds = 'cnictl_plugin_call_duration_seconds_count{outcome="ok",verb="ADD"}'
    first = cnictl(node, "metrics", "--no-doctor").stdout
    start_pod(node, "counted")
    node.run(["sh", "-c", "cd /var/log/cnictl; mv plugin.log plugin.log.1"])
    start_pod(node, "counted2")
    second = cnictl(node, "metrics").stdout
    assert value(second, adds) == value(first, adds) + 2
    assert value(second, "cnictl_drifted_resources") == 0
    used = 'cnictl_addresses_used{network="mynet"'
    assert value(second, used) == value(first, used) + 2
    assert value(second, 'cnictl_doctor_findings{check="forwarding"') == 0
    assert "cnictl_doctor_" not in first
    cnictl(node, "metrics", "--textfile", "/tmp/cnictl.prom")
    assert adds in node.run(["cat", "/tmp/cnictl.prom"]).stdout
    assert cnictl(node, "metrics", "--textfile", "/tmp/x.txt", check=False).status == 2


WAITING = {"mtu-path", "pods-filtered", "peer-pods", "peer-silent", "same-pod-cidr"}
"""Doctor's checks that wait for answers from peers."""


def test_metrics_name_the_checks_that_did_not_run(node: Node) -> None:
    def checks(text: str, metric: str) -> set[str]:
        return set(re.findall(rf'^{metric}{{check="([^"]+)"', text, re.MULTILINE))

    usual, asked = (cnictl(node, "metrics", *words).stdout for words in ((), ("--ask-peers",)))
    assert {check.id for check in CHECKS if check.waits} == WAITING
    assert checks(usual, "cnictl_doctor_checks_not_made") == WAITING
    assert value(usual, 'cnictl_doctor_checks_not_made{check="peer-silent",reason="waits"}') == 1
    assert checks(usual, "cnictl_doctor_findings") == {check.id for check in CHECKS} - WAITING
    assert checks(asked, "cnictl_doctor_findings") == {check.id for check in CHECKS}
    assert not checks(asked, "cnictl_doctor_checks_not_made")
    assert cnictl(node, "metrics", "--no-doctor", "--ask-peers", check=False).status == 2


def test_promtool_finds_no_fault_with_the_metrics(node: Node) -> None:
    promtool = shutil.which("promtool") or (str(PROMTOOL) if PROMTOOL.exists() else "")
    if not promtool:
        pytest.skip("promtool is missing (tests/packages.sh downloads it as root)")
    said = cnictl(node, "metrics").stdout
    done = subprocess.run([promtool, "check", "metrics"], input=said, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_pod_is_shown_from_both_ends_with_its_path_to_the_outside(node: Node) -> None:
    node.run(["ip", "netns", "exec", "web1", "ping", "-q", "-c1", "-W1", "10.0.10.51"])
    document = json.loads(cnictl(node, "pod", "web1", "--to", "10.0.10.51", "-o", "json").stdout)
    assert document["leases"][0]["address"] == "10.244.0.2"
    assert document["host_end"]["address"] == document["leases"][0]["host_veth"]["mac"]
    assert document["inside"]["address"] == document["leases"][0]["mac"]
    assert document["port"]["master"] == "cni0"
    assert {route["dst"] for route in document["routes"]} >= {"default", "10.244.0.0/24"}
    way = document["way"]
    assert way["answered"] and way["on_the_host"]["dev"] == "eth0"
    assert any(rule.startswith("ip filter CNICTL-FORWARD: ") for rule in way["rules"])
    assert any("masquerade-mynet" in rule for rule in way["rules"])
    earlier = {"protocol": "icmp", "from": "10.244.0.2", "to": "10.0.10.51", "answered_by": "10.0.10.51", "port": None}
    assert any(earlier.items() <= connection.items() for connection in document["connections"])
    assert "path to 10.244.0.1  answers ping" in cnictl(node, "pod", "10.244.0.2", "--to", "10.244.0.1").stdout
    unknown = cnictl(node, "pod", "nobody", check=False)
    assert (unknown.status, unknown.stderr.count("\n")) == (1, 2)
    assert cnictl(node, "pod", "web1", "--to", "nowhere", check=False).status == 2


_SERVE = """
import socket
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("0.0.0.0", 7010))
server.listen()
print("ready", flush=True)
kept = []
while True:
    kept.append(server.accept()[0])
"""
_CONNECT = """
import socket, sys
for port in (7010, 7011):
    kept = socket.socket()
    kept.settimeout(5)
    try:
        kept.connect(("10.0.10.51", port))
    except OSError:
        pass
socket.create_connection(("10.96.0.9", 80), 5)
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("10.0.10.51", 7012))
"""
_FIREWALL = (
    "iptables -{} FORWARD -d 10.0.10.51 -p icmp -j DROP; "
    "iptables -t nat -{} PREROUTING -d 10.96.0.9 -p tcp --dport 80 -j DNAT --to-destination 10.0.10.51:7010"
)


def test_pod_shows_each_connection_with_its_own_outcome(node: Node, there: Node) -> None:
    """The peer answers no ping, but connections to it work. Each tracked connection is shown with its own outcome."""
    pod = start_pod(node, "talker")
    serving = there.popen(["/usr/bin/python3", "-c", _SERVE])
    node.run(["sh", "-c", _FIREWALL.format("I", "A")])
    there.run(["iptables", "-I", "INPUT", "-p", "udp", "--dport", "7012", "-j", "DROP"])
    try:
        assert Lines(serving.stdout).next() == "ready"
        pod.run("/usr/bin/python3", "-c", _CONNECT)
        shown = cnictl(node, "pod", "talker", "--to", "10.0.10.51").stdout
        way = json.loads(cnictl(node, "pod", "talker", "--to", "10.0.10.51", "-o", "json").stdout)["way"]
    finally:
        node.run(["sh", "-c", _FIREWALL.format("D", "D")])
        there.run(["iptables", "-D", "INPUT", "-p", "udp", "--dport", "7012", "-j", "DROP"])
        serving.kill()
        serving.communicate()
    assert "path to 10.0.10.51  does not answer ping; connections to it work: tcp/7010\n" in shown
    assert f"tcp {pod.address} to 10.0.10.51:7010: answered" in shown
    assert "7011: answered" not in shown  # it was refused
    assert f"udp {pod.address} to 10.0.10.51:7012: no answer" in shown
    assert f"tcp {pod.address} to 10.96.0.9:80, forwarded to 10.0.10.51:7010: answered" in shown
    assert (way["asked"], way["answered"]) == ("ICMP echo request", False)
    assert way["connections"] == ["tcp/7010"]
    assert "path to fd00::1  not asked: this attachment has no IPv6 address" in (
        cnictl(node, "pod", "talker", "--to", "fd00::1").stdout
    )


def test_pod_without_its_namespace_is_not_reported_as_isolated(node: Node) -> None:
    start_pod(node, "ended")
    node.run(["ip", "netns", "delete", "ended"])
    shown = cnictl(node, "pod", "ended", "--to", "10.0.10.51").stdout
    assert "not asked: its network namespace /run/netns/ended is gone" in shown
    assert "answer ping" not in shown


PLANTED = """
echo '# password = hunter2, see https://me:hunter2@example.org' >> /etc/cnictl/node.toml
iptables -A INPUT -m comment --comment hunter2 -j ACCEPT
iptables -A INPUT -m comment --comment "join hunter2" -j LOG --log-prefix hunter2
nft add table inet corp '{ comment "hunter2"; }'
nft add chain inet corp c '{ comment "hunter2"; }'
nft add rule inet corp c tcp dport 22 log prefix hunter2 accept comment hunter2
ip link add corp0 type bridge
ip link set corp0 alias hunter2
mkdir -p /etc/systemd/system/cnictl.service.d /etc/systemd/network /etc/NetworkManager/system-connections
printf '[Service]\\nEnvironment=TOKEN=hunter2\\n' > /etc/systemd/system/cnictl.service.d/proxy.conf
printf '[NetDev]\\nKind=wireguard\\n[WireGuard]\\nPrivateKey=hunter2\\n' > /etc/systemd/network/50-wg.netdev
printf '[wifi-security]\\npsk=hunter2\\n' > /etc/NetworkManager/system-connections/home.nmconnection
printf 'hunter2\\r\\neth0' > /var/lib/cni/networks/mynet/10.244.0.99
echo 'Authorization: Bearer hunter2' >> /var/log/cnictl/plugin.log
"""
UPROOTED = """
sed -i /hunter2/d /etc/cnictl/node.toml /var/log/cnictl/plugin.log
iptables -F INPUT
nft delete table inet corp
ip link delete corp0
rm -rf /etc/cni/net.d/90-other.conf /etc/systemd/system/cnictl.service.d /etc/NetworkManager
rm -rf /etc/systemd/network/50-wg.netdev
rm -rf /var/lib/cni/networks/mynet/10.244.0.99 /tmp/cnictl-support /tmp/b.tar.gz
"""


def test_support_bundle_has_its_listed_files_and_no_secret(node: Node) -> None:
    foreign = {
        "name": "other", "type": "multus", "kubeconfig": "/etc/hunter2", "passphrase": "hunter2", "jwt": "hunter2",
        "delegates": [{"type": "calico", "api": {"bearer": "hunter2"}, "cookie": "hunter2", "mtu": 1450}],
        "env": {"AGENT": "hunter2"}, "args": {"cni": {"x": "hunter2"}}, "notes": "hunter2",
    }  # fmt: skip
    node.run(["sh", "-c", "cat > /etc/cni/net.d/90-other.conf"], stdin=json.dumps(foreign))
    start_pod(node, "bundled")  # puts a call into the log, even after a rotation
    node.run(["sh", "-ec", PLANTED])
    try:
        planned = json.loads(cnictl(node, "support-bundle", "--dry-run", "-o", "json").stdout)
        listed = {part["name"] for part in planned["items"]}
        done = json.loads(cnictl(node, "support-bundle", "/tmp/b.tar.gz", "-o", "json").stdout)
        assert {part["name"] for part in done["items"]} == listed
        failed = {part["name"] for part in done["items"] if part["failed"]}
        assert failed <= {"iptables-legacy.txt"}
        names = node.run(["sh", "-c", "cd /tmp && tar -xzvf b.tar.gz"]).stdout.split()
        assert {name.rpartition("/")[2] for name in names} == (listed - failed) | {"MANIFEST.json"}
        shown = {part: node.run(["cat", f"/tmp/cnictl-support/{part}"]).stdout for part in listed - failed}
        assert [part for part, text in shown.items() if "hunter2" in text.replace('"container": "hunter2"', "")] == []
        for part, words in (
            ("nft.txt", 'comment "cnictl:mynet '), ("nft.txt", "masquerade fully-random"),
            ("nft.txt", "tcp dport 22 log"),
            ("leases.json", '"web1"'), ("iptables.txt", '-i cni0 -m comment --comment "cnictl:mynet" -j ACCEPT'),
            ("confs.json", '"mtu": 1450'), ("confs.json", '"subnet": "10.244.0.0/24"'),
            ("node.toml", 'via = "10.0.0.99"'),
            ("routes.json", '"10.244.1.0/24"'), ("links.json", '"ifalias": "cnictl:mynet"'), ("kernel.txt", node.name),
            ("history.json", '"sysctl -w net.ipv4.ip_forward=1"'), ("status.json", '"10.244.0.1/24"'),
            ("versions.txt", "nft: nftables v"), ("plugin.log", "container=bundled ifname=eth0"),
            ("neighbours.json", '"dst"'),
        ):  # fmt: skip
            assert words in shown[part], (part, words, shown[part])
        assert node.run(["stat", "-c", "%a", "/tmp/b.tar.gz"]).stdout.strip() == "600"
    finally:
        node.run(["sh", "-c", UPROOTED])
