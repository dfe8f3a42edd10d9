"""Firewall rules that the reference bridge made for a container before cnictl took over its network.

They come from its `ipMasq` and `macspoofchk`. Sources in containernetworking/plugins: pkg/ip/ipmasq_iptables_linux.go
(a chain for each container and family, in every release), pkg/ip/ipmasq_nftables_linux.go (a rule for each address,
since 1.6.0), pkg/utils/utils.go (names), pkg/link/spoofcheck.go (a jump and two chains for each interface,
since 1.1.0).
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
"""Characters of a digest and of a chain's name."""


def remove_reference_rules(network: str, container: str, ifname: str) -> None:
    """Remove the reference's rules for one attachment from both backends. Missing rules are not an error.

    Raises CniError 106.
    """
    mark = _nft_mark(network, container, ifname)
    nftables.remove_rules(nftables.FAMILY_INET, _TABLE, _CHAIN, lambda userdata: mark in userdata)
    for bits in iptables.PROGRAMS:
        iptables.remove_chain(bits, _iptables_chain(network, container))
    _remove_spoof_check(f"{container}-{ifname}")


def masquerades(network: str, container: str, ifname: str, addresses: "Sequence[Cidr]") -> bool:
    """Return whether the reference's rules masquerade all of an attachment's addresses. Raises CniError 106."""
    mark = _nft_mark(network, container, ifname)
    rules = nftables.rules(nftables.FAMILY_INET, _TABLE, _CHAIN)
    if addresses and sum(mark in userdata for _, userdata in rules) >= len(addresses):
        return True
    chain = _iptables_chain(network, container)
    return all(iptables.source_masquerades(cidr.bits, cidr.address, chain) for cidr in addresses)


def guards(container: str, ifname: str) -> bool:
    """Return whether the reference's macspoofchk rules for an interface are there. Raises CniError 106."""
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
    for chain in (first, f"{first}-mac"):
        nftables.remove_chains(nftables.FAMILY_BRIDGE, "nat", chain.__eq__)


def _hash(text: str) -> str:
    return sha512(text.encode()).hexdigest()[:_NFT_HASH]
