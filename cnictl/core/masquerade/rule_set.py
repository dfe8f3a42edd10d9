"""The masquerade rule set: one text for `nat enable` and for the plugin's ADD, loaded whole or not at all.

Two chains a network in the node's own table `inet cnictl` (nftables), or one chain of its own under
`nat POSTROUTING` of each address family (iptables, ip6tables: `masquerade_iptables`). Each rule's comment carries a
digest of the whole rule set, so that one look tells whether it stands as it should.

Pod→pod traffic between nodes is bound to its own source address before another tool's masquerade in the same hook
can take it: an accept would not stop that one, a NAT binding once set is kept. This leaves out the node's own
subnets and packets that kube-proxy (0x4000) or portmap (0x2000) marked for masquerade, or their hairpin dies.
"""

from cnictl.core.cidr import Cidr
from cnictl.core.digest import short_digest
from cnictl.core.errors import FIREWALL_FAILED, UNSUPPORTED_FIELD, CniError, Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cnictl.core.process import Finished

TABLE = "cnictl"
BACKENDS = ("nft", "iptables")
MASQUERADE_MARKS = "0x6000"

IDENTITY_PRIORITY = 90  # srcnat is 100: ours come before any other tool's masquerade
MASQUERADE_PRIORITY = 95
CHAIN_KINDS = (("identity", IDENTITY_PRIORITY), ("masquerade", MASQUERADE_PRIORITY))
FAMILY_INET = 1
"""NFPROTO_INET, linux/netfilter.h."""

_FORM = "2"
"""Of the rules. One IPv4 subnet's say what release 0.1.0's said, so its rule set stands after an upgrade."""


class Masquerade:
    """What a node masquerades: from `subnets`, to anywhere outside them and `networks` (the cluster's pods).

    `scope` sets apart several rule sets of one network: a subnet that came with a pod (`masquerade_scoped`).
    """

    __slots__ = ("name", "networks", "scope", "subnets")

    def __init__(self, name: str, subnets: "Iterable[Cidr]", networks: "Iterable[Cidr]", scope: str = "") -> None:
        self.name = name
        self.subnets = tuple(subnets)
        self.networks = tuple(networks)
        self.scope = scope

    @property
    def digest(self) -> str:
        """Changes whenever the rules or their form do."""
        subnets, networks = (" ".join(map(str, listed)) for listed in (self.subnets, self.networks))
        return short_digest(_FORM, self.name, subnets, networks, *([self.scope] if self.scope else []))

    @property
    def comment(self) -> str:
        """The mark on each rule."""
        return f"{owner(self.name)} {self.digest}"

    @property
    def families(self) -> list[int]:
        """Bits in an address of each family that has a subnet: 32, 128."""
        return sorted({subnet.bits for subnet in self.subnets})

    def of(self, bits: int) -> list[Cidr]:
        """The subnets of one family."""
        return [subnet for subnet in self.subnets if subnet.bits == bits]

    def inside(self, bits: int, more: "Iterable[Cidr]" = ()) -> list[Cidr]:
        """What is not masqueraded to, of one family: networks and subnets, none inside another."""
        listed = [one for one in (*self.networks, *self.subnets, *more) if one.bits == bits]
        wide_first = sorted(set(listed), key=lambda one: (one.prefix, one.packed))
        kept: list[Cidr] = []
        for one in wide_first:
            if not any(wider.covers(one) for wider in kept):
                kept.append(one)
        return kept


def never(bits: int) -> list[Cidr]:
    """Destinations that stay as they are: multicast, and IPv6's link-local addresses."""
    if bits == 32:
        return [Cidr(b"\xe0\0\0\0", 4)]
    return [Cidr(b"\xfe\x80" + bytes(14), 10), Cidr(b"\xff" + bytes(15), 8)]


def owner(name: str) -> str:
    """How the comment of each of a network's rules begins."""
    return f"cnictl:{_short(name)}"


def _short(name: str) -> str:
    """A network's name where nft allows 127 characters for a chain and 128 for a comment, prefixes included."""
    return name if len(name) <= 90 else f"{name[:80]}-{short_digest(name)}"


def chain(name: str, scope: str = "") -> str:
    """The iptables chain of a network; a name there has at most 28 characters."""
    return f"CNICTL-{short_digest(name)}" + (f"-{short_digest(scope)}" if scope else "")


def ensure(masquerade: Masquerade, backend: str) -> bool:
    """Load the rule set unless it stands as it should; whether nothing of the network's was there before.

    Raises CniError 106 with the tool's own words, 2 where the tool or the kernel's part of it is missing.
    """
    if stands(masquerade, backend):
        return False
    new = not present(masquerade.name, backend, masquerade.families)
    load(masquerade, backend)
    return new


def stands(masquerade: Masquerade, backend: str) -> bool:
    """Whether the whole rule set is in the kernel as it should be.

    Costs one query (nft) or two processes a family.
    """
    if backend == "nft":
        return _nft_marks(f"{masquerade.comment}\0".encode()) == 2 * len(masquerade.families)
    from cnictl.core.masquerade import iptables

    return iptables.stands(masquerade)


def present(name: str, backend: str, families: "Iterable[int]" = (32, 128)) -> bool:
    """Whether any of a network's rules are there, in this form or a former one; iptables is asked by family."""
    if backend == "nft":
        return _nft_marks(f"{owner(name)} ".encode()) > 0
    from cnictl.core.masquerade import iptables

    return any(iptables.chains(bits, name) for bits in families)


