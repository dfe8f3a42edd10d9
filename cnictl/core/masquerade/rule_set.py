"""The masquerade rule set as a value: what `nat enable` and the plugin's ADD load, and what both backends share.

The backends are `nft` and `iptables`; `backends` chooses one by its name. Each loads the rule set whole or not at all.
The comment of each rule carries a digest of the whole rule set: it shows whether the rules are current.

Pod→pod traffic between nodes is bound to its own source address before another tool's masquerade in the same hook
can take it: an accept would not stop that one, a NAT binding once set is kept. This leaves out the node's own
subnets and packets that kube-proxy (0x4000) or portmap (0x2000) marked for masquerade, or their hairpin dies.
"""

from cnictl.core.cidr import Cidr
from cnictl.core.digest import short_digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

TABLE = "cnictl"
PURPOSE = "masquerade"
"""What the programs are started for, as an error says it."""
MASQUERADE_MARKS = "0x6000"

IDENTITY_PRIORITY = 90  # srcnat is 100: ours come before any other tool's masquerade
MASQUERADE_PRIORITY = 95
CHAIN_KINDS = (("identity", IDENTITY_PRIORITY), ("masquerade", MASQUERADE_PRIORITY))

_FORM = "2"
"""Of the rules. One IPv4 subnet's say what release 0.1.0's said, so its rule set stands after an upgrade."""


class RuleSet:
    """What a node masquerades: from `subnets`, to anywhere outside them and `networks` (the cluster's pods).

    `scope` sets apart several rule sets of one network: a subnet that came with a pod (`scoped`).
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
    """Return the iptables chain of a network; a name there has at most 28 characters."""
    return f"CNICTL-{short_digest(name)}" + (f"-{short_digest(scope)}" if scope else "")


def chains_of(name: str, scope: str = "") -> list[str]:
    """Return the nftables chains of a network; those of its scopes have `/` and more behind it, which no name holds."""
    suffix = f"{_short(name)}/{short_digest(scope)}" if scope else _short(name)
    return [f"{kind}-{suffix}" for kind, _ in CHAIN_KINDS]
