"""The masquerade rule set for hosts that filter with iptables: a chain in the nat table of each family that needs one.

A host without ip6tables is served as long as no subnet is an IPv6 one.
"""

from cnictl.core import programs
from cnictl.core.errors import FIREWALL_FAILED, UNSUPPORTED_FIELD, CniError, Problem
from cnictl.core.masquerade.rule_set import MASQUERADE_MARKS, Masquerade, chain, never, owner, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cnictl.core.process import Finished

PROGRAMS = {32: "iptables", 128: "ip6tables"}
"""By the bits in an address of the family."""

_TRIES = 3
_BY_MARK = (" -j KUBE-POSTROUTING", " -j CNI-HOSTPORT-MASQ")
"""Jumps to what masquerades marked packets alone, which ours leave to it: kube-proxy puts its own first when it starts,
portmap where it finds one missing."""


def stands(m: Masquerade) -> bool:
    """Whether each family's chain is whole, and its jumps come before any other tool's rule."""
    return all(_stands(m, bits) for bits in m.families)


def chains(bits: int, name: str, scope: str = "") -> list[str]:
    """The chains that are there of a network, or of one scope; none where that family's program is missing."""
    from cnictl.core.iptables_listing import listing

    if not programs.find(PROGRAMS[bits]):
        return []
    try:
        listed, unread = listing(PROGRAMS[bits], "nat")
    except Problem:
        return []
    whole = chain(name, scope)
    names = [line.split()[1] for line in listed if line.startswith("-N ")] + unread
    return [one for one in names if one == whole or (not scope and one.startswith(f"{whole}-"))]


def load(m: Masquerade) -> None:
    """One transaction a family; where a later one is refused, the earlier are taken back if they are new."""
    # what can't be listed can't be loaded: a program that is missing stops this before anything is changed
    new = [bits for bits in m.families if not _jumps(m, bits)]
    for place, bits in enumerate(m.families):
        try:
            _load(m, bits)
        except CniError:
            for earlier in m.families[:place]:
                if earlier in new:
                    remove_chain(earlier, _chain(m))
            raise


def check(m: Masquerade) -> None:
    """Raise what `load` would raise, as far as that can be told without changing anything."""
    for bits in m.families:
        run([f"{PROGRAMS[bits]}-restore", "--test", "--noflush", "-w"], text(m, bits, _jumps(m, bits)))


def _load(m: Masquerade, bits: int) -> None:
    """Another ADD may replace a former release's jumps between the listing of them and their removal."""
    for left in range(_TRIES - 1, -1, -1):
        try:
            run([f"{PROGRAMS[bits]}-restore", "--noflush", "-w"], text(m, bits, _jumps(m, bits)))
            return
        except CniError:
            if not left:
                raise


def _jumps(m: Masquerade, bits: int) -> list[str]:
    """The jumps to our chain there are, as `iptables -S` lists them."""
    try:
        return [line for line in _postrouting(bits) if line.endswith(f"-j {_chain(m)}")]
    except CniError as error:
        raise CniError(error.code, f"{error.msg} (for {' '.join(map(str, m.of(bits)))})", error.details) from None


def steps(m: Masquerade) -> list[tuple[list[str], str]]:
    """Each program with its input."""
    return [([f"{PROGRAMS[bits]}-restore", "--noflush", "-w"], text(m, bits)) for bits in m.families]


def remove(name: str, scope: str = "") -> None:
    """Take away a network's chains, or those of one scope, in both families."""
    for bits in PROGRAMS:
        for one in chains(bits, name, scope):
            remove_chain(bits, one)


