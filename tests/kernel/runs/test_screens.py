"""At a terminal, `status --watch` fits, no address is split, `doctor` shows its checks, and `undo` asks."""

import fcntl
import json
import os
import re
import select
import struct
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cnictl.lab.lab import Lab, Node
from tests.kernel.commands import cnictl, init, start_pod

pytestmark = pytest.mark.once

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """Yield a node with a silent peer and three pods, of which one is gone."""
    with Lab(nodes=1) as lab:
        node = lab.nodes[0]
        init(node, "--peer", "10.244.7.0/24=10.0.0.99")
        for name in ("web", "db", "gone"):
            start_pod(node, name)
        node.run(["ip", "netns", "delete", "gone"])
        yield node


class Terminal:
    """A terminal of a given size, and the command that runs in it."""

    def __init__(self, node: Node, rows: int, columns: int, *words: str) -> None:
        self.ours, self._its = os.openpty()
        self.resize(rows, columns)
        environment = {"TERM": "xterm", "COLUMNS": "", "LINES": ""}
        # setsid gives the command its own terminal, which sends it the signals of a resize and of Ctrl-C. A background
        # job of a script ignores SIGINT, and so would its children.
        command = ["setsid", "--ctty", "--wait", "env", "--default-signal=INT", "cnictl", *words]
        self.process = node.popen(command, environment, stdin=self._its, stdout=self._its, stderr=self._its)
        self.shown = ""

    def resize(self, rows: int, columns: int) -> None:
        """Give the terminal another size."""
        fcntl.ioctl(self._its, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read_until(self, pattern: str, bound: float = 60.0) -> str:
        """Return and drop the output up to the end of a match."""
        end = time.monotonic() + bound
        while not (match := re.search(pattern, self.shown, re.DOTALL)):
            left = end - time.monotonic()
            assert left > 0 and select.select([self.ours], [], [], left)[0], (pattern, self.shown)
            self.shown += os.read(self.ours, 65536).decode()
        seen, self.shown = self.shown[: match.end()], self.shown[match.end() :]
        return seen

    def close(self) -> None:
        """End the command, and close the terminal."""
        if self.process.poll() is None:
            os.write(self.ours, b"\x03")
        self.process.wait(30)
        os.close(self.ours)
        os.close(self._its)


@contextmanager
def terminal(node: Node, rows: int, columns: int, *words: str) -> Iterator[Terminal]:
    """Run a command at a terminal of this size."""
    running = Terminal(node, rows, columns, *words)
    try:
        yield running
    finally:
        running.close()


def screen(running: Terminal) -> list[str]:
    """Return the lines of the next whole screen of `status --watch`."""
    running.read_until(r"\x1b\[H\x1b\[2J")
    return ESCAPES.sub("", running.read_until(r"until Ctrl-C[^\n]*\n")).replace("\r", "").splitlines()


@pytest.mark.parametrize(("rows", "columns"), [(24, 80), (10, 60)])
def test_status_watch_fits_the_terminal_and_follows_its_size(node: Node, rows: int, columns: int) -> None:
    with terminal(node, rows, columns, "status", "--watch") as running:
        lines = screen(running)
        assert lines[0].startswith("in doubt: no answer from peer 10.0.0.99")
        assert len(lines) < rows
        assert max(map(len, lines)) <= columns
        if rows == 24:
            running.resize(12, 100)
            while len(lines := screen(running)) != 11:  # an earlier screen may have been on its way
                assert len(lines) < rows
            assert re.search(r"; \d+ more lines: cnictl status$", lines[-1])


def test_status_says_the_verdict_first_then_what_differs(node: Node) -> None:
    node.run(["sysctl", "-qw", "net.ipv4.ip_forward=0"])
    try:
        done = cnictl(node, "status", check=False)
        document = json.loads(cnictl(node, "status", "-o", "json", check=False).stdout)
    finally:
        node.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"])
    first, _, heading, differs = done.stdout.splitlines()[:4]
    assert (done.status, document["verdict"]) == (1, "faulty")
    assert re.fullmatch(r"faulty: 1 of \d+ resources drifted; .*no answer from peer 10\.0\.0\.99", first)
    assert heading.startswith("RESOURCE") and differs.startswith("sysctl/net.ipv4.ip_forward  drifted")


def test_node_is_healthy_if_all_its_peers_answer() -> None:
    with Lab(nodes=2) as lab:
        here, there = lab.nodes
        for node, peer in ((here, there), (there, here)):
            init(node, "--peer", f"{peer.pod_cidr}={peer.address}")
        first = cnictl(here, "status").stdout.splitlines()[0]
    assert re.fullmatch(r"healthy: \d+ resources match node\.toml, and every peer answers \(1\)", first)


def test_listed_pod_names_are_accepted_by_pod(node: Node) -> None:
    names = cnictl(node, "pod", "list", "-o", "name").stdout.split()
    assert sorted(names) == ["db", "gone", "web"]
    command = "cnictl pod list -o name | xargs -n1 cnictl pod"
    assert node.run(["sh", "-ec", command], timeout=60).stdout.count("address ") == 3
    listed = cnictl(node, "pod", "list").stdout.splitlines()
    assert listed[0].split() == ["NAME", "ADDRESS", "INTERFACE", "STATE", "AGE"]
    assert re.search(r"gone +10\.244\.0\.4 +eth0 +stale", "\n".join(listed))
    wide = cnictl(node, "pod", "list", "-o", "wide").stdout
    assert re.search(r"web +10\.244\.0\.2 .* web +veth\w+ +/run/netns/web\n", wide)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("ipam list --stale", ["10.244.0.4"]),
        ("route list", ["10.244.7.0/24"]),
        ("history", ["1"]),
        ("doctor --only peer-silent", ["peer-silent"]),
        ("logs --verb add", ["web", "db", "gone"]),
    ],
)
def test_list_prints_only_names(node: Node, words: str, names: list[str]) -> None:
    done = cnictl(node, *words.split(), "-o", "name", check=False)
    assert done.stdout.split() == names


