"""`macspoofchk`: frames that come from a pod under a MAC that is not its own are dropped where they enter the bridge.

nftables alone, as with the reference (pkg/link/spoofcheck.go): one chain an attachment, named after its host veth, to
which a verdict map leads by the link a frame came in by, so that a frame's way costs the same with one pod and with
a thousand. A chain also drops ARP that speaks for another MAC than its frame's: neighbours believe what ARP says.
"""

from cnictl.core import nftables
from cnictl.core.errors import FIREWALL_FAILED, UNSUPPORTED_FIELD, CniError, Problem
from cnictl.core.nftables import FAMILY_BRIDGE
from cnictl.core.process import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterable

TABLE = "cnictl"
_BASE, _PORTS = "prerouting", "macspoofchk"
_PRIORITY = -300
"""Before other tools' bridge chains (dstnat), as the reference's."""


def text(host_veth: str, mac: str) -> str:
    """What `nft -f` reads to guard one port, whatever was there."""
    base, own, mark = f"bridge {TABLE} {_BASE}", f"bridge {TABLE} {host_veth}", f'comment "{_mark(host_veth, mac)}"'
    return (
        f"add table bridge {TABLE}\n"
        f"add map bridge {TABLE} {_PORTS} {{ type ifname : verdict; }}\n"
        f"add chain {base} {{ type filter hook prerouting priority {_PRIORITY}; policy accept; }}\n"
        f"flush chain {base}\n"
        f'add rule {base} iifname vmap @{_PORTS} comment "cnictl:{_PORTS}"\n'
        f"add chain {own}\n"
        f"flush chain {own}\n"
        f"add rule {own} ether saddr != {mac} counter drop {mark}\n"
        f"add rule {own} arp saddr ether != {mac} counter drop {mark}\n"
        f'add element bridge {TABLE} {_PORTS} {{ "{host_veth}" : jump {host_veth} }}\n'
    )


def ensure(host_veth: str, mac: str) -> None:
    """Let only frames from `mac` in through a port, in one transaction.

    Raises CniError 2 naming the key where nft or the kernel's bridge family is missing, 106 with nft's own words.
    """
    try:
        run(["nft", "-f", "-"], text(host_veth, mac))
    except Problem as problem:
        words = problem.message
        missing = words.startswith("nft: ") or any(one in words for one in ("not supported", "No such file"))
        raise CniError(
            UNSUPPORTED_FIELD if missing else FIREWALL_FAILED,
            f"macspoofchk: {words}",
            problem.mend or "it takes nftables with the bridge family (CONFIG_NF_TABLES_BRIDGE), or remove macspoofchk",
        ) from None


def stands(host_veth: str, mac: str) -> bool:
    """Whether the port is guarded as `ensure` guards it. Costs three queries."""
    mark = f"{_mark(host_veth, mac)}\0".encode()
    own = nftables.rules(FAMILY_BRIDGE, TABLE, host_veth)
    base = nftables.rules(FAMILY_BRIDGE, TABLE, _BASE)
    return (
        sum(mark in userdata for _, userdata in own) == 2
        and any(f"cnictl:{_PORTS}\0".encode() in userdata for _, userdata in base)
        and nftables.has_element(FAMILY_BRIDGE, TABLE, _PORTS, _key(host_veth))
    )


def remove(host_veths: "Iterable[str]") -> None:
    """Take ports' guards away, and the table with the last one. Nothing there is no error. Raises CniError 106."""
    found = nftables.chains(FAMILY_BRIDGE, TABLE)
    ours = [name for name in host_veths if name in found and name != _BASE]
    for name in ours:
        nftables.remove_element(FAMILY_BRIDGE, TABLE, _PORTS, _key(name))
        nftables.remove_chains(FAMILY_BRIDGE, TABLE, name.__eq__)
    if ours:
        found = nftables.chains(FAMILY_BRIDGE, TABLE)
    if found == [_BASE]:
        nftables.remove_table_of_map(FAMILY_BRIDGE, TABLE, _BASE, _PORTS)


def remove_others(links: "Container[str]") -> None:
    """Take away the guards of ports that are not among the host's `links` any more. Raises CniError 106."""
    gone = [one for one in nftables.chains(FAMILY_BRIDGE, TABLE) if one != _BASE and one not in links]
    if gone:
        remove(gone)


def _mark(host_veth: str, mac: str) -> str:
    return f"cnictl:{host_veth} {mac}"


def _key(host_veth: str) -> bytes:
    return host_veth.encode().ljust(16, b"\0")  # IFNAMSIZ
