"""Add accept rules for pods' packets to other programs' nftables base chains that drop them at the forward hook.

An accept rule in our own table would not help, because the kernel still calls the other tables. So each one is in the
chain that drops, immediately before the drop (`cnictl.node.host.verdicts.places`). A comment marks it as cnictl's.
"""

from collections.abc import Collection, Iterator
from functools import cached_property
from typing import Any

from cnictl.core.counted import counted
from cnictl.core.masquerade.rule_set import TABLE
from cnictl.core.process import run
from cnictl.node.host import firewall, host_links, reading
from cnictl.node.host.verdicts import nft, places
from cnictl.node.host.verdicts.model import Chain, Place, Ruleset
from cnictl.node.host.verdicts.nft import chain_name, entries
from cnictl.node.host.verdicts.places import AHEAD, Drop, Flows, Need, Survey
from cnictl.node.host.verdicts.pods import (
    AMONG,
    KINDS,
    RECEIVED,
    SENT,
    families,
    merge_equivalent_peers,
    peers_addresses,
    traffic,
)
from cnictl.node.resources import placed_rules
from cnictl.node.resources.firewalld import POLICY_CHAIN, TABLE_NAME, is_about_to_bind
from cnictl.node.resources.placed_rules import StoredRule, stored
from cnictl.node.spec.node_spec import NodeSpec, by_family, is_ipv6
from cnictl.node.spine import Change, State

MARK = "cnictl:"


class NftForward:
    """Our accept rules in other programs' nftables chains that drop pods' packets."""

    id = "forward/nft"
    has_parts = True

    def __init__(self, spec: NodeSpec) -> None:
        self._spec = spec
        self._observed: ForwardChains | None = None

    def observe(self) -> State | None:
        """Return our rules by chain (`inet filter forward`), with a note on misplaced ones. None without any."""
        observed = ForwardChains(self._spec)
        misplaced = observed.survey().misplaced
        rules_by_chain: dict[str, list[StoredRule]] = {}
        for chain in observed.model.chains.values():
            for index, rule in enumerate(chain.rules):
                if rule.ours:
                    state = stored(rule.ours, misplaced.get(Place(chain.name, index)))
                    rules_by_chain.setdefault(chain.name, []).append(state)
        return {chain: placed_rules.in_order(rules) for chain, rules in rules_by_chain.items()} or None

    def desired(self, spec: NodeSpec) -> State | None:
        """Return the accept rules in each chain that drops pods' packets; well-placed ones in other chains stay."""
        if not spec.forward:
            return None
        self._observed = observed = ForwardChains(spec)
        survey = observed.survey()
        kinds: dict[str, set[str]] = {need.place.chain: set() for need in survey.needs}
        for chain in observed.model.chains.values():
            for index, rule in enumerate(chain.rules):
                if (
                    rule.ours
                    and Place(chain.name, index) not in survey.misplaced
                    and rule.ours in observed.valid(chain)
                ):
                    kinds.setdefault(chain.name, set()).update(observed.kinds[rule.ours])
        for need in survey.needs:
            kinds[need.place.chain].add(need.kind)
        return {chain: sorted(observed.rules(chain, wanted)) for chain, wanted in kinds.items()} or None

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:
        """Return the summary and the nft commands."""
        old, new = before or {}, after or {}
        observed = self._observed or ForwardChains(self._spec)
        needs, commands, words = observed.fresh_needs(), [], []
        for chain, rules in old.items():
            if rules != new.get(chain):
                commands += [f"nft {line}" for line in observed.removals(chain)]
        for chain, rules in new.items():
            if old.get(chain) != rules:
                drops = dict.fromkeys(f"'{need.drop[1]}'" for need in needs if need.place.chain == chain)
                place = f"in {chain}, ahead of {' and '.join(drops)}" if drops else f"at the end of {chain}"
                gone = [rule for rule in old.get(chain, []) if rule not in rules]
                only_removes = bool(gone) and len(gone) + len(rules) == len(old[chain])
                words.append(
                    f"remove {counted(len(gone), 'accept rule')} for pods from {chain}"
                    if only_removes
                    else f"accept packets from and to pods {place}"
                )
                commands += [f"nft {line}" for line in observed.insertions(chain, rules, needs)]
        for chain, rules in old.items():
            if chain not in new:
                reasons = dict.fromkeys(placed_rules.reasons(rules))
                why = f" ({', '.join(reasons)})" if reasons else ""
                words.append(f"remove the accept rules for pods from {chain}{why}")
        return ", ".join(words), "\n".join(commands)

    def carry_out(self, change: Change) -> None:
        """Replace our rules in each chain that differs, in one transaction. Raises Problem."""
        before, after = change.before or {}, change.after or {}
        observed = ForwardChains(self._spec)
        needs = observed.fresh_needs()
        lines = []
        for chain in dict.fromkeys([*before, *after]):
            if before.get(chain) == after.get(chain) or chain not in observed.model.chains:
                continue
            lines += observed.removals(chain)
            lines += observed.insertions(chain, after.get(chain, []), needs, quoted=False)
        if lines:
            run(["nft", "-f", "-"], "\n".join(lines) + "\n")


