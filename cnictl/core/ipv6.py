"""IPv6 on one interface: the kernel settings that it depends on, and duplicate address detection.

Sources: Documentation/networking/ip-sysctl.rst, net/ipv6/addrconf.c, RFC 4862 section 5.4.
"""

import time

from cnictl.core import sysctl
from cnictl.core.cidr import format_address
from cnictl.core.errors import ADDRESS_CONFLICT, KERNEL_REFUSED, UNSUPPORTED_FIELD, CniError
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.messages import AF_INET6, Netlink, NetlinkError, attr, attributes
from cnictl.core.netlink.rtnetlink import IFADDR, RTMSG, U32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cnictl.core.bridge_notes import Note

SETTLE_WAIT = 5.0
"""Seconds that duplicate address detection may take: up to 1 s before the first probe, and 1 s for each probe."""

_RTN_LOCAL = 2
_IFA_FLAGS = 8
_TENTATIVE, _DADFAILED = 0x40, 0x08


def allow(name: str, wanted: str, note: "Note | None" = None) -> tuple[str, str] | None:
    """Enable IPv6 on the link `name` if the namespace's default disables it, as many runtimes do.

    `wanted` is the address that the link is about to get, for the message. `note`: where the change is noted first.
    Returns the kernel setting and its old value if it was changed.
    Raises CniError 2 on a kernel without IPv6, 103 if the setting can't be changed.
    """
    setting = f"net/ipv6/conf/{name}/disable_ipv6"
    value = sysctl.read(setting)
    if not value:
        raise CniError(UNSUPPORTED_FIELD, f"address {wanted}: this kernel has no IPv6", "use IPv4 addresses only")
    if value == "0":
        return None
    if note is not None:
        note.setting(setting, value, "0")
    if not sysctl.put(setting, "0"):
        raise CniError(KERNEL_REFUSED, f"address {wanted}: {setting} is {value} and can't be set to 0")
    return setting, value


def prepare_pod(name: str, wanted: str, dad: bool) -> None:
    """Prepare the pod's interface, which is still down, for an IPv6 address. Raises as `allow`."""
    allow(name, wanted)
    if sysctl.read("net/ipv6/conf/lo/disable_ipv6") != "0":
        sysctl.put("net/ipv6/conf/lo/disable_ipv6", "0")
    base = f"net/ipv6/conf/{name}"
    if dad:
        sysctl.put(f"{base}/enhanced_dad", "1")
    sysctl.put(f"{base}/keep_addr_on_down", "1")
    sysctl.put(f"{base}/ndisc_notify", "1")


def await_local(netlink: Netlink, addresses: "Iterable[bytes]") -> None:
    """Wait until the namespace accepts packets to these addresses, which it already has.

    The kernel adds an address's local route later than the address, even without duplicate address detection
    (addrconf_dad_work). Packets that arrive in between, such as a neighbour's first answer, are dropped. This takes
    milliseconds at most. Raises CniError 103 past `SETTLE_WAIT`.
    """
    deadline = time.monotonic() + SETTLE_WAIT
    for address in addresses:
        while not _is_local(netlink, address):
            if time.monotonic() > deadline:
                raise CniError(
                    KERNEL_REFUSED, f"{format_address(address)} is not a local address after {SETTLE_WAIT:g} s"
                )
            time.sleep(0.0002)


def _is_local(netlink: Netlink, address: bytes) -> bool:
    request = RTMSG.pack(AF_INET6, 128, 0, 0, 0, 0, 0, 0, 0) + attr(rtnetlink.RTA_DST, address)
    try:
        kind: int = RTMSG.unpack_from(netlink.dump(rtnetlink.RTM_GETROUTE, request, flags=0)[0])[7]
    except NetlinkError:
        return False  # no route there at all
    return kind == _RTN_LOCAL


def settle(netlink: Netlink, index: int, name: str) -> None:
    """Wait until duplicate address detection has finished for all of a link's addresses.

    Raises CniError 101 naming an address that another host on the link has, 103 past `SETTLE_WAIT`.
    """
    deadline = time.monotonic() + SETTLE_WAIT
    while True:
        tentative = ""
        for payload in netlink.dump(rtnetlink.RTM_GETADDR, IFADDR.pack(AF_INET6, 0, 0, 0, 0)):
            _, _, flags, _, owner = IFADDR.unpack_from(payload)
            if owner != index:
                continue
            parts = attributes(payload, 8)
            if _IFA_FLAGS in parts:
                flags = U32.unpack(parts[_IFA_FLAGS])[0]
            address = format_address(parts[rtnetlink.IFA_ADDRESS])
            if flags & _DADFAILED:
                raise CniError(ADDRESS_CONFLICT, f"{name}: {address} is already in use by another host on the link")
            if flags & _TENTATIVE:
                tentative = address
        if not tentative:
            return
        if time.monotonic() > deadline:
            raise CniError(KERNEL_REFUSED, f"{name}: {tentative} is still tentative after {SETTLE_WAIT:g} s")
        time.sleep(0.01)
