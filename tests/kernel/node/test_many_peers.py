"""Several hundred silent peers are probed in one batch on one socket, without new neighbour table entries."""

import json
import time
from collections.abc import Iterator

import pytest

from cnictl.lab.lab import Lab, Node
from tests.bench.peers import NETWORK, OWN, UNDERLAY, address, pod_cidr
from tests.kernel.commands import cnictl, drifted

pytestmark = pytest.mark.once

COUNT = 300


@pytest.fixture(scope="module")
def crowded() -> Iterator[Node]:
    """Yield a node with many applied peers in its node file. Another node has the first peer's address."""
    with Lab(nodes=2) as lab:
        node, other = lab.nodes
        other.run(["ip", "address", "add", f"{address(1)}/16", "dev", "eth0"])
        node.run(["ip", "address", "add", UNDERLAY, "dev", "eth0"])
        cnictl(node, "init-node", "--subnet", OWN, "--network", NETWORK)
        tables = "".join(
            f'\n[[peers]]\npod_cidr = "{pod_cidr(at)}"\nvia = "{address(at)}"\n' for at in range(1, COUNT + 1)
        )
        node.run(["sh", "-c", "cat >> /etc/cnictl/node.toml"], stdin=tables)
        cnictl(node, "apply")
        yield node


def routes(node: Node) -> dict[str, str]:
    """Return the gateway by destination of every route with cnictl's protocol number."""
    rows = json.loads(node.run(["ip", "-j", "route", "show", "proto", "67"]).stdout)
    return {route["dst"]: route["gateway"] for route in rows}


def neighbours(node: Node) -> list[str]:
    """Return the neighbour table's entries on the uplink."""
    return node.run(["ip", "neigh", "show", "dev", "eth0", "nud", "all"]).stdout.splitlines()


def test_every_peer_has_its_route_and_the_node_has_no_drift(crowded: Node) -> None:
    assert routes(crowded) == {pod_cidr(at): address(at) for at in range(1, COUNT + 1)}
    assert drifted(crowded) == []


def test_probing_silent_peers_does_not_fill_the_neighbour_table(crowded: Node) -> None:
    for command in ("status", "doctor", "route list"):
        begun = time.monotonic()
        cnictl(crowded, *command.split(), check=False)
        silent = [line for line in neighbours(crowded) if "172.16." in line and f"{address(1)} " not in line]
        assert not silent, command
        assert time.monotonic() - begun < 60, "the command waits for silent peers one after another"


def test_silent_peers_are_distinguished_from_one_that_answers(crowded: Node) -> None:
    status = json.loads(cnictl(crowded, "status", "-o", "json", check=False).stdout)
    assert [peer["via"] for peer in status["peers"] if peer["answers"]] == [address(1)]


def test_few_rules_accept_many_peers(crowded: Node) -> None:
    rules = crowded.run(["iptables", "-S", "CNICTL-FORWARD"]).stdout.splitlines()
    senders = [line.split()[line.split().index("-s") + 1] for line in rules if "-s 172.16." in line]
    assert len(senders) < 20
    held = sum(1 << (32 - int(sender.partition("/")[2])) for sender in senders)
    assert held == COUNT, "the rules cover exactly the peers' addresses"


def test_one_route_that_the_kernel_refuses_undoes_the_whole_run(crowded: Node) -> None:
    before, text = routes(crowded), crowded.run(["cat", "/etc/cnictl/node.toml"]).stdout
    taken = pod_cidr(COUNT + 2)
    crowded.run(["ip", "route", "add", taken, "via", address(COUNT + 9)])
    try:
        extra = "".join(
            f'\n[[peers]]\npod_cidr = "{pod_cidr(at)}"\nvia = "{address(at)}"\n' for at in range(COUNT + 1, COUNT + 4)
        )
        crowded.run(["sh", "-c", "cat >> /etc/cnictl/node.toml"], stdin=extra)
        done = cnictl(crowded, "apply", check=False)
        assert done.status == 1
        assert f"{taken} already has a route" in done.stderr
        assert routes(crowded) == before
    finally:
        crowded.run(["ip", "route", "del", taken])
        crowded.run(["sh", "-c", "cat > /etc/cnictl/node.toml"], stdin=text)
    cnictl(crowded, "apply")
    assert drifted(crowded) == []


def test_undo_removes_many_routes_and_one_run_adds_them_again(crowded: Node) -> None:
    crowded.run(["sh", "-c", "ip route flush proto 67"])
    cnictl(crowded, "apply")
    assert len(routes(crowded)) == COUNT
    runs = json.loads(cnictl(crowded, "history", "-o", "json").stdout)["items"]
    cnictl(crowded, "undo", str(runs[0]["run"]))
    assert routes(crowded) == {}
    cnictl(crowded, "apply")
    assert len(routes(crowded)) == COUNT
