"""Provide a node with pods, a peer and an outside host, and run the test of one fault."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from cnictl.lab.lab import Lab
from tests.kernel.commands import Pod, call, start_pod
from tests.kernel.node.test_dual_stack import set_up
from tests.waiting import wait_for

from ..cluster import Cluster, shell
from ..hints import matches

TABLE = "CNICTL_DOCTOR_TABLE"
"""The environment variable with the file to which each case adds a line for the table in docs/doctor.md."""


class World:
    """Two nodes set up by `init-node`, with two pods on the first and one on the second, and an outside host."""

    def __init__(self, lab: Lab, families: int = 1) -> None:
        cluster = Cluster(lab)
        if families == 1:
            cluster.init()
        else:
            set_up(lab, both=True)
        self.here, self.there, self.external = cluster.here, cluster.there, cluster.external
        self.outside = lab.outside
        self.pod, self.other = start_pod(self.here, "web"), start_pod(self.here, "db")
        self.far = start_pod(self.there, "far")
        self.names = {
            "here": self.here.address, "there": self.there.address, "external": self.external,
            "pod": self.pod.address, "other": self.other.address, "far": self.far.address,
            "veth": self.veth(self.pod), "veth2": self.veth(self.other), "gateway": "10.244.0.1/24",
            "pod_name": self.pod.name,
            "far_cidr": self.there.pod_cidr, "cidr": self.here.pod_cidr,
            "dev": shell(self.here, f"ip -o -4 address show to {self.here.address}/32").split()[1],
        }  # fmt: skip

    def veth(self, pod: Pod) -> str:
        """Return the pod's host veth."""
        index = json.loads(pod.run("ip", "-j", "link", "show", "eth0").stdout)[0]["link_index"]
        links = json.loads(self.here.run(["ip", "-j", "link"]).stdout)
        return str(next(link["ifname"] for link in links if link["ifindex"] == index))

    def sh(self, line: str) -> str:
        """Run a shell line on the first node, after replacing `{here}`, `{pod}`, `{veth}` and the like."""
        for name, value in self.names.items():
            line = line.replace("{" + name + "}", value)
        return shell(self.here, line)

    def on_peer(self, line: str) -> str:
        """Run a shell line on the second node, with the same replacements."""
        for name, value in self.names.items():
            line = line.replace("{" + name + "}", value)
        return shell(self.there, line)

    def reaches(self, name: str, *more: str) -> bool:
        """Return whether `external`, `far` or `other` answers the pod's echo request."""
        target = self.names.get(name, name)
        return self.pod.run("ping", "-n", "-q", "-c1", "-W1", *more, target, check=False).status == 0

    def starts(self, name: str = "new", request: dict[str, Any] | None = None) -> bool:
        """Return whether a pod can be attached and detached, with the installed conf or another request."""
        self.here.run(["ip", "netns", "add", name])
        try:
            call(self.here, "ADD", name, request)
            call(self.here, "DEL", name, request)
        except Exception as failure:
            assert "exit status" in str(failure), failure
            return False
        finally:
            self.here.run(["ip", "netns", "delete", name])
        return True

    def request(self, **arguments: str) -> dict[str, Any] | None:
        """Return the installed conf as a request with `runtimeConfig.ips`, or None if no address is given."""
        if not arguments:
            return None
        conf = json.loads(shell(self.here, "cat /etc/cni/net.d/10-cnictl.conflist"))
        requested = {"runtimeConfig": {"ips": [arguments["ip"]]}}
        return {"cniVersion": conf["cniVersion"], "name": conf["name"], **conf["plugins"][0], **requested}

    def doctor(self, *words: str) -> list[tuple[str, str]]:
        """Return the check and the subject of each of doctor's findings."""
        return [(finding["id"], finding["subject"]) for finding in self.findings(*words)]

    def findings(self, *words: str) -> list[dict[str, Any]]:
        """Return doctor's findings."""
        done = self.here.run(["cnictl", "doctor", "-o", "json", *words], check=False, timeout=60)
        assert done.stdout, done.stderr
        assert "could not run" not in done.stderr, done.stderr
        findings: list[dict[str, Any]] = json.loads(done.stdout)["items"]
        assert done.status == any(finding["severity"] == "error" for finding in findings)
        return findings

    def follow(self, check: str, name: str) -> None:
        """Run the hint that doctor prints for a check, and check that the finding is gone.

        The hint must be the one with this name in tests/kernel/hints.py.
        """
        (finding,) = (finding for finding in self.findings() if finding["id"] == check)
        command, on = finding["hint"]["command"], finding["hint"]["on"]
        assert matches(name, command), command
        assert command in finding["hint"]["text"]
        shell(self.there if on else self.here, command)
        assert on in ("", self.there.address)
        left = self.doctor()
        assert (check, finding["subject"]) not in left, f"{command} leaves {left}"


