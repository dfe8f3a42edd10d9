"""Set up a node on an existing bridge that also leads to its router, and restore the bridge afterwards."""

from collections.abc import Iterator

import pytest

from cnictl.lab.lab import Lab, Node
from tests.kernel.commands import call, cnictl, drifted, outcomes, snapshot, start_pod

pytestmark = pytest.mark.once

OPTIONS = (
    "--bridge",
    "br0",
    "--subnet",
    "10.244.0.0/24,fd00:244::/64",
    "--network",
    "10.244.0.0/20",
    "--network",
    "fd00:244::/48",
)


@pytest.fixture(scope="module")
def dual_node() -> Iterator[Node]:
    """Yield a node with both families, for tests that leave it unchanged."""
    with Lab(nodes=1, dual_stack=True) as lab:
        yield lab.nodes[0]


def accept_ra(node: Node, link: str) -> str:
    return node.run(["sysctl", "-n", f"net.ipv6.conf.{link}.accept_ra"]).stdout.strip()


@pytest.fixture
def bridged(dual_node: Node) -> Iterator[Node]:
    """Yield the node with a bridge br0 without ports, and a link wan0 on which no router has advertised yet."""
    node = dual_node
    for line in (
        "link add br0 address 02:00:00:00:77:01 type bridge",
        "link set br0 up",
        "link add wan0 type veth peer name wan1",
        "link set wan0 up",
    ):
        node.run(["ip", *line.split()])
    node.run(["sysctl", "-qw", "net.ipv6.conf.all.forwarding=0"])
    node.run(["sysctl", "-qw", *(f"net.ipv6.conf.{link}.accept_ra=1" for link in ("br0", "wan0", "eth0"))])
    yield node
    cnictl(node, "reset-node", "--yes", "--force", check=False)
    for link in ("br0", "wan0", "port0"):
        node.run(["ip", "link", "delete", link], check=False)


def give_port(node: Node) -> None:
    node.run(["ip", "link", "add", "port0", "type", "veth", "peer", "name", "port1"])
    node.run(["ip", "link", "set", "port0", "master", "br0", "up"])


@pytest.mark.parametrize("way", ["reset-node", "undo"])
@pytest.mark.parametrize("port", [False, True], ids=["pods alone", "an uplink"])
def test_router_advertisements_stay_accepted_and_a_reset_restores_everything(
    bridged: Node, port: bool, way: str
) -> None:
    node = bridged
    if port:
        give_port(node)
    before = snapshot(node)
    done = outcomes(cnictl(node, "init-node", *OPTIONS, "-o", "json"))
    assert done["sysctl/net.ipv6.accept_ra"] == "changed"
    assert accept_ra(node, "br0") == ("2" if port else "0")
    assert (accept_ra(node, "wan0"), accept_ra(node, "eth0")) == ("2", "2")
    written = node.run(["cat", "/etc/sysctl.d/99-cnictl.conf"]).stdout
    assert "net/ipv6/conf/wan0/accept_ra = 2\n" in written and "br0" not in written
    pod = start_pod(node, "pod")
    assert accept_ra(node, "br0") == ("2" if port else "0") and pod.pings("10.244.0.1")
    assert drifted(node) == []
    call(node, "DEL", "pod")
    node.run(["ip", "netns", "delete", "pod"])
    assert drifted(node) == []  # the addresses come from the node file, and stay after the last pod's DEL
    cnictl(node, way, *(("--yes",) if way == "reset-node" else ()))
    if way == "undo":
        assert [accept_ra(node, link) for link in ("br0", "wan0", "eth0")] == ["1", "1", "1"]
        cnictl(node, "reset-node", "--yes")
    after = snapshot(node)
    # the kernel added the bridge's link-local address with its first carrier
    same = ("sysctl", "nft", "iptables", "contents", *(("tree",) if way == "reset-node" else ()))
    assert {key: after[key] for key in same} == {key: before[key] for key in same}
    assert node.run(["ip", "-o", "address", "show", "dev", "br0", "scope", "global"]).stdout == ""


def test_a_port_added_later_is_drift_and_apply_fixes_it(bridged: Node) -> None:
    node = bridged
    cnictl(node, "init-node", *OPTIONS)
    assert accept_ra(node, "br0") == "0" and drifted(node) == []
    give_port(node)
    assert drifted(node) == ["sysctl/net.ipv6.conf.br0"]
    cnictl(node, "apply")
    assert accept_ra(node, "br0") == "2" and drifted(node) == []
    node.run(["ip", "link", "add", "late0", "type", "veth", "peer", "name", "late1"])
    assert drifted(node) == []  # whoever adds a link while the node already forwards must set it
    node.run(["ip", "link", "delete", "late0"])
