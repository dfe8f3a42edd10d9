"""Set up two nodes with `init-node` as the walk-through does, and read what `test-connectivity` reports there."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cnictl.lab.lab import Lab, Node

NETWORK = "10.244.0.0/20"
CHECKS = ["own-host", "pod-same-host", "other-host", "pod-other-host", "external"]
PINGS = [word for check in CHECKS for word in ("--only", check)]
"""Select the checks that ping, without the other cells."""
GUARD = "nft add table ip guard; nft add chain ip guard forward '{ type filter hook forward priority 0; policy drop; }'"
"""A firewall that another program made and that forwards nothing."""


@dataclass
class Outcome:
    """The result of one run."""

    status: int
    overall: str
    checks: list[dict[str, Any]]

    def of(self, check: str) -> dict[str, Any]:
        """Return the only row of the check with this name."""
        (row,) = (row for row in self.checks if row["check"] == check)
        return row

    @property
    def states(self) -> dict[str, str]:
        """The state of each check."""
        return {row["check"]: row["state"] for row in self.checks}


class Cluster:
    """A lab's two nodes, and the host outside."""

    def __init__(self, lab: Lab) -> None:
        self.here, self.there = lab.nodes
        self.external = lab.outside.address

    def init(self, *more: str) -> None:
        """Run `init-node` on both nodes at once."""
        running = []
        for node, other in ((self.here, self.there), (self.there, self.here)):
            where = ["--subnet", node.pod_cidr, "--network", NETWORK, "--external", self.external]
            peer = ["--peer", f"{other.pod_cidr}={other.address}"]
            running.append(node.popen(["cnictl", "init-node", *where, *peer, *more]))
        for process in running:
            _, said = process.communicate(timeout=60)
            assert process.returncode == 0, said

    def test(self, *arguments: str) -> Outcome:
        """Run `cnictl test-connectivity -o json` on the first node. Without `--only`, run the checks that ping."""
        if "--only" not in arguments:
            arguments = (*arguments, *PINGS)
        done = self.here.run(["cnictl", "test-connectivity", "-o", "json", *arguments], check=False)
        assert done.stdout, done.stderr
        document = json.loads(done.stdout)
        return Outcome(done.status, document["overall"], document["checks"])

    def node_at(self, address: str) -> Node:
        """Return the node that has an address."""
        (node,) = (node for node in (self.here, self.there) if node.address == address)
        return node


def shell(node: Node, line: str) -> str:
    """Run a shell line on a node, and return its output."""
    return node.run(["sh", "-c", line]).stdout


@contextmanager
def served(node: Node) -> Iterator[str]:
    """Keep a pod up on a node with `--serve` while the context lasts, and yield its address."""
    process = node.popen(["cnictl", "test-connectivity", "--serve"])
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address, process.communicate()[1]
        yield address
    finally:
        process.terminate()
        process.communicate(timeout=20)
    assert process.returncode == 0


def traces(node: Node) -> dict[str, str]:
    """Return what a `test-connectivity` run could leave behind on a node."""
    listed = {
        "namespaces": "ip netns list",
        "veths": "ip -br link show type veth",
        "leases": "ls /var/lib/cni/networks/mynet 2>/dev/null | grep '^10' || true",
        "records": "ls -A -I .claimed /var/lib/cnictl/attachments/mynet 2>/dev/null || true",
        "notes": "ls -A /run/cnictl/probe 2>/dev/null || true",
        "tables": "nft list tables",
    }
    return {name: shell(node, line) for name, line in listed.items()}
