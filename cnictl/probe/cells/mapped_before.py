"""Find out whether a port of this host was ever mapped to a pod, because a check should leave nothing behind.

The reference `portmap` makes its chains for the first pod with a host port, and leaves them for the next. Sources:
containernetworking plugins/meta/portmap, portmap_iptables.go and portmap_nftables.go.
"""

from cnictl.core import durable
from cnictl.core.errors import Problem
from cnictl.core.process import run

_LISTINGS = (
    ("nft", "list", "chain", "ip", "nat", "CNI-HOSTPORT-DNAT"),
    ("nft", "list", "chain", "ip6", "nat", "CNI-HOSTPORT-DNAT"),
    ("nft", "list", "table", "inet", "cni_hostport"),
)
_LEGACY = ("iptables-legacy", "-t", "nat", "-S", "CNI-HOSTPORT-DNAT")

REASON = "no pod of this host has had a host port yet, and a test leaves the plugin's chains behind: --only {} runs it"


def mapped_before() -> bool:
    """Return whether the chains of a port-mapping plugin exist."""
    listings = (*_LISTINGS, _LEGACY) if _has_legacy_nat() else _LISTINGS
    return any(map(_succeeds, listings))


def _has_legacy_nat() -> bool:
    try:
        return b"nat" in durable.contents("/proc/net/ip_tables_names").split()
    except OSError:
        return False


def _succeeds(command: tuple[str, ...]) -> bool:
    try:
        return run(list(command), check=False).status == 0
    except Problem:
        return False  # the program is missing
