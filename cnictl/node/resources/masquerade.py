"""Masquerade: load the rule set of `core.masquerade` in the backend that the spec names, and in no other."""

import shlex
from collections.abc import Iterable
from typing import Any

from cnictl.core.cidr import parse_cidr
from cnictl.core.errors import Problem
from cnictl.core.masquerade import backends, iptables, rule_set
from cnictl.core.masquerade.backends import BACKENDS
from cnictl.core.masquerade.rule_set import RuleSet
from cnictl.node import manual_commands
from cnictl.node.host import firewall
from cnictl.node.host.firewall import PROGRAMS
from cnictl.node.resources import hidden_chains
from cnictl.node.spec.node_spec import NodeSpec, is_ipv6
from cnictl.node.spine import Change, State

_BITS = {"ip": 32, "ip6": 128}


class Masquerade:
    """The node's masquerade rule set, under the network's name."""

    def __init__(self, spec: NodeSpec, earlier: tuple[NodeSpec, ...] = ()) -> None:
        self._name = spec.name
        self._known = [known for known in (spec, *earlier) if known.name == spec.name]
        self.id = f"masquerade/{spec.name}"

    def observe(self) -> State | None:
        """Return the loaded rule sets by backend: their subnets and networks, or that they are damaged."""
        rule_sets = {}
        hidden = [family for family in PROGRAMS if hidden_chains.hides("nat", rule_set.chain(self._name), family)]
        for backend in BACKENDS:
            if backend == "iptables" and hidden:
                rule_sets[backend] = {"damaged": f"rules exist, but {hidden_chains.reason('nat', hidden[0])}"}
            elif backends.backend(backend).present(self._name):
                rule_sets[backend] = self._recognised(backend)
        return rule_sets or None

    def desired(self, spec: NodeSpec) -> State | None:
        """Return a rule set in the spec's backend; None without NAT. Raises Problem if present rules can't be read."""
        for family in _families(spec.subnets) if spec.nat and spec.backend == "iptables" else ():
            if hidden_chains.hides("nat", rule_set.chain(spec.name), family):
                why = hidden_chains.reason("nat", family)
                raise Problem(f"the masquerade rules exist, but {why}", hidden_chains.hint("nat", family))
        return {spec.backend: _rules(spec)} if spec.nat else None

    def remember(self) -> None:
        """Record which iptables chains exist."""
        for family in _families(subnet for spec in self._known for subnet in spec.subnets):
            if firewall.has_command(PROGRAMS[family]):
                firewall.remember_iptables(family)

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:
        """Return the summary and the manual commands."""
        old, new = before or {}, after or {}
        words, commands = [], []
        for backend in old:
            if backend not in new:
                words.append(f"remove the masquerade rules of {self._name} ({backend})")
                commands += _removal_commands(self._name, backend)
        for backend, rules in new.items():
            if "subnets" not in rules:  # an undo can't restore damaged rules
                words.append(f"leave the masquerade rules of {self._name} as they are ({backend})")
            elif old.get(backend) != rules:
                subnets, networks = " ".join(rules["subnets"]), " ".join(rules["networks"])
                words.append(f"masquerade packets from {subnets} to destinations outside {networks} ({backend})")
                steps = backends.backend(backend).steps(_of(self._name, rules))
                commands += [manual_commands.heredoc(shlex.join(argv), stdin) for argv, stdin in steps]
        return ", ".join(words), "\n".join(commands)

    def carry_out(self, change: Change) -> None:
        """Load the new rule set before the other backend's is removed. Raises CniError 106, 2."""
        old, new = change.before or {}, change.after or {}
        for backend, rules in new.items():
            if old.get(backend) != rules and "subnets" in rules:
                wanted = _of(self._name, rules)
                if backend == "iptables":
                    for bits in {32, 128} - set(
                        wanted.families
                    ):  # loading does not remove the chain of a family without a subnet
                        iptables.remove_chain(bits, rule_set.chain(self._name))
                backends.backend(backend).load(wanted)
        for backend in old:
            if backend not in new:
                self._remove(backend)

    def _remove(self, backend: str) -> None:
        chain, families = rule_set.chain(self._name), PROGRAMS if backend == "iptables" else ()
        for family in families:
            if hidden_chains.hides("nat", chain, family):
                hidden_chains.remove("nat", chain, family)
        backends.backend(backend).remove(self._name)
        for family in families:
            firewall.drop_remnant("nat", "POSTROUTING", family)

    def _recognised(self, backend: str) -> dict[str, Any]:
        for spec in self._known:
            rules = _rules(spec)
            wanted = _of(self._name, rules)
            others = {32, 128} - set(wanted.families) if backend == "iptables" else ()
            chosen = backends.backend(backend)
            if chosen.is_loaded(wanted) and not (others and chosen.present(self._name, others)):
                return rules
        return {"damaged": "rules are missing, changed or of another release"}


def _families(subnets: Iterable[str]) -> list[str]:
    """Return nftables' names of the families that have a subnet."""
    return sorted({"ip6" if is_ipv6(subnet) else "ip" for subnet in subnets})


def _rules(spec: NodeSpec) -> dict[str, Any]:
    return {"subnets": list(spec.subnets), "networks": list(spec.networks)}


def _of(name: str, rules: dict[str, Any]) -> RuleSet:
    return RuleSet(name, map(parse_cidr, rules["subnets"]), (parse_cidr(cidr, "network") for cidr in rules["networks"]))


def _removal_commands(name: str, backend: str) -> list[str]:
    chosen, chain = backends.backend(backend), rule_set.chain(name)
    if backend == "nft":
        return chosen.removal_commands(name)
    commands = []
    for family in PROGRAMS:
        if hidden_chains.hides("nat", chain, family):
            commands += hidden_chains.removal_commands("nat", chain, family)
        else:
            commands += chosen.removal_commands(name, [_BITS[family]])
        commands += firewall.left_over_commands("nat", "POSTROUTING", family)
    return commands
