"""What init-node says about the other nodes, and the links that it can use to reach them."""

from types import SimpleNamespace
from typing import Any

import pytest

from cnictl.node.host import route_lookup, uplinks
from cnictl.node.runs import joining
from cnictl.node.spec.node_spec import NodeSpec
from cnictl.views import nodes

CNI0, DOCKER0, BR0 = 4, 8, 9


@pytest.mark.parametrize(
    ("subnets", "networks", "said"),
    [
        (
            ("10.244.0.0/24",),
            ("10.244.0.0/20",),
            "next, on each other node: cnictl route add-peer 10.244.0.0/24=10.0.0.210\n"
            "on a new node: cnictl init-node --subnet POD_CIDR --network 10.244.0.0/20 --peer 10.244.0.0/24=10.0.0.210",
        ),
        (
            ("10.244.0.0/24", "fd00:244::/64"),
            ("10.244.0.0/20", "fd00:244::/48"),
            "next, on each other node: cnictl route add-peer 10.244.0.0/24=10.0.0.210 fd00:244::/64=fd00:10::210\n"
            "on a new node: cnictl init-node --subnet POD_CIDR,POD_CIDR6 --network 10.244.0.0/20,fd00:244::/48 "
            "--peer 10.244.0.0/24=10.0.0.210 --peer fd00:244::/64=fd00:10::210",
        ),
    ],
)
def test_other_hosts_get_a_command_whether_they_are_nodes_or_not(
    subnets: tuple[str, ...], networks: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {False: "10.0.0.210", True: "fd00:10::210"}
    monkeypatch.setattr(route_lookup, "source_to", lambda address: own[":" in address])
    assert joining.what_next(NodeSpec(subnets, networks), None) == said


def _link(name: str, index: int, kind: str = "", master: int = 0, alias: str = "") -> Any:
    return SimpleNamespace(name=name, index=index, kind=kind, master=master, alias=alias)


def test_link_of_pods_is_no_uplink() -> None:
    links = [
        _link("lo", 1),
        _link("eth0", 2, "veth"),
        _link("cni0", CNI0, "bridge"),
        _link("veth1", 5, "veth", CNI0, "cnictl:mynet/default/web"),
        _link("tap0", 6, "tun", CNI0),
        _link("veth2", 7, "veth", DOCKER0),
        _link("docker0", DOCKER0, "bridge"),
        _link("br0", BR0, "bridge"),
        _link("cni1", 10, "bridge", alias="cnictl:other"),
    ]
    assert uplinks.candidates(links, "cni0") == ["eth0", "docker0", "br0"]


def test_peer_without_a_name_is_listed_by_its_pod_cidr() -> None:
    row = {"name": "", "pod_cidr": "10.244.1.0/24", "address": "10.0.10.51", "state": "routed"}
    assert nodes.name_of(row) == "10.244.1.0/24"
    assert nodes.name_of({**row, "name": "node-b"}) == "node-b"
    assert nodes.name_of({**row, "pod_cidr": ""}) == "10.0.10.51"