class ForwardChains:
    """One reading of other programs' nftables base chains at the forward hook, and of our rules in them."""

    def __init__(self, spec: NodeSpec, owned: bool = False) -> None:
        """`owned`: look only at chains that only the owner of their table may change."""
        self._spec = spec
        listing = firewall.ruleset()
        self.model: Ruleset = reading.cached("nft's model", lambda: nft.ruleset(listing, _our_text))
        bound_soon = {TABLE_NAME} if is_about_to_bind(spec) else set()
        self._bases = [self.model.chains[name] for name in base_chains(listing, owned, bound_soon)]
        has_ours = any(rule.ours for chain in self.model.chains.values() for rule in chain.rules)
        texts = {
            text: kind
            for family in (nft.SEES if has_ours else ())  # with thousands of peers the texts are long
            for kind, rules in accepts(spec, family).items()
            for text in rules
        }  # fmt: skip
        self.kinds: dict[str, tuple[str, ...]] = {
            rule.ours: (texts[rule.ours],) if rule.ours in texts else _guessed(rule.ours)
            for chain in self.model.chains.values()
            for rule in chain.rules
            if rule.ours
        }
        """The kinds of packets that each rule of ours accepts."""
        self._valid = set(texts)

    def survey(self) -> Survey:
        """Return what the base chains do to pods' packets."""
        return places.survey(self.model, self._bases, self._flows, self.kinds, self._valid)

    def drops(self) -> list[Drop]:
        """Return the drops that pods' packets meet now."""
        return [need.drop for need in self.survey().dropped_now]

    def fresh_needs(self) -> tuple[Need, ...]:
        """Return the accept rules that are missing if ours are ignored."""
        bare = places.without_ours(self.model)
        bases = [bare.chains[chain.name] for chain in self._bases]
        return places.survey(bare, bases, self._flows, {}).needs

    def _flows(self, base: Chain) -> Flows:
        table = base.name.partition(" ")[0]
        seen = [family for family in families(self._spec) if family in nft.SEES[table]]
        return [traffic(self._merged_spec, family, self._links, table == "bridge") for family in seen]

    @cached_property
    def _merged_spec(self) -> NodeSpec:
        return merge_equivalent_peers(self._spec, self.model)

    @cached_property
    def _links(self) -> list[str]:
        return host_links.links_to_others(self._spec)

    def valid(self, chain: Chain) -> list[str]:
        """Return every accept rule that is valid in a chain."""
        return self.rules(chain.name, set(KINDS))

    def rules(self, chain: str, kinds: set[str]) -> list[str]:
        """Return the accept rules of some kinds for a chain."""
        by_kind = accepts(self._spec, chain.partition(" ")[0])
        return [text for kind in KINDS if kind in kinds for text in by_kind[kind]]

    def removals(self, chain: str) -> list[str]:
        """Return the lines that delete our rules from a chain; none if the chain is gone."""
        known = self.model.chains.get(chain)
        return [f"delete rule {chain} handle {rule.handle}" for rule in known.rules if rule.ours] if known else []

    def insertions(
        self, chain: str, rules: list[StoredRule], needs: tuple[Need, ...], quoted: bool = True
    ) -> list[str]:
        """Return the lines that insert rules into a chain. A misplaced rule returns to its place, so undo is exact."""
        bare = places.without_ours(self.model)
        by_kind = accepts(self._spec, chain.partition(" ")[0])
        texts = {text: kind for kind, kind_rules in by_kind.items() for text in kind_rules}
        lines = []
        for state in rules:
            rule, misplaced = placed_rules.read(state)
            shown = f"'{rule}'" if quoted else rule
            kind = texts.get(rule) or _guessed(rule)[0]
            place = places.place_in(bare, chain, kind, needs)
            others = bare.chains[chain].rules if chain in bare.chains else ()
            if misplaced is not None and misplaced.side == AHEAD and others:
                lines.append(f"insert rule {chain} {shown}")
            elif misplaced is not None or place.index >= len(others):
                lines.append(f"add rule {chain} {shown}")
            else:
                lines.append(f"insert rule {chain} handle {others[place.index].handle} {shown}")
        return lines


