"""Accept pods' packets in iptables' FORWARD, with our own chain and jumps to it before the rules that drop.

Docker and others set FORWARD to DROP later in the boot, so there is a jump even if nothing drops packets yet. The jump
comes as late as possible (`cnictl.node.host.verdicts.places`), so that rules that drop particular packets come first.
"""

import ipaddress
import shlex
from dataclasses import replace
from functools import cached_property
from typing import Any

from cnictl.core.errors import Problem
from cnictl.core.iptables_listing import FAMILIES
from cnictl.core.netlink import nftables
from cnictl.core.process import run
from cnictl.node.host import firewall, host_links, reading
from cnictl.node.host.firewall import PROGRAMS
from cnictl.node.host.verdicts import iptables, nft, places
from cnictl.node.host.verdicts.model import UNKNOWN, Branch, Chain, Place, Rule, Ruleset
from cnictl.node.host.verdicts.places import AHEAD, Flows, Need, Survey
from cnictl.node.host.verdicts.pods import (
    AMONG,
    COVERS,
    RECEIVED,
    SENT,
    merge_equivalent_peers,
    peers_addresses,
    traffic,
)
from cnictl.node.resources import accept_words, hidden_chains, placed_rules
from cnictl.node.resources.forward_nft import MARK
from cnictl.node.resources.placed_rules import StoredRule, stored
from cnictl.node.spec.node_spec import NodeSpec, by_family, is_ipv6
from cnictl.node.spine import Change, State

CHAIN = "CNICTL-FORWARD"
DOCKER_CHAIN = "DOCKER-USER"
"""Docker's chain for other programs' rules, before its own (docs.docker.com, Packet filtering and firewalls)."""
BASE = "FORWARD"

_KUBE = "KUBE-"
"""The beginning of the names of chains of kube-proxy and similar tools."""
_UNREADABLE = "unreadable"
_JOINED_FROM = 64
"""The number of peers up to which each gets its own rule; more peers are joined into CIDRs."""
_AT_ONCE = 250
"""Rules in one transaction; more don't fit a socket's default send buffer (net.core.wmem_default)."""


