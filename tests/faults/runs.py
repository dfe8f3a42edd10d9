"""Kill an operator's command with SIGKILL before each change to the host, then run the command that repairs it.

    python -m tests.faults.runs                 # every change of every scenario (`make faults`)
    python -m tests.faults.runs --points 8 guard

The interpreter's audit hooks (PEP 578) report each change: files made, renamed and removed, programs started, netlink
messages sent. Files that are written into a plugin folder before it gets its final name do not count. After the repair
the host must be as before the command: links, addresses, routes, rules, kernel settings, files.
"""

import argparse
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from cnictl.lab.lab import Lab, Node
from tests.faults.inside import Inside, runs_inside
from tests.kernel.commands import INIT_OPTIONS, cnictl, drifted, init, snapshot
from tests.waiting import wait_for
from tests.warm import commands

AT = "CNICTL_TESTS_KILL_AT"
EVERY = 0
_SHOWN = 5
"""The number of differences of one kind that a fault shows."""
_WRITING = os.O_WRONLY | os.O_RDWR
_CHANGES = {
    "os.mkdir": 0, "os.rename": 1, "os.remove": 0, "os.rmdir": 0, "os.link": 1, "os.symlink": 1, "open": 0,
    "subprocess.Popen": None, "socket.sendto": None, "socket.sendmsg": None, "os.fork": None,
}  # fmt: skip
"""Audit events, and the index of the argument that is the changed path."""
_UNNAMED = "/.cnictl-building-"
_OF_THE_RUNS = ("/var/lib/cnictl", "/run/cnictl", "/run/mount")
_OF_ONE_BRIDGE = re.compile(r'([0-9a-f]{1,2}:){5}[0-9a-f]{1,2}|"ifindex": [0-9]+')
_LINKS = ("links", "addresses")
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/root",
}  # fmt: skip
_PEER = ("--peer", "10.244.1.0/24=10.0.10.51")


class Changes:
    """Count this process's changes to the host from now on, and kill it before number `kill_at`."""

    def __init__(self, kill_at: int) -> None:
        self.count = 0
        self._kill_at = kill_at
        self._pid = os.getpid()
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _CHANGES or os.getpid() != self._pid:
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & _WRITING):
            return
        place = _CHANGES[event]
        if place is not None and _UNNAMED in str(arguments[place]):
            return
        self.count += 1
        if self.count == self._kill_at:
            os.kill(self._pid, signal.SIGKILL)


def command() -> None:
    """Run cnictl on the node for `inside`, and print the number of its changes."""
    from cnictl.cli.main import main as run

    changes = Changes(int(os.environ[AT]))
    try:
        run()
    finally:
        sys.stdout.flush()
        os.write(1, f"\n{changes.count}".encode())


@dataclass(frozen=True)
class Scenario:
    """A command that is killed, and the repair that follows."""

    command: tuple[str, ...]
    afterwards: Callable[[Node], None]
    is_node: bool = False
    """Whether the host is a node before the command."""
    options: tuple[str, ...] = ()
    """More options for its `init-node`."""
    whole: bool = False
    """Whether the records of runs must be gone afterwards."""
    new_bridge: bool = False
    """Whether the bridge may be recreated, with a different MAC address."""


def _guard(node: Node) -> None:
    if node.run(["pgrep", "-x", "cnictl-guard"], check=False).status != 0:  # killed before it started the guard
        cnictl(node, "status", check=False)
    wait_for(lambda: node.run(["test", "-e", "/var/lib/cnictl/confirm.json"], check=False).status != 0, "undone", 30)


def _undo_second(node: Node) -> None:
    if json.loads(cnictl(node, "history", "-o", "json").stdout)["items"][0]["run"] > 1:  # else it changed nothing
        _undo(node)


def _undo(node: Node) -> None:
    done = cnictl(node, "undo", check=False)
    assert done.status == 0 or "there is no run to undo" in done.stderr, done.stderr


def _again(node: Node) -> None:
    init(node, *_PEER)
    cnictl(node, "reset-node", "--yes")


def _reset(node: Node) -> None:
    cnictl(node, "reset-node", "--yes")


def _init(node: Node) -> None:
    init(node, *_PEER)
    assert drifted(node) == []
    _reset(node)


_SET_UP = ("init-node", *INIT_OPTIONS, *_PEER)
_IPTABLES = ("--backend", "iptables")
SCENARIOS = {
    "guard": Scenario((*_SET_UP, "--confirm-within", "600"), _guard),
    "undo": Scenario(_SET_UP, _undo),
    "again": Scenario(_SET_UP, _again, whole=True),
    "reset": Scenario(_SET_UP, _reset, whole=True),
    "reset cut off": Scenario(("reset-node", "--yes"), _reset, is_node=True, whole=True),
    "undo cut off": Scenario(("undo", "1"), _reset, is_node=True, whole=True),
    "node after a reset cut off": Scenario(("reset-node", "--yes"), _init, is_node=True, whole=True),
    "iptables": Scenario((*_SET_UP, *_IPTABLES), _undo),
    "undo cut off, iptables": Scenario(("undo", "1"), _reset, is_node=True, options=_IPTABLES, whole=True),
    "route": Scenario(("route", "add-peer", "10.244.2.0/24", "10.0.10.52"), _undo_second, is_node=True),
    "bridge": Scenario(("bridge", "up", "--mtu", "1400"), _undo_second, is_node=True),
    "bridge down": Scenario(("bridge", "down"), _undo_second, is_node=True, new_bridge=True),
    "nat": Scenario(("nat", "disable"), _undo_second, is_node=True),
    "uninstall": Scenario(("plugin", "uninstall", "--force"), _undo_second, is_node=True),
    "install elsewhere": Scenario(("plugin", "install", "--lib-dir", "/opt/other", "--bin-dir", "/opt/bin"), _undo),
}


