"""Prepare the node's own plugin chain for probe pods: their ADD must not repair what the checks are to judge.

An ADD loads a flushed masquerade rule set, and makes the bridge as the conf describes it. On a node these are the
node file's responsibility, so a probe pod leaves the first alone, and is not made where it would do the second.
"""

from typing import Any

from cnictl.core.errors import Problem
from cnictl.node import hint
from cnictl.node.resources.cni_conf import PLUGIN_TYPE
from cnictl.node.spec.node_spec import NodeSpec, by_family
from cnictl.probe.chain import Chain
from cnictl.probe.failure import gateway_of
from cnictl.probe.host import Host


def for_probes(chain: Chain, spec: NodeSpec | None) -> Chain:
    """Return the chain for probe pods of the node that `spec` describes; other networks' chains are unchanged.

    Raises Problem if the bridge is not as the pods need it: an ADD would repair it.
    """
    if spec is None or not _is_nodes(chain, spec):
        return chain
    for part in by_family(spec):
        fault = Host(part, spec).bridge_fault(gateway_of(part.subnet))
        if fault:
            raise Problem(f"{fault}; no probe pod was made, because making one repairs it",
                          hint.command("cnictl bridge up"))  # fmt: skip
    return Chain(without_masquerade(chain.conf), chain.bin_dirs)


def without_masquerade(conf: dict[str, Any]) -> dict[str, Any]:
    """Return a conf list whose cnictl plugin loads no masquerade rules."""
    plugins = [
        {key: value for key, value in plugin.items() if key not in ("ipMasq", "ipMasqBackend")}
        if plugin["type"] == PLUGIN_TYPE
        else plugin
        for plugin in conf["plugins"]
    ]
    return {**conf, "plugins": plugins}


def _is_nodes(chain: Chain, spec: NodeSpec) -> bool:
    """Return whether the chain is the node's own network in the form that `init-node` writes."""
    first = chain.plugins[0]
    return "plugins" in chain.conf and chain.name == spec.name and first["type"] == PLUGIN_TYPE and "subnet" in first
