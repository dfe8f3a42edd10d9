"""`portIsolation` beyond the bridge: keep isolated pods from reaching each other through the node as well.

The kernel's port flag stops frames between isolated ports. But a pod can send to the bridge's MAC, and the node then
routes the packet to the other pod. So packets that enter through an isolated port and are addressed to an isolated pod
of the same bridge are dropped where they enter. The gateway, the node, outside hosts, other pods and published ports
have other addresses and stay reachable.

With nftables, each bridge has a table of the bridge family with sets of ports and addresses. With iptables
(`isolation_iptables`), it has a chain in mangle's FORWARD, where the port that a packet came through is unknown.
"""

from cnictl.core.cidr import parse_address
from cnictl.core.digest import short_digest
from cnictl.core.errors import UNSUPPORTED_FIELD, CniError, MissingProgram, ProgramError
from cnictl.core.netlink import nftables
from cnictl.core.netlink.nftables import FAMILY_BRIDGE
from cnictl.core.process import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Sequence

TABLES = "cnictl-isolated-"
"""Prefix of the tables' names."""
_CHAIN, _PORTS, _PODS = "prerouting", "ports", {4: "pods4", 16: "pods6"}
_SETS = (_PORTS, *_PODS.values())
_PRIORITY = -299
"""After macspoofchk's chain, before other tools' bridge chains."""
_RULES = (
    f"iifname @{_PORTS} meta protocol ip ip daddr @{_PODS[4]} counter drop",
    f"iifname @{_PORTS} meta protocol ip6 ip6 daddr @{_PODS[16]} counter drop",
    # the node also accepts a packet with a second tag behind a tag of VLAN 0 (net/core/dev.c, __netif_receive_skb_core)
    f"iifname @{_PORTS} meta protocol {{ 8021q, 8021ad }} @ll,112,16 & 0x0fff == 0 counter drop",
)

Isolated = tuple[str, list[str]]
"""A host veth and the addresses of the pod behind it."""


def table(bridge: str) -> str:
    """Return the name of a bridge's table."""
    return TABLES + short_digest(bridge)


def text(bridge: str, pods: "Sequence[Isolated]") -> str:
    """Return the input for `nft -f` that isolates these pods of a bridge, in addition to those that already are."""
    name = f"bridge {table(bridge)}"
    lines = [
        f"add table {name}",
        f"add set {name} {_PORTS} {{ type ifname; }}",
        f"add set {name} {_PODS[4]} {{ type ipv4_addr; }}",
        f"add set {name} {_PODS[16]} {{ type ipv6_addr; }}",
        f"add chain {name} {_CHAIN} {{ type filter hook prerouting priority {_PRIORITY}; policy accept; }}",
        f"flush chain {name} {_CHAIN}",
        *(f'add rule {name} {_CHAIN} {rule} comment "cnictl:portIsolation"' for rule in _RULES),
    ]
    for host_veth, addresses in pods:
        mark = f'comment "{_mark(host_veth)}"'
        lines.append(f'add element {name} {_PORTS} {{ "{host_veth}" {mark} }}')
        sets = ((_PODS[len(parse_address(address))], address) for address in addresses)
        lines += [f"add element {name} {pods} {{ {address} {mark} }}" for pods, address in sets]
    return "\n".join([*lines, ""])


def check(bridge: str, backend: str) -> None:
    """Raise CniError 2 if neither nft nor iptables can isolate a pod. Changes nothing."""
    pod = ("cnictl-check", ["192.0.2.1"])
    if backend == "nft":
        try:
            run(["nft", "-c", "-f", "-"], text(bridge, [pod]))
            return
        except ProgramError:
            pass  # iptables may work, as in `ensure`
    try:
        run(["iptables", "-w", "-t", "mangle", "-S"])
    except ProgramError as error:
        error.code = UNSUPPORTED_FIELD
        error.message = f"portIsolation: neither nft nor iptables can be used: {error.message}"
        raise


def ensure(bridge: str, interface: str, pod: Isolated, others: "Sequence[Isolated]", backend: str) -> None:
    """Isolate a pod. `others`: the pods that are already isolated on the bridge, in case their rules were flushed.

    `interface`: where the pods' packets enter the node's routing, the bridge or a VLAN's gateway. `backend`: `nft` or
    `iptables`; iptables is also used if the kernel lacks what nft needs. Raises CniError 2 if neither works, 106 with
    the program's message.
    """
    if backend == "nft":
        lost = [] if table(bridge) in nftables.tables(FAMILY_BRIDGE) else others
        try:
            run(["nft", "-f", "-"], text(bridge, [pod, *lost]), purpose="portIsolation")
            return
        except ProgramError as error:
            if not error.unsupported:
                raise
    from cnictl.core import isolation_iptables

    try:
        isolation_iptables.ensure(interface, pod, others)
    except MissingProgram as error:
        raise CniError(
            UNSUPPORTED_FIELD,
            f"portIsolation: neither nft nor iptables can isolate pods from each other on the node: {error.message}",
            "install nftables (with CONFIG_NF_TABLES_BRIDGE) or iptables, or remove portIsolation",
        ) from None


def is_loaded(bridge: str, interface: str, pod: Isolated) -> bool:
    """Return whether a pod is isolated as `ensure` does it."""
    host_veth, addresses = pod
    name = table(bridge)
    if nftables.has_element(FAMILY_BRIDGE, name, _PORTS, nftables.ifname_key(host_veth)):
        packed = map(parse_address, addresses)
        return len(nftables.rules(FAMILY_BRIDGE, name, _CHAIN)) == len(_RULES) and all(
            nftables.has_element(FAMILY_BRIDGE, name, _PODS[len(address)], address) for address in packed
        )
    from cnictl.core import isolation_iptables

    return isolation_iptables.is_loaded(interface, pod)


def remove(host_veth: str, recorded: bool = True) -> None:
    """Remove a pod's isolation. Also removes the table after the last pod. A missing table is not an error.

    Raises CniError 106.

    `recorded`: whether the pod is known to be isolated; if not, iptables is not searched.
    """
    mark = f"{_mark(host_veth)}\0".encode()
    removed = False
    for name in _tables():
        for set_name in _SETS:
            for key, userdata in nftables.elements(FAMILY_BRIDGE, name, set_name):
                if mark in userdata:
                    nftables.remove_element(FAMILY_BRIDGE, name, set_name, key)
                    removed = True
        if removed:
            nftables.remove_table_of_sets(FAMILY_BRIDGE, name, _CHAIN, _SETS)
    if recorded and not removed:
        from cnictl.core import isolation_iptables

        isolation_iptables.remove(host_veth)


def isolated() -> list[str]:
    """Return the host veths of all bridges that nftables isolates."""
    return [
        key.rstrip(b"\0").decode("utf-8", "replace")
        for name in _tables()
        for key, _ in nftables.elements(FAMILY_BRIDGE, name, _PORTS)
    ]


def remove_others(links: "Container[str]", everything: bool = False) -> None:
    """Remove the isolation of pods whose host veth is no longer among the host's `links`. Raises CniError 106.

    `everything`: search iptables too, as at a reset.
    """
    for host_veth in isolated():
        if host_veth not in links:
            remove(host_veth, recorded=False)
    if everything:
        from cnictl.core import isolation_iptables

        isolation_iptables.remove_others(links)


def _tables() -> list[str]:
    return [name for name in nftables.tables(FAMILY_BRIDGE) if name.startswith(TABLES)]


def _mark(host_veth: str) -> str:
    return f"cnictl:{host_veth}"
