"""Drops of pods' packets that no accept of cnictl's comes ahead of: switched off, or in a table of another's alone."""

from collections.abc import Iterator

from cnictl.node.host.verdicts.pods import families
from cnictl.node.resources.forward import IPTABLES, IptablesForward, IptablesLook
from cnictl.node.resources.forward_nft import NftLook
from cnictl.node.spec.node_spec import NodeSpec

SWITCHED_OFF = "forward = false keeps cnictl from accepting them"
OWNED = "only the program that owns the table may change it"


def dropped(spec: NodeSpec) -> Iterator[tuple[str, str, str]]:
    """The chain, the rule or policy that drops, and why it is left, for each drop of pods' packets. Raises Problem."""
    found = [(drop, OWNED) for drop in NftLook(spec, owned=True).drops()]
    if not spec.forward:
        found += [(drop, SWITCHED_OFF) for drop in NftLook(spec).drops()]
        for family, legacy in IPTABLES:
            resource = IptablesForward(family, spec, legacy)
            if family in families(spec) and resource.works():
                drops = IptablesLook(resource.program, family, spec).survey().suffering
                found += [((f"{resource.program} {need.drop[0]}", need.drop[1]), SWITCHED_OFF) for need in drops]
    for (chain, drop), why in dict.fromkeys(found):
        yield chain, drop, why