@contextmanager
def new_world(families: int = 1) -> Iterator[World]:
    """Create a world for a module's cases, with IPv4 only or with both families."""
    with Lab(nodes=2, dual_stack=families > 1) as lab:
        yield World(lab, families)


Suffers = Callable[[World], bool]


@dataclass(frozen=True)
class Case:
    """A fault with its symptom and its fix."""

    check: str
    fault: str
    """The shell commands that cause the fault. `{pod}` and the like are replaced."""
    symptom: str
    suffers: Suffers
    by_hand: str = ""
    """The commands that fix the fault if `--fix` does not."""
    restore: str = ""
    """Removes what the fault leaves after the fix."""
    on_peer: bool = False
    """Whether the fault and its fix are on the peer."""
    subject: str = ""
    """A part of the finding's subject."""
    also: str = field(default="", kw_only=True)
    """Preparations before the fault."""
    hint: str = field(default="", kw_only=True)
    """The name in tests/kernel/hints.py of the hint that the test runs as printed."""
    then: str = field(default="", kw_only=True)
    """The commands that the hint leaves to the operator, run after it."""

    def __str__(self) -> str:
        return f"{self.check}: {self.symptom}"


def run(world: World, case: Case) -> None:
    """Run one case: cause the fault, check its symptom and its finding, and apply its fix and its hint."""
    type_in = world.on_peer if case.on_peer else world.sh
    if case.also:
        world.sh(case.also)
    assert not case.suffers(world), "the symptom is there before the fault"
    type_in(case.fault)
    fix: Callable[[], object] = partial(type_in, case.by_hand) if case.by_hand else partial(world.doctor, "--fix")
    try:
        wait_for(lambda: case.suffers(world), f"the fault causes the symptom: {case.symptom}")
        findings = world.doctor()
        assert [check for check, _ in findings] == [case.check], findings
        assert case.subject in findings[0][1], findings
        left = fix()
        wait_for(lambda: not case.suffers(world), "the fix works")
        if case.hint:
            if case.restore:
                world.sh(f"{case.restore}; {case.also or 'true'}")
            type_in(case.fault)
            wait_for(lambda: case.suffers(world), f"the fault causes the symptom again: {case.symptom}")
            world.follow(case.check, case.hint)
            if case.then:
                type_in(case.then)
            wait_for(lambda: not case.suffers(world), "the hint works")
            left = [] if case.by_hand or case.restore else world.doctor()
    except BaseException:
        fix()  # the next case needs a working node even if this one fails
        raise
    finally:
        if case.restore:
            world.sh(case.restore)
    # `--fix` already re-checks
    assert (world.doctor() if case.by_hand or case.restore else left) == []
    where = " (on the peer)" if case.on_peer else ""
    note(case.check, case.fault + where, case.symptom, case.by_hand + where if case.by_hand else "cnictl doctor --fix")


def note(check: str, fault: str, symptom: str, fixed: str = "cnictl doctor --fix") -> None:
    """Add a fault to the table in docs/doctor.md while `make doctor` generates it."""
    path = os.environ.get(TABLE)
    if path:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"check": check, "fault": fault, "symptom": symptom, "fixed": fixed}) + "\n")
