"""Lab nodes behave like real hosts, and the machine that runs them does not change."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cnictl.core.errors import Problem, UsageProblem
from cnictl.lab import state
from cnictl.lab.lab import Lab, Node
from cnictl.lab.owners import FIRST, LAST
from tests.schemas import checked
from tests.waiting import wait_for

CNICTL = [sys.executable, "-m", "cnictl", "lab"]
TREE = Path(__file__).resolve().parent.parent.parent


def processes_in(namespaces: set[str]) -> list[int]:
    """Return the host's running processes in any of the given namespaces (`net:[…]`, `mnt:[…]`)."""
    pids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                held = {os.readlink(entry / "ns" / kind) for kind in ("net", "mnt")}
                ended = (entry / "stat").read_text().rpartition(")")[2].split()[0] in "ZX"
            except OSError:
                continue
            if held & namespaces and not ended:
                pids.append(int(entry.name))
    return pids


def namespaces_of(lab: Lab) -> set[str]:
    """Return the lab's network and mount namespaces."""
    pids = [lab.holder, *(machine.pid for machine in [*lab.nodes, lab.outside])]
    return {os.readlink(f"/proc/{pid}/ns/{kind}") for pid in pids for kind in ("net", "mnt")}


def of_host() -> dict[str, str]:
    """Return the state that the lab must not change: mounts, links, addresses, routes, kernel settings, folders."""
    snapshot = {"mounts": Path("/proc/self/mountinfo").read_text()}
    for name, argv in (
        ("links", ["ip", "-br", "link"]),
        ("addresses", ["ip", "-br", "address"]),
        ("routes", ["ip", "route", "show", "table", "all"]),
        ("sysctls", ["sysctl", "-a", "--pattern", r"^net\.ipv4\.(ip_forward|conf\.(all|default)\.)"]),
    ):
        snapshot[name] = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    for folder in (
        "/",
        "/etc",
        "/etc/cni/net.d",
        "/opt",
        "/opt/cni/bin",
        "/usr/local/lib",
        "/usr/local/bin",
        "/usr/lib/cni",
    ):
        if os.path.isdir(folder):
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            snapshot[folder] = "\n".join(
                f"{entry.name} {entry.stat(follow_symlinks=False).st_ino}" for entry in entries
            )
    return snapshot


def test_actions_of_a_node_do_not_change_the_host() -> None:
    before = of_host()
    with Lab(nodes=2) as lab:
        node = lab.nodes[0]
        for command in (
            "ip link add cni0 type bridge && ip link set cni0 up",
            "ip netns add pod && ip netns exec pod ip link set lo up",
            "sysctl -q net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=2",
            "nft add table inet ours",
            "mkdir -p /etc/cnictl /opt/cni/bin /usr/local/lib/cnictl && touch /etc/cnictl/node.toml /etc/cni/net.d/x",
            "touch /opt/cni/bin/x /usr/local/lib/cnictl/x /usr/local/bin/x /root/x /var/log/x /srv/x /x",
            "mount -t tmpfs none /mnt",
        ):
            node.run(["sh", "-ec", command])
        during = of_host()
    assert during == before
    assert of_host() == before


@pytest.mark.parametrize("path", ["/usr/x", "/usr/bin/x", "/lib/x", "/etc/alternatives/x", f"{TREE}/x", "/sys/x"])
def test_node_cannot_write_to_the_host(shared_node: Node, path: str) -> None:
    shared_node.run(["test", "-d", os.path.dirname(path)])
    assert shared_node.run(["touch", path], check=False).status != 0
    assert not os.path.lexists(path)


@pytest.mark.parametrize("path", ["/usr", str(TREE), "/etc/alternatives"])
def test_node_root_cannot_make_a_view_of_the_host_writable(shared_node: Node, path: str) -> None:
    for options in ("remount,bind,rw", "remount,rw"):
        assert shared_node.run(["mount", "-o", options, path], check=False).status != 0
    assert shared_node.run(
        ["sh", "-c", f"mkdir -p /mnt/v && mount --bind {path} /mnt/v && touch /mnt/v/x"], check=False
    )
    assert not os.path.lexists(f"{path}/x")
    assert shared_node.run(["umount", path], check=False).status != 0 or not os.path.lexists(f"{path}/x")