def load(masquerade: Masquerade, backend: str) -> None:
    """Bring the rule set about, whatever of it was there: all families or none. Raises CniError 106, 2."""
    if backend == "nft":
        run(["nft", "-f", "-"], nft_text(masquerade))
        return
    from cnictl.core.masquerade import iptables

    iptables.load(masquerade)


def check(masquerade: Masquerade, backend: str) -> None:
    """Raise what `load` would raise, and change nothing: the kernel is handed the rules, but not told to keep them."""
    if backend == "nft":
        run(["nft", "-c", "-f", "-"], nft_text(masquerade))
        return
    from cnictl.core.masquerade import iptables

    iptables.check(masquerade)


def remove(name: str, backend: str, scope: str = "") -> None:
    """Take away all of a network's rules, or those of one scope; the table goes with what was last in it.

    Nothing there is no error. Raises CniError 106.
    """
    if backend == "nft":
        _nft_remove(name, scope)
        return
    from cnictl.core.masquerade import iptables

    iptables.remove(name, scope)


def steps(masquerade: Masquerade, backend: str) -> list[tuple[list[str], str]]:
    """What `load` runs, as typed by hand: each program with its input."""
    if backend == "nft":
        return [(["nft", "-f", "-"], nft_text(masquerade))]
    from cnictl.core.masquerade import iptables

    return iptables.steps(masquerade)


def nft_text(m: Masquerade) -> str:
    """What `nft -f` reads to bring the rule set about, whatever was there."""
    mark = f'comment "{m.comment}"'
    identity, masquerade = (f"inet {TABLE} {kind}-{_chain_suffix(m.name, m.scope)}" for kind, _ in CHAIN_KINDS)
    lines = [f"add table inet {TABLE}", *_base_chains(m.name, m.scope)]
    lines += [f"flush chain {identity}", f"flush chain {masquerade}"]
    for bits in m.families:
        ip, own = "ip" if bits == 32 else "ip6", m.of(bits)
        lines += (
            f"add rule {identity} {ip} saddr {_any_of(own)} {ip} daddr {_any_of(m.inside(bits))} "
            f"{ip} daddr != {_any_of(own)} meta mark & {MASQUERADE_MARKS} == 0 "
            f"counter snat {ip} prefix to {ip} saddr map {{ {', '.join(f'{one} : {one}' for one in own)} }} {mark}",
            f"add rule {masquerade} {ip} saddr {_any_of(own)} {ip} daddr != {_any_of(m.inside(bits, never(bits)))} "
            f"fib daddr type != local counter masquerade fully-random {mark}",
        )
    return "\n".join(lines) + "\n"


def _base_chains(name: str, scope: str) -> list[str]:
    return [
        f"add chain inet {TABLE} {kind}-{_chain_suffix(name, scope)} "
        f"{{ type nat hook postrouting priority {priority}; policy accept; }}"
        for kind, priority in CHAIN_KINDS
    ]


def chains_of(name: str) -> list[str]:
    """Return the chains of a network in our table; those of its scopes have `/` and more behind it."""
    return [f"{kind}-{_chain_suffix(name, '')}" for kind, _ in CHAIN_KINDS]


def _chain_suffix(name: str, scope: str) -> str:
    """A network's name holds no `/`."""
    return f"{_short(name)}/{short_digest(scope)}" if scope else _short(name)


def _any_of(listed: list[Cidr]) -> str:
    return str(listed[0]) if len(listed) == 1 else f"{{ {', '.join(map(str, listed))} }}"


def _nft_marks(mark: bytes) -> int:
    """How many rules of our table carry `mark` in their comment (linux/netfilter/nf_tables.h, NFT_MSG_GETRULE 7)."""
    from cnictl.core.netlink.messages import NETLINK_NETFILTER, Netlink, NetlinkError, attributes, text_attr

    request = bytes((FAMILY_INET, 0, 0, 0)) + text_attr(1, TABLE)  # nfgenmsg; NFTA_RULE_TABLE
    try:
        with Netlink(NETLINK_NETFILTER) as netlink:
            rules = netlink.dump(10 << 8 | 7, request)
    except NetlinkError:
        return 0  # no such table, or a kernel that has no nftables at all
    return sum(mark in attributes(rule, 4).get(7, b"") for rule in rules)  # NFTA_RULE_USERDATA


def _nft_remove(name: str, scope: str) -> None:
    from cnictl.core.netlink import nftables

    suffix = _chain_suffix(name, scope)
    whole = [f"{kind}-{suffix}" for kind, _ in CHAIN_KINDS]
    scopes = () if scope else tuple(f"{one}/" for one in whole)

    def ours(one: str) -> bool:
        return one in whole or one.startswith(scopes)

    nftables.remove_chains(FAMILY_INET, TABLE, ours)
    nftables.remove_table_if_empty(FAMILY_INET, TABLE)


def run(argv: "list[str]", stdin: str = "", check: bool = True) -> "Finished":
    """Run a firewall tool. Raises CniError 106 with its own words, 2 where it is missing."""
    from cnictl.core.process import run as run_program

    try:
        return run_program(argv, stdin, check=check)
    except Problem as problem:
        missing = problem.message.startswith(f"{argv[0]}: ")  # it could not be started at all
        code = UNSUPPORTED_FIELD if missing else FIREWALL_FAILED
        raise CniError(code, f"masquerade: {problem.message}", problem.mend) from None