@dataclass
class Report:
    """The results of a sweep."""

    kills: int = 0
    changes: int = 0
    faults: list[str] = field(default_factory=list)


class Ground:
    """A node, and the scenario whose command is killed on it."""

    def __init__(self, node: Node, scenario: Scenario, inside: Inside) -> None:
        self.node, self.scenario, self._inside = node, scenario, inside
        self.bare = snapshot(node)

    def before(self) -> dict[str, Any]:
        """Bring the host to the scenario's starting state, and return its picture."""
        if self.scenario.is_node:
            init(self.node, *_PEER, *self.scenario.options)
        return self.picture()

    def cut_off(self, number: int) -> tuple[int, str]:
        """Run the command, and kill it before change `number`. Return its exit status and its output."""
        answer = self._inside.call({**ENVIRONMENT, AT: str(number)}, b"", ["cnictl", *self.scenario.command])
        return answer.status, answer.stderr.decode() + answer.stdout.decode()

    def count(self) -> int:
        """Run the command to its end, and return the number of its changes."""
        self.before()
        status, said = self.cut_off(EVERY)
        assert status == 0, said
        self.clear()
        return int(said.rpartition("\n")[2])

    def clear(self) -> None:
        """Reset the host, and check that everything is as it was before cnictl."""
        cnictl(self.node, "confirm", check=False)
        _reset(self.node)
        _compare(self.bare, snapshot(self.node))

    def picture(self) -> dict[str, Any]:
        """Return the state of the host, without the records of runs."""
        state = snapshot(self.node)
        tree = [line for line in state["tree"] if not line.startswith(_OF_THE_RUNS)]
        nft = sorted(str(state["nft"]).split("table "))  # nft lists a recreated table last
        if self.scenario.new_bridge:
            state |= {key: [_OF_ONE_BRIDGE.sub("", json.dumps(link)) for link in state[key]] for key in _LINKS}
        return {**state, "tree": tree, "nft": nft, "iptables": sorted(state["iptables"])}


@contextmanager
def ground(scenario: Scenario) -> Iterator[Ground]:
    """Yield a new node for a scenario."""
    with Lab(nodes=1) as lab:
        node = lab.nodes[0]
        with runs_inside(node.command([])) as inside:
            yield Ground(node, scenario, inside)


def sweep(scenario: Scenario, points: int = EVERY) -> Report:
    """Kill the command before each of its changes, or before `points` evenly spread changes."""
    report = Report()
    numbers: list[int] | None = None
    while numbers is None or numbers:
        with ground(scenario) as where:
            if numbers is None:
                report.changes = where.count()
                step = max(1.0, report.changes / points) if points else 1.0
                numbers = [int(1 + (turn + 0.5) * step) for turn in range(int(report.changes / step))]
            while numbers and _is_put_right(where, numbers.pop(0), report):
                pass
    return report


def _is_put_right(where: Ground, number: int, report: Report) -> bool:
    scenario, before = where.scenario, where.before()
    status, _ = where.cut_off(number)
    report.kills += status == -signal.SIGKILL
    try:
        scenario.afterwards(where.node)
        _compare(*((where.bare, snapshot(where.node)) if scenario.whole else (before, where.picture())))
        where.clear()
    except Exception as fault:
        report.faults.append(f"ahead of {number}: {fault}")
        return False
    return True


def _compare(before: dict[str, Any], after: dict[str, Any]) -> None:
    wrong = {key: (_differing(before[key], after[key])) for key in before if before[key] != after[key]}
    assert not wrong, wrong


def _differing(before: Any, after: Any) -> Any:
    if not isinstance(before, list):
        return before, after
    gone = [f"- {line}" for line in before if line not in after]
    new = [f"+ {line}" for line in after if line not in before]
    return (gone + new)[:_SHOWN]


def main() -> None:
    """Sweep over the scenarios, and exit with status 1 if a fault was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.runs", description="See the module's docstring.")
    parser.add_argument("scenario", nargs="*", choices=[*SCENARIOS, []], help="default: all")
    parser.add_argument("--points", type=int, default=EVERY, help="only that many, evenly spread")
    options = parser.parse_args()
    faults = 0
    for name in options.scenario or SCENARIOS:
        started = time.monotonic()
        with commands.loaded():
            report = sweep(SCENARIOS[name], options.points)
        print(f"{name}: {report.kills} kills, {report.changes} changes, {time.monotonic() - started:.1f} s")
        print(*(f"  FAULT {fault}" for fault in report.faults), sep="\n", flush=True)
        faults += len(report.faults)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
