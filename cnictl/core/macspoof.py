"""Drop frames that a pod sends from a MAC other than its own (`macspoofchk`), where they enter the bridge.

This needs nftables, as in the reference (pkg/link/spoofcheck.go). Each attachment has a chain that is named after its
host veth. A verdict map finds it by the link that a frame came through, so a frame costs the same with one pod and with
a thousand. The chain also drops ARP and neighbour discovery packets that announce a MAC other than their frame's,
because neighbours believe what these say. VLAN tags don't get around it, although a receiver
removes any number of tags with VLAN 0. The kernel removes the first tag before the chain runs (net/core/dev.c,
__netif_receive_skb_core). The chain reads the frame behind a second tag, and drops a frame with a third.
"""

from cnictl.core.errors import UNSUPPORTED_FIELD, ProgramError
from cnictl.core.netlink import nftables
from cnictl.core.netlink.nftables import FAMILY_BRIDGE
from cnictl.core.process import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterable

TABLE = "cnictl"
_BASE, _PORTS = "prerouting", "macspoofchk"
_PRIORITY = -300
"""Before other tools' bridge chains (dstnat), as the reference's chain."""

_MARKED = (0, 2)
"""Places of the rules with a comment that names the guarded pod: those for frames and for ARP."""
_SECOND_TAG = 32
"""Bits of a second tag, which still precedes the frame's payload."""
_OPTIONS = (("133", 8, 2), ("134", 16, 5), ("135-136", 24, 4), ("137", 40, 2))
"""ICMPv6 types of neighbour discovery, the byte where their options begin, and how many places of 8 bytes are checked.

Router solicitation and advertisement, neighbour solicitation and advertisement, redirect (RFC 4861, section 4).
"""


def drops(mac: str) -> list[str]:
    """Return the rules of a port's chain in their order, without the comment that some have."""
    value = f"0x{mac.replace(':', '')}"
    inside = f"@nh,{_SECOND_TAG - 16},16"
    rules = [
        f"ether saddr != {mac} counter drop",
        "meta protocol ip return",
        f"meta protocol arp @nh,64,48 != {value} counter drop",
        "meta protocol ip6 meta l4proto != ipv6-icmp return",
        *(f"meta protocol ip6 {rule}" for rule in _discovery("th", 0, value)),
        "meta protocol != { 8021q, 8021ad } return",
        f"{inside} {{ 0x8100, 0x88a8 }} counter drop",
        f"{inside} 0x0806 @nh,{_SECOND_TAG + 64},48 != {value} counter drop",
    ]
    # an extension header would hide neighbour discovery: no expression finds where the header ends
    six, header = f"{inside} 0x86dd @nh,{_SECOND_TAG + 48},8", _SECOND_TAG + 320
    rules.append(f"{six} {{ 0, 43, 44, 60, 135, 139, 140 }} counter drop")
    return rules + [f"{six} 58 {rule}" for rule in _discovery("nh", header, value)]


def _discovery(base: str, start: int, value: str) -> list[str]:
    """Return rules against link-layer address options with another MAC; `start`: bits from `base` to the ICMPv6 header.

    Such an option has the length 1 and the type 1 or 2. The mask also matches types 0 and 3, which never have that
    length.
    """
    rules = []
    for kind, first, places in _OPTIONS:
        for place in range(places):
            option = start + 8 * (first + 8 * place)
            is_address = f"@{base},{option},16 & 0xfcff == 0x0001"
            rules.append(f"@{base},{start},8 {kind} {is_address} @{base},{option + 16},48 != {value} counter drop")
    return rules


def text(host_veth: str, mac: str) -> str:
    """Return the input for `nft -f` that guards one port, whatever rules it had."""
    base, own, mark = f"bridge {TABLE} {_BASE}", f"bridge {TABLE} {host_veth}", f'comment "{_mark(host_veth, mac)}"'
    rules = drops(mac)
    marked = [f"{rule} {mark}" if place in _MARKED else rule for place, rule in enumerate(rules)]
    return (
        f"add table bridge {TABLE}\n"
        f"add map bridge {TABLE} {_PORTS} {{ type ifname : verdict; }}\n"
        f"add chain {base} {{ type filter hook prerouting priority {_PRIORITY}; policy accept; }}\n"
        f"flush chain {base}\n"
        f'add rule {base} iifname vmap @{_PORTS} comment "cnictl:{_PORTS}"\n'
        f"add chain {own}\n"
        f"flush chain {own}\n"
        + "".join(f"add rule {own} {rule}\n" for rule in marked)
        + f'add element bridge {TABLE} {_PORTS} {{ "{host_veth}" : jump {host_veth} }}\n'
    )


def ensure(host_veth: str, mac: str) -> None:
    """Accept only frames from `mac` through a port, in one transaction.

    Raises CniError 2 naming the key if nft or the kernel's bridge family is missing, 106 with nft's message.
    """
    _nft("-f", "-", stdin=text(host_veth, mac))


def check() -> None:
    """Raise what `ensure` would raise for any port, without changing anything."""
    _nft("-c", "-f", "-", stdin=text("cnictl-check", "02:00:00:00:00:01"))


def _nft(*arguments: str, stdin: str) -> None:
    try:
        run(["nft", *arguments], stdin, purpose="macspoofchk")
    except ProgramError as error:
        if error.unsupported:
            error.code = UNSUPPORTED_FIELD
        if not error.hint:
            error.hint = "install nftables and a kernel with CONFIG_NF_TABLES_BRIDGE, or remove macspoofchk"
        raise


def is_loaded(host_veth: str, mac: str) -> bool:
    """Return whether the port is guarded as `ensure` does it. Costs three queries."""
    mark = f"{_mark(host_veth, mac)}\0".encode()
    own = nftables.rules(FAMILY_BRIDGE, TABLE, host_veth)
    base = nftables.rules(FAMILY_BRIDGE, TABLE, _BASE)
    return (
        sum(mark in userdata for _, userdata in own) == len(_MARKED)
        and len(own) == len(drops(mac))
        and any(f"cnictl:{_PORTS}\0".encode() in userdata for _, userdata in base)
        and nftables.has_element(FAMILY_BRIDGE, TABLE, _PORTS, nftables.ifname_key(host_veth))
    )


def remove(host_veths: "Iterable[str]") -> None:
    """Remove ports' guards, and the table with the last one. A missing guard is not an error. Raises CniError 106."""
    present = nftables.chains(FAMILY_BRIDGE, TABLE)
    ours = [name for name in host_veths if name in present and name != _BASE]
    for name in ours:
        nftables.remove_element(FAMILY_BRIDGE, TABLE, _PORTS, nftables.ifname_key(name))
        nftables.remove_chains(FAMILY_BRIDGE, TABLE, name.__eq__)
    if ours:
        present = nftables.chains(FAMILY_BRIDGE, TABLE)
    if present == [_BASE]:
        nftables.remove_table_of_sets(FAMILY_BRIDGE, TABLE, _BASE, (_PORTS,))


def guarded() -> list[str]:
    """Return the ports that have a guard."""
    return [chain for chain in nftables.chains(FAMILY_BRIDGE, TABLE) if chain != _BASE]


def remove_others(links: "Container[str]") -> None:
    """Remove the guards of ports that are no longer among the host's `links`. Raises CniError 106."""
    gone = [port for port in guarded() if port not in links]
    if gone:
        remove(gone)


def _mark(host_veth: str, mac: str) -> str:
    return f"cnictl:{host_veth} {mac}"
