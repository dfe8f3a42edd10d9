"""With `--confirm-within`, a run that cuts off its operator is undone, even if processes were killed."""

import fcntl
import json
import os
import pty
import subprocess
import termios
import uuid
from collections.abc import Iterator

import pytest

from cnictl.lab.lab import Lab, Node, environment
from tests.kernel.commands import INIT_OPTIONS, call, cnictl, drifted, init, snapshot, start_pod
from tests.kernel.runs.test_watch import watching
from tests.waiting import wait_for

pytestmark = pytest.mark.once

PEER = ("--peer", "10.244.1.0/24=10.0.10.51")
SOON = ("--confirm-within", "2")
LATER = ("--confirm-within", "600")
RECORD = "/var/lib/cnictl/confirm.json"


_OF_THE_RUNS = ("/var/lib/cnictl", "/run/cnictl", "/run/mount")


def guards(node: Node) -> list[str]:
    """Return the pids of the running guards."""
    rows = [line.split() for line in node.run(["ps", "-eo", "pid,comm"]).stdout.splitlines()]
    return [pid for pid, name in rows if name == "cnictl-guard"]


def waits(node: Node) -> bool:
    """Return whether a run waits to be confirmed."""
    return node.run(["test", "-e", RECORD], check=False).status == 0


def as_before(node: Node) -> dict[str, object]:
    """Return the host's snapshot without the records of runs."""
    seen = snapshot(node)
    return {
        **seen,
        "tree": [line for line in seen["tree"] if not line.startswith(_OF_THE_RUNS)],
    }


def in_another_boot(node: Node) -> None:
    """Remove what a reboot removes: processes, links, addresses, routes, rules, kernel settings, /run.

    Change the boot id.
    """
    wipe = (
        "pkill -9 -x cnictl-guard; "
        "ip link delete cni0; ip route flush proto 67; nft flush ruleset; rm -rf /run/cnictl; "
        "sysctl -qw net.ipv4.ip_forward=0; sysctl -qp /etc/sysctl.d/99-cnictl.conf; "
        f"echo {uuid.uuid4()} > /tmp/boot_id; mount --bind /tmp/boot_id /proc/sys/kernel/random/boot_id"
    )
    node.run(["sh", "-c", wipe], check=False)


def test_unconfirmed_run_is_undone_by_itself_and_a_confirmed_one_stays(node: Node) -> None:
    before = as_before(node)
    done = init(node, *PEER, *SOON, "-o", "json")
    assert json.loads(done.stdout)["confirm_within"] == 2
    assert "run 1 is undone in 2 s, unless you run: cnictl confirm" in done.stderr
    assert len(guards(node)) == 1
    wait_for(lambda: not waits(node), "the run is undone", 30)
    wait_for(lambda: not guards(node), "the guard is gone")
    assert as_before(node) == before
    late = cnictl(node, "confirm", check=False)
    assert late.status == 1 and "run 1 (init-node) was undone by run 2" in late.stderr

    init(node, *PEER, *LATER)
    made = as_before(node)
    waiting = json.loads(cnictl(node, "confirm", "--status", "-o", "json").stdout)
    assert waiting["waiting"] == 3 and 0 < waiting["seconds_left"] <= 600
    refused = cnictl(node, "nat", "disable", check=False)
    assert refused.status == 1 and "run 3 (init-node) waits to be confirmed" in refused.stderr
    assert "run 3 (init-node) is confirmed" in cnictl(node, "confirm").stderr
    wait_for(lambda: not guards(node), "the guard is gone")
    assert as_before(node) == made
    assert cnictl(node, "confirm", "--status", check=False).status == 1


@pytest.mark.parametrize(
    "words",
    [
        ("nat", "disable"),
        ("route", "add-peer", "10.244.2.0/24", "10.0.10.52"),
        ("bridge", "up", "--mtu", "1400"),
    ],
    ids=" ".join,
)
def test_each_changing_command_undoes_itself_without_a_confirmation(set_up: Node, words: tuple[str, ...]) -> None:
    before = in_one_order(as_before(set_up))
    cnictl(set_up, *words, "--confirm-within", "1")
    wait_for(lambda: not waits(set_up), "the run is undone", 30)
    assert in_one_order(as_before(set_up)) == before
    assert drifted(set_up) == []


