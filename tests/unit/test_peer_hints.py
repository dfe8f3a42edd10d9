"""A node's hints about peers from Kubernetes or a file, according to the record of that source."""

from dataclasses import replace
from typing import Any

import pytest

from cnictl.node.reach import learning
from cnictl.node.reach.peer_hints import PeerHints
from cnictl.node.resources.peer_routes import PeerRouteState
from cnictl.node.spec.node_spec import FILE, KUBERNETES, NodeSpec, Peer, Reach
from cnictl.node.state import learned_peers
from cnictl.node.state.learned_peers import Learned
from cnictl.probe import owning
from cnictl.views import status

SPEC = NodeSpec(("10.244.0.0/24",), ("10.244.0.0/16",), reach=Reach(KUBERNETES, "n0"))
PEER = Peer("10.244.1.0/24", "10.0.0.1")
LOOK = "kubectl get nodes -o custom-columns=NAME:.metadata.name,CIDR:.spec.podCIDR; then: cnictl apply"


def _with(monkeypatch: pytest.MonkeyPatch, spec: NodeSpec, *nodes: dict[str, Any]) -> PeerHints:
    record = Learned(source="the source", reach=learned_peers.identity(spec.reach), nodes=nodes)
    monkeypatch.setattr(learned_peers, "load", lambda: record)
    monkeypatch.setattr(learning, "ask", lambda spec, **_: (spec, record))
    return PeerHints(spec)


def _node(**changed: Any) -> dict[str, Any]:
    node = {"name": "n1", "pod_cidr": PEER.pod_cidr, "address": PEER.via, "state": "routed", "why": "", "static": False}
    return {**node, "since": 0.0, **changed}


def test_hint_for_a_node_unknown_to_kubernetes_is_to_register(monkeypatch: pytest.MonkeyPatch) -> None:
    hints = _with(monkeypatch, SPEC)
    begin = "register {} in Kubernetes, by starting kubelet on {}, and check that its Node has a pod CIDR: " + LOOK
    assert hints.here(PEER) == begin.format("10.0.0.1", "10.0.0.1")
    assert hints.nowhere("10.244.9.5") == begin.format("the node of 10.244.9.5", "that node")
    assert hints.there(PEER, "10.244.0.0/24", "10.0.0.9", "and look") == (
        begin.format("this node", "this node") + "; and look"
    )


def test_node_that_kubernetes_has_needs_no_registration(monkeypatch: pytest.MonkeyPatch) -> None:
    hints = _with(monkeypatch, SPEC, _node(), _node(name="n0", state="this node", pod_cidr="10.244.0.0/24"))
    assert "register" not in hints.there(PEER, "10.244.0.0/24", "10.0.0.9")
    assert hints.here(replace(PEER, via="10.0.0.7")).startswith("correct n1 in the source, which has 10.244.1.0/24 at")


@pytest.mark.parametrize("source", [FILE, KUBERNETES])
def test_peer_kept_at_its_former_address_is_a_fault_with_its_reason(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    why = "as before, because its new entry is refused: 172.16.0.1 is behind gateway 10.0.0.254"
    hints = _with(monkeypatch, replace(SPEC, reach=Reach(source)), _node(why=why))
    state = PeerRouteState(PEER, PEER.pod_cidr, PEER.via, "eth0", "ok")
    row = status._route(state, "", hints)
    assert row["fault"] == (
        f"n1 (10.244.1.0/24) is still routed to 10.0.0.1, {why}; if it has moved, packets to its pods are lost"
    )
    assert row["hint"]["text"] == "correct n1 in the source (the source)"
    assert not status._route(state, owning.ANSWERS, hints)["fault"], "its pods answer there: the new entry is wrong"


@pytest.mark.parametrize("changed", [{}, {"why": "node.toml has it via 10.0.0.1", "static": True}, {"address": "x"}])
def test_peer_equal_to_the_source_is_not_a_fault(changed: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert _with(monkeypatch, SPEC, _node(**changed)).refused(PEER) == ("", "")