class IptablesForward:
    """Our chain of accept rules and the jumps to it, in one address family (`ip` or `ip6`, as nftables names it).

    `legacy`: use iptables' old kernel interface, if that is in use in addition to iptables-nft's.
    """

    def __init__(self, family: str = "ip", spec: NodeSpec | None = None, legacy: bool = False) -> None:
        self._family, self._spec, self._legacy = family, spec, legacy
        self.program = PROGRAMS[family] + ("-legacy" if legacy else "")
        self.id = f"forward/{self.program}"

    def observe(self) -> State | None:
        """Return the accept rules and, by chain, the jumps to them, with a note on misplaced ones. None without any.

        Raises Problem if the accept rules exist and the command that shows them is missing.
        """
        if not self._legacy and hidden_chains.hides("filter", CHAIN, self._family):
            return {_UNREADABLE: f"{CHAIN} exists, but {hidden_chains.reason('filter', self._family)}"}
        if not self.works():
            return None
        table = FilterTable(self.program, self._family, self._spec)
        misplaced = table.survey().misplaced
        jumps: dict[str, list[StoredRule]] = {}
        for place, label in table.ours():
            jumps.setdefault(place.chain, []).append(stored(label, misplaced.get(place)))
        if not jumps and table.accepts is None:
            return None
        ordered = {chain: placed_rules.in_order(labels) for chain, labels in jumps.items()}
        return {"accepts": sorted(table.accepts or []), "jumps": ordered}

    def desired(self, spec: NodeSpec) -> State | None:
        """Return accepts for the family's pod subnet over the bridge; None without a subnet or the command."""
        node = _of_family(spec, self._family)
        if node is None or not spec.forward or not self.works():
            return None
        table = FilterTable(self.program, self._family, spec)
        jumps = table.wanted(everywhere=not self._legacy)
        return {"accepts": accepts(node), "jumps": jumps} if jumps else None

    def works(self) -> bool:
        """Return whether the program works. The old interface counts only if the new one is in use too."""
        if not self._legacy:
            return firewall.iptables_works(self._family)
        return firewall.legacy_in_use(self._family) and firewall.legacy_beside_nft(self._family)

    def remember(self) -> None:
        """Record which iptables chains exist."""
        if not self._legacy and firewall.has_command(self.program):
            firewall.remember_iptables(self._family)

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:
        """Return the summary and the iptables commands."""
        program = self.program
        if _UNREADABLE in (after or {}):
            return f"put {CHAIN} back", ""
        if _UNREADABLE in (before or {}):
            summary = f"remove {CHAIN}, the accept rules for pods in {program}' FORWARD"
            return summary, "\n".join(hidden_chains.removal_commands("filter", CHAIN, self._family))
        table = FilterTable(program, self._family, self._spec) if self.works() else None
        moves = table is not None and _moves_jumps(before, after)
        removed = [f"{program} -w -D {line}" for line in table.removals()] if table is not None and moves else []
        if after is None:
            ends = [f"{program} -w -F {CHAIN}", f"{program} -w -X {CHAIN}"]
            ends += [] if self._legacy else firewall.left_over_commands("filter", BASE, self._family)
            return f"remove the accept rules for pods from {program}' FORWARD", "\n".join([*removed, *ends])
        if table is None or table.accepts is None:
            lines = [f"{program} -w -N {CHAIN}", *(f"{program} -w -A {CHAIN} {rule}" for rule in after["accepts"])]
        else:
            lines = [f"{program} -w {line}" for line in table.changes_of_accepts(after["accepts"])]
        inserted = table.insertions(after, self._name()) if table is not None and moves else []
        lines += [*removed, *(f"{program} -w {line}" for line in inserted)]
        subnet = getattr(_of_family(self._spec, self._family), "subnet", "pods")
        where = _in_words(after, table)
        was = _reasons(before)
        sources = "" if moves else accept_words.changed_sources((before or {}).get("accepts", []), after["accepts"])
        summary = sources or f"accept packets from and to {subnet}"
        return f"{summary} in {where}{f' (was {was})' if was else ''}", "\n".join(lines)

    def carry_out(self, change: Change) -> None:
        """Make all changes in one transaction; with hundreds of peers, change our chain's rules first. Raises Problem.

        That is safe: our chain only accepts, and rules that stay are not removed in between.
        """
        after = change.after
        if _UNREADABLE in (after or {}):
            raise Problem(
                f"{CHAIN} can't be restored: {hidden_chains.reason('filter', self._family)}",
                hidden_chains.hint("filter", self._family),
            )
        if _UNREADABLE in (change.before or {}):
            hidden_chains.remove("filter", CHAIN, self._family)
            firewall.drop_remnant("filter", BASE, self._family)
            return
        table = FilterTable(self.program, self._family, self._spec)
        moves = _moves_jumps(change.before, after)
        lines = [f"-D {line}" for line in table.removals()] if moves else []
        if after is not None:
            changes = table.changes_of_accepts(after["accepts"])
            while len(changes) > _AT_ONCE:
                self._restore(changes[:_AT_ONCE])
                del changes[:_AT_ONCE]
            lines = changes + lines + (table.insertions(after, self._name()) if moves else [])
        elif table.accepts is not None:
            lines += [f":{CHAIN} - [0:0]", f"-X {CHAIN}"]
        self._restore(lines)
        if after is None and not self._legacy:
            firewall.drop_remnant("filter", BASE, self._family)

    def _restore(self, lines: list[str]) -> None:
        run([f"{self.program}-restore", "--noflush", "-w"], "\n".join(["*filter", *lines, "COMMIT", ""]))

    def _name(self) -> str:
        return self._spec.name if self._spec is not None else ""


IPTABLES = tuple((family, legacy) for legacy in (False, True) for family in PROGRAMS)
"""The values of `family` and `legacy` of each resource of this kind."""


