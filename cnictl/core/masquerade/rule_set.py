"""The masquerade rule set as a value: what `nat enable` and the plugin's ADD load, and what both backends share.

The backends are `nft` and `iptables`; `backends` chooses one by its name. Each loads the rule set completely or not at
all. The comment of each rule has a digest of the whole rule set, which shows whether the rules are current.

Traffic from pod to pod between nodes gets a NAT binding to its own source address before another tool's masquerade in
the same hook sees it. An accept would not stop that tool's rules, but the kernel keeps the first binding. Exempt are
the node's own subnets and packets that kube-proxy (0x4000) or portmap (0x2000) marked for masquerade: without that,
hairpin connections would fail.
"""

from cnictl.core.cidr import Cidr
from cnictl.core.digest import short_digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

TABLE = "cnictl"
PURPOSE = "masquerade"
"""The purpose of the programs, for error messages."""
MASQUERADE_MARKS = "0x6000"

IDENTITY_PRIORITY = 90  # srcnat is 100: our rules come before any other tool's masquerade
MASQUERADE_PRIORITY = 95
CHAIN_KINDS = (("identity", IDENTITY_PRIORITY), ("masquerade", MASQUERADE_PRIORITY))

_FORM = "2"
"""Version of the rules. Those for one IPv4 subnet equal cnictl 0.1.0's, so an upgrade need not reload them."""


class RuleSet:
    """What a node masquerades: packets from `subnets` to anywhere outside them and `networks` (the cluster's pods).

    `scope` distinguishes several rule sets of one network: it is a subnet that came with a pod (`scoped`).
    """

    __slots__ = ("name", "networks", "scope", "subnets")

    def __init__(self, name: str, subnets: "Iterable[Cidr]", networks: "Iterable[Cidr]", scope: str = "") -> None:
        self.name = name
        self.subnets = tuple(subnets)
        self.networks = tuple(networks)
        self.scope = scope

    @property
    def digest(self) -> str:
        """A digest that changes whenever the rules or their version do."""
        subnets, networks = (" ".join(map(str, listed)) for listed in (self.subnets, self.networks))
        return short_digest(_FORM, self.name, subnets, networks, *([self.scope] if self.scope else []))

    @property
    def comment(self) -> str:
        """The comment of each rule."""
        return f"{owner(self.name)} {self.digest}"

    @property
    def families(self) -> list[int]:
        """The number of bits in an address, 32 or 128, of each family that has a subnet."""
        return sorted({subnet.bits for subnet in self.subnets})

    def of(self, bits: int) -> list[Cidr]:
        """Return the subnets of one family."""
        return [subnet for subnet in self.subnets if subnet.bits == bits]

    def inside(self, bits: int, extra: "Iterable[Cidr]" = ()) -> list[Cidr]:
        """Return the destinations of one family that are not masqueraded, none of them inside another."""
        listed = [cidr for cidr in (*self.networks, *self.subnets, *extra) if cidr.bits == bits]
        wide_first = sorted(set(listed), key=lambda cidr: (cidr.prefix, cidr.packed))
        kept: list[Cidr] = []
        for cidr in wide_first:
            if not any(wider.covers(cidr) for wider in kept):
                kept.append(cidr)
        return kept


def never(bits: int) -> list[Cidr]:
    """Return the destinations that are never masqueraded: multicast and IPv6 link-local addresses."""
    if bits == 32:
        return [Cidr(b"\xe0\0\0\0", 4)]
    return [Cidr(b"\xfe\x80" + bytes(14), 10), Cidr(b"\xff" + bytes(15), 8)]


def owner(name: str) -> str:
    """Return the start of the comment of each of a network's rules."""
    return f"cnictl:{_short(name)}"


def _short(name: str) -> str:
    """Return a network's name, shortened: nft allows 127 characters for a chain and 128 for a comment with prefixes."""
    return name if len(name) <= 90 else f"{name[:80]}-{short_digest(name)}"


def chain(name: str, scope: str = "") -> str:
    """Return the name of a network's iptables chain, which has at most 28 characters."""
    return f"CNICTL-{short_digest(name)}" + (f"-{short_digest(scope)}" if scope else "")


def chains_of(name: str, scope: str = "") -> list[str]:
    """Return the names of a network's nftables chains; those of a scope end with `/DIGEST`, as no network does."""
    suffix = f"{_short(name)}/{short_digest(scope)}" if scope else _short(name)
    return [f"{kind}-{suffix}" for kind, _ in CHAIN_KINDS]
