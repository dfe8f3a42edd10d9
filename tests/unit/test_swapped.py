"""Arguments in the wrong order are recognized, and the hint has them in the right order."""

from pathlib import Path

import pytest

from cnictl.core.errors import UsageProblem
from cnictl.node.spec import addressing, node_file, peers, swapped
from cnictl.node.spec.node_spec import NodeSpec, Peer
from cnictl.node.spec.pod_names import Names, address_in, named


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (("10.0.10.51", "10.244.1.0/24"), Peer("10.244.1.0/24", "10.0.10.51")),
        (("10.0.10.51", "10.244.1.7/24"), Peer("10.244.1.0/24", "10.0.10.51")),
        (("10.0.10.51%eth0", "10.244.1.0/24"), Peer("10.244.1.0/24", "10.0.10.51", "eth0")),
        (("FD00:10::51", "fd00:244:0:1::/64"), Peer("fd00:244:0:1::/64", "fd00:10::51")),
        (("10.244.1.0/24", "10.0.10.51"), None),
        (("10.244.1.0", "10.0.10.51/24"), None),
        (("10.244.1.0", "10.0.10.51"), None),
        (("10.244.1.0/24", "10.244.2.0/24"), None),
        (("web", "10.244.1.0/24"), None),
    ],
)
def test_peer_with_swapped_sides(given: tuple[str, str], meant: Peer | None) -> None:
    assert swapped.peer(*given) == meant


def test_hint_of_each_command_is_right_for_it(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="wrong way round") as option:
        peers.parse_peer("10.0.10.51%eth0=10.244.1.0/24")
    assert option.value.hint == "--peer 10.244.1.0/24=10.0.10.51%eth0"
    path = tmp_path / "node.toml"
    path.write_text(
        'subnet = "10.244.0.0/24"\nnetwork = "10.244.0.0/20"\n'
        '[[peers]]\npod_cidr = "10.0.10.51"\nvia = "10.244.1.0/24"\n'
    )
    with pytest.raises(UsageProblem, match="wrong way round") as file:
        node_file.load(str(path))
    assert file.value.hint == 'pod_cidr = "10.244.1.0/24", via = "10.0.10.51"'


def test_peer_to_drop_may_not_be_its_address() -> None:
    known = (Peer("10.244.1.0/24", "10.0.10.51"), Peer("10.244.2.0/24", "10.0.10.52"))
    assert peers.to_drop("10.244.1.0/24", known) == "10.244.1.0/24"
    with pytest.raises(UsageProblem, match=r"the address of the peer with pod CIDR 10\.244\.1\.0/24") as refused:
        peers.to_drop("10.0.10.51", known)
    assert refused.value.hint == "cnictl route del-peer 10.244.1.0/24"
    with pytest.raises(UsageProblem, match="no peer is reached through it") as unknown:
        peers.to_drop("10.0.10.59", known)
    assert "10.244.1.0/24, 10.244.2.0/24" in unknown.value.hint


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (NodeSpec(("10.244.0.0/20",), ("10.244.0.0/24",)), "--subnet 10.244.0.0/24 --network 10.244.0.0/20"),
        (NodeSpec(("fd00:244::/48",), ("fd00:244::/64",)), "--subnet fd00:244::/64 --network fd00:244::/48"),
        (NodeSpec(("10.244.0.0/24",), ("mynet",)), "a network's name goes with --name"),
        (NodeSpec(("10.244.0.0/24",), ("10.244.0.0/20",), name="10.244.0.0/20"), "is a CIDR, not a network name"),
    ],
)
def test_swapped_subnet_network_and_name(spec: NodeSpec, said: str) -> None:
    with pytest.raises(UsageProblem) as refused:
        addressing.check(spec)
    assert said in refused.value.message


def test_pod_is_called_by_address_name_or_container() -> None:
    pods = [
        Names(("10.244.0.2", "fd00::2"), "default/web", "aa11"),
        Names(("10.244.0.3",), "test/web", "bb22"),
        Names(("10.244.0.4",), "default/aa1", "cc33"),
        Names((), "", "web9"),
    ]

    def meant(who: str, shortest: int = 1) -> list[str]:
        return [names.container for names in named(who, pods, lambda pod: pod, shortest)]

    assert meant("10.244.0.2") == meant("10.244.0.2/24") == meant("FD00:0::2") == meant("default/web") == ["aa11"]
    assert meant("web") == ["aa11", "bb22"]
    assert meant("aa1") == ["cc33"]  # matches a pod's name; a container id also starts with it
    assert meant("aa") == meant("aa11") == ["aa11"]
    assert meant("bb2", 4) == meant("") == meant("10.244.0") == meant("10.244.0.0/24") == []
    assert address_in("10.244.0.0/24") == address_in("web") == b""
