"""The walk-through's story on two nodes of a lab: what works with a bridge alone, what NAT adds, what routes add.

Everything is done by cnictl's own commands inside the nodes, as an operator would type them.
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
from cnictl.lab.plan import NETWORK

_ANSWERS, _SILENT = "ok", "failed"
_COMMAND_SECONDS = 60.0
_HEARD_SECONDS = 3.0
_FILES = ("cat ", "patch ")
"""How a command starts whose here-document is a file's text."""


@dataclass(frozen=True)
class Act:
    """One step of the story: a command on each node, and what pods reach after it."""

    title: str
    command: tuple[str, ...]
    """`cnictl`'s arguments; `{subnet}`, `{peer_subnet}`, `{peer}`, `{external}` stand for the node's own."""
    expected: Mapping[str, str]
    """State of each of `test-connectivity`'s checks."""
    names_peer: bool = False
    """Whether the nodes don't know of each other yet, and the checks have to be told."""


STORY = (
    Act(
        "the bridge alone",
        ("init-node", "--subnet", "{subnet}", "--network", NETWORK, "--no-nat", "--external", "{external}"),
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
    """What an act came to, by node name."""

    act: Act
    commands: Mapping[str, str]
    by_hand: Mapping[str, list[str]]
    """What one would have typed instead; a file's text is left out."""
    reports: Mapping[str, dict[str, Any]]
    """`test-connectivity -o json` of each node."""
    surprises: list[str]
    """Where it came otherwise than expected."""
    seconds: float


def play(on_step: Callable[[str], None]) -> Iterator[Played]:
    """Play the story in a lab of its own. Raises Problem if a command fails."""
    on_step("bringing up two nodes and a host outside")
    with Lab(nodes=2) as lab, ExitStack() as stack, ThreadPoolExecutor(len(lab.nodes)) as pool:
        served: dict[str, _Server] = {}
        for act in STORY:
            start = time.monotonic()
            on_step(f"{act.title}: cnictl {act.command[0]} on both nodes")
            commands = {node.name: _fill(act.command, lab, node) for node in lab.nodes}
            done = list(pool.map(lambda node, given=commands: _change(node, given[node.name]), lab.nodes))
            if not served:
                on_step(f"{act.title}: a pod on each node for the other to ping")
                served = {node.name: _Server(node) for node in lab.nodes}
                stack.callback(_end, served)
            on_step(f"{act.title}: what do pods reach?")
            checks = {node.name: _checks(lab, node, served, act) for node in lab.nodes}
            tested = pool.map(lambda node, given=checks: _test(node, given[node.name]), lab.nodes)
            reports = dict(zip(commands, tested, strict=True))
            surprises = [text for name, report in reports.items() for text in _surprises(name, report, act)]
            if act is STORY[-1]:
                surprises += _masqueraded(lab, reports, served)
            by_hand = dict(zip(commands, done, strict=True))
            words = {name: " ".join(["cnictl", *given]) for name, given in commands.items()}
            yield Played(act, words, by_hand, reports, surprises, time.monotonic() - start)
        on_step("taking everything down")


def _other(lab: Lab, node: Node) -> Node:
    return next(one for one in lab.nodes if one is not node)


def _fill(command: tuple[str, ...], lab: Lab, node: Node) -> list[str]:
    other = _other(lab, node)
    values = {
        "subnet": node.pod_cidr,
        "peer_subnet": other.pod_cidr,
        "peer": other.address,
        "external": lab.outside.address,
    }
    return [word.format(**values) for word in command]


def _change(node: Node, command: list[str]) -> list[str]:
    """Run a command that changes the node; the commands it stood for."""
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
    peer = ["--peer", f"{other.pod_cidr}={other.address}"] if act.names_peer else []
    return ["test-connectivity", "--pod", served[other.name].address, *peer, "-o", "json"]


def _test(node: Node, command: list[str]) -> dict[str, Any]:
    done = node.run(["cnictl", *command], timeout=_COMMAND_SECONDS, check=False)
    try:
        report: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        said = done.stderr.strip() or f"exit status {done.status}"
        raise Problem(f"{node.name}: cnictl {' '.join(command)}: {said}") from None
    return report


def _surprises(name: str, report: dict[str, Any], act: Act) -> list[str]:
    found = {check["check"]: check["state"] for check in report["checks"]}
    return [
        f"{name}, {check}: {found.get(check, 'not checked')}, expected {state}"
        for check, state in act.expected.items()
        if found.get(check) != state
    ]


class _Server:
    """A pod on a node that answers until the story ends."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._log = os.memfd_create("senders")
        self._process = node.popen(["cnictl", "test-connectivity", "--serve", "--for", "10m"], stderr=self._log)

    @cached_property
    def address(self) -> str:
        """The pod's address, once it is up. Raises Problem if it never is."""
        address = (self._process.stdout.readline() if self._process.stdout else "").strip()
        if not address:
            raise Problem(f"{self._node.name}: no pod to ping: {self._said().strip()}")
        return address

    def heard(self, sender: str) -> bool:
        """Whether the pod was pinged by that address, as it saw it."""
        deadline = time.monotonic() + _HEARD_SECONDS
        while f"pinged by {sender}" not in self._said().splitlines():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def end(self) -> None:
        """Ask for the end; the pod is taken away as it was made."""
        self._process.terminate()

    def wait(self) -> None:
        """Wait for the end that was asked for. Raises TimeoutExpired."""
        self._process.communicate(timeout=_COMMAND_SECONDS)
        os.close(self._log)

    def _said(self) -> str:
        return os.pread(self._log, 1 << 20, 0).decode(errors="replace")


def _end(servers: Mapping[str, _Server]) -> None:
    for server in servers.values():
        server.end()
    for server in servers.values():
        server.wait()


def _masqueraded(lab: Lab, reports: Mapping[str, dict[str, Any]], served: Mapping[str, _Server]) -> list[str]:
    """Where a pod on the other node did not see the sender's own address."""
    found = []
    for node in lab.nodes:
        sender, target = reports[node.name]["checks"][0]["from"], served[_other(lab, node).name]
        if not target.heard(sender):
            found.append(f"pod {target.address} was not pinged by {sender} itself")
    return found