def remove_chain(bits: int, one: str) -> None:
    """Take away a chain of the nat table and the jumps to it; one that is gone, or its program, is no error."""
    try:
        if _nat(bits, "-S", one, check=False).status:
            return
    except CniError as error:
        if error.code == UNSUPPORTED_FIELD:
            return
        raise
    jumps = [line.replace("-A ", "-D ", 1) for line in _postrouting(bits) if line.endswith(f"-j {one}")]
    lines = ["*nat", *jumps, f"-F {one}", f"-X {one}", "COMMIT", ""]
    run([f"{PROGRAMS[bits]}-restore", "--noflush", "-w"], "\n".join(lines))


def source_masquerades(bits: int, source: str, one: str) -> bool:
    """Whether what comes from an address is led to a chain that masquerades. Raises CniError 106."""
    try:
        listed = _nat(bits, "-S", one, check=False).stdout.splitlines()
        jumps = [line for line in _postrouting(bits) if line.endswith(f"-j {one}") and f"-s {source}/" in line]
    except CniError as error:
        if error.code == UNSUPPORTED_FIELD:
            return False
        raise
    return bool(jumps) and any("-j MASQUERADE" in line for line in listed)


def text(m: Masquerade, bits: int, former: "Sequence[str]" = ()) -> str:
    """What `iptables-restore --noflush` reads. `former`: the jumps there are, as `iptables -S` lists them.

    The new jumps come first of all rules.
    """
    one = _chain(m)
    lines = ["*nat", f":{one} - [0:0]", *_rules(m, bits)]
    lines += [line.replace("-A ", "-D ", 1) for line in former]
    for subnet in m.of(bits):
        lines.append(f'-I POSTROUTING 1 -s {subnet} -m comment --comment "{owner(m.name)}" -j {one}')
    return "\n".join([*lines, "COMMIT", ""])


def _rules(m: Masquerade, bits: int) -> list[str]:
    own, inside = m.of(bits), m.inside(bits)
    parts = [(f"-d {one} ", "RETURN") for one in own]
    parts += [(f"-d {one} -m mark ! --mark 0/{MASQUERADE_MARKS} ", "RETURN") for one in inside]
    for one in inside:
        parts += [
            (f"-s {subnet} -d {one} " if len(own) > 1 else f"-d {one} ", f"NETMAP --to {subnet}") for subnet in own
        ]
    parts += [(f"-d {one} ", "RETURN") for one in (*inside, *never(bits))]
    parts += [("-m addrtype --dst-type LOCAL ", "RETURN"), ("", "MASQUERADE --random-fully")]
    return [f'-A {_chain(m)} {match}-m comment --comment "{m.comment}" -j {target}' for match, target in parts]


def _stands(m: Masquerade, bits: int) -> bool:
    listed = _nat(bits, "-S", _chain(m), check=False)
    return listed.stdout.count(f'"{m.comment}"') == len(_rules(m, bits)) and _jumps_first(m, bits)


def _jumps_first(m: Masquerade, bits: int) -> bool:
    """Whether our jumps come before any other's rule that takes unmarked packets: what it masquerades stays so."""
    waiting = {f"-s {subnet} " for subnet in m.of(bits)}
    for line in _postrouting(bits):
        if line.endswith(f"-j {_chain(m)}"):
            waiting -= {source for source in waiting if source in line}
            if not waiting:
                return True
        elif " -j CNICTL-" not in line and not line.endswith(_BY_MARK):
            return False
    return False


def _chain(m: Masquerade) -> str:
    return chain(m.name, m.scope)


def _postrouting(bits: int) -> list[str]:
    listed = _nat(bits, "-S", "POSTROUTING", check=False)
    if "is incompatible" in listed.stderr:
        words = f"masquerade: {listed.stderr.strip()}: a native rule of nft's stands in it"
        raise CniError(FIREWALL_FAILED, words, "put that rule into a table of its own, or use ipMasqBackend nftables")
    return [line for line in listed.stdout.splitlines() if line.startswith("-A ")]


def _nat(bits: int, *words: str, check: bool = True) -> "Finished":
    return run([PROGRAMS[bits], "-w", "-t", "nat", *words], check=check)
