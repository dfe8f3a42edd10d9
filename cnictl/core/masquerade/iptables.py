"""The masquerade rule set for hosts that filter with iptables: a chain in the nat table of each family that needs one.

A host without ip6tables is served as long as no subnet is an IPv6 one.
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
"""By the bits in an address of the family."""

_TRIES = 3
_BY_MARK = (" -j KUBE-POSTROUTING", " -j CNI-HOSTPORT-MASQ")
"""Jumps to what masquerades marked packets alone, which ours leave to it: kube-proxy puts its own first when it starts,
portmap where it finds one missing."""


class Iptables:
    """The backend `iptables`, with ip6tables for IPv6; `Backend` says what each method does."""

    name = "iptables"

    def stands(self, rules: RuleSet) -> bool:
        """Each family's chain is whole, and its jumps come before any other tool's rule. Costs two processes each."""
        return all(_stands(rules, bits) for bits in rules.families)

    def present(self, name: str, families: "Iterable[int]" = (32, 128)) -> bool:
        """A family whose program is missing counts as one without rules."""
        return any(chains(bits, name) for bits in families)

    def load(self, rules: RuleSet) -> None:
        """One transaction a family; where a later one is refused, the earlier are taken back if they are new."""
        # what can't be listed can't be loaded: a program that is missing stops this before anything is changed
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
        """`--test` reads the rules and commits nothing."""
        for bits in rules.families:
            _restore(bits, text(rules, bits, _jumps(rules, bits)), "--test")

    def check_any(self, name: str, subnet: "Cidr") -> None:
        """Which program it takes is known with a subnet's family: nothing is said beforehand."""

    def remove(self, name: str, scope: str = "") -> None:
        """Both families' chains go."""
        for bits in PROGRAMS:
            for listed in chains(bits, name, scope):
                remove_chain(bits, listed)

    def steps(self, rules: RuleSet) -> list[tuple[list[str], str]]:
        """A program a family."""
        return [([f"{PROGRAMS[bits]}-restore", "--noflush", "-w"], text(rules, bits)) for bits in rules.families]

    def removal_commands(self, name: str, families: "Iterable[int]" = (32, 128)) -> list[str]:
        """Only for the families whose chain is there."""
        commands, whole = [], chain(name)
        for bits in families:
            program = PROGRAMS[bits]
            if chains(bits, name):
                jumps = f"{program} -w -t nat -S POSTROUTING | grep -- '-j {whole}'"
                commands += [
                    f"{jumps}   # delete each: {program} -w -t nat -D …",
                    f"{program} -w -t nat -F {whole}",
                    f"{program} -w -t nat -X {whole}",
                ]
        return commands


def chains(bits: int, name: str, scope: str = "") -> list[str]:
    """The chains that are there of a network, or of one scope; none where that family's program is missing."""
    from cnictl.core.iptables_listing import listing

    if not programs.find(PROGRAMS[bits]):
        return []
    try:
        lines, unread = listing(PROGRAMS[bits], "nat")
    except Problem:
        return []
    whole = chain(name, scope)
    names = [line.split()[1] for line in lines if line.startswith("-N ")] + unread
    return [listed for listed in names if listed == whole or (not scope and listed.startswith(f"{whole}-"))]


def _load(rules: RuleSet, bits: int) -> None:
    """Another ADD may replace a former release's jumps between the listing of them and their removal."""
    for left in range(_TRIES - 1, -1, -1):
        try:
            _restore(bits, text(rules, bits, _jumps(rules, bits)))
            return
        except CniError:
            if not left:
                raise


def _jumps(rules: RuleSet, bits: int) -> list[str]:
    """The jumps to our chain there are, as `iptables -S` lists them."""
    try:
        return [line for line in _postrouting(bits) if line.endswith(f"-j {_chain(rules)}")]
    except CniError as error:
        error.message += f" (for {' '.join(map(str, rules.of(bits)))})"
        raise


def remove_chain(bits: int, one: str) -> None:
    """Take away a chain of the nat table and the jumps to it; one that is gone, or its program, is no error."""
    try:
        if _nat(bits, "-S", one, check=False).status:
            return
    except MissingProgram:
        return
    jumps = [line.replace("-A ", "-D ", 1) for line in _postrouting(bits) if line.endswith(f"-j {one}")]
    lines = ["*nat", *jumps, f"-F {one}", f"-X {one}", "COMMIT", ""]
    _restore(bits, "\n".join(lines))


def source_masquerades(bits: int, source: str, one: str) -> bool:
    """Whether what comes from an address is led to a chain that masquerades. Raises CniError 106."""
    try:
        listed = _nat(bits, "-S", one, check=False).stdout.splitlines()
        jumps = [line for line in _postrouting(bits) if line.endswith(f"-j {one}") and f"-s {source}/" in line]
    except MissingProgram:
        return False
    return bool(jumps) and any("-j MASQUERADE" in line for line in listed)


def text(rules: RuleSet, bits: int, former: "Sequence[str]" = ()) -> str:
    """What `iptables-restore --noflush` reads. `former`: the jumps there are, as `iptables -S` lists them.

    The new jumps come first of all rules.
    """
    one = _chain(rules)
    lines = ["*nat", f":{one} - [0:0]", *_rules(rules, bits)]
    lines += [line.replace("-A ", "-D ", 1) for line in former]
    for subnet in rules.of(bits):
        lines.append(f'-I POSTROUTING 1 -s {subnet} -m comment --comment "{owner(rules.name)}" -j {one}')
    return "\n".join([*lines, "COMMIT", ""])


def _rules(rules: RuleSet, bits: int) -> list[str]:
    own, inside = rules.of(bits), rules.inside(bits)
    parts = [(f"-d {one} ", "RETURN") for one in own]
    parts += [(f"-d {one} -m mark ! --mark 0/{MASQUERADE_MARKS} ", "RETURN") for one in inside]
    for one in inside:
        parts += [
            (f"-s {subnet} -d {one} " if len(own) > 1 else f"-d {one} ", f"NETMAP --to {subnet}") for subnet in own
        ]
    parts += [(f"-d {one} ", "RETURN") for one in (*inside, *never(bits))]
    parts += [("-m addrtype --dst-type LOCAL ", "RETURN"), ("", "MASQUERADE --random-fully")]
    return [f'-A {_chain(rules)} {match}-m comment --comment "{rules.comment}" -j {target}' for match, target in parts]


def _stands(rules: RuleSet, bits: int) -> bool:
    listed = _nat(bits, "-S", _chain(rules), check=False)
    return listed.stdout.count(f'"{rules.comment}"') == len(_rules(rules, bits)) and _jumps_first(rules, bits)


def _jumps_first(rules: RuleSet, bits: int) -> bool:
    """Whether our jumps come before any other's rule that takes unmarked packets: what it masquerades stays so."""
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
        raise CniError(FIREWALL_FAILED, words, "put that rule into a table of its own, or use ipMasqBackend nftables")
    return [line for line in listed.stdout.splitlines() if line.startswith("-A ")]


def _nat(bits: int, *words: str, check: bool = True) -> "Finished":
    return run([PROGRAMS[bits], "-w", "-t", "nat", *words], check=check, purpose=PURPOSE)


def _restore(bits: int, stdin: str, *words: str) -> None:
    run([f"{PROGRAMS[bits]}-restore", *words, "--noflush", "-w"], stdin, purpose=PURPOSE)