def accepts(spec: NodeSpec, family: str) -> dict[str, list[str]]:
    """Return the rules for a chain of this family, in nft's words, by kind of packets.

    In the bridge family a link's name is a port's name, so the rules match pods' addresses, in ARP too.
    """
    rules: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for node in by_family(spec):
        ip = "ip6" if is_ipv6(node.subnet) else "ip"
        if ip not in nft.SEES[family]:
            continue
        peers = peers_addresses(node, node.subnet)
        hosts = f"{{ {', '.join(peers)} }}" if len(peers) > 1 else "".join(peers)
        if family == "bridge":
            source, target = f"{ip} saddr {node.subnet}", f"{ip} daddr {node.subnet}"
            rules[SENT] += [source, *([f"arp saddr ip {node.subnet}"] if ip == "ip" else [])]
        else:
            source = f'iifname "{node.bridge}" {ip} saddr {node.subnet}'
            target = f'oifname "{node.bridge}" {ip} daddr {node.subnet}'
            rules[SENT].append(source)
            rules[AMONG].append(f"{source} {ip} daddr {node.network}")
            # this host's own packets to its pods pass the forward hook only if something made them forwarded packets
            rules[RECEIVED] += [f"{target} {known}" for known in
                                ("ct state established,related", "ct status dnat", "fib saddr type local")]  # fmt: skip
        rules[RECEIVED] += [f"{target} {ip} saddr {senders}" for senders in (node.network, hosts) if senders]
    mark = f'counter accept comment "{MARK}{spec.name[:100]}"'
    return {kind: [f"{rule} {mark}" for rule in kind_rules] for kind, kind_rules in rules.items()}


def _our_text(rule: dict[str, Any]) -> str:
    """Return a rule of ours in the form of `accepts`, with changes by others; empty for other rules."""
    comment = str(rule.get("comment", ""))
    if not comment.startswith(MARK) or rule["table"] == TABLE:
        return ""
    return f'{nft.words(rule["expr"], whole=True)} comment "{comment}"'


def _guessed(text: str) -> tuple[str, ...]:
    """Return the kind of a rule that an earlier cnictl or another node file made."""
    return (SENT,) if "iifname" in text or ("saddr" in text and "daddr" not in text) else (RECEIVED,)


def base_chains(
    listing: list[dict[str, Any]], owned: bool = False, left_out: Collection[tuple[str, str]] = ()
) -> Iterator[str]:
    """Yield the base chains at the forward hook that this resource may change.

    Left out are our own chains, iptables' chains (`forward/iptables` handles them), firewalld's chains while our policy
    is loaded, and the tables (family, name) in `left_out`. ebtables' chain is left out too, because ebtables can't list
    a chain with another program's rule. With `owned`, yield instead the chains of tables that only their owner may
    change.
    """
    looked_after = [("bridge", "filter", "FORWARD")] if firewall.has_command("ebtables") else []
    looked_after += [(ip, "filter", "FORWARD") for ip in firewall.PROGRAMS if firewall.iptables_works(ip)]
    served = {(chain["family"], chain["table"]) for chain in entries(listing, "chain") if chain["name"] == POLICY_CHAIN}
    tables = entries(listing, "table")
    # nft 1.0.6 prints a wrong word instead of `owner`
    closed = {(table["family"], table["name"]) for table in tables if table.get("flags", "dormant") != "dormant"}
    dormant = {(table["family"], table["name"]) for table in tables if "dormant" in table.get("flags", ())}
    for chain in entries(listing, "chain"):
        family, table = chain["family"], chain["table"]
        if chain.get("hook") != "forward" or family not in nft.SEES or table == TABLE:
            continue
        if (family, table, chain["name"]) in looked_after or (family, table) in served | dormant | {*left_out}:
            continue
        if ((family, table) in closed) == owned:
            yield chain_name(chain, "name")
