"""Start a lab whose nodes run sshd, and an operator's machine with a key, known_hosts and a cluster file.

The operator's machine is the host outside. All files are in the machines' own root file systems, which end with the
lab.
"""

import json
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from cnictl.core.process import Finished
from cnictl.lab.lab import Lab, Node
from tests import schemas
from tests.coexistence import packaged

FILE = "/root/cluster.toml"
ON_NODE = "/etc/cnictl/cluster.toml"
COMMAND = "/usr/local/bin/cnictl"
"""The command on a node that ssh starts. `Node.run` forks a plain `cnictl` from a loaded process instead."""

_START_SSHD = """
echo 'sshd:x:100:100::/run/sshd:/usr/sbin/nologin' >> /etc/passwd
echo 'sshd:x:100:' >> /etc/group
echo 'root:NP:19000:0:99999:7:::' > /etc/shadow
mkdir -p /run/sshd /etc/ssh /root/.ssh
ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key
printf 'PermitRootLogin prohibit-password\\nUsePAM no\\nPasswordAuthentication no\\nPidFile /run/sshd.pid\\n' \
    > /etc/ssh/sshd_config
cat > /root/.ssh/authorized_keys
chmod -R go= /root/.ssh
/usr/sbin/sshd -E /var/log/sshd.log </dev/null >/dev/null 2>&1
cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub
"""
_OPERATOR = """
mkdir -p -m 700 /root/.ssh
ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519
cat /root/.ssh/id_ed25519.pub
"""


@dataclass
class World:
    """The operator's machine, and the nodes that it reaches by ssh."""

    operator: Node
    nodes: list[Node]
    known_hosts: dict[str, str] = field(default_factory=dict)

    def cluster(self, *words: str, check: bool = True) -> Finished:
        """Run `cnictl cluster` on the operator's machine, and check its JSON against the schema."""
        done = self.operator.run(["cnictl", "cluster", *words], timeout=300, check=check)
        if "json" in words and done.stdout:
            schemas.checked(f"cluster {words[0]}", done.stdout)
        return done

    def status(self, *words: str) -> tuple[dict[str, dict[str, Any]], list[str], int]:
        """Return the rows of `cluster status` by node, its findings, and its exit status."""
        done = self.cluster("status", *words, "-o", "json", check=False)
        assert done.stdout, done.stderr
        document = json.loads(done.stdout)
        rows = {row["node"]: row for row in document["items"]}
        return rows, [finding["message"] for finding in document["findings"]], done.status

    @property
    def file(self) -> str:
        """The content of the operator's cluster file."""
        return self.operator.run(["cat", FILE]).stdout

    def write(self, text: str, node: Node | None = None, path: str = FILE) -> None:
        """Write a file on the operator's machine, or on a node."""
        (node or self.operator).run(["sh", "-c", f"cat > {shlex.quote(path)}"], stdin=text)

    def line(self, node: Node, more: str = "") -> str:
        """Return a node's line in the cluster file."""
        return f'  {{ name = "{node.name}", address = "{node.address}"{more} }},\n'

    def text(self, nodes: Sequence[Node], network: str = "10.244.0.0/20", with_cidrs: bool = False) -> str:
        """Return a cluster file that names these nodes."""
        lines = [self.line(node, f', pod_cidr = "{node.pod_cidr}"' if with_cidrs else "") for node in nodes]
        return f'# the lab\nnetwork = "{network}"\nnodes = [\n{"".join(lines)}]\n'

    def write_known_hosts(self) -> None:
        """Write the host keys in `known_hosts` to the operator's file."""
        lines = "".join(f"{address} {key}\n" for address, key in self.known_hosts.items())
        self.write(lines, path="/root/.ssh/known_hosts")

    @contextmanager
    def replaced(self, node: Node, script: str) -> Iterator[None]:
        """Replace a node's `cnictl` with a shell script while the context lasts; `$REAL` is the original."""
        kept = f"{COMMAND}.kept"
        node.run(["mv", COMMAND, kept])
        self.write(f'#!/bin/sh\nREAL={kept}\n{script}\nexec $REAL "$@"\n', node, COMMAND)
        node.run(["chmod", "755", COMMAND])
        try:
            yield
        finally:
            node.run(["mv", kept, COMMAND])


@contextmanager
def world(nodes: int) -> Iterator[World]:
    """Yield a lab with sshd on each node. Skip the test if there is no sshd or the user is not root."""
    if os.geteuid() != 0:
        pytest.skip("sshd needs a range of users, which only root's lab has")
    with Lab(nodes=nodes) as lab:
        made = World(lab.outside, lab.nodes)
        key = made.operator.run(["sh", "-ec", _OPERATOR]).stdout
        for node in lab.nodes:
            packaged.install(node, "openssh-server")
            made.known_hosts[node.address] = node.run(["sh", "-ec", _START_SSHD], stdin=key).stdout.strip()
        made.write_known_hosts()
        yield made
