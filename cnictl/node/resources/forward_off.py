"""List the drops of pods' packets that cnictl leaves: accept rules are switched off, or the table has an owner."""

from collections.abc import Iterator

from cnictl.node.host.verdicts.pods import families
from cnictl.node.resources.forward import IPTABLES, FilterTable, IptablesForward
from cnictl.node.resources.forward_nft import ForwardChains
from cnictl.node.spec.node_spec import NodeSpec

SWITCHED_OFF = "forward = false keeps cnictl from accepting them"
OWNED = "only the program that owns the table may change it"


def dropped(spec: NodeSpec) -> Iterator[tuple[str, str, str]]:
    """Yield chain, rule or policy, and the reason why it is left, for each drop of pods' packets. Raises Problem."""
    reported = [(drop, OWNED) for drop in ForwardChains(spec, owned=True).drops()]
    if not spec.forward:
        reported += [(drop, SWITCHED_OFF) for drop in ForwardChains(spec).drops()]
        for family, legacy in IPTABLES:
            resource = IptablesForward(family, spec, legacy)
            if family in families(spec) and resource.works():
                drops = FilterTable(resource.program, family, spec).survey().dropped_now
                reported += [((f"{resource.program} {need.drop[0]}", need.drop[1]), SWITCHED_OFF) for need in drops]
    for (chain, drop), why in dict.fromkeys(reported):
        yield chain, drop, why
