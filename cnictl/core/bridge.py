"""Make and configure a node's bridge, for `cnictl bridge up` and for the plugin's ADD."""

import errno
from posix import access

from cnictl.core import sysctl
from cnictl.core.cidr import Cidr, format_address
from cnictl.core.errors import BRIDGE_CONFLICT, KERNEL_REFUSED, CniError
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import OWNER_MARK, Link, Netlink, NetlinkError, attr, ifinfo, text_attr, u32_attr

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cnictl.core.bridge_notes import Note

DEFAULT_MTU = 1500

_GATEWAY_MAC = b"\x0e\x63"
"""First bytes of a bridge's MAC: locally administered, unicast (IEEE 802). The gateway's address follows."""


class BridgeMade:
    """A bridge that is set up, and what this call changed to get it there."""

    __slots__ = ("addressed", "index", "mac", "made", "mtu", "name", "note", "ours", "switched", "undo_messages")

    def __init__(self, link: Link, made: bool) -> None:
        self.name = link.name
        self.index = link.index
        self.mac = link.mac
        self.mtu = link.mtu
        self.made = made
        """Whether this call created the link."""
        self.ours = made or link.alias.startswith(OWNER_MARK)
        """Whether cnictl created the link; if not, the bridge is adopted."""
        self.note: Note | None = None
        """Records changes of an adopted bridge before they are made. None: the caller records them, or nobody does."""
        self.addressed = False
        """Whether this call added an address."""
        self.undo_messages: list[tuple[int, int, bytes]] = []
        """The messages that undo changes of the bridge and of links that belong to it, in the order of the changes."""
        self.switched: list[tuple[str, str]] = []
        """The changed kernel settings of the bridge, with their old values, in the order of the changes."""

    def changing(self, undo: tuple[int, int, bytes], of_node: bool = False) -> None:
        """Note the message that undoes a change of an adopted bridge that is about to be made.

        `of_node`: the node file, if there is one, is responsible for that kind of change.
        """
        if self.note is not None and (self.note.whole or not of_node):
            self.note.message(undo)

    def undo(self, netlink: Netlink) -> None:
        """Undo the changes, last one first. A bridge that this call created stays."""
        netlink.refusals(*reversed(self.undo_messages))
        self.undo_messages.clear()
        for switch, old in reversed(self.switched):
            sysctl.put(switch, old)
        self.switched.clear()
        if self.note is not None:
            self.note.withdraw()


def ensure_bridge(
    netlink: Netlink,
    name: str,
    gateway: Cidr | None = None,
    mtu: int = 0,
    owner: str = "",
    nf_call: bool | None = None,
    noting: bool | None = None,
    mac: bytes = b"",
) -> BridgeMade:
    """Create the bridge if it is missing, bring it up and give it `gateway` (address with the subnet's prefix).

    `mtu` in bytes, `mac` (default: a random one), `nf_call` (whether bridged packets pass iptables; default: if
    br_netfilter is loaded) and `owner` (the alias) apply only to a bridge that is created here. An existing bridge with
    the right address is used unchanged. `noting`: note the changes of an adopted bridge, to be reverted with its last
    pod. If False, changes that the node file is responsible for are not noted; if None, no changes are.
    Raises CniError 105 if `name` is not a bridge or has another IPv4 address, 103 if the kernel refuses.
    """
    link = rtnetlink.get_link(netlink, name)
    made = False
    if link is None:
        hooked = has_bridge_netfilter() if nf_call is None else nf_call
        made = _create(netlink, name, mtu or DEFAULT_MTU, owner, hooked, mac or rtnetlink.random_mac())
        link = rtnetlink.get_link(netlink, name)
        if link is None:
            raise CniError(KERNEL_REFUSED, f"bridge {name}: removed by another process while it was set up")
    if link.kind != "bridge":
        raise CniError(BRIDGE_CONFLICT, f"{name} exists and is not a bridge but a {link.kind or 'physical'} link")
    bridge = BridgeMade(link, made)
    if noting is not None and not bridge.ours:
        from cnictl.core import bridge_notes

        bridge.note = bridge_notes.take(name, link.index, noting)
    try:
        if gateway is not None:
            give_addresses(netlink, bridge, link, (gateway,))
        if not link.up:
            if bridge.note is not None and bridge.note.whole:
                bridge.note.down()
            netlink.call(rtnetlink.set_up(link.index))
            bridge.undo_messages.append((rtnetlink.RTM_NEWLINK, 0, ifinfo(link.index, 0, rtnetlink.IFF_UP)))
    except CniError:
        if made:
            remove_if_empty(netlink, name)
        raise
    return bridge


