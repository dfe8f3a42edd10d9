"""Hosts that are unreachable, answer wrongly or are lost during a change are named. Nothing is left on either side."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cnictl.lab.lab import Node
from tests.cluster.world import COMMAND, FILE, ON_NODE, World
from tests.kernel.commands import at_terminal, call, start_pod
from tests.waiting import wait_for


@contextmanager
def _cut_off(node: Node) -> Iterator[None]:
    """Take a node's link down while the context lasts."""
    route = node.run(["ip", "route", "show", "default"]).stdout.split()
    node.run(["ip", "link", "set", "eth0", "down"])
    try:
        yield
    finally:
        node.run(["ip", "link", "set", "eth0", "up"])
        node.run(["ip", "route", "replace", *route])


def test_host_that_is_down_is_a_row(three: World) -> None:
    with _cut_off(three.nodes[2]):
        start = time.monotonic()
        rows, findings, status = three.status()
        assert time.monotonic() - start < 30
    assert status == 1
    assert rows["node3"]["state"] == "unreachable"
    assert rows["node3"]["why"].startswith("can't be reached: ssh: connect to host 10.0.2.53 port 22: ")
    assert rows["node1"]["state"] == rows["node2"]["state"] == "ok"
    assert findings == [], "no finding is about a host that answers"
    three.cluster("apply")


def test_host_without_sshd_is_a_row_and_the_others_are_changed(three: World) -> None:
    node = three.nodes[1]
    node.run(["sh", "-c", "kill $(cat /run/sshd.pid)"])
    try:
        done = three.cluster("apply", "-o", "json", check=False)
        states = {row["node"]: row["state"] for row in json.loads(done.stdout)["items"]}
        assert states == {"node1": "unchanged", "node2": "unreachable", "node3": "unchanged"}
        assert done.status == 1
    finally:
        node.run(["sh", "-c", "/usr/sbin/sshd -E /var/log/sshd.log </dev/null >/dev/null 2>&1"])


def test_wrong_and_unknown_host_keys_are_never_accepted(three: World) -> None:
    known = dict(three.known_hosts)
    one, two, _ = (node.address for node in three.nodes)
    three.known_hosts[one] = known[two]
    del three.known_hosts[two]
    three.write_known_hosts()
    before = three.operator.run(["cat", "/root/.ssh/known_hosts"]).stdout
    try:
        rows, _, status = three.status()
        assert status == 1
        assert "the host's key differs from known_hosts" in rows["node1"]["why"]
        assert rows["node1"]["hint"]["text"].endswith(f"ssh-keygen -f /root/.ssh/known_hosts -R {one}")
        assert rows["node2"]["why"] == "the host's key is not known yet"
        assert rows["node3"]["state"] == "ok"
        assert three.operator.run(["cat", "/root/.ssh/known_hosts"]).stdout == before
    finally:
        three.known_hosts = known
        three.write_known_hosts()


def test_hint_for_a_changed_key_names_the_host_as_in_known_hosts(three: World) -> None:
    node, known = three.nodes[2], dict(three.known_hosts)
    three.write(f"Host far\n  HostName {node.address}\n  User root\n", path="/root/.ssh/config")
    three.write(three.file.replace('"10.244.2.0/24" }', '"10.244.2.0/24", ssh = "far" }'), path="/root/far.toml")
    three.known_hosts[node.address] = known[three.nodes[0].address]
    three.write_known_hosts()
    words = ("-f", "/root/far.toml", "--limit", "node3")
    try:
        hint = three.status(*words)[0]["node3"]["hint"]["text"]
        three.operator.run(["sh", "-c", hint.partition("then: ")[2]])
        assert three.status(*words)[0]["node3"]["why"] == "the host's key is not known yet"
    finally:
        three.operator.run(["rm", "/root/.ssh/config"])
        three.known_hosts = known
        three.write_known_hosts()


