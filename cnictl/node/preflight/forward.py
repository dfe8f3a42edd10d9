"""Check the host's firewalls for drops that the accept rules for pods' packets precede."""

import os

from cnictl.node import hint
from cnictl.node.host.verdicts.pods import families
from cnictl.node.preflight.finding import PreflightFinding, warning
from cnictl.node.resources.forward import IPTABLES, FilterTable, IptablesForward
from cnictl.node.resources.forward_nft import ForwardChains
from cnictl.node.spec.node_spec import NodeSpec

_HINT = hint.option("--no-forward", "the firewall's own rules then decide about pods' packets")


def passed_over(spec: NodeSpec, previous: NodeSpec | None) -> list[PreflightFinding]:  # noqa: ARG001
    """Report each drop, by a policy or a rule, that an accept rule for pods' packets precedes."""
    if not spec.forward or os.geteuid() != 0:
        return []  # `root` reports it
    drops = list(ForwardChains(spec).survey().passed_over)
    for family, legacy in IPTABLES:
        resource = IptablesForward(family, spec, legacy)
        if family in families(spec) and resource.works():
            table = FilterTable(resource.program, family, spec)
            drops += [(f"{resource.program} {chain}", drop) for chain, drop in table.survey().passed_over]
    message = "cnictl will insert an accept rule for pods before this rule or policy: {}"
    return [warning("forward", chain, message.format(drop), _HINT) for chain, drop in dict.fromkeys(drops)]