def give_addresses(
    netlink: Netlink, bridge: BridgeMade, link: Link | BridgeMade, gateways: "Sequence[Cidr]", force: bool = False
) -> None:
    """Give the bridge, or a link that belongs to it, the gateways' addresses; `bridge` notes the changes.

    Another IPv4 address, or an IPv6 address whose subnet overlaps, is in the way: it is removed with `force`, else
    CniError 105 names it. Raises CniError 103 if the kernel refuses, 2 if it has no IPv6.
    """
    if not gateways:
        return
    family = rtnetlink.AF_INET if all(gateway.bits == 32 for gateway in gateways) else rtnetlink.AF_UNSPEC
    present = [Cidr(*address) for address in rtnetlink.addresses(netlink, link.index, family)]
    for gateway in gateways:
        if gateway in present:
            continue
        for other in present:
            if other not in gateways and _conflicts(other, gateway):
                if not force:
                    raise CniError(
                        BRIDGE_CONFLICT,
                        f"bridge {link.name} has the address {other}, not {gateway}",
                        f"if nothing uses it: ip address del {other} dev {link.name}; or set forceAddress",
                    )
                _take(netlink, bridge, link, other)
        _give(netlink, bridge, link, gateway)
    if bridge.addressed and not bridge.made:
        # a bridge made without a MAC takes that of its lowest port; setting its present MAC keeps it
        netlink.call(rtnetlink.set_mac(link.name, rtnetlink.parse_mac(link.mac)))


def gateway_mac(gateways: "Sequence[Cidr]") -> bytes:
    """Return a MAC derived from the gateways' addresses; without gateways, a random one.

    A pod trusts the MAC of its gateway for up to 45 s (`base_reachable_time` in arp(7), times 1.5) and asks three times
    more before it looks for another. A bridge that was removed and is made again has the same MAC, so running pods
    reach it immediately.
    """
    if not gateways:
        return rtnetlink.random_mac()
    first = min(gateways, key=lambda gateway: (gateway.bits, gateway.packed))
    folded = bytes(4)
    for start in range(0, len(first.packed), 4):
        folded = bytes(a ^ b for a, b in zip(folded, first.packed[start : start + 4], strict=True))
    return _GATEWAY_MAC + folded


def remove_if_empty(netlink: Netlink, name: str) -> bool:
    """Delete a bridge if it has no port; return whether it was deleted."""
    link = rtnetlink.get_link(netlink, name)
    if link is None or any(other.master == link.index for other in rtnetlink.all_links(netlink)):
        return False
    return rtnetlink.delete_link(netlink, name)


def has_bridge_netfilter() -> bool:
    """Return whether br_netfilter is loaded, so that bridged packets can pass iptables."""
    return access("/proc/sys/net/bridge", 0)


def another_mtu(mtu: int) -> int:
    """Return `mtu` - 1 or + 1. It is not below the minimum (68, or 1280 for IPv6) unless `mtu` is."""
    return mtu - 1 if mtu >= DEFAULT_MTU else mtu + 1


