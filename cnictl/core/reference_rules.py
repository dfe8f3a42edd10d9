"""What the reference bridge's `ipMasq` and `macspoofchk` made for a container before its network was taken over.

containernetworking/plugins: pkg/ip/ipmasq_iptables_linux.go (a chain a container and family, of every release),
pkg/ip/ipmasq_nftables_linux.go (a rule an address, from 1.6.0 on), pkg/utils/utils.go (names), pkg/link/spoofcheck.go
(from 1.1.0 on a jump and two chains an interface).
"""

from hashlib import sha512

from cnictl.core.masquerade import iptables
from cnictl.core.netlink import nftables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cnictl.core.cidr import Cidr

_TABLE, _CHAIN = "cni_plugins_masquerade", "masq_checks"
_NFT_HASH, _CHAIN_MAX = 16, 28
"""Characters."""


def remove_reference_rules(network: str, container: str, ifname: str) -> None:
    """Take away its rules for one attachment, whichever backend they are in. Nothing there is no error.

    Raises CniError 106.
    """
    mark = _nft_mark(network, container, ifname)
    nftables.remove_rules(nftables.FAMILY_INET, _TABLE, _CHAIN, lambda userdata: mark in userdata)
    for bits in iptables.PROGRAMS:
        iptables.remove_chain(bits, _iptables_chain(network, container))
    _remove_spoof_check(f"{container}-{ifname}")


def masquerades(network: str, container: str, ifname: str, addresses: "Sequence[Cidr]") -> bool:
    """Whether its rules masquerade what comes from each of an attachment's addresses. Raises CniError 106."""
    mark = _nft_mark(network, container, ifname)
    rules = nftables.rules(nftables.FAMILY_INET, _TABLE, _CHAIN)
    if addresses and sum(mark in userdata for _, userdata in rules) >= len(addresses):
        return True
    chain = _iptables_chain(network, container)
    return all(iptables.source_masquerades(one.bits, one.address, chain) for one in addresses)


def guards(container: str, ifname: str) -> bool:
    """Whether its macspoofchk rules for an interface are there. Raises CniError 106."""
    first = f"cni-br-iface-{container}-{ifname}"
    return {first, f"{first}-mac"} <= set(nftables.chains(nftables.FAMILY_BRIDGE, "nat"))


def _nft_mark(network: str, container: str, ifname: str) -> bytes:
    return f"{_hash(network)}-{_hash(f'{ifname}:{container}')}".encode()


def _iptables_chain(network: str, container: str) -> str:
    return f"CNI-{sha512(f'{network}{container}'.encode()).hexdigest()}"[:_CHAIN_MAX]


def _remove_spoof_check(reference: str) -> None:
    first = f"cni-br-iface-{reference}"
    if first not in nftables.chains(nftables.FAMILY_BRIDGE, "nat"):
        return
    mark = f"macspoofchk-{reference}\0".encode()
    nftables.remove_rules(nftables.FAMILY_BRIDGE, "nat", "PREROUTING", lambda userdata: mark in userdata)
    for one in (first, f"{first}-mac"):
        nftables.remove_chains(nftables.FAMILY_BRIDGE, "nat", one.__eq__)


def _hash(text: str) -> str:
    return sha512(text.encode()).hexdigest()[:_NFT_HASH]
