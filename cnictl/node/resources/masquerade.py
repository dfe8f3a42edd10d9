"""Masquerade: one rule set, `core.masquerade`'s, in the backend that the spec names and in no other."""

from cnictl.core import masquerade
from cnictl.core.cidr import parse_cidr
from cnictl.core.masquerade import BACKENDS
from cnictl.node import chains, firewall
from cnictl.node.spec import NodeSpec
from cnictl.node.spine import Change, State

_COMMANDS = {"nft": "nft", "iptables": "iptables"}


class Masquerade:
    """The node's masquerade rule set, under the network's name."""

    def __init__(self, spec: NodeSpec, earlier: tuple[NodeSpec, ...] = ()) -> None:
        self._name = spec.name
        self._known = [one for one in (spec, *earlier) if one.name == spec.name]
        self.id = f"masquerade/{spec.name}"

    def observe(self) -> State | None:
        """The rule sets that stand, by backend: of which subnet and network, or that they are damaged."""
        found = {}
        for backend in BACKENDS:
            if firewall.has_command(_COMMANDS[backend]) and masquerade.present(self._name, backend):
                found[backend] = self._recognised(backend)
        if chains.left("nat", masquerade.chain(self._name)):
            found["iptables"] = {"damaged": f"rules stand, but {chains.GONE}"}
        return found or None

    def desired(self, spec: NodeSpec) -> State | None:
        """One rule set in the spec's backend; none without NAT."""
        return {spec.backend: {"subnet": spec.subnet, "network": spec.network}} if spec.nat else None

    def remember(self) -> None:
        """Keep which iptables chains there were."""
        if firewall.has_command("iptables"):
            firewall.remember_iptables()

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:
        """The summary and the rules as typed."""
        old, new = before or {}, after or {}
        words, commands = [], []
        for backend in old:
            if backend not in new:
                words.append(f"remove the masquerade rules of {self._name} ({backend})")
                commands += _removal_commands(self._name, backend)
        for backend, rules in new.items():
            if old.get(backend) != rules:
                words.append(f"masquerade {rules['subnet']} to all but {rules['network']} ({backend})")
                commands += _load_commands(self._name, rules, backend)
        return ", ".join(words), "\n".join(commands)

    def carry_out(self, change: Change) -> None:
        """Load the new rule set before the other backend's is removed. Raises CniError 106, 2."""
        old, new = change.before or {}, change.after or {}
        for backend, rules in new.items():
            if old.get(backend) != rules and "subnet" in rules:
                if backend == "iptables":
                    chains.note("nat", masquerade.chain(self._name))
                masquerade.load(_of(self._name, rules), backend)
        for backend in old:
            if backend not in new:
                self._remove(backend)

    def _remove(self, backend: str) -> None:
        chain = masquerade.chain(self._name)
        if backend == "iptables" and chains.left("nat", chain):
            chains.remove("nat", chain)
        else:
            masquerade.remove(self._name, backend)
        if backend == "iptables":
            chains.forget("nat", chain)
            firewall.drop_left_over("nat", "POSTROUTING")

    def _recognised(self, backend: str) -> dict[str, str]:
        for spec in self._known:
            rules = {"subnet": spec.subnet, "network": spec.network}
            if masquerade.stands(_of(self._name, rules), backend):
                return rules
        return {"damaged": "rules are missing, changed or of another release"}


def _of(name: str, rules: dict[str, str]) -> masquerade.Masquerade:
    return masquerade.Masquerade(name, parse_cidr(rules["subnet"]), parse_cidr(rules["network"], "network"))


def _load_commands(name: str, rules: dict[str, str], backend: str) -> list[str]:
    if "subnet" not in rules:
        return []
    program = "nft -f -" if backend == "nft" else "iptables-restore --noflush -w"
    return [f"{program} <<'EOF'\n{masquerade.text(_of(name, rules), backend)}EOF"]


def _removal_commands(name: str, backend: str) -> list[str]:
    if backend == "nft":
        return [f"nft delete table inet {masquerade.TABLE}"]
    chain = masquerade.chain(name)
    if chains.left("nat", chain):
        return chains.removal_commands("nat", chain)
    return [
        f"iptables -w -t nat -S POSTROUTING | grep -- '-j {chain}'   # delete each: iptables -w -t nat -D …",
        f"iptables -w -t nat -F {chain}",
        f"iptables -w -t nat -X {chain}",
    ]
