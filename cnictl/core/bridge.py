"""The one maker of a node's bridge: `cnictl bridge up` and the plugin's ADD both call it."""

import errno
from posix import O_CLOEXEC, O_WRONLY, access, close, urandom, write
from posix import open as open_descriptor

from cnictl.core import rtnetlink
from cnictl.core.cidr import Cidr, format_address
from cnictl.core.errors import BRIDGE_CONFLICT, KERNEL_REFUSED, CniError
from cnictl.core.rtnetlink import Link, Netlink, NetlinkError, attr, ifinfo, text_attr, u32_attr

DEFAULT_MTU = 1500


class BridgeMade:
    """A bridge that is as it should be, and what of it is this call's doing."""

    __slots__ = ("addressed", "index", "mac", "made", "mtu", "name")

    def __init__(self, link: Link, made: bool, addressed: bool) -> None:
        self.name = link.name
        self.index = link.index
        self.mac = link.mac
        self.mtu = link.mtu
        self.made = made
        """Whether this call created the link."""
        self.addressed = addressed
        """Whether this call gave it its address."""


def ensure_bridge(
    netlink: Netlink,
    name: str,
    gateway: Cidr | None,
    mtu: int = 0,
    owner: str = "",
    nf_call: bool | None = None,
) -> BridgeMade:
    """Make the bridge if there is none, bring it up and give it `gateway` (address with the subnet's prefix).

    `mtu` in bytes and `nf_call` (bridged packets pass iptables; default: where br_netfilter is present) hold for a
    bridge made here; `owner` is its alias. One that exists and has the right address is taken as it is.
    Raises CniError 105 if `name` is no bridge or has another IPv4 address, 103 if the kernel refuses.
    """
    link = rtnetlink.get_link(netlink, name)
    made = False
    if link is None:
        made = _create(netlink, name, mtu or DEFAULT_MTU, owner, has_bridge_netfilter() if nf_call is None else nf_call)
        link = rtnetlink.get_link(netlink, name)
        if link is None:
            raise CniError(KERNEL_REFUSED, f"bridge {name}: removed by another process while it was set up")
    if link.kind != "bridge":
        raise CniError(BRIDGE_CONFLICT, f"{name} exists and is no bridge but a {link.kind or 'physical'} link")
    try:
        addressed = gateway is not None and _ensure_address(netlink, link, gateway)
        if not link.up:
            netlink.call(rtnetlink.set_up(link.index))
    except CniError:
        if made:
            remove_if_empty(netlink, name)
        raise
    return BridgeMade(link, made, addressed)


def remove_if_empty(netlink: Netlink, name: str) -> bool:
    """Delete a bridge that has no port; whether it was."""
    link = rtnetlink.get_link(netlink, name)
    if link is None or any(other.master == link.index for other in rtnetlink.all_links(netlink)):
        return False
    return rtnetlink.delete_link(netlink, name)


def has_bridge_netfilter() -> bool:
    """Whether br_netfilter is there, so that bridged packets can be shown to iptables."""
    return access("/proc/sys/net/bridge", 0)


def _create(netlink: Netlink, name: str, mtu: int, owner: str, nf_call: bool) -> bool:
    # a MAC given at creation stays (addr_assign_type 3); else the bridge takes that of its lowest port
    mac = bytes((urandom(1)[0] & 0xFC | 0x02,)) + urandom(5)
    data = attr(rtnetlink.IFLA_BR_NF_CALL_IPTABLES, b"\1") if nf_call else b""
    info = text_attr(rtnetlink.IFLA_INFO_KIND, "bridge") + attr(rtnetlink.IFLA_INFO_DATA | rtnetlink.NESTED, data)
    body = (
        ifinfo(0, rtnetlink.IFF_UP, rtnetlink.IFF_UP)
        + text_attr(rtnetlink.IFLA_IFNAME, name)
        + attr(rtnetlink.IFLA_ADDRESS, mac)
        + attr(rtnetlink.IFLA_LINKINFO | rtnetlink.NESTED, info)
    )
    by_name = ifinfo() + text_attr(rtnetlink.IFLA_IFNAME, name)
    messages = [(rtnetlink.RTM_NEWLINK, rtnetlink.NLM_F_CREATE | rtnetlink.NLM_F_EXCL, body)]
    # only a change pins the MTU: one given at creation still follows the smallest port
    messages.append((rtnetlink.RTM_NEWLINK, 0, by_name + u32_attr(rtnetlink.IFLA_MTU, mtu - 1)))
    messages.append((rtnetlink.RTM_NEWLINK, 0, by_name + u32_attr(rtnetlink.IFLA_MTU, mtu)))
    if owner:
        messages.append(rtnetlink.set_alias(name, owner))
    try:
        netlink.call(*messages)
    except NetlinkError as error:
        if error.errno == errno.EEXIST:
            return False  # another ADD was first
        if error.position:
            rtnetlink.delete_link(netlink, name)
        raise CniError(KERNEL_REFUSED, f"bridge {name}: {error.strerror}") from None
    _write_sysctl(f"/proc/sys/net/ipv6/conf/{name}/accept_ra", b"0")
    return True


def _ensure_address(netlink: Netlink, link: Link, gateway: Cidr) -> bool:
    family = rtnetlink.AF_INET if gateway.bits == 32 else rtnetlink.AF_INET6
    present = rtnetlink.addresses(netlink, link.index, family)
    if (gateway.packed, gateway.prefix) in present:
        return False
    for packed, prefix in present:
        if gateway.bits == 32 or gateway.overlaps(Cidr(packed, prefix)):
            raise CniError(
                BRIDGE_CONFLICT,
                f"bridge {link.name} has the address {format_address(packed)}/{prefix}, not {gateway}",
                f"if nothing uses it: ip address del {format_address(packed)}/{prefix} dev {link.name}",
            )
    try:
        netlink.call(rtnetlink.add_address(link.index, gateway.packed, gateway.prefix))
    except NetlinkError as error:
        if error.errno == errno.EEXIST:
            return False
        raise CniError(KERNEL_REFUSED, f"bridge {link.name}: address {gateway}: {error.strerror}") from None
    return True


def _write_sysctl(path: str, value: bytes) -> None:
    """Best effort: a kernel without IPv6 has no such file."""
    try:
        descriptor = open_descriptor(path, O_WRONLY | O_CLOEXEC)
    except OSError:
        return
    try:
        write(descriptor, value)
    finally:
        close(descriptor)
