"""Which remnants a host may have beside what a plan names, and what stands in for a node whose files are lost."""

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
    """Return a spec without addresses for each bridge that carries our alias: the names that things may be under.

    One with the default names where there is no such bridge.
    """
    with Netlink() as netlink:
        links = rtnetlink.all_links(netlink)
    found = [
        NodeSpec((), (), name=link.alias.removeprefix(OWNER_MARK), bridge=link.name)
        for link in links
        if link.kind == "bridge" and link.alias.startswith(OWNER_MARK)
    ]
    return found or [NodeSpec((), ())]


def networks_of_links() -> list[str]:
    """Return the networks that aliases of pods' veths name."""
    with Netlink() as netlink:
        links = rtnetlink.all_links(netlink)
    marks = [link.alias for link in links if link.kind == "veth" and link.alias.startswith(OWNER_MARK)]
    return sorted({mark.removeprefix(OWNER_MARK).partition("/")[0] for mark in marks if "/" in mark})


def resources(names: Sequence[str], ports: Iterable[str]) -> list[Resource]:
    """Return what may carry our marks beside what other resources remove.

    These are the rules of the networks `names`, the accepts for pods in iptables' FORWARD, and the guards of the
    host veths `ports`.
    """
    own = [rule_set.chain(name) for name in names]
    found: list[Resource] = [TaggedLinks(), TaggedRoutes(), OwnTables(frozenset(names), frozenset(ports))]
    programs = iptables_programs()
    for program in programs:
        covered = _covered(program, own) if program in firewall.PROGRAMS.values() else frozenset()
        found.append(TaggedIptables(program, covered))
    named = frozenset({("filter", CHAIN), *(("nat", chain) for chain in own)})
    missing = [base for base in firewall.PROGRAMS.values() if not any(known.startswith(base) for known in programs)]
    return [*found, *(TaggedIptables(program, named) for program in missing)]


def _covered(program: str, own: list[str]) -> frozenset[tuple[str, str]]:
    """The chains that the forwarding and masquerade resources know by name, scopes of a network included."""
    there = [
        one.removeprefix("-N ")
        for rules in (TaggedIptables(program).observe() or {}).values()
        for one in rules
        if one.startswith("-N ")
    ]
    scoped = [one for one in there if any(one.startswith(f"{chain}-") for chain in own)]
    return frozenset({("filter", CHAIN), *(("nat", chain) for chain in (*own, *scoped))})


def ports_of_records() -> list[str]:
    """Return the host veths that records name."""
    return sorted(attachments.host_veths())