def test_node_root_cannot_change_the_kernel(shared_node: Node) -> None:
    for command in (
        "echo 1 > /proc/sys/kernel/panic",
        "echo h > /proc/sysrq-trigger",
        "mknod /tmp/disk b 8 0",
        "mount -t devtmpfs none /mnt",
        "test -e /host",
        "ls /proc/1/root/home/*",
    ):
        assert shared_node.run(["sh", "-c", command], check=False).status != 0, command


def test_node_sees_no_process_and_no_socket_of_the_host(shared_node: Node) -> None:
    shown = shared_node.run(["ps", "-e", "-o", "pid="]).stdout.split()
    assert len(shown) == 2  # process 1 and ps
    sockets = shared_node.run(["find", "/", "-xdev", "-type", "s"]).stdout
    assert sockets == ""
    assert "\n" not in shared_node.run(["cat", "/proc/net/unix"]).stdout.strip()  # the heading only


def test_node_has_root_and_its_own_name_and_programs(shared_lab: Lab) -> None:
    for node in shared_lab.nodes:
        assert node.run(["id", "-u"]).stdout == "0\n"
        assert node.run(["hostname"]).stdout == f"{node.name}\n"
        assert node.run(["sh", "-c", "command -v cnictl"]).stdout == "/usr/local/bin/cnictl\n"
        assert "Usage: cnictl" in node.run(["cnictl", "--help"]).stdout
        assert node.run(["getent", "hosts", node.name]).stdout.split()[0] == node.address
        assert node.run(["ls", "/etc/cni/net.d", "/opt/cni/bin", "/var/lib/cni", "/usr/local/lib/cnictl"], check=False)


def test_nodes_have_the_walk_throughs_addresses_on_one_link(shared_lab: Lab) -> None:
    one, two = shared_lab.nodes
    assert (one.interface, one.pod_cidr) == ("10.0.0.210/20", "10.244.0.0/24")
    assert (two.interface, two.pod_cidr) == ("10.0.10.51/20", "10.244.1.0/24")
    for node, other in ((one, two), (two, one)):
        node.run(["ping", "-c1", "-W2", other.address])
        route = json.loads(node.run(["ip", "-j", "route", "get", other.address]).stdout)[0]
        assert route["dev"] == "eth0" and "gateway" not in route


def test_nodes_differ_in_network_mounts_and_processes(shared_lab: Lab) -> None:
    for kind in ("net", "mnt", "uts", "ipc", "pid"):
        every = [
            node.run(["readlink", f"/proc/self/ns/{kind}"]).stdout for node in [*shared_lab.nodes, shared_lab.outside]
        ]
        assert len({*every, os.readlink(f"/proc/self/ns/{kind}")}) == 4


def test_outside_answers_nodes_and_has_no_route_to_pods(lab: Lab) -> None:
    node = lab.nodes[0]
    node.run(["ping", "-c1", "-W2", lab.outside.address])
    lab.outside.run(["ping", "-c1", "-W2", node.address])
    refused = lab.outside.run(["ip", "route", "get", "10.244.0.2"], check=False)
    assert refused.status != 0 and "unreachable" in refused.stderr
    # a packet with a pod's source address arrives, but the reply does not come back
    node.run(["ip", "address", "add", "10.244.0.2/32", "dev", "lo"])
    before = int(json.loads(lab.outside.run(["nstat", "-azj", "IcmpInEchos"]).stdout)["kernel"]["IcmpInEchos"])
    lost = node.run(["ping", "-c1", "-W1", "-I", "10.244.0.2", lab.outside.address], check=False)
    assert lost.status == 1 and "100% packet loss" in lost.stdout
    after = int(json.loads(lab.outside.run(["nstat", "-azj", "IcmpInEchos"]).stdout)["kernel"]["IcmpInEchos"])
    assert after > before


