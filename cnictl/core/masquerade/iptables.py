"""The masquerade rule set for hosts that filter with iptables: a chain in the nat table of each family with a subnet.

ip6tables is needed only if there is an IPv6 subnet.
"""

from cnictl.core import programs
from cnictl.core.errors import FIREWALL_FAILED, CniError, MissingProgram, Problem
from cnictl.core.masquerade.rule_set import MASQUERADE_MARKS, PURPOSE, RuleSet, chain, never, owner
from cnictl.core.process import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cnictl.core.cidr import Cidr
    from cnictl.core.process import Finished

PROGRAMS = {32: "iptables", 128: "ip6tables"}
"""The iptables program of a family, by the bits in an address."""

_TRIES = 3
_BY_MARK = (" -j KUBE-POSTROUTING", " -j CNI-HOSTPORT-MASQ")
"""Jumps to chains that masquerade only marked packets, which our rules leave alone. They may come before our jumps:
kube-proxy inserts its jump first when it starts, portmap when its jump is missing."""


class Iptables:
    """The backend `iptables`, with ip6tables for IPv6; `Backend` says what each method does."""

    name = "iptables"

    def is_loaded(self, rules: RuleSet) -> bool:
        """Check that each family's chain is complete and its jumps precede other rules. Costs two processes each."""
        return all(_is_loaded(rules, bits) for bits in rules.families)

    def present(self, name: str, families: "Iterable[int]" = (32, 128)) -> bool:
        """Look for chains; a family whose program is missing has none."""
        return any(chains(bits, name) for bits in families)

    def load(self, rules: RuleSet) -> None:
        """Load each family in a transaction; if a later one is refused, remove the earlier ones that are new."""
        # what can't be listed can't be loaded: a missing program raises here, before anything is changed
        new = [bits for bits in rules.families if not _jumps(rules, bits)]
        for place, bits in enumerate(rules.families):
            try:
                _load(rules, bits)
            except CniError:
                for earlier in rules.families[:place]:
                    if earlier in new:
                        remove_chain(earlier, _chain(rules))
                raise

    def check(self, rules: RuleSet) -> None:
        """Have `--test` read the rules without committing them."""
        for bits in rules.families:
            _restore(bits, text(rules, bits, _jumps(rules, bits)), "--test")

    def check_any(self, name: str, subnet: "Cidr") -> None:
        """Do nothing: the program depends on the subnet's family, which isn't known yet."""

    def remove(self, name: str, scope: str = "") -> None:
        """Remove the chains of both families."""
        for bits in PROGRAMS:
            for chain_name in chains(bits, name, scope):
                remove_chain(bits, chain_name)

    def steps(self, rules: RuleSet) -> list[tuple[list[str], str]]:
        """Return one command for each family."""
        return [([f"{PROGRAMS[bits]}-restore", "--noflush", "-w"], text(rules, bits)) for bits in rules.families]

    def removal_commands(self, name: str, families: "Iterable[int]" = (32, 128)) -> list[str]:
        """Return the commands for the families that have a chain."""
        commands, whole = [], chain(name)
        for bits in families:
            program = PROGRAMS[bits]
            if chains(bits, name):
                commands += [f"{program} -w -t nat {line}" for line in _jump_removals(bits, whole)]
                commands += [f"{program} -w -t nat -F {whole}", f"{program} -w -t nat -X {whole}"]
        return commands


def chains(bits: int, name: str, scope: str = "") -> list[str]:
    """Return the present chains of a network, or of one scope; none if the family's program is missing."""
    from cnictl.core.iptables_listing import listing

    if not programs.find(PROGRAMS[bits]):
        return []
    try:
        lines, unread = listing(PROGRAMS[bits], "nat")
    except Problem:
        return []
    whole = chain(name, scope)
    present = [line.split()[1] for line in lines if line.startswith("-N ")] + unread
    return [
        chain_name
        for chain_name in present
        if chain_name == whole or (not scope and chain_name.startswith(f"{whole}-"))
    ]


def _load(rules: RuleSet, bits: int) -> None:
    """Load one family; retry, because another ADD may replace an old jump after it was listed for removal."""
    for left in range(_TRIES - 1, -1, -1):
        try:
            _restore(bits, text(rules, bits, _jumps(rules, bits)))
            return
        except CniError:
            if not left:
                raise


def _jumps(rules: RuleSet, bits: int) -> list[str]:
    """Return the present jumps to our chain as `iptables -S` lists them."""
    try:
        return [line for line in _postrouting(bits) if line.endswith(f"-j {_chain(rules)}")]
    except CniError as error:
        error.message += f" (for {' '.join(map(str, rules.of(bits)))})"
        raise


