"""Run the walk-through on two nodes of a lab: with only a bridge, then with NAT, then with routes.

All changes are made by cnictl's own commands, run inside the nodes as an operator would run them.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cnictl.core.errors import Problem
from cnictl.lab.lab import Lab, Node
from cnictl.lab.plan import NETWORK, NETWORK6

_CHECKS = ("own-host", "pod-same-host", "other-host", "pod-other-host", "external")
"""The cells of `test-connectivity` that the walk-through shows."""

_ANSWERS, _SILENT = "ok", "failed"
_COMMAND_SECONDS = 60.0
_HEARD_SECONDS = 3.0
_FILES = ("cat ", "patch ")
"""The beginnings of manual commands that contain a file's text as a here-document."""


@dataclass(frozen=True)
class Act:
    """One step of the walk-through: a command on each node, and what pods reach after it."""

    title: str
    command: tuple[str, ...]
    """`cnictl`'s arguments. `{subnet}`, `{network}` and `{external}` stand for the node's values of all families,
    separated by commas. A command with `{peer_subnet}` and `{peer}` runs once per family."""
    expected: Mapping[str, str]
    """The state of each check of `test-connectivity`."""
    names_peer: bool = False
    """Whether the checks need `--peer`, because node.toml names no peer yet."""


STORY = (
    Act(
        "the bridge alone",
        ("init-node", "--subnet", "{subnet}", "--network", "{network}", "--no-nat", "--external", "{external}"),
        {
            "own-host": _ANSWERS,
            "pod-same-host": _ANSWERS,
            "other-host": _SILENT,
            "pod-other-host": _SILENT,
            "external": _SILENT,
        },
        names_peer=True,
    ),
    Act(
        "and NAT",
        ("nat", "enable"),
        {
            "own-host": _ANSWERS,
            "pod-same-host": _ANSWERS,
            "other-host": _ANSWERS,
            "pod-other-host": _SILENT,
            "external": _ANSWERS,
        },
        names_peer=True,
    ),
    Act(
        "and routes",
        ("route", "add-peer", "{peer_subnet}", "{peer}"),
        {
            "own-host": _ANSWERS,
            "pod-same-host": _ANSWERS,
            "other-host": _ANSWERS,
            "pod-other-host": _ANSWERS,
            "external": _ANSWERS,
        },
    ),
)


@dataclass(frozen=True)
class Played:
    """The results of an act, by node name."""

    act: Act
    commands: Mapping[str, str]
    by_hand: Mapping[str, list[str]]
    """The manual commands, without the text of files."""
    reports: Mapping[str, dict[str, Any]]
    """`test-connectivity -o json` of each node."""
    surprises: list[str]
    """The results that differ from the expected ones."""
    seconds: float


def run_demo(on_step: Callable[[str], None], dual_stack: bool = False) -> Iterator[Played]:
    """Run the walk-through in a private lab. Raises Problem if a command fails."""
    on_step("bringing up two nodes and a host outside")
    with Lab(nodes=2, dual_stack=dual_stack) as lab, ExitStack() as stack, ThreadPoolExecutor(len(lab.nodes)) as pool:
        served: dict[str, _Server] = {}
        for act in STORY:
            start = time.monotonic()
            on_step(f"{act.title}: cnictl {act.command[0]} on both nodes")
            commands = {node.name: _fill(act.command, lab, node) for node in lab.nodes}
            done = list(pool.map(lambda node, commands=commands: _change(node, commands[node.name]), lab.nodes))
            if not served:
                on_step(f"{act.title}: starting a pod on each node for the other node to ping")
                served = {node.name: _Server(node) for node in lab.nodes}
                stack.callback(_end, served)
            on_step(f"{act.title}: testing what pods reach")
            checks = {node.name: _checks(lab, node, served, act) for node in lab.nodes}
            tested = pool.map(lambda node, checks=checks: _test(node, checks[node.name]), lab.nodes)
            reports = dict(zip(commands, tested, strict=True))
            surprises = [text for name, report in reports.items() for text in _surprises(name, report, act)]
            if act is STORY[-1]:
                surprises += _masqueraded(lab, reports, served)
            by_hand = dict(zip(commands, done, strict=True))
            words = {
                name: "; ".join(" ".join(["cnictl", *command]) for command in lines) for name, lines in commands.items()
            }
            yield Played(act, words, by_hand, reports, surprises, time.monotonic() - start)
        on_step("ending the lab")


def _other(lab: Lab, node: Node) -> Node:
    return next(other for other in lab.nodes if other is not node)