@pytest.fixture(scope="module")
def set_up() -> Iterator[Node]:
    """Yield a node that is set up, for tests that leave it unchanged."""
    with Lab(nodes=1) as lab:
        init(lab.nodes[0], *PEER)
        yield lab.nodes[0]


def in_one_order(seen: dict[str, object]) -> dict[str, object]:
    """Sort nft's tables, because one that was removed and added again is listed last."""
    return {**seen, "nft": sorted(str(seen["nft"]).split("table ")), "iptables": sorted(map(str, seen["iptables"]))}  # type: ignore[call-overload]


def test_closed_terminal_and_killed_session_do_not_stop_the_undo(node: Node) -> None:
    before = as_before(node)
    ours, theirs = pty.openpty()

    def own_the_terminal() -> None:
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    words = " ".join(["cnictl init-node", *INIT_OPTIONS, *PEER, *SOON])
    session = subprocess.Popen(
        node.command(["sh", "-c", f"{words}; echo over; read forever"]),
        env=environment(),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        preexec_fn=own_the_terminal,
    )
    os.close(theirs)
    said = b""
    while b"over" not in said:
        said += os.read(ours, 4096)
    os.close(ours)  # the connection is gone, and the kernel sends SIGHUP to the whole session
    session.kill()
    session.wait(timeout=10)
    assert len(guards(node)) == 1
    wait_for(lambda: not waits(node), "the run is undone", 30)
    assert as_before(node) == before


def kill_guard(node: Node) -> None:
    """Kill the guard with SIGKILL."""
    node.run(["kill", "-9", *guards(node)])
    wait_for(lambda: not guards(node), "the guard is gone")


def test_next_command_undoes_after_the_guard_was_killed(node: Node) -> None:
    before = as_before(node)
    init(node, *PEER, "--confirm-within", "1")
    kill_guard(node)
    if waits(node):  # otherwise the guard was quicker
        wait_for(
            lambda: "undo 1, not confirmed" in cnictl(node, "history").stdout, "the next command undoes the run", 30
        )
    assert not waits(node)
    assert as_before(node) == before


def test_watch_undoes_after_the_guard_was_killed(set_up: Node) -> None:
    before = in_one_order(as_before(set_up))
    with watching(set_up):
        cnictl(set_up, "route", "add-peer", "10.244.2.0/24", "10.0.10.52", "--confirm-within", "2")
        assert waits(set_up)
        kill_guard(set_up)
        event = "ip route add blackhole 192.0.2.1; ip route del blackhole 192.0.2.1"
        wait_for(lambda: not (set_up.run(["sh", "-c", event]).status or waits(set_up)), "watch undoes the run", 30)
    assert in_one_order(as_before(set_up)) == before


def test_guard_undoes_a_killed_run_immediately(node: Node) -> None:
    before = as_before(node)
    command = " ".join(["cnictl init-node", *INIT_OPTIONS, *PEER, *LATER])
    running = node.popen(["sh", "-c", f"{command} & echo $! > /tmp/pid; wait $!"])
    wait_for(
        lambda: '"masquerade/' in node.run(["sh", "-c", "cat /var/lib/cnictl/journal/*"], check=False).stdout,
        "the masquerade step has begun",
        30,
    )
    node.run(["sh", "-c", "kill -9 $(cat /tmp/pid)"])
    running.communicate(timeout=60)
    wait_for(lambda: not waits(node), "the run is undone", 30)
    node.run(["rm", "/tmp/pid"])
    assert as_before(node) == before


@pytest.mark.parametrize("words", [("confirm",), ("status",)], ids=" ".join)
def test_interrupted_run_is_undone_by_the_next_command(node: Node, words: tuple[str, ...]) -> None:
    before = as_before(node)
    init(node, *PEER, *LATER)
    kill_guard(node)
    node.run(["sed", "-i", r's/"deadline": [0-9.]*/"deadline": 0.0/', RECORD])
    cnictl(node, *words, check=False)
    assert not waits(node)
    assert as_before(node) == before


