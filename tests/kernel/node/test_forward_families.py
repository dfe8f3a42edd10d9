"""Both families are forwarded although another tool drops: ip6tables' policy and nftables chains of every family."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product

import pytest

from cnictl.lab import plan
from cnictl.lab.lab import Lab, Node
from tests.kernel.commands import Pod, call, cnictl, drifted
from tests.waiting import wait_for

pytestmark = pytest.mark.once

THEIRS = """\
table inet theirs { chain through { type filter hook forward priority 0; policy drop; }; }
table ip6 theirs { chain through { type filter hook forward priority 0; reject; }; }
table bridge theirs { chain through { type filter hook forward priority 0; policy drop; }; }
"""


@dataclass(frozen=True)
class Running:
    """A node with two pods, and a pod of another node."""

    node: Node
    own: Pod
    sibling: Pod
    far: Pod
    before: str
    """The rule set before init-node."""

    def reaches(self, host: Pod, family: str) -> bool:
        """Return whether another pod answers the node's pod in that family."""
        address = json.loads(
            host.run("ip", "-j", f"-{family}", "address", "show", "dev", "eth0", "scope", "global").stdout
        )
        return self.own.pings(address[0]["addr_info"][0]["local"])


@pytest.fixture
def running() -> Iterator[Running]:
    """Yield a dual-stack lab with two nodes and pods on them."""
    with Lab(nodes=2, dual_stack=True) as lab:
        here, there = lab.nodes
        here.run(["ip6tables", "-P", "FORWARD", "DROP"])
        before = here.run(["nft", "-s", "list", "ruleset"]).stdout
        for node, peer in ((here, there), (there, here)):
            cnictl(
                node, "init-node",
                "--subnet", f"{node.pod_cidr},{node.pod_cidr6}", "--network", f"{plan.NETWORK},{plan.NETWORK6}",
                "--peer", f"{peer.pod_cidr}={peer.address}",
                "--peer", f"{peer.pod_cidr6}={peer.address6}",
            )  # fmt: skip
        yield Running(here, pod(here, "a"), pod(here, "b"), pod(there, "c"), before)


def pod(node: Node, name: str) -> Pod:
    """Attach a pod with both families."""
    node.run(["ip", "netns", "add", name])
    return Pod(node, name, call(node, "ADD", name)["ips"][0]["address"].partition("/")[0])


def test_pods_get_past_ip6tables_and_dropping_chains_of_each_nft_family_until_a_reset(running: Running) -> None:
    node = running.node
    for family in "46":
        assert running.reaches(running.far, family)
    node.run(["ip6tables", "-I", "FORWARD", "-j", "DROP"])
    node.run(["nft", "-f", "-"], stdin=THEIRS)
    assert not running.reaches(running.far, "6") and not running.reaches(running.sibling, "4")
    assert drifted(node) == ["forward/ip6tables", "forward/nft"]
    cnictl(node, "apply")
    for host, family in product((running.far, running.sibling), "46"):
        # a pod asks again for an unresolved neighbour only after it has given up
        wait_for(partial(running.reaches, host, family), f"{host.name} is reached over IPv{family}")
    assert drifted(node) == []
    cnictl(node, "reset-node", "--yes", "--force")
    assert "cnictl" not in node.run(["nft", "list", "ruleset"]).stdout
    for family in ("inet", "ip6", "bridge"):
        node.run(["nft", "delete", "table", family, "theirs"])
    node.run(["ip6tables", "-D", "FORWARD", "-j", "DROP"])
    assert node.run(["nft", "-s", "list", "ruleset"]).stdout == running.before