def test_rejected_login_key_is_a_row_with_a_hint(three: World) -> None:
    node = three.nodes[0]
    node.run(["mv", "/root/.ssh/authorized_keys", "/root/.ssh/kept"])
    try:
        row = three.status()[0]["node1"]
    finally:
        node.run(["mv", "/root/.ssh/kept", "/root/.ssh/authorized_keys"])
    assert "Permission denied (publickey" in row["why"]
    assert "ssh-copy-id" in row["hint"]["text"]


def test_host_without_cnictl_is_a_row_with_a_hint(three: World) -> None:
    node = three.nodes[0]
    node.run(["mv", "/usr/local/bin/cnictl", "/usr/local/bin/away"])
    try:
        assert three.status()[0]["node1"]["why"] == "cnictl is not installed there"
    finally:
        node.run(["mv", "/usr/local/bin/away", "/usr/local/bin/cnictl"])


def test_greeting_of_a_login_shell_is_ignored(three: World) -> None:
    node = three.nodes[0]
    accounts = node.run(["cat", "/etc/passwd"]).stdout
    three.write(accounts.replace("/root:/bin/sh", "/root:/bin/bash"), node, "/etc/passwd")
    three.write("echo Welcome to node1; echo sudo: mind the step >&2\n", node, "/root/.bashrc")
    try:
        assert "Welcome" in three.operator.run(["ssh", node.address, "true"]).stdout
        rows, findings, status = three.status()
        assert (rows["node1"]["state"], findings, status) == ("ok", [], 0)
        document = json.loads(three.cluster("test", "--limit", "node1,node2", "-o", "json", check=False).stdout)
        assert [host["cause"] for host in document["summary"]["hosts"]] == [None, None]
        three.write("echo This account is not available; exit 1\n", node, "/root/.bashrc")
        why = three.status("--limit", "node1")[0]["node1"]["why"]
        assert why == "the login shell there does not run commands: This account is not available"
    finally:
        three.write(accounts, node, "/etc/passwd")
        node.run(["rm", "/root/.bashrc"])


@contextmanager
def _ordinary_user(three: World, node: Node, sudo: str) -> Iterator[None]:
    """Make a node treat the login as an ordinary user's, with this shell script as its sudo."""
    for name, script in (("id", "echo 1500"), ("sudo", sudo)):
        three.write(f"#!/bin/sh\n{script}\n", node, f"/usr/local/bin/{name}")
        node.run(["chmod", "755", f"/usr/local/bin/{name}"])
    try:
        yield
    finally:
        node.run(["rm", "/usr/local/bin/id", "/usr/local/bin/sudo"])


def test_warning_of_sudo_is_not_a_refusal(three: World) -> None:
    warning = 'echo "sudo: unable to resolve host node1: Name or service not known" >&2; shift 2; exec "$@"'
    with _ordinary_user(three, three.nodes[0], warning):
        assert three.status("--limit", "node1")[0]["node1"]["state"] == "ok"


def test_host_that_refuses_sudo_is_not_removed(three: World) -> None:
    before, words = three.file, "Sorry, user admin is not allowed to execute '/usr/local/bin/cnictl' as root on node3."
    with _ordinary_user(three, three.nodes[2], f'echo "{words}" >&2; exit 1'):
        assert three.status("--limit", "node3")[0]["node3"]["why"] == words
        done = three.cluster("remove", "node3", check=False)
    assert done.status == 1
    assert f"can't ask node3 which pods live there: {words}" in done.stderr
    assert three.file == before
    for node in three.nodes[:2]:
        assert three.nodes[2].pod_cidr in node.run(["ip", "route"]).stdout


def test_host_that_is_another_node_is_neither_changed_nor_removed(three: World) -> None:
    other = three.nodes[1]
    text = three.file.replace('"10.244.2.0/24" }', f'"10.244.2.0/24", ssh = "root@{other.address}" }}')
    three.write(text, path="/root/far.toml")
    why = f"the pod CIDR {other.pod_cidr}; the file has {three.nodes[2].pod_cidr} for node3"
    document = json.loads(three.cluster("plan", "-f", "/root/far.toml", "-o", "json", check=False).stdout)
    row = document["items"][2]
    assert (row["state"], row["why"]) == ("failed", f"ssh leads to another node, with {why}")
    done = three.cluster("remove", "node3", "-f", "/root/far.toml", check=False)
    assert done.status == 1
    assert f"ssh leads to node2, with {why}" in done.stderr
    assert three.status()[1:] == ([], 0)


