"""The output of --dry-run, pasted into a shell, has the same effect as the command."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from cnictl.lab.lab import Lab, Node
from tests.kernel.commands import cnictl, snapshot
from tests.soak import SOAK

pytestmark = pytest.mark.once

INIT = "init-node --subnet 10.244.0.0/24 --network 10.244.0.0/20 --peer 10.244.1.0/24=10.0.10.51"
DUAL = "init-node --subnet 10.244.0.0/24,fd00:244::/64 --network 10.244.0.0/20,fd00:244::/48 --backend iptables"
EDITED = "sed -i 's/^nat = true/nat = false/' /etc/cnictl/node.toml; echo 'mtu = 1400' > /tmp/new"
GUARD = """
nft 'add table inet guard; add chain inet guard forward { type filter hook forward priority 0; policy drop; }'
nft 'add rule inet guard forward ct state established accept; add rule inet guard forward iifname "eth9" drop'
"""
"""An operator's firewall that drops packets from pods."""
DRIFT = "sysctl -qw net.ipv4.ip_forward=0; ip link set cni0 down; nft delete table inet cnictl; ip route flush proto 67"
OWN = re.compile(r"^/(var/lib/cnictl|run/cnictl|usr/local/lib/cnictl/[^/]*/manifest\.json|tmp)")
"""cnictl's own records, which no manual command writes, and a plugin version's installation time."""


@pytest.fixture
def twins() -> Iterator[tuple[Node, Node]]:
    """Yield two bare nodes that are alike, each in its own lab."""
    with Lab(nodes=1) as first, Lab(nodes=1) as second:
        yield first.nodes[0], second.nodes[0]


def state(node: Node) -> dict[str, Any]:
    """Return links, addresses, routes, rules and kernel settings of a node, and its files with their content."""
    seen = snapshot(node)
    places = "/etc /opt /usr/local/lib/cnictl /usr/lib/cni"
    find = f"find {places} -xdev -type f -exec sha256sum {{}} + 2>/dev/null"
    files = node.run(["sh", "-c", find], check=False).stdout.splitlines()
    kept = [line for line in seen["tree"] if not OWN.search(line) and line.split()[1] == "f"]
    hashes = sorted(line for line in files if not OWN.search(line.split(None, 1)[1]))
    text = json.dumps({**seen, "tree": kept, "contents": hashes})
    (link,) = json.loads(node.run(["ip", "-j", "address", "show", "eth0"]).stdout)
    for own in (link["address"], *(address["local"] for address in link["addr_info"] if address["scope"] == "link")):
        text = text.replace(own, "its own")
    return dict(json.loads(re.sub(r'"(ifindex|link_index|link_netnsid)": \d+, ', "", text)))


CASES = [
    ("", INIT),
    (GUARD, DUAL),
    (f"cnictl {INIT}; {EDITED}", "apply"),
    (f"cnictl {INIT}; {DRIFT}", "apply"),
    (f"cnictl {INIT}", "nat disable"),
    (f"cnictl {INIT} --no-nat", "nat enable --backend iptables"),
    (f"cnictl {INIT}", "nat enable --backend iptables"),
    (f"cnictl {DUAL}", "nat enable --backend nft"),
    (f"cnictl {INIT}", "route add-peer 10.244.2.0/24=10.0.10.52 10.244.3.0/24=10.0.10.53"),
    (f"cnictl {INIT}", "route del-peer 10.244.1.0/24"),
    ("", "bridge up --subnet 10.244.0.0/24 --network 10.244.0.0/20 --mtu 1400"),
    (f"cnictl {INIT}", "bridge down"),
    (f"cnictl {INIT}; cnictl nat disable", "undo"),
    (f"{GUARD} cnictl {DUAL}", "reset-node"),
]
"""The commands that prepare the node, and the command to test. Without CNICTL_SOAK=1, only the first and last run."""


@pytest.mark.parametrize(("before", "words"), CASES if SOAK else [CASES[0], CASES[-1]])
def test_pasted_dry_run_has_the_same_effect_as_the_command(twins: tuple[Node, Node], before: str, words: str) -> None:
    ours, theirs = twins
    for node in twins:
        node.run(["sh", "-ec", before])
    assert state(ours) == state(theirs)
    script = cnictl(theirs, *words.split(), "--dry-run").stdout
    assert script.startswith("# would change (")
    pasted = theirs.run(["sh", "-eu"], stdin=script, check=False)
    assert pasted.status == 0, (pasted.stderr, script)
    cnictl(ours, *words.split(), *(["--yes"] if words == "reset-node" else []))
    wanted, seen = state(ours), state(theirs)
    for part in wanted:
        assert seen[part] == wanted[part], (part, script)