class FilterTable:
    """One reading of a program's filter table."""

    def __init__(self, program: str, family: str, spec: NodeSpec | None) -> None:
        self.accepts: list[str] | None
        """The rules of our chain; None if the chain does not exist."""
        self.accepts, self.model = reading.cached(f"{program}'s filter table", lambda: _filter_table(program, family))
        self._spec, self._family = spec, family
        node = _of_family(spec, family)
        self._labels = _labels(node) if node is not None else {}
        self._kinds = {
            rule.ours: self._labels.get(_label(rule.ours), ()) if _jumps(rule.ours) else _guessed(rule.ours)
            for chain in self.model.chains.values()
            for rule in chain.rules
            if rule.ours
        }
        name = spec.name if spec is not None else ""
        self._valid = {rule for rule in self._kinds if rule in {jump(label, name) for label in self._labels}}

    def changes_of_accepts(self, wanted: list[str]) -> list[str]:
        """Return the lines for iptables-restore that give our chain exactly these rules."""
        if self.accepts is None:
            return [f":{CHAIN} - [0:0]", *(f"-A {CHAIN} {rule}" for rule in wanted)]
        present, kept = set(self.accepts), set(wanted)
        gone = [f"-D {CHAIN} {rule}" for rule in self.accepts if rule not in kept]
        return [*(f"-A {CHAIN} {rule}" for rule in wanted if rule not in present), *gone]

    def ours(self) -> list[tuple[Place, str]]:
        """Return each rule of ours outside our chain: its place, and its match options (the whole rule if invalid)."""
        return [
            (Place(chain.name, index), _label(rule.ours) if rule.ours in self._valid else rule.ours)
            for chain in self.model.chains.values()
            for index, rule in enumerate(chain.rules)
            if rule.ours
        ]

    def survey(self) -> Survey:
        """Return what FORWARD does to pods' packets."""
        return self._surveyed(self.model, self._kinds, self._valid)

    @cached_property
    def _flows(self) -> Flows:
        if self._spec is None or not self._labels:
            return []
        peers = merge_equivalent_peers(self._spec, self.model)
        return [traffic(peers, self._family, host_links.links_to_others(self._spec))]

    def _surveyed(self, model: Ruleset, kinds: dict[str, Any], valid: set[str]) -> Survey:
        bases = [model.chains[BASE]] if BASE in model.chains else []
        return places.survey(model, bases, lambda _: self._flows, kinds, valid)

    def wanted(self, everywhere: bool) -> dict[str, list[str]]:
        """Return the desired jumps by chain: the well-placed ones and the missing ones.

        With `everywhere`, there is a jump even if nothing drops packets.
        """
        survey = self.survey()
        jumps: dict[str, list[str]] = {}
        kept: set[str] = set()
        for place, label in self.ours():
            if place not in survey.misplaced and label in self._labels:
                jumps.setdefault(place.chain, []).append(label)
                kept |= {kind for accepted in self._labels[label] for kind in COVERS[accepted]}
        if not kept and (everywhere or survey.needs) and self._serves(DOCKER_CHAIN):
            return {DOCKER_CHAIN: [""]}
        missing: dict[str, set[str]] = {}
        for need in survey.needs:
            missing.setdefault(need.place.chain, set()).add(need.kind)
        needed = {kind for kinds in missing.values() for accepted in kinds for kind in COVERS[accepted]}
        if everywhere and (unplaced := {SENT, RECEIVED} - kept - needed):
            missing.setdefault(BASE, set()).update(unplaced)
        for chain, kinds in missing.items():
            jumps.setdefault(chain, []).extend(self._joined(chain, kinds, self.fresh_needs()))
        return {chain: sorted(set(labels)) for chain, labels in jumps.items()}

    def _joined(self, chain: str, kinds: set[str], needs: tuple[Need, ...]) -> list[str]:
        """Return the jumps for some kinds of packets: a single jump if all belong in one place."""
        bare = places.without_ours(self.model)
        at = {kind: places.place_in(bare, chain, kind, needs) for kind in kinds}
        if {SENT, RECEIVED} <= kinds and at[SENT] == at[RECEIVED] and at.get(AMONG, at[SENT]) == at[SENT]:
            return [""]
        return [label for label, accepted in self._labels.items() if len(accepted) == 1 and accepted[0] in kinds]

    def _serves(self, chain: str) -> bool:
        """Return whether one jump in a chain that all forwarded packets pass is enough, and precedes no drop.

        With kube-proxy it never is: when the chain's program starts, it moves its jump to the start of FORWARD.
        """
        bare = places.without_ours(self.model)
        rules = bare.chains[BASE].rules if BASE in bare.chains else ()
        leads = [branch for rule in rules for branch in rule.branches if branch.to]
        if Branch((), "jump", chain) not in leads or any(branch.to.startswith(_KUBE) for branch in leads):
            return False
        placed = places.with_ours(bare, places.place_in(bare, chain, SENT, ()), "tried")
        judged = self._surveyed(placed, {"tried": (SENT, RECEIVED)}, {"tried"})
        return not judged.misplaced and not judged.needs

    def fresh_needs(self) -> tuple[Need, ...]:
        """Return the accept rules that are missing if ours are ignored."""
        return self._surveyed(places.without_ours(self.model), {}, set()).needs

    def removals(self) -> list[str]:
        """Return each rule of ours outside our chain, as arguments of `iptables -D`."""
        return [
            f"{chain.name} {rule.ours}" for chain in self.model.chains.values() for rule in chain.rules if rule.ours
        ]

    def insertions(self, state: State, name: str) -> list[str]:
        """Return the options that insert a state's jumps into their chains, after our present rules are removed."""
        bare = places.without_ours(self.model)
        needs = self.fresh_needs()
        at: list[tuple[str, int, str]] = []
        for chain, labels in state["jumps"].items():
            if chain not in bare.chains:
                continue
            for labelled in labels:
                label, misplaced = placed_rules.read(labelled)
                end = len([rule for rule in bare.chains[chain].rules if rule is not _KUBE_RULE])
                kinds = self._labels.get(label) or _guessed(label)
                place = min(places.place_in(bare, chain, kind, needs).index for kind in kinds)
                index = min(place, end) if misplaced is None else 0 if misplaced.side == AHEAD else end
                at.append((chain, index, label if MARK in label else jump(label, name)))
        # last first, because the indices don't count our rules
        return [f"-I {chain} {index + 1} {rule}" for chain, index, rule in sorted(at, reverse=True)]