def test_no_host_is_changed_if_one_would_lose_its_pods(three: World) -> None:
    before, node = three.file, three.nodes[2]
    pod = start_pod(node, "web")
    three.write(before.replace(node.pod_cidr, "10.244.9.0/24"))
    try:
        done = three.cluster("apply", check=False)
        assert done.status == 1
        assert "init-node would cut off 1 pod: web" in done.stdout
        assert "no host was changed" in done.stderr
        for other in three.nodes[:2]:
            assert node.pod_cidr in other.run(["ip", "route"]).stdout
    finally:
        three.write(before)
        call(node, "DEL", pod.name)
        node.run(["ip", "netns", "del", pod.name])
    assert three.status()[1:] == ([], 0)


_HOSTILE = r"""
case "$1" in
status)
    cat <<'EOF'
{"node": {"subnets": ["10.244.0.0/24", "\u001b[2J", 7], "networks": "x", "name": "\u001b]0;gotcha\u0007"},
 "bridge": [], "drifted": "many", "strays": 3, "peers": [5, {"pod_cidr": "10.244.1.0/24", "via": "\u001b[31mred",
 "state": "\u202eok\u001b[2J", "fault": "\u001b[2Jwiped\nnode2 ok", "answers": 1}]}
EOF
    exit;;
init-node) printf 'cnictl: \033[2Jgone\007\n  hint: \033]0;run this\007\n' >&2; exit 1;;
esac
"""


def test_output_of_a_hostile_host_is_escaped(three: World) -> None:
    with three.replaced(three.nodes[0], _HOSTILE):
        for words in (["status"], ["plan"], ["apply"]):
            done = three.cluster(*words, check=False)
            assert done.status == 1
            for letter in "\x1b\x07\u202e":
                assert letter not in done.stdout + done.stderr
        assert "\\x1b[2Jwiped\\nnode2 ok" in three.cluster("status", check=False).stdout


def test_endless_answer_of_a_host_is_bounded(three: World) -> None:
    with three.replaced(three.nodes[0], 'case "$1" in status) yes; exit;; esac'):
        row = three.status()[0]["node1"]
    assert row["why"] == "no answer: answered with over 32 MiB"


def test_command_line_and_cluster_file_cannot_inject_commands(three: World) -> None:
    for name in ("-oProxyCommand=touch /tmp/owned", "$(touch /tmp/owned)", "node1;touch /tmp/owned"):
        assert three.cluster("status", f"--limit={name}", check=False).status == 2
        text = three.text(three.nodes, with_cidrs=True).replace('" },', f'", ssh = "{name}" }},', 1)
        three.write(text, path="/root/odd.toml")
        done = three.cluster("status", "-f", "/root/odd.toml", check=False)
        assert done.status == 2
        assert "is not a host or user@host" in done.stderr
    for machine in (three.operator, *three.nodes):
        assert "owned" not in machine.run(["ls", "/tmp"]).stdout


def test_each_host_gets_one_connection_and_none_is_left(three: World) -> None:
    log = three.nodes[0].run(["cat", "/var/log/sshd.log"]).stdout.count("Accepted publickey")
    three.cluster("plan")
    assert three.nodes[0].run(["cat", "/var/log/sshd.log"]).stdout.count("Accepted publickey") == log + 1
    assert not three.operator.run(["sh", "-c", "ls -d /tmp/cnictl-* 2>/dev/null || true"]).stdout
    assert "ControlPath" not in three.operator.run(["ps", "-eo", "args"]).stdout


