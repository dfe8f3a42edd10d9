"""A probe pod of the node's own network loads no masquerade rules; pods of other confs behave as they always do."""

from typing import Any

import pytest

from cnictl.core.errors import Problem
from cnictl.node.resources.cni_conf import conflist
from cnictl.node.spec.node_spec import NodeSpec
from cnictl.probe import node_chain
from cnictl.probe.chain import Chain
from cnictl.probe.host import Host
from cnictl.probe.node_chain import for_probes

SPEC = NodeSpec(("10.244.0.0/24",), ("10.244.0.0/20",))


@pytest.fixture(autouse=True)
def fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the node a bridge without a fault."""
    monkeypatch.setattr(Host, "bridge_fault", lambda *_: "")


def of_node(**plugin: Any) -> Chain:
    conf = conflist(SPEC, bridge_netfilter=False, portmap=True, newest=True)
    conf["plugins"][0] |= plugin
    return Chain(conf)


def test_nodes_own_chain_leaves_the_rules_alone_and_nothing_else() -> None:
    chain = of_node()
    probes = for_probes(chain, SPEC)
    missing = {**chain.conf["plugins"][0]}
    assert (missing.pop("ipMasq"), missing.pop("ipMasqBackend")) == (True, "nftables")
    assert probes.conf == {**chain.conf, "plugins": [missing, chain.conf["plugins"][1]]}
    assert probes.bin_dirs == chain.bin_dirs


def test_chain_of_another_network_is_unchanged() -> None:
    named = Chain({**of_node().conf, "name": "other"})
    foreign, without_spec = of_node(type="bridge"), of_node()
    assert for_probes(named, SPEC) is named
    assert for_probes(foreign, SPEC) is foreign
    assert for_probes(without_spec, None) is without_spec


def test_bridge_that_an_add_would_repair_is_reported_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Host, "bridge_fault", lambda _, gateway: f"no {gateway}")
    with pytest.raises(Problem) as failed:
        node_chain.for_probes(of_node(), SPEC)
    assert failed.value.message == "no 10.244.0.1; no probe pod was made, because making one repairs it"
    assert failed.value.hint == "cnictl bridge up"