def remove_chain(bits: int, name: str) -> None:
    """Remove a chain of the nat table and the jumps to it; a missing chain or program is not an error."""
    try:
        if _nat(bits, "-S", name, check=False).status:
            return
    except MissingProgram:
        return
    lines = ["*nat", *_jump_removals(bits, name), f"-F {name}", f"-X {name}", "COMMIT", ""]
    _restore(bits, "\n".join(lines))


def _jump_removals(bits: int, name: str) -> list[str]:
    """Return the rules that delete the jumps to a chain."""
    return [line.replace("-A ", "-D ", 1) for line in _postrouting(bits) if line.endswith(f"-j {name}")]


def source_masquerades(bits: int, source: str, chain_name: str) -> bool:
    """Return whether packets from an address go through a chain that masquerades them. Raises CniError 106."""
    try:
        rules = _nat(bits, "-S", chain_name, check=False).stdout.splitlines()
        jumps = [line for line in _postrouting(bits) if line.endswith(f"-j {chain_name}") and f"-s {source}/" in line]
    except MissingProgram:
        return False
    return bool(jumps) and any("-j MASQUERADE" in line for line in rules)


def text(rules: RuleSet, bits: int, present: "Sequence[str]" = ()) -> str:
    """Return the input for `iptables-restore --noflush`, which puts the new jumps before all other rules.

    `present`: the jumps to remove, as `iptables -S` lists them.
    """
    name = _chain(rules)
    lines = ["*nat", f":{name} - [0:0]", *_rules(rules, bits)]
    lines += [line.replace("-A ", "-D ", 1) for line in present]
    for subnet in rules.of(bits):
        lines.append(f'-I POSTROUTING 1 -s {subnet} -m comment --comment "{owner(rules.name)}" -j {name}')
    return "\n".join([*lines, "COMMIT", ""])


def _rules(rules: RuleSet, bits: int) -> list[str]:
    own, inside = rules.of(bits), rules.inside(bits)
    parts = [(f"-d {subnet} ", "RETURN") for subnet in own]
    parts += [(f"-d {network} -m mark ! --mark 0/{MASQUERADE_MARKS} ", "RETURN") for network in inside]
    for network in inside:
        parts += [
            (f"-s {subnet} -d {network} " if len(own) > 1 else f"-d {network} ", f"NETMAP --to {subnet}")
            for subnet in own
        ]
    parts += [(f"-d {network} ", "RETURN") for network in (*inside, *never(bits))]
    parts += [("-m addrtype --dst-type LOCAL ", "RETURN"), ("", "MASQUERADE --random-fully")]
    return [f'-A {_chain(rules)} {match}-m comment --comment "{rules.comment}" -j {target}' for match, target in parts]


def _is_loaded(rules: RuleSet, bits: int) -> bool:
    listed = _nat(bits, "-S", _chain(rules), check=False)
    return listed.stdout.count(f'"{rules.comment}"') == len(_rules(rules, bits)) and _jumps_first(rules, bits)


def _jumps_first(rules: RuleSet, bits: int) -> bool:
    """Return whether our jumps precede every other rule that may masquerade unmarked packets."""
    waiting = {f"-s {subnet} " for subnet in rules.of(bits)}
    for line in _postrouting(bits):
        if line.endswith(f"-j {_chain(rules)}"):
            waiting -= {source for source in waiting if source in line}
            if not waiting:
                return True
        elif " -j CNICTL-" not in line and not line.endswith(_BY_MARK):
            return False
    return False


def _chain(rules: RuleSet) -> str:
    return chain(rules.name, rules.scope)


def _postrouting(bits: int) -> list[str]:
    listed = _nat(bits, "-S", "POSTROUTING", check=False)
    if "is incompatible" in listed.stderr:
        words = f"masquerade: {listed.stderr.strip()}: it contains a native nftables rule"
        raise CniError(FIREWALL_FAILED, words, "move that rule to another table, or use ipMasqBackend nftables")
    return [line for line in listed.stdout.splitlines() if line.startswith("-A ")]


def _nat(bits: int, *words: str, check: bool = True) -> "Finished":
    return run([PROGRAMS[bits], "-w", "-t", "nat", *words], check=check, purpose=PURPOSE)


def _restore(bits: int, stdin: str, *words: str) -> None:
    run([f"{PROGRAMS[bits]}-restore", *words, "--noflush", "-w"], stdin, purpose=PURPOSE)