@pytest.mark.parametrize("words", ["status", "bridge show", "pod show web", "history 1", "doctor --explain mtu-path"])
def test_commands_that_are_not_lists_accept_table_and_json(node: Node, words: str) -> None:
    for output in ("name", "wide"):
        done = cnictl(node, *words.split(), "-o", output, check=False)
        assert (done.status, done.stdout) == (2, "")
        assert "use -o table or -o json" in done.stderr


def test_doctor_shows_the_running_check_at_a_terminal(node: Node) -> None:
    with terminal(node, 24, 80, "doctor") as running:
        running.read_until(r"check \d+ of \d+: [a-z-]+")
        running.read_until("peer-silent")
    piped = cnictl(node, "doctor", check=False)
    assert "check 1 of" not in piped.stderr


def test_history_shows_the_arguments_and_undo_shows_its_changes_and_asks(node: Node) -> None:
    cnictl(node, "route", "add-peer", "10.244.8.0/24=10.0.10.52")
    first = cnictl(node, "history").stdout.splitlines()[1]
    assert re.search(r"change +done +\d+ +route add-peer 10\.244\.8\.0/24=10\.0\.10\.52$", first)
    with terminal(node, 24, 120, "undo") as running:
        seen = running.read_until(r"\[y/N\]")
        os.write(running.ours, b"y\n")
        running.process.wait(60)
    assert re.search(r"undoes run 2: cnictl route add-peer 10\.244\.8\.0/24=10\.0\.10\.52", seen)
    assert re.search(r"to undo it:\s.* remove the route to 10\.244\.8\.0/24", seen, re.DOTALL)
    assert "10.244.8.0/24" not in cnictl(node, "route", "list").stdout


@pytest.mark.parametrize(("words", "columns"), [("ipam list", 60), ("status", 60), ("history", 80)])
def test_no_address_is_split_at_a_terminal(node: Node, words: str, columns: int) -> None:
    with terminal(node, 24, columns, *words.split()) as running:
        running.process.wait(60)
        while select.select([running.ours], [], [], 0)[0]:
            running.shown += os.read(running.ours, 65536).decode()
    lines = ESCAPES.sub("", running.shown).replace("\r", "").splitlines()
    whole = cnictl(node, *words.split(), check=False).stdout.splitlines()
    piped = "\n".join(line for line in whole if not line.startswith("forward/"))  # a terminal shortens these rules
    addresses = set(re.findall(r"\d+\.\d+\.\d+\.\d+(?:/\d+)?", piped))
    assert addresses
    assert addresses <= {word.strip(",;:()") for line in lines for word in re.split(r"[ :=]", line)}
    assert all(len(line) <= columns or len(line.split()) == 1 or "hint: " in line for line in lines)


@pytest.mark.parametrize(
    "words", ["logs -f", "status --watch", "test-connectivity --watch --only own-host --interval 60", "logs -f -o json"]
)
def test_watch_ends_when_nobody_reads_it_any_more(node: Node, words: str) -> None:
    """As in `cnictl logs -f | head -2`: no new call comes, so nothing more is written to the closed pipe."""
    process = node.popen(["cnictl", *words.split()])
    assert process.stdout is not None and process.stderr is not None
    for _ in range(2):
        assert process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=20) == 1
    assert process.stderr.read() == ""
    process.stderr.close()
