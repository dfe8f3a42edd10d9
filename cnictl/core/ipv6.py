"""IPv6 on one interface: whether there is any, the switches it depends on, and duplicate address detection.

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

    from cnictl.core.adopted import Note

SETTLE_WAIT = 5.0
"""Seconds that duplicate address detection may take: a random start of up to 1 s, and 1 s a probe."""

_RTN_LOCAL = 2
_IFA_FLAGS = 8
_TENTATIVE, _DADFAILED = 0x40, 0x08


def allow(name: str, wanted: str, note: "Note | None" = None) -> tuple[str, str] | None:
    """Let the link `name` have IPv6 addresses where the namespace's default forbids it, as many runtimes set it.

    `wanted` is the address that is to come, for the message. Returns the switch and its former value if it was set.
    `note`: where that is noted ahead of it.
    Raises CniError 2 on a kernel without IPv6, 103 where the switch can't be set.
    """
    switch = f"net/ipv6/conf/{name}/disable_ipv6"
    state = sysctl.read(switch)
    if not state:
        raise CniError(UNSUPPORTED_FIELD, f"address {wanted}: this kernel has no IPv6", "give IPv4 addresses alone")
    if state == "0":
        return None
    if note is not None:
        note.setting(switch, state, "0")
    if not sysctl.put(switch, "0"):
        raise CniError(KERNEL_REFUSED, f"address {wanted}: {switch} is {state} and can't be set to 0")
    return switch, state


def prepare_pod(name: str, wanted: str, dad: bool) -> None:
    """Have the pod's interface, still down, ready for an IPv6 address. Raises as `allow`."""
    allow(name, wanted)
    if sysctl.read("net/ipv6/conf/lo/disable_ipv6") != "0":
        sysctl.put("net/ipv6/conf/lo/disable_ipv6", "0")
    base = f"net/ipv6/conf/{name}"
    if dad:
        sysctl.put(f"{base}/enhanced_dad", "1")
    sysctl.put(f"{base}/keep_addr_on_down", "1")
    sysctl.put(f"{base}/ndisc_notify", "1")


def await_local(netlink: Netlink, addresses: "Iterable[bytes]") -> None:
    """Return once the namespace takes packets to these addresses, that it has been given, for its own.

    The kernel puts the route that says so in place later than the address, also of one without duplicate address
    detection (addrconf_dad_work): what comes in between, such as the first answer of a neighbour, is dropped. It is a
    matter of milliseconds at most. Raises CniError 103 past `SETTLE_WAIT`.
    """
    deadline = time.monotonic() + SETTLE_WAIT
    for address in addresses:
        while not _is_local(netlink, address):
            if time.monotonic() > deadline:
                raise CniError(KERNEL_REFUSED, f"{format_address(address)} is no local address after {SETTLE_WAIT:g} s")
            time.sleep(0.0002)


def _is_local(netlink: Netlink, address: bytes) -> bool:
    request = RTMSG.pack(AF_INET6, 128, 0, 0, 0, 0, 0, 0, 0) + attr(rtnetlink.RTA_DST, address)
    try:
        kind: int = RTMSG.unpack_from(netlink.dump(rtnetlink.RTM_GETROUTE, request, flags=0)[0])[7]
    except NetlinkError:
        return False  # no route there at all
    return kind == _RTN_LOCAL


def settle(netlink: Netlink, index: int, name: str) -> None:
    """Return once duplicate address detection is through with all of a link's addresses.

    Raises CniError 101 naming an address that another on the link has, 103 past `SETTLE_WAIT`.
    """
    deadline = time.monotonic() + SETTLE_WAIT
    while True:
        tentative = ""
        for payload in netlink.dump(rtnetlink.RTM_GETADDR, IFADDR.pack(AF_INET6, 0, 0, 0, 0)):
            _, _, flags, _, owner = IFADDR.unpack_from(payload)
            if owner != index:
                continue
            found = attributes(payload, 8)
            if _IFA_FLAGS in found:
                flags = U32.unpack(found[_IFA_FLAGS])[0]
            address = format_address(found[rtnetlink.IFA_ADDRESS])
            if flags & _DADFAILED:
                raise CniError(ADDRESS_CONFLICT, f"{name}: {address} is in use by another on the link already")
            if flags & _TENTATIVE:
                tentative = address
        if not tentative:
            return
        if time.monotonic() > deadline:
            raise CniError(KERNEL_REFUSED, f"{name}: {tentative} is still tentative after {SETTLE_WAIT:g} s")
        time.sleep(0.01)
