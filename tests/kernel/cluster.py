"""Two nodes that `init-node` set up as the walk-through does, and what `test-connectivity` says on them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cnictl.lab.lab import Lab, Node

NETWORK = "10.244.0.0/20"
CHECKS = ["own-host", "pod-same-host", "other-host", "pod-other-host", "external"]
PINGS = [word for check in CHECKS for word in ("--only", check)]
"""Only the checks that ping, and no cell beside them."""
GUARD = "nft add table ip guard; nft add chain ip guard forward '{ type filter hook forward priority 0; policy drop; }'"
"""A firewall of somebody else's that forwards nothing."""


@dataclass
class Outcome:
    """What one run said."""

    status: int
    overall: str
    checks: list[dict[str, Any]]

    def of(self, check: str) -> dict[str, Any]:
        """The one check of that name."""
        (found,) = (one for one in self.checks if one["check"] == check)
        return found

    @property
    def states(self) -> dict[str, str]:
        """State by check."""
        return {one["check"]: one["state"] for one in self.checks}


class Cluster:
    """A lab's two nodes and the host outside."""

    def __init__(self, lab: Lab) -> None:
        self.here, self.there = lab.nodes
        self.external = lab.outside.address

    def init(self, *more: str) -> None:
        """`init-node` on both, at once."""
        running = []
        for node, other in ((self.here, self.there), (self.there, self.here)):
            where = ["--subnet", node.pod_cidr, "--network", NETWORK, "--external", self.external]
            peer = ["--peer", f"{other.pod_cidr}={other.address}"]
            running.append(node.popen(["cnictl", "init-node", *where, *peer, *more]))
        for process in running:
            _, said = process.communicate(timeout=60)
            assert process.returncode == 0, said

    def test(self, *arguments: str) -> Outcome:
        """`cnictl test-connectivity -o json` on the first node: without `--only`, the checks that ping."""
        if "--only" not in arguments:
            arguments = (*arguments, *PINGS)
        done = self.here.run(["cnictl", "test-connectivity", "-o", "json", *arguments], check=False)
        assert done.stdout, done.stderr
        document = json.loads(done.stdout)
        return Outcome(done.status, document["overall"], document["checks"])

    def node_at(self, address: str) -> Node:
        """The node that has an address."""
        (found,) = (node for node in (self.here, self.there) if node.address == address)
        return found


def shell(node: Node, line: str) -> str:
    """Run a shell line on a node; what it printed."""
    return node.run(["sh", "-c", line]).stdout


@contextmanager
def served(node: Node) -> Iterator[str]:
    """A pod kept up on a node by `--serve`: its address."""
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
    """All that a run could leave on a node."""
    listed = {
        "namespaces": "ip netns list",
        "veths": "ip -br link show type veth",
        "leases": "ls /var/lib/cni/networks/mynet 2>/dev/null | grep '^10' || true",
        "records": "ls -A -I .claimed /var/lib/cnictl/attachments/mynet 2>/dev/null || true",
        "notes": "ls -A /run/cnictl/probe 2>/dev/null || true",
        "tables": "nft list tables",
    }
    return {name: shell(node, line) for name, line in listed.items()}
