"""Find the packets between this host and its own pods that its packet filters drop. cnictl does not accept those.

Pods need their node for DNS, published ports and node-local services; the node needs its pods for probes. The host's
own rules decide about these packets. A rule that drops all of them is a finding, with the command of that rule's
firewall that accepts them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from cnictl.core.iptables_listing import misread
from cnictl.core.masquerade.rule_set import TABLE
from cnictl.node import hint
from cnictl.node.hint import Hint
from cnictl.node.host import firewall
from cnictl.node.host.verdicts import iptables, nft
from cnictl.node.host.verdicts.model import Chain, Event, Packets, Rule, Ruleset, drops, walk
from cnictl.node.spec.node_spec import NodeSpec, by_family, is_ipv6

PROTOCOLS = ("tcp", "udp")
TO_NODE, FROM_NODE = "to the node", "from the node"
_HOOKS = {"prerouting": TO_NODE, "input": TO_NODE, "output": FROM_NODE}

_OTHERS = frozenset((f"inet {TABLE}", f"bridge {TABLE}"))


@dataclass(frozen=True)
class Dropped:
    """Packets that a rule or policy drops, whatever their port."""

    chain: str
    """`iptables INPUT`, `inet filter input`."""
    rule: str
    """The rule that drops, or `policy drop`."""
    direction: str
    """TO_NODE or FROM_NODE."""
    protocols: tuple[str, ...]
    subnet: str
    """The pods' subnet."""
    allow: Hint
    """The command that accepts them."""
    chosen: bool
    """Whether the drop is deliberate: earlier rules accept some of these packets by the pods' addresses or bridge."""

    @property
    def words(self) -> str:
        """The packets and the rule in one sentence."""
        packets = "what pods send to this node" if self.direction == TO_NODE else "what this node sends to its pods"
        names = " and ".join(map(str.upper, self.protocols))
        return f"{packets} by {names} is dropped ({self.rule})"


def dropped(spec: NodeSpec) -> list[Dropped]:
    """Return what each chain between pods and this node drops. Raises Problem."""
    drops_found = []
    for node in by_family(spec):
        family = "ip6" if is_ipv6(node.subnet) else "ip"
        for ruleset, base, table in _bases(family):
            drop = _of_chain(node, family, ruleset, base, table)
            if drop is not None:
                drops_found.append(drop)
    return drops_found


def _bases(family: str) -> Iterator[tuple[Ruleset, Chain, str]]:
    """Yield each base chain that such packets pass, with its rule set and its table in nft's or iptables' words."""
    listed = firewall.ruleset()
    native = nft.ruleset(listed)
    read: set[str] = set()
    program = firewall.PROGRAMS[family]
    if firewall.has_command(program):
        mistaken = misread(program, "filter")
        for chain in ("INPUT", "OUTPUT"):
            if not firewall.reads("filter", chain, family):
                continue
            model = iptables.ruleset(firewall.rules_of(program, "filter"))
            if chain in model.chains and not model.reachable(chain) & mistaken:
                read.add(f"{family} filter {chain}")
                yield model, model.chains[chain], program
    legacy = f"{program}-legacy"
    if firewall.legacy_in_use(family) and firewall.legacy_beside_nft(family):
        model = iptables.ruleset(firewall.rules_of(legacy, "filter"))
        yield from ((model, model.chains[name], legacy) for name in ("INPUT", "OUTPUT") if name in model.chains)
    dormant = {
        f"{table['family']} {table['name']}"
        for table in nft.entries(listed, "table")
        if "dormant" in table.get("flags", ())
    }
    for base in native.chains.values():
        table = base.name.rpartition(" ")[0]
        sees = nft.SEES.get(table.partition(" ")[0], ())
        if base.hook in _HOOKS and family in sees and base.name not in read and table not in {*_OTHERS, *dormant}:
            yield native, base, table