def accepts(node: NodeSpec) -> list[str]:
    """Return the rules of our chain for a node of one family, as `iptables -S` prints them."""
    mark = _mark(node.name)
    to_pods = f"-d {node.subnet} -o {node.bridge}"
    senders = [node.network, *_senders(peers_addresses(node, node.subnet))]
    rules = [
        f"-s {node.subnet} -i {node.bridge}",
        f"{to_pods} -m conntrack --ctstate RELATED,ESTABLISHED,DNAT",
        *(f"-s {sender} {to_pods}" for sender in senders),
        f"{to_pods} -m addrtype --src-type LOCAL",
    ]
    return sorted(f"{rule} {mark} -j ACCEPT" for rule in rules)  # their order in the chain does not matter


def _senders(addresses: tuple[str, ...]) -> list[str]:
    """Return CIDRs that contain exactly these addresses, as few as possible, because packets pass a rule for each."""
    if len(addresses) <= _JOINED_FROM:
        return [f"{address}/{128 if is_ipv6(address) else 32}" for address in addresses]
    return list(map(str, ipaddress.collapse_addresses(map(ipaddress.ip_address, addresses))))  # type: ignore[type-var]


def jump(label: str, name: str) -> str:
    """Return the rule that jumps to our chain for packets that match the options `label`."""
    return f"{label} {_mark(name)} -j {CHAIN}".strip()


def _mark(name: str) -> str:
    return f"-m comment --comment {shlex.quote(MARK + name)}"


