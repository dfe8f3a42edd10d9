"""After a reboot everything volatile is gone, and the boot unit restores the node."""

import json
import re
import uuid
from collections.abc import Iterator

import pytest

from cnictl.lab.lab import Lab, Node
from tests.kernel.commands import cnictl, drifted, init, snapshot, start_pod
from tests.waiting import wait_for

pytestmark = pytest.mark.once

UNIT = "/etc/systemd/system/cnictl.service"


@pytest.fixture
def node() -> Iterator[Node]:
    """Yield a node that seems to run systemd, so that it has the unit."""
    with Lab(nodes=1) as lab:
        fresh = lab.nodes[0]
        fresh.run(["mkdir", "-p", "/run/systemd/system"])
        init(fresh, "--peer", "10.244.1.0/24=10.0.10.51")
        yield fresh


def reboot(node: Node) -> None:
    """Remove everything that a reboot removes, make the kernel report another boot, and run the unit's commands."""
    node.run(
        [
            "sh", "-c",
            "ip -all netns delete; ip link delete cni0; ip route flush proto 67; nft flush ruleset; "
            "sysctl -qw net.ipv4.ip_forward=0; rm -rf /run/cnictl; "
            f"echo {uuid.uuid4()} > /tmp/boot_id; mount --bind /tmp/boot_id /proc/sys/kernel/random/boot_id; "
            "for file in /etc/sysctl.d/*.conf; do sysctl -qp $file; done",
        ]
    )  # fmt: skip
    wait_for(lambda: "veth" not in node.run(["ip", "-br", "link"]).stdout, "the pods are gone")
    for line in re.findall(r"^ExecStart(?:Post)?=-?(.*)$", node.run(["cat", UNIT]).stdout, re.MULTILINE):
        node.run(line.split(), timeout=60)


def settled(seen: dict[str, object]) -> dict[str, object]:
    """Return the parts of a snapshot that do not depend on the bridge's MAC, which changes with a boot."""
    return {key: seen[key] for key in ("nft", "iptables", "contents", "sysctl")}


def test_node_is_back_and_only_pods_that_are_gone_lose_their_addresses(node: Node) -> None:
    before = settled(snapshot(node))
    gone = [start_pod(node, f"pod{number}").address for number in range(3)]
    reboot(node)
    assert drifted(node) == []
    assert settled(snapshot(node)) == before
    assert json.loads(cnictl(node, "ipam", "list", "-o", "json").stdout)["items"] == []
    freed = json.loads(cnictl(node, "history", "-o", "json").stdout)["items"][0]
    assert (freed["command"], freed["changes"]) == ("ipam gc", 3)
    pod = start_pod(node, "pod0")
    assert pod.address not in gone
    assert pod.pings("10.244.0.1")
    reboot_less = cnictl(node, "apply")
    assert "nothing to" in reboot_less.stderr
    assert cnictl(node, "ipam", "gc").status == 0
    assert pod.pings("10.244.0.1")