def _of_chain(node: NodeSpec, family: str, ruleset: Ruleset, base: Chain, table: str) -> Dropped | None:
    direction = _HOOKS[base.hook]
    bridged = table.startswith("bridge ")
    link = None if bridged else node.bridge
    packets = (
        Packets(family, link, source=node.subnet, source_type="unicast", target_type="local")
        if direction == TO_NODE
        else Packets(family, outgoing=link, target=node.subnet, source_type="local", target_type="unicast")
    )
    packets = replace(packets, bridge=node.bridge if bridged else "")
    by: dict[str, str] = {}
    chosen = False
    for protocol in PROTOCOLS:
        of_protocol = replace(packets, protocol=protocol)
        drop = _whole_drop(ruleset, base, of_protocol)
        if drop is not None:
            by[protocol] = drop.text
            chosen = chosen or _is_chosen(ruleset, base, of_protocol, drop)
    if not by:
        return None
    rule = " and ".join(dict.fromkeys(by.values()))
    name = base.name if " " in base.name else f"{table} {base.name}"
    allow = _allow(node, family, base, table, bridged)
    return Dropped(name, rule, direction, tuple(by), node.subnet, allow, chosen)


def _whole_drop(ruleset: Ruleset, base: Chain, packets: Packets) -> Event | None:
    """Return the rule or policy that drops all of these packets, or None."""
    return next((event for event in drops(walk(ruleset, base.name, packets, whole=True)) if event.certain), None)


def _is_chosen(ruleset: Ruleset, base: Chain, packets: Packets, drop: Event) -> bool:
    """Return whether a rule before the drop accepts some of these packets by the pods' addresses or bridge."""
    for event in walk(ruleset, base.name, packets):
        if event.kind == "drop" and event.path == drop.path:
            break
        on_the_way = [rule for place in event.path for rule in ruleset.chains[place.chain].rules[place.index :][:1]]
        if event.kind == "accept" and any(_is_about_pods(rule, packets) for rule in on_the_way):
            return True
    return False


def _is_about_pods(rule: Rule, packets: Packets) -> bool:
    """Return whether a rule names the pods' bridge or addresses."""
    links = {"incoming": packets.incoming, "outgoing": packets.outgoing, "bridge": packets.bridge}
    for branch in rule.branches:
        for match in branch.matches:
            mine = links.get(match.about)
            if not match.negated and mine and mine in match.values:
                return True
            theirs = {"source": packets.source, "target": packets.target}.get(match.about)
            if not match.negated and theirs and match.holds(packets):
                return any(not value.endswith("/0") for value in match.values)
    return False


def _allow(node: NodeSpec, family: str, base: Chain, table: str, bridged: bool) -> Hint:
    """Return the command that accepts pods' packets, for the firewall that the chain belongs to."""
    inward = _HOOKS[base.hook] == TO_NODE
    led_to = {branch.to for rule in base.rules for branch in rule.branches}
    if any(name.startswith("ufw") for name in led_to):
        traffic = f"in on {node.bridge} from {node.subnet}" if inward else f"out on {node.bridge} to {node.subnet}"
        return hint.command(f"ufw allow {traffic}")
    if table == "inet firewalld" or any("_ZONES" in name for name in led_to):
        if inward:
            return hint.command(f"firewall-cmd --zone=trusted --add-source={node.subnet}", "and again with --permanent")
        return hint.advice(
            "firewall-cmd --list-all-policies; firewall-cmd --direct --get-all-rules   # show what drops it",
            because="it is not known whether a policy or a direct rule drops the packets",
        )
    address = f"-s {node.subnet}" if inward else f"-d {node.subnet}"
    if " " not in table:
        link = f"{'-i' if inward else '-o'} {node.bridge}"
        return hint.command(f"{table} -I {base.name} {link} {address} -j ACCEPT")
    address = f"{family} {'saddr' if inward else 'daddr'} {node.subnet}"
    link = "" if bridged else f'{"iifname" if inward else "oifname"} "{node.bridge}" '
    return hint.command(f"nft insert rule {base.name} '{link}{address} accept'")