def test_forwarding_and_reverse_path_filter_start_off(shared_lab: Lab) -> None:
    for node in shared_lab.nodes:
        names = ["net.ipv4.ip_forward", "net.ipv4.conf.all.rp_filter", "net.ipv4.conf.eth0.rp_filter"]
        assert node.run(["sysctl", "-n", *names]).stdout.split() == ["0", "0", "0"]


def test_pods_of_plain_ip_commands_work_inside(node: Node) -> None:
    node.run(
        ["sh", "-exc", """
            ip link add cni0 type bridge
            ip link set cni0 up
            ip address add 10.244.0.1/24 dev cni0
            for pod in 2 3; do
                ip netns add pod$pod
                ip link add veth$pod type veth peer name eth0 netns pod$pod
                ip link set veth$pod master cni0 up
                ip -n pod$pod address add 10.244.0.$pod/24 dev eth0
                ip -n pod$pod link set eth0 up
                ip -n pod$pod route add default via 10.244.0.1
            done
        """]
    )  # fmt: skip
    node.run(["ip", "netns", "exec", "pod2", "ping", "-c1", "-W2", "10.244.0.3"])
    node.run(["ip", "netns", "exec", "pod2", "ping", "-c1", "-W2", node.address])


@pytest.mark.parametrize("backend", ["nft", "iptables"])
def test_masquerade_works_inside(lab: Lab, backend: str) -> None:
    node = lab.nodes[0]
    if backend == "nft":
        rules = (
            "table inet t { chain post { type nat hook postrouting priority srcnat;\n"
            "ip saddr 10.244.0.2 masquerade fully-random\n}\n}\n"
        )
        node.run(["nft", "-f", "/dev/stdin"], stdin=rules)
    else:
        node.run(["iptables", "-w", "-t", "nat", "-A", "POSTROUTING", "-s", "10.244.0.2", "-j", "MASQUERADE"])
    node.run(["sysctl", "-q", "net.ipv4.ip_forward=1"])
    node.run(["ip", "netns", "add", "pod"])
    node.run(["ip", "link", "add", "veth1", "type", "veth", "peer", "name", "eth0", "netns", "pod"])
    node.run(["ip", "address", "add", "10.244.0.1/24", "dev", "veth1"])
    node.run(["ip", "link", "set", "veth1", "up"])
    node.run(["ip", "-n", "pod", "address", "add", "10.244.0.2/24", "dev", "eth0"])
    node.run(["ip", "-n", "pod", "link", "set", "eth0", "up"])
    node.run(["ip", "-n", "pod", "route", "add", "default", "via", "10.244.0.1"])
    node.run(["ip", "netns", "exec", "pod", "ping", "-c1", "-W2", lab.outside.address])


def test_run_gives_output_status_signal_input_and_environment(shared_node: Node) -> None:
    done = shared_node.run(
        ["sh", "-c", "cat; echo $GREETING >&2; exit 3"], stdin="in", env={"GREETING": "hi"}, check=False
    )
    assert (done.status, done.stdout, done.stderr) == (3, "in", "hi\n")
    assert shared_node.run(["sh", "-c", "kill -TERM $$"], check=False).status == -signal.SIGTERM
    assert shared_node.run(["no-such-command"], check=False).status == 127
    with pytest.raises(Problem, match="exit status 1"):
        shared_node.run(["false"])


def test_run_ends_its_processes_at_the_timeout(shared_node: Node) -> None:
    with pytest.raises(Problem, match=r"still running after 0\.2 s"):
        shared_node.run(["sleep", "60"], timeout=0.2)
    wait_for(lambda: not _sleeps(shared_node), "sleep has ended")


def _sleeps(node: Node) -> bool:
    """Return whether `sleep` runs on a node. One that has ended may stay until the host's process 1 reaps it."""
    listed = node.run(["ps", "-e", "-o", "stat=,comm="]).stdout.splitlines()
    return any(command == "sleep" and state[0] != "Z" for state, command in (line.split(None, 1) for line in listed))