def _create(netlink: Netlink, name: str, mtu: int, owner: str, nf_call: bool, mac: bytes) -> bool:
    # a MAC given at creation stays (addr_assign_type 3); without it the bridge takes that of its lowest port
    hooks = (rtnetlink.IFLA_BR_NF_CALL_IPTABLES, rtnetlink.IFLA_BR_NF_CALL_IP6TABLES) if nf_call else ()
    data = b"".join(attr(hook, b"\1") for hook in hooks)
    info = text_attr(rtnetlink.IFLA_INFO_KIND, "bridge") + attr(rtnetlink.IFLA_INFO_DATA | rtnetlink.NESTED, data)
    body = (
        ifinfo(0, rtnetlink.IFF_UP, rtnetlink.IFF_UP)
        + text_attr(rtnetlink.IFLA_IFNAME, name)
        + attr(rtnetlink.IFLA_ADDRESS, mac)
        + attr(rtnetlink.IFLA_LINKINFO | rtnetlink.NESTED, info)
    )
    by_name = ifinfo() + text_attr(rtnetlink.IFLA_IFNAME, name)
    messages = [(rtnetlink.RTM_NEWLINK, rtnetlink.NLM_F_CREATE | rtnetlink.NLM_F_EXCL, body)]
    # only a later change pins the MTU: a bridge created with one still follows its smallest port
    messages.append((rtnetlink.RTM_NEWLINK, 0, by_name + u32_attr(rtnetlink.IFLA_MTU, another_mtu(mtu))))
    messages.append((rtnetlink.RTM_NEWLINK, 0, by_name + u32_attr(rtnetlink.IFLA_MTU, mtu)))
    if owner:
        messages.append(rtnetlink.set_alias(name, owner))
    try:
        netlink.call(*messages)
    except NetlinkError as error:
        if error.errno == errno.EEXIST:
            return False  # another ADD created it first
        if error.position:
            rtnetlink.delete_link(netlink, name)
        raise CniError(KERNEL_REFUSED, f"bridge {name}: {error.strerror}") from None
    sysctl.put(f"net/ipv6/conf/{name}/accept_ra", "0")  # a pod must not become the node's router
    # its MAC is unique; detection would delay its link-local address, needed to resolve pods' MACs, by a second
    sysctl.put(f"net/ipv6/conf/{name}/accept_dad", "0")
    return True


def _conflicts(other: Cidr, gateway: Cidr) -> bool:
    """Return whether a present address excludes the gateway: any IPv4 one, or an IPv6 one whose subnet overlaps."""
    if other.bits != gateway.bits:
        return False
    return gateway.bits == 32 or (gateway.overlaps(other) and other.packed[:2] != b"\xfe\x80")


def _take(netlink: Netlink, bridge: BridgeMade, link: Link | BridgeMade, other: Cidr) -> None:
    """Remove an address; with the last one of a family the kernel removes the link's routes, so note these too."""
    from cnictl.core.netlink import kernel_routes  # only forceAddress needs it

    family = rtnetlink.AF_INET if other.bits == 32 else rtnetlink.AF_INET6
    undo = [
        *kernel_routes.restoring(netlink, family, link.index),
        rtnetlink.add_address(link.index, other.packed, other.prefix),
    ]
    for message in undo:
        bridge.changing(message, of_node=True)
    if not netlink.refusals(rtnetlink.delete_address(link.index, other.packed, other.prefix)):
        bridge.undo_messages += undo


def _give(netlink: Netlink, bridge: BridgeMade, link: Link | BridgeMade, gateway: Cidr) -> None:
    if gateway.bits == 128:
        from cnictl.core import ipv6

        whole = bridge.note is not None and bridge.note.whole
        changed = ipv6.allow(link.name, format_address(gateway.packed), bridge.note if whole else None)
        if changed is not None:
            bridge.switched.append(changed)
    undo = rtnetlink.delete_address(link.index, gateway.packed, gateway.prefix)
    bridge.changing(undo, of_node=True)
    try:
        netlink.call(rtnetlink.add_address(link.index, gateway.packed, gateway.prefix))
    except NetlinkError as error:
        if error.errno != errno.EEXIST:
            raise CniError(KERNEL_REFUSED, f"bridge {link.name}: address {gateway}: {error.strerror}") from None
    else:
        bridge.addressed = True
        bridge.undo_messages.append(undo)