def _labels(node: NodeSpec) -> dict[str, tuple[str, ...]]:
    """Return the possible options of a jump, with the kinds of packets that they match."""
    return {
        "": (SENT, RECEIVED),
        f"-i {node.bridge}": (SENT,),
        f"-d {node.network} -i {node.bridge}": (AMONG,),
        f"-o {node.bridge}": (RECEIVED,),
    }


def _label(rule: str) -> str:
    return rule.partition("-m comment")[0].strip()


def _jumps(rule: str) -> bool:
    return rule.endswith(f"-j {CHAIN}")


def _guessed(rule: str) -> tuple[str, ...]:
    """Return the kinds of a rule that `doctor` of an earlier cnictl put into FORWARD."""
    return (SENT,) if "-i " in rule else (RECEIVED,)


def _filter_table(program: str, family: str) -> tuple[list[str] | None, Ruleset]:
    """Return the rules of our chain, and the model of the others."""
    lines = firewall.rules_of(program, "filter")
    return _own_rules(lines), _with_kube(_with_unread(iptables.ruleset(lines, MARK, CHAIN), family))


def _own_rules(lines: list[list[str]]) -> list[str] | None:
    if ["-N", CHAIN] not in lines:
        return None
    return [shlex.join(words[2:]) for words in lines if words[:2] == ["-A", CHAIN]]


def _of_family(spec: NodeSpec | None, family: str) -> NodeSpec | None:
    nodes = by_family(spec) if spec is not None else ()
    return next((node for node in nodes if is_ipv6(node.subnet) == (family == "ip6")), None)


_KUBE_RULE = Rule("what kube-proxy rejects", (Branch((UNKNOWN,), "drop"),))


def _with_kube(model: Ruleset) -> Ruleset:
    """Return the model with kube-proxy's chains rejecting packets, as they do once a Service has no endpoint."""
    return Ruleset(
        {
            name: replace(chain, rules=(*chain.rules, _KUBE_RULE)) if name.startswith(_KUBE) else chain
            for name, chain in model.chains.items()
        }
    )


def _with_unread(model: Ruleset, family: str) -> Ruleset:
    """Return the model with the chains that only nft can read, because they contain native rules, as sealed chains."""
    named = {branch.to for chain in model.chains.values() for rule in chain.rules for branch in rule.branches}
    unread = named - model.chains.keys() - {"", CHAIN}
    # most of these are targets such as LOG, not chains
    if unread.isdisjoint(nftables.chains(FAMILIES[PROGRAMS[family]], "filter")):
        return model
    table = f"{family} filter "
    native = nft.ruleset(firewall.ruleset()).chains
    sealed_chains = {
        name.removeprefix(table): native[name]
        for target in unread
        if table + target in native
        for name in Ruleset(native).reachable(table + target)
        if name.removeprefix(table) not in model.chains and name in native
    }

    def renamed(branch: Branch) -> Branch:
        return replace(branch, to=branch.to.removeprefix(table))

    def of_iptables(rule: Rule) -> Rule:
        return replace(rule, branches=tuple(map(renamed, rule.branches)))

    chains_read = {
        name: Chain(name, tuple(map(of_iptables, chain.rules)), chain.hook, chain.policy, sealed=True)
        for name, chain in sealed_chains.items()
    }
    return Ruleset(model.chains | chains_read)


def _moves_jumps(before: State | None, after: State | None) -> bool:
    """Return whether a change affects the jumps too, not only the accept rules."""
    return (before or {}).get("jumps") != (after or {}).get("jumps")


def _in_words(after: State, table: FilterTable | None) -> str:
    needs = table.fresh_needs() if table is not None else ()
    places = []
    for chain in after["jumps"]:
        drops = dict.fromkeys(f"'{need.drop[1]}'" for need in needs if any(place.chain == chain for place in need.path))
        places.append(f"{chain}, ahead of {' and '.join(drops)}" if drops else chain)
    return "; ".join(places)


def _reasons(state: State | None) -> str:
    jumps = (state or {}).get("jumps", {})
    return ", ".join(dict.fromkeys(reason for labels in jumps.values() for reason in placed_rules.reasons(labels)))