def test_killing_the_popen_process_kills_the_command(shared_node: Node) -> None:
    with shared_node.popen(["sh", "-c", "echo started; exec sleep 61"]) as process:
        assert process.stdout is not None and process.stdout.readline() == "started\n"
        process.kill()
    wait_for(lambda: not _sleeps(shared_node), "sleep has ended")


def test_environment_of_the_host_stays_outside(shared_node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_HOST", "1")
    with Lab(nodes=1) as lab:
        assert lab.nodes[0].run(["cat", "/proc/1/environ"]).stdout == "LANG=C.UTF-8\0"
    shown = shared_node.run(["env"]).stdout
    assert "SECRET_OF_THE_HOST" not in shown
    assert "HOME=/root\n" in shown and "LANG=C.UTF-8\n" in shown and "/usr/sbin" in shown


def test_end_of_the_block_leaves_no_process_and_no_namespace() -> None:
    with Lab(nodes=2) as lab:
        lab.nodes[0].run(["ip", "netns", "add", "pod"])
        lab.nodes[0].run(["sh", "-c", "setsid sleep 62 >/dev/null 2>&1 &"])
        made = namespaces_of(lab)
        # compare start times as well, because the kernel reuses a namespace's number for the next lab on the machine
        before = {pid: state.identity(pid) for pid in processes_in(made)}
        assert len(before) >= 5
    assert [pid for pid, started in before.items() if state.identity(pid) == started] == []


def test_killing_the_holder_ends_the_whole_lab() -> None:
    with Lab(nodes=2) as lab:
        made = namespaces_of(lab)
        sleeper = lab.nodes[1].popen(["sh", "-c", "echo started; exec sleep 63"])
        assert sleeper.stdout is not None and sleeper.stdout.readline() == "started\n"
        os.kill(lab.holder, signal.SIGKILL)
        assert sleeper.wait(10) == -signal.SIGKILL
        sleeper.communicate()
        wait_for(lambda: processes_in(made) == [], "every process of the lab has ended")


def test_lab_ends_with_the_process_that_created_it() -> None:
    program = (
        "import time; from cnictl.lab.lab import Lab\n"
        "with Lab(nodes=1) as lab: print(lab.holder, flush=True); time.sleep(64)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as maker:
        assert maker.stdout is not None
        holder = int(maker.stdout.readline())
        assert state.identity(holder)
        maker.kill()
    wait_for(lambda: state.identity(holder) == "", "the holder has ended")


def test_two_labs_side_by_side_share_nothing(shared_lab: Lab) -> None:
    with Lab(nodes=1) as other:
        other.nodes[0].run(["ip", "link", "add", "only-here", "type", "bridge"])
        assert "only-here" not in shared_lab.nodes[0].run(["ip", "link"]).stdout
        assert not namespaces_of(other) & namespaces_of(shared_lab)
    shared_lab.nodes[0].run(["ping", "-c1", "-W2", shared_lab.nodes[1].address])


def test_sixteen_nodes_reach_each_other_and_a_seventeenth_is_refused() -> None:
    with Lab(nodes=16) as lab:
        assert len({node.address for node in lab.nodes}) == 16
        lab.nodes[2].run(["ping", "-c1", "-W2", lab.nodes[15].address])
        lab.nodes[15].run(["ping", "-c1", "-W2", lab.outside.address])
    with pytest.raises(UsageProblem, match="1 to 16"):
        Lab(nodes=17)


@pytest.fixture
def name() -> Iterator[str]:
    """Yield a lab name for this test alone, and take down any lab with that name afterwards."""
    own = f"test-{os.getpid()}"
    yield own
    subprocess.run([*CNICTL, "down", "--lab", own], capture_output=True, check=True)


def cli(*arguments: str, prefix: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
    """Run `cnictl lab …` as a user does."""
    return subprocess.run([*prefix, *CNICTL, *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_up_status_exec_down_by_command(name: str) -> None:
    option = ("--lab", name)
    missing = cli("status", *option, "-o", "json")
    assert missing.returncode == 1 and checked("lab status", missing.stdout)["items"] == []
    (hint,) = (line for line in cli("exec", *option, "node1", "--", "id").stderr.splitlines() if "hint" in line)
    assert (
        hint == f"  hint: cnictl lab up --lab {name}"
        and f"({hint.partition(': ')[2]})" in cli("status", *option).stderr
    )
    assert cli(*hint.partition(": cnictl lab ")[2].split(), "--nodes", "3").returncode == 0
    again = cli("up", *option)
    assert again.returncode == 0 and "already up" in again.stderr
    formerly = cli("status", "--name", name)
    assert formerly.returncode == 0 and f"use --lab {name}" in formerly.stderr
    other = cli("up", "--nodes", "2", *option)
    assert other.returncode == 1 and f"3 nodes, not 2\n  hint: cnictl lab down --lab {name} first" in other.stderr
    shown = cli("status", *option, "-o", "json")
    assert shown.returncode == 0
    report = checked("lab status", shown.stdout)
    assert [machine["name"] for machine in report["items"]] == ["node1", "node2", "node3", "outside"]
    holder = report["holder"]
    done = cli("exec", *option, "node2", "--", "sh", "-c", "hostname; exit 9")
    assert (done.returncode, done.stdout) == (9, "node2\n")
    unknown = cli("exec", *option, "node7", "--", "true")
    assert unknown.returncode == 2 and "node1, node2, node3, outside" in unknown.stderr
    for _ in range(2):
        assert cli("down", *option).returncode == 0
    assert state.identity(holder) == ""
    assert cli("exec", *option, "node1", "--", "true").returncode == 1


def test_pod_is_started_through_the_nodes_own_plugin(name: str) -> None:
    option = ("--lab", name)
    assert cli("up", "--nodes", "1", "--dual-stack", *option).returncode == 0
    early = cli("pod", *option, "node1", "web")
    assert early.returncode == 1 and early.stderr.endswith("  hint: run cnictl init-node there\n")
    on_node = ("exec", *option, "node1", "--")
    words = ("--subnet", "10.244.0.0/24,fd00:244::/64", "--network", "10.244.0.0/20,fd00:244::/48")
    assert cli(*on_node, "cnictl", "init-node", *words).returncode == 0

    made = cli("pod", *option, "node1", "web")
    assert made.returncode == 0 and "default/web runs on node1, with 10.244.0.2, fd00:244::2" in made.stderr
    assert cli("pod", *option, "node1", "default/web").returncode == 1
    assert cli("pod", *option, "node1", "Web").returncode == 2
    # the default external addresses of both families answer in the lab
    for family in ("-4", "-6"):
        answered = cli(*on_node, "cnictl", "ping", "web", "external", "-c", "1", family)
        assert answered.returncode == 0 and "1 answered" in answered.stdout
    assert cli("pod", *option, "node1", "web", "--delete").returncode == 0
    listed = cli(*on_node, "cnictl", "ipam", "list", "-o", "json")
    assert json.loads(listed.stdout)["items"] == []
    assert cli(*on_node, "ip", "netns").stdout == ""
    assert cli("pod", *option, "node1", "web", "--delete").returncode == 1


def test_state_of_a_dead_lab_is_ignored(name: str) -> None:
    option = ("--lab", name)
    assert cli("up", "--nodes", "1", *option).returncode == 0
    holder = json.loads(cli("status", *option, "-o", "json").stdout)["holder"]
    os.kill(holder, signal.SIGKILL)
    wait_for(lambda: state.identity(holder) == "", "the holder has ended")
    assert cli("status", *option).returncode == 1
    assert cli("up", *option).returncode == 0
    assert len(json.loads(cli("status", *option, "-o", "json").stdout)["items"]) == 3


def test_state_file_of_another_version_is_ignored(name: str) -> None:
    (state.folder() / f"{name}.json").write_text('{"version": 0, "holder": 1}')
    assert cli("up", "--nodes", "1", "--lab", name).returncode == 0


@pytest.mark.parametrize("bad", ["", "../x", "A", "a b", "x" * 32])
def test_name_that_is_not_a_file_name_is_refused(bad: str) -> None:
    refused = cli("status", "--lab", bad)
    assert refused.returncode == 2 and "lab name" in refused.stderr


def test_exec_without_command_is_a_shell_at_the_terminal(name: str) -> None:
    assert cli("up", "--nodes", "1", "--lab", name).returncode == 0
    ours, theirs = pty.openpty()
    shell = subprocess.Popen(
        [*CNICTL, "exec", "--lab", name, "node1"], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    os.write(ours, b"echo at-$(hostname); exit 5\n")
    said = b""
    with pytest.raises(OSError, match="Input/output error"):  # this is how a terminal ends
        while select.select([ours], [], [], 20)[0]:
            said += os.read(ours, 4096)
    os.close(ours)
    assert shell.wait(10) == 5
    assert b"at-node1" in said


def test_ordinary_user_gets_the_same_lab() -> None:
    program = (
        "from cnictl.lab.lab import Lab\n"
        "with Lab() as lab:\n"
        "    one, two = lab.nodes\n"
        "    assert one.run(['id', '-u']).stdout == '0\\n'\n"
        "    one.run(['ping', '-c1', '-W2', two.address])\n"
        "    one.run(['ping', '-c1', '-W2', lab.outside.address])\n"
        "    one.run(['nft', '-f', '/dev/stdin'], stdin='table inet t { chain c { }\\n}')\n"
        "    one.run(['iptables', '-t', 'nat', '-L'])\n"
        "    one.run(['ip', 'netns', 'add', 'x'])\n"
        "    one.run(['ip', 'netns', 'exec', 'x', 'ip', 'link', 'add', 'cni0', 'type', 'bridge'])\n"
        "    one.run(['sysctl', '-q', 'net.ipv4.ip_forward=1'])\n"
        "    assert one.run(['touch', '/usr/x'], check=False).status != 0\n"
    )
    prefix = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*prefix, sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_host_without_user_namespaces_is_named_and_sudo_offered() -> None:
    # in its own user namespace, the test can set the limit on nested ones to 0
    command = f"echo 0 > /proc/sys/user/max_user_namespaces && exec {sys.executable} -m cnictl lab up --lab never"
    prefix = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*prefix, "unshare", "-Ur", "sh", "-c", command], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "forbids user namespaces: user.max_user_namespaces is 0" in done.stderr
    assert "sysctl -w user.max_user_namespaces" in done.stderr


def test_lab_of_root_maps_to_users_that_nobody_else_has() -> None:
    with Lab(nodes=1) as first, Lab(nodes=1) as second:
        owners = {os.stat(f"/proc/{pid}").st_uid for lab in (first, second) for pid in (lab.holder, lab.nodes[0].pid)}
        if os.geteuid() != 0:
            assert owners == {os.geteuid()}
            return
        assert len(owners) == 2 and all(FIRST <= owner < LAST for owner in owners)
        # otherwise, every daemon that runs as `nobody` would be root in the lab
        as_nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
        for forbidden in (["kill", "-9", str(first.holder)], first.nodes[0].command(["id"])):
            assert subprocess.run([*as_nobody, *forbidden], capture_output=True, check=False).returncode != 0
        node = first.nodes[0]
        node.run(["sh", "-ec", "touch /tmp/theirs; chown 33:5 /tmp/theirs"])
        assert node.run(["stat", "-c", "%u %g", "/tmp/theirs"]).stdout == "33 5\n"
        said = node.run(["setpriv", "--reuid", "33", "--regid", "33", "--groups", "5", "id", "-G"]).stdout
        assert said == "33 5\n"
        assert node.run(["cat", "/usr/bin/env", "/etc/passwd"]).status == 0
        assert node.run(["touch", "/usr/x"], check=False).status != 0