def _fill(command: tuple[str, ...], lab: Lab, node: Node) -> list[list[str]]:
    """Return an act's commands on a node: one, or one per family if it names a peer."""
    other = _other(lab, node)
    six = bool(node.address6)
    values = {
        "subnet": ",".join(filter(None, (node.pod_cidr, node.pod_cidr6))),
        "network": f"{NETWORK},{NETWORK6}" if six else NETWORK,
        "external": ",".join(filter(None, (lab.outside.address, lab.outside.address6))),
    }
    peers = [(other.pod_cidr, other.address), (other.pod_cidr6, other.address6)][: 2 if six else 1]
    filled = [[word.format(**values, peer_subnet=pods, peer=via) for word in command] for pods, via in peers]
    return filled if "{peer}" in command else filled[:1]


def _change(node: Node, commands: list[list[str]]) -> list[str]:
    """Run commands that change the node; return the manual commands that do the same."""
    return [line for command in commands for line in _change_once(node, command)]


def _change_once(node: Node, command: list[str]) -> list[str]:
    done = node.run(["cnictl", *command, "-o", "json"], timeout=_COMMAND_SECONDS)
    by_hand: list[str] = []
    for step in json.loads(done.stdout)["steps"]:
        if step["outcome"] == "changed":
            lines = step["command"].splitlines()
            is_file = lines[0].startswith(_FILES) and "<<" in lines[0]
            by_hand += [f"{lines[0]} …"] if is_file else lines
    return by_hand


def _checks(lab: Lab, node: Node, served: Mapping[str, "_Server"], act: Act) -> list[str]:
    other = _other(lab, node)
    peers = [f"{other.pod_cidr}={other.address}", f"{other.pod_cidr6}={other.address6}"][: 2 if other.address6 else 1]
    named = [word for peer in peers for word in ("--peer", peer)] if act.names_peer else []
    named += [word for check in _CHECKS for word in ("--only", check)]
    return ["test-connectivity", "--pod", ",".join(served[other.name].addresses), *named, "-o", "json"]


def _test(node: Node, command: list[str]) -> dict[str, Any]:
    done = node.run(["cnictl", *command], timeout=_COMMAND_SECONDS, check=False)
    try:
        report: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        error = done.stderr.strip() or f"exit status {done.status}"
        raise Problem(f"{node.name}: cnictl {' '.join(command)}: {error}") from None
    return report


def _surprises(name: str, report: dict[str, Any], act: Act) -> list[str]:
    families = dict.fromkeys(check["family"] for check in report["checks"])
    states = {(check["family"], check["check"]): check["state"] for check in report["checks"]}
    which = {family: f" ({family})" if len(families) > 1 else "" for family in families}
    return [
        f"{name}, {check}{which[family]}: {states.get((family, check), 'not checked')}, expected {state}"
        for family in families
        for check, state in act.expected.items()
        if states.get((family, check)) != state
    ]


class _Server:
    """A pod on a node that answers until the walk-through ends."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._log = os.memfd_create("senders")
        self._process = node.popen(["cnictl", "test-connectivity", "--serve", "--for", "10m"], stderr=self._log)

    @cached_property
    def addresses(self) -> list[str]:
        """The pod's address of each family, once the pod is up. Raises Problem if it does not come up."""
        lines = [self._process.stdout.readline() if self._process.stdout else "" for _ in self._node.families]
        if not all(lines):
            raise Problem(f"{self._node.name}: the pod to ping did not start: {self._output().strip()}")
        return [line.strip() for line in lines]

    def heard(self, sender: str) -> bool:
        """Return whether the pod saw a ping from the address `sender`."""
        deadline = time.monotonic() + _HEARD_SECONDS
        while f"pinged by {sender}" not in self._output().splitlines():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def end(self) -> None:
        """Tell the server to remove its pod and end."""
        self._process.terminate()

    def wait(self) -> None:
        """Wait until the server has ended. Raises TimeoutExpired."""
        self._process.communicate(timeout=_COMMAND_SECONDS)
        os.close(self._log)

    def _output(self) -> str:
        return os.pread(self._log, 1 << 20, 0).decode(errors="replace")


def _end(servers: Mapping[str, _Server]) -> None:
    for server in servers.values():
        server.end()
    for server in servers.values():
        server.wait()


def _masqueraded(lab: Lab, reports: Mapping[str, dict[str, Any]], served: Mapping[str, _Server]) -> list[str]:
    """Return each sender whose own address the pod on the other node did not see."""
    surprises: list[str] = []
    for node in lab.nodes:
        target = served[_other(lab, node).name]
        senders = dict.fromkeys(check["from"] for check in reports[node.name]["checks"])
        silent = [sender for sender in senders if not target.heard(sender)]
        surprises += [f"pod {' '.join(target.addresses)} saw no ping from {sender}" for sender in silent]
    return surprises