_ENDED = """
import signal, subprocess, sys, time
ended, words = getattr(signal, sys.argv[1]), sys.argv[2:]
process = subprocess.Popen(words, stdout=subprocess.DEVNULL, start_new_session=True,
                           preexec_fn=lambda: signal.signal(ended, signal.SIG_DFL))
for line in sys.stdin:
    break
process.send_signal(ended)
sys.exit(process.wait(60))
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_command_that_is_ended_by_a_signal_leaves_nothing(three: World, name: str) -> None:
    node = three.nodes[0]
    waits = 'case "$*" in *--dry-run*) touch /root/asked; for each in 1 2 3 4; do sleep 0.5; done;; esac'
    three.write(_grown(three), path="/root/grown.toml")
    with three.replaced(node, waits):
        command = [COMMAND, "cluster", "apply", "-f", "/root/grown.toml", "--limit", "node1,node2"]
        process = three.operator.popen(["python3", "-c", _ENDED, name, *command], stdin=subprocess.PIPE)
        wait_for(lambda: node.run(["ls", "/root/asked"], check=False).status == 0, "the host is asked")
        _, said = process.communicate("now\n", timeout=60)
        node.run(["rm", "/root/asked"])
    assert (process.returncode, said) == (130, "cnictl: interrupted\n")
    assert not three.operator.run(["sh", "-c", "ls -d /tmp/cnictl-* 2>/dev/null || true"]).stdout
    assert "ControlPath" not in three.operator.run(["ps", "-eo", "args"]).stdout
    for each in three.nodes:
        assert not each.run(["sh", "-c", "ls /run/cnictl/cluster-* 2>/dev/null || true"]).stdout
        assert not _routes(each)


def test_file_is_used_through_a_link_and_keeps_its_mode(three: World) -> None:
    three.operator.run(["sh", "-ec", f"mkdir -p /root/repo; mv {FILE} /root/repo/c.toml; ln -s repo/c.toml {FILE}"])
    three.operator.run(["chmod", "600", "/root/repo/c.toml"])
    before = three.file
    three.write(before.replace(f', pod_cidr = "{three.nodes[2].pod_cidr}"', ""))
    three.cluster("apply")
    assert three.file == before
    assert three.operator.run(["stat", "-c", "%F %a", FILE, "/root/repo/c.toml"]).stdout.splitlines() == [
        "symbolic link 777", "regular file 600",
    ]  # fmt: skip


def test_operators_configuration_and_jump_hosts_are_used(three: World) -> None:
    node = three.nodes[2]
    far = f"Host far\n  HostName {node.address}\n  User root\n  ProxyJump root@{three.nodes[1].address}\n"
    three.write(far, path="/root/.ssh/config")
    three.write(three.file.replace('"10.244.2.0/24" }', '"10.244.2.0/24", ssh = "far" }'), path="/root/far.toml")
    try:
        done = three.cluster("status", "-f", "/root/far.toml")
        assert "3 hosts are healthy" in done.stderr
        logins = node.run(["grep", "Accepted publickey", "/var/log/sshd.log"]).stdout.splitlines()
        assert f"from {three.nodes[1].address} " in logins[-1]
        three.write(far.replace("ProxyJump root@", "ProxyJump nobody@"), path="/root/.ssh/config")
        done = three.cluster("status", "-f", "/root/far.toml", "--limit", "node3", "-o", "json", check=False)
        (row,) = json.loads(done.stdout)["items"]
        assert row["state"] == "unreachable"
        assert f"nobody@{three.nodes[1].address}: Permission denied" in row["why"], "ssh's own message is shown"
    finally:
        three.operator.run(["rm", "/root/.ssh/config"])


def test_answering_no_at_the_terminal_changes_nothing(three: World) -> None:
    before = three.file
    three.write(_grown(three).replace(f', pod_cidr = "{three.nodes[2].pod_cidr}"', ""))
    asked = three.file
    try:
        done = at_terminal(three.operator, "n", "cluster", "apply", "--limit", "node1,node2,node3")
        assert done.status == 1
        assert "Change 2 hosts?" in done.stderr or "Change 3 hosts?" in done.stderr
        assert "nothing was changed" in done.stderr
        assert three.file == asked
        assert not any(map(_routes, three.nodes))
    finally:
        three.write(before)


def test_unreachable_node_is_removed_from_the_others(three: World) -> None:
    before = three.file
    with _cut_off(three.nodes[2]):
        done = three.cluster("remove", "node3", check=False)
        assert done.status == 1
        assert "if the host is gone for good: cnictl cluster remove node3 --gone" in done.stderr
        assert three.file == before
        done = three.cluster("remove", "node3", "--gone", "-o", "json", check=False)
    assert done.status == 1
    states = {row["node"]: row["state"] for row in json.loads(done.stdout)["items"]}
    assert states == {"node3": "unreachable", "node1": "changed", "node2": "changed"}
    assert '"node3"' not in three.file
    for node in three.nodes[:2]:
        assert three.nodes[2].pod_cidr not in node.run(["ip", "route"]).stdout
    three.write(before)
    three.cluster("apply")


_LOST = """
case "$*" in
*--confirm-within*)
    $REAL "$@" >/tmp/run.json; nft add table inet lost
    nft 'add chain inet lost input { type filter hook input priority -300; policy accept; }'
    nft 'add chain inet lost output { type filter hook output priority -300; policy accept; }'
    nft add rule inet lost output tcp sport 22 drop; nft add rule inet lost input tcp dport 22 drop; exit;;
