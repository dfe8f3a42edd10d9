"""List the remnants that a host may have besides a plan's resources, and guess the spec of a node without files."""

from collections.abc import Iterable, Sequence

from cnictl.core import attachments
from cnictl.core.masquerade import rule_set
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import Netlink
from cnictl.node.host import firewall
from cnictl.node.resources.bridge import OWNER_MARK
from cnictl.node.resources.forward import CHAIN
from cnictl.node.resources.remnants import (
    OwnTables,
    TaggedIptables,
    TaggedLinks,
    TaggedRoutes,
    iptables_programs,
)
from cnictl.node.spec.node_spec import NodeSpec
from cnictl.node.spine import Resource


def guessed_specs() -> list[NodeSpec]:
    """Return a spec without addresses for each bridge with our alias; one with the default names if there is none."""
    with Netlink() as netlink:
        links = rtnetlink.all_links(netlink)
    specs = [
        NodeSpec((), (), name=link.alias.removeprefix(OWNER_MARK), bridge=link.name)
        for link in links
        if link.kind == "bridge" and link.alias.startswith(OWNER_MARK)
    ]
    return specs or [NodeSpec((), ())]


def networks_of_links() -> list[str]:
    """Return the networks that aliases of pods' veths name."""
    with Netlink() as netlink:
        links = rtnetlink.all_links(netlink)
    marks = [link.alias for link in links if link.kind == "veth" and link.alias.startswith(OWNER_MARK)]
    return sorted({mark.removeprefix(OWNER_MARK).partition("/")[0] for mark in marks if "/" in mark})


def resources(names: Sequence[str], ports: Iterable[str]) -> list[Resource]:
    """Return resources for everything that may carry our marks, except what other resources remove.

    Other resources remove the rules of the networks `names`, the accept rules in iptables' FORWARD, and the rules that
    guard the host veths `ports`.
    """
    own = [rule_set.chain(name) for name in names]
    marked: list[Resource] = [TaggedLinks(), TaggedRoutes(), OwnTables(frozenset(names), frozenset(ports))]
    programs = iptables_programs()
    for program in programs:
        covered = _covered(program, own) if program in firewall.PROGRAMS.values() else frozenset()
        marked.append(TaggedIptables(program, covered))
    named = frozenset({("filter", CHAIN), *(("nat", chain) for chain in own)})
    missing = [base for base in firewall.PROGRAMS.values() if not any(known.startswith(base) for known in programs)]
    return [*marked, *(TaggedIptables(program, named) for program in missing)]


def _covered(program: str, own: list[str]) -> frozenset[tuple[str, str]]:
    """Return the chains that the forwarding and masquerade resources remove, with those of a network's scopes."""
    lines = [line for table in (TaggedIptables(program).observe() or {}).values() for line in table]
    scopes = tuple(f"-N {chain}-" for chain in own)
    scoped = [line.removeprefix("-N ") for line in lines if line.startswith(scopes)]
    return frozenset({("filter", CHAIN), *(("nat", chain) for chain in (*own, *scoped))})


def ports_of_records() -> list[str]:
    """Return the host veths that records name."""
    return sorted(attachments.host_veths())