@pytest.mark.parametrize("when", ["within its time", "while it was at work"])
def test_reboot_first_undoes_an_unconfirmed_run(node: Node, when: str) -> None:
    before = as_before(node)
    init(node, *PEER, *LATER)
    if when == "while it was at work":
        kill_guard(node)
        node.run(["sed", "-i", r's/"deadline": [0-9.]*/"deadline": 0.0/', RECORD])
    in_another_boot(node)
    done = cnictl(node, "apply")  # the boot unit's command
    assert "run 1 was not confirmed (this host was rebooted): undone by run 2" in done.stderr
    assert "nothing to apply" in done.stderr
    assert not waits(node)
    assert as_before(node) == before


def test_reboot_leaves_the_node_that_was_confirmed(node: Node) -> None:
    init(node)
    before = in_one_order(as_before(node))
    cnictl(node, "route", "add-peer", "10.244.1.0/24", "10.0.10.51", *LATER)
    in_another_boot(node)
    assert "undone by run 3" in cnictl(node, "apply").stderr
    after = in_one_order(as_before(node))
    for kind in ("routes", "nft", "iptables", "tree", "contents"):
        assert _settled(after[kind]) == _settled(before[kind]), kind
    assert drifted(node) == []


def _settled(value: object) -> object:
    """Remove the link-local routes of the bridge, whose MAC changes with a boot."""
    return [item for item in value if "fe80" not in json.dumps(item)] if isinstance(value, list) else value


def test_pods_added_since_keep_their_network_and_are_named(node: Node) -> None:
    init(node, *PEER, "--confirm-within", "3")
    pod = start_pod(node, "pod")
    wait_for(lambda: not waits(node), "the run is undone", 30)
    assert pod.pings("10.244.0.1")
    left = json.loads(cnictl(node, "history", "2", "-o", "json").stdout)["left"]
    assert any(note.startswith("bridge/cni0: pods need it") and pod.address in note for note in left)
    assert not any(note.startswith(("route/", "cni-conf/", "file/")) for note in left)
    assert node.run(["ip", "route", "show", "proto", "67"]).stdout == ""
    assert node.run(["ls", "/etc/cnictl", "/etc/cni/net.d"], check=False).stdout.split() == ["/etc/cni/net.d:"]
    node.run(["ip", "netns", "delete", "pod"])
    wait_for(lambda: "veth" not in node.run(["ip", "-br", "link"]).stdout, "the pod's veth is gone")
    assert cnictl(node, "undo", "1").status == 0
    assert "cni0" not in node.run(["ip", "-br", "link"]).stdout


def test_systemd_timer_is_started_if_systemd_runs(node: Node) -> None:
    stub = "mkdir -p /run/systemd/system && cat > /usr/local/bin/$0 && chmod 755 /usr/local/bin/$0"
    for name in ("systemd-run", "systemctl"):
        node.run(["sh", "-ec", stub, name], stdin=f'#!/bin/sh\necho {name} "$@" >> /tmp/asked\n')
    init(node, *LATER)
    asked = node.run(["grep", "systemd-run", "/tmp/asked"]).stdout
    assert "--on-active=601" in asked and asked.strip().endswith("/cnictl confirm --status")
    cnictl(node, "confirm")
    assert "stop cnictl-confirm.timer" in node.run(["tail", "-n1", "/tmp/asked"]).stdout


def test_second_run_waits_with_a_message_or_fails_immediately_and_pods_start_meanwhile(node: Node) -> None:
    init(node)
    holder = node.popen(["flock", "/run/cnictl/run.lock", "sh", "-c", "echo held; read line"], stdin=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdin is not None
    assert holder.stdout.readline() == "held\n"
    at_once = cnictl(node, "nat", "disable", "--no-wait", check=False)
    assert at_once.status == 1 and "another cnictl command is changing this node: cnictl init-node" in at_once.stderr
    waiting = node.popen(["cnictl", "nat", "disable"])
    assert waiting.stderr is not None
    assert "waiting for another cnictl command to end, at most 30 s: cnictl init-node" in waiting.stderr.readline()
    pod = start_pod(node, "pod")
    assert pod.pings("10.244.0.1")
    call(node, "DEL", "pod")
    holder.communicate("done\n", timeout=10)
    waiting.communicate(timeout=60)
    assert waiting.returncode == 0