esac
"""


def _grown(three: World) -> str:
    """Return the cluster file with a fourth node that no host knows."""
    line = '  { name = "node4", address = "10.0.3.54", pod_cidr = "10.244.7.0/24" },\n'
    return three.file.replace("]\n", line + "]\n")


def _routes(node: Node) -> bool:
    return "10.244.7.0/24" in node.run(["ip", "route"]).stdout


def test_lost_host_reverts_by_itself_and_the_others_on_request(three: World) -> None:
    before = three.file
    lost = three.nodes[2]
    for option, stays in (("--revert", False), ("--keep", True)):
        three.write(_grown(three))
        words = ["apply", "--limit", "node1,node2,node3", "--confirm-within", "30", option, "-o", "json"]
        with three.replaced(lost, _LOST):
            done = three.cluster(*words, check=False)
            rows = {row["node"]: row for row in json.loads(done.stdout)["items"]}
            assert done.status == 1
            assert rows["node3"]["state"] == "lost"
            assert "reverts the change by itself within 30 s" in rows["node3"]["why"]
            assert rows["node1"]["state"] == ("changed" if stays else "reverted"), rows["node1"]
            for node in three.nodes[:2]:
                assert _routes(node) == stays
            wait_for(lambda: not _routes(lost), "the lost host reverts its change", bound=60)
            lost.run(["nft", "delete", "table", "inet", "lost"])
        if not stays:
            assert lost.run(["cat", ON_NODE]).stdout == before
        three.write(before)
    three.cluster("apply")
    assert not any(map(_routes, three.nodes))


def test_host_that_will_revert_is_named_until_it_is_confirmed(three: World) -> None:
    node = three.nodes[0]
    node.run(["ip", "route", "del", three.nodes[1].pod_cidr])
    node.run(["cnictl", "apply", "--confirm-within", "300"])
    for command in ("plan", "apply"):
        done = three.cluster(command, "-o", "json", check=False)
        rows = {row["node"]: row for row in json.loads(done.stdout)["items"]}
        assert (done.status, rows["node1"]["state"], rows["node2"]["state"]) == (1, "unconfirmed", "unchanged")
        assert "reverts its last run at " in rows["node1"]["why"]
    rows, _, status = three.status()
    assert (status, rows["node1"]["state"], rows["node2"]["state"]) == (1, "faulty", "ok")
    assert "reverts its last run at " in rows["node1"]["why"]
    command = rows["node1"]["hint"]["text"].partition(" sudo ")[2]
    node.run(command.split())
    assert three.status()[2] == 0


def test_all_healthy_hosts_are_confirmed(three: World) -> None:
    before = three.file
    three.write(_grown(three))
    document = json.loads(
        three.cluster("apply", "--limit", "node1,node2,node3", "--confirm-within", "30", "-o", "json").stdout
    )
    assert [row["state"] for row in document["items"]] == ["changed"] * 3
    assert all(node.run(["cnictl", "confirm", "--status"], check=False).status == 1 for node in three.nodes)
    assert all(map(_routes, three.nodes))
    three.write(before)
    three.cluster("apply")
