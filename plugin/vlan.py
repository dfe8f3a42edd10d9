"""VLANs of a bridge's ports, and a VLAN's gateway interface, for the keys `vlan` and `vlanTrunk`.

Loaded only if a configuration has them. Sources: linux/if_bridge.h, net/bridge/br_netlink.c, br_vlan.c; the keys mean
the same as in the reference bridge (containernetworking/plugins, plugins/main/bridge).
"""

import errno

from cnictl.core import advertisements, sysctl
from cnictl.core.bridge import BridgeMade
from cnictl.core.digest import former_host_veth_name
from cnictl.core.errors import INVALID_CONFIG, KERNEL_REFUSED, UNSUPPORTED_FIELD, CniError
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.messages import NESTED, Netlink, NetlinkError, attr, repeated, text_attr, u32_attr
from cnictl.core.netlink.rtnetlink import IFINFO, OWNER_MARK, Link

try:
    from _struct import Struct
except ImportError:
    from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cnictl.core.conf.netconf import NetConf

RTM_SETLINK = 19
AF_BRIDGE = 7
IFLA_EXT_MASK = 29
RTEXT_FILTER_BRVLAN_COMPRESSED = 4
IFLA_BR_VLAN_DEFAULT_PVID = 39
IFLA_BRIDGE_FLAGS, IFLA_BRIDGE_VLAN_INFO = 0, 2
BRIDGE_FLAGS_MASTER = 1
PVID, UNTAGGED, RANGE_BEGIN, RANGE_END = 0x02, 0x04, 0x08, 0x10  # BRIDGE_VLAN_INFO_*
DEFAULT_VLAN = 1
"""The initial VLAN of a filtering bridge's ports, and the one that the reference gives a trunk without `vlan`."""

_U16 = Struct("=H")
_VLAN = Struct("=HH")  # bridge_vlan_info: flags, id

Port = dict[int, int]
"""A port's VLANs: for each id its flags PVID and UNTAGGED."""


def key_and_value(conf: "NetConf") -> str:
    """Return the configuration's VLAN key and its value, for a message; empty if there is none."""
    if conf.vlan:
        return f"vlan: {conf.vlan}"
    if conf.vlan_trunk:
        return f"vlanTrunk: {_shown(conf.vlan_trunk)}"
    return ""


def ensure_filtering(netlink: Netlink, bridge: BridgeMade, subject: str) -> None:
    """Turn on the bridge's VLAN filtering. Raises CniError 2 naming `subject` if the kernel has none."""
    if _filters(netlink, bridge.name):
        return
    bridge.changing(_set_filtering(bridge.name, False))
    refused = netlink.refusals(_set_filtering(bridge.name, True))
    if not _filters(netlink, bridge.name):  # a kernel without it refuses or ignores the setting
        known = refused and refused[0].errno != errno.EOPNOTSUPP
        reason = refused[0].strerror if known else "this kernel's bridge has no VLAN filtering"
        raise CniError(
            UNSUPPORTED_FIELD,
            f"{subject}: {reason}",
            "use a kernel with CONFIG_BRIDGE_VLAN_FILTERING, or give each VLAN its own bridge",
        )
    bridge.undo_messages.append(_set_filtering(bridge.name, False))


def can_filter(netlink: Netlink, name: str) -> bool:
    """Return whether the kernel's bridge has VLAN filtering, without changing the bridge with that name.

    A kernel without VLAN filtering reports no default VLAN (br_netlink.c, br_fill_info). If there is no such bridge,
    one is created in a temporary network namespace. True if that isn't possible.
    """
    link = rtnetlink.get_link(netlink, name)
    if link is not None:
        return not link.settings or IFLA_BR_VLAN_DEFAULT_PVID in link.settings
    from cnictl.core import netns

    settings: dict[int, bytes] = {}
    try:
        with netns.Scratch(), Netlink() as scratch:
            info = attr(rtnetlink.IFLA_LINKINFO | NESTED, text_attr(rtnetlink.IFLA_INFO_KIND, "bridge"))
            body = rtnetlink.ifinfo() + text_attr(rtnetlink.IFLA_IFNAME, "br0") + info
            scratch.call((rtnetlink.RTM_NEWLINK, rtnetlink.NLM_F_CREATE | rtnetlink.NLM_F_EXCL, body))
            made = rtnetlink.get_link(scratch, "br0")
            settings = made.settings if made is not None else {}
    except (NetlinkError, OSError):
        return True
    return not settings or IFLA_BR_VLAN_DEFAULT_PVID in settings


def _filters(netlink: Netlink, name: str) -> bool:
    link = rtnetlink.get_link(netlink, name)
    return link is not None and link.settings.get(rtnetlink.IFLA_BR_VLAN_FILTERING, b"\0") != b"\0"


def wanted_port(conf: "NetConf") -> Port:
    """Return the VLANs that a pod's port must have, besides what `preserveDefaultVlan` keeps."""
    port = {vid: 0 for first, last in conf.vlan_trunk for vid in range(first, last + 1)}
    port[conf.vlan or DEFAULT_VLAN] = PVID | UNTAGGED
    return port


def set_port(netlink: Netlink, name: str, conf: "NetConf") -> None:
    """Set the VLANs of a pod's port. Raises CniError 103 naming them."""
    native = conf.vlan or DEFAULT_VLAN
    trunk = [(first, last, 0) for first, last in conf.vlan_trunk]
    _replace(netlink, name, [*_around(trunk, native), (native, native, PVID | UNTAGGED)], conf.keep_default_vlan)


def port_vlans(netlink: Netlink, index: int) -> Port:
    """Return the VLANs of the port with that index."""
    request = IFINFO.pack(AF_BRIDGE, 0, 0, 0, 0, 0) + u32_attr(IFLA_EXT_MASK, RTEXT_FILTER_BRVLAN_COMPRESSED)
    port: Port = {}
    for payload in netlink.dump(rtnetlink.RTM_GETLINK, request):
        if IFINFO.unpack_from(payload)[3] != index:
            continue
        for spec in repeated(payload, rtnetlink.IFLA_AF_SPEC, 16):
            first = 0
            for raw in repeated(spec, IFLA_BRIDGE_VLAN_INFO):
                flags, vid = _VLAN.unpack_from(raw)
                if flags & RANGE_BEGIN:
                    first = vid
                    continue
                for member in range(first if flags & RANGE_END else vid, vid + 1):
                    port[member] = flags & (PVID | UNTAGGED)
    return port


def gateway_name(bridge: str, vid: int) -> str:
    """Return the name of a VLAN's gateway interface. Raises CniError 7 if it would be too long."""
    name = f"{bridge}.{vid}"
    if len(name.encode("utf-8", "surrogateescape")) > 15:
        raise CniError(
            INVALID_CONFIG,
            f"vlan: {vid}: the gateway's interface {name} would have over 15 characters",
            "choose a shorter name for the bridge",
        )
    return name


def ensure_gateway(netlink: Netlink, bridge: BridgeMade, conf: "NetConf", owner: str) -> Link:
    """Make the interface BRIDGE.VLAN if it is missing, and bring it up; return its link. Raises CniError 7, 103.

    Its other end is a port of the bridge in that VLAN. An existing interface with that name is used, whatever its kind.
    `bridge` notes the changes.
    """
    name = gateway_name(bridge.name, conf.vlan)
    port = former_host_veth_name(owner, bridge.name, str(conf.vlan))
    subject = f"vlan: {conf.vlan}: interface {name}"
    try:
        if rtnetlink.get_link(netlink, name) is None:
            _make_gateway(netlink, bridge, name, port, owner)
        link = rtnetlink.get_link(netlink, name)
        if link is None:
            raise CniError(KERNEL_REFUSED, f"{subject}: removed by another process while it was set up")
        _guard_gateway(netlink, bridge, link, owner)
        ours = rtnetlink.get_link(netlink, port)
        if ours is not None:
            if ours.master != bridge.index:  # the bridge was created again meanwhile
                master = u32_attr(rtnetlink.IFLA_MASTER, bridge.index)
                netlink.call((rtnetlink.RTM_NEWLINK, 0, rtnetlink.ifinfo(ours.index) + master))
            untagged = [(conf.vlan, conf.vlan, PVID | UNTAGGED)]
            if port_vlans(netlink, ours.index).get(conf.vlan) != PVID | UNTAGGED:
                _replace(netlink, port, untagged, conf.keep_default_vlan)
        if not link.up:
            netlink.call(rtnetlink.set_up(link.index))
    except NetlinkError as error:
        raise CniError(KERNEL_REFUSED, f"{subject}: {error.strerror}") from None
    return link


def _make_gateway(netlink: Netlink, bridge: BridgeMade, name: str, port: str, owner: str) -> None:
    """Create the pair, the gateway's end still down; `bridge` notes it."""
    undo = (rtnetlink.RTM_DELLINK, 0, rtnetlink.ifinfo() + text_attr(rtnetlink.IFLA_IFNAME, port))
    bridge.changing(undo)
    pair = (port, rtnetlink.random_mac(), bridge.index, name, rtnetlink.random_mac(), -1, bridge.mtu)
    refused = netlink.refusals(rtnetlink.add_veth_pair(*pair))
    if refused:
        if refused[0].errno != errno.EEXIST:  # another ADD created it first
            raise refused[0]
        return
    bridge.undo_messages.append(undo)
    netlink.call(rtnetlink.set_alias(port, owner), rtnetlink.set_alias(name, owner))


def _guard_gateway(netlink: Netlink, bridge: BridgeMade, link: Link, owner: str) -> None:
    """Stop the gateway's interface from accepting router advertisements: a pod must not become the node's router.

    An interface that another tool made keeps accepting them if the node has learned a route through it. One of ours has
    a random MAC, so its link-local address, which it resolves pods' MACs from, needs no duplicate address detection.
    """
    ours = link.alias.startswith(OWNER_MARK)
    keeps = not ours and link.index in advertisements.learned(netlink)
    path = advertisements.switch(link.name)
    old = sysctl.read(path)
    value = advertisements.wanted(old, keeps, sysctl.read(sysctl.FORWARDING[16]) == "1")
    if value != old:
        if bridge.note is not None:
            bridge.note.setting(path, old, value)
        if sysctl.put(path, value) and not ours:
            bridge.switched.append((path, old))
    if link.alias == owner and not link.up:
        sysctl.put(f"net/ipv6/conf/{link.name}/accept_dad", "0")


def vlan_message(kind: int, index: int, spans: "Sequence[tuple[int, int, int]]") -> tuple[int, int, bytes]:
    """Return the message that adds (RTM_SETLINK) or removes (RTM_DELLINK) a port's VLANs: first, last, flags of each.

    The PVID must be in a separate span (br_vlan.c, br_process_vlan_info).
    """
    infos = attr(IFLA_BRIDGE_FLAGS, _U16.pack(BRIDGE_FLAGS_MASTER))
    for first, last, flags in spans:
        if first == last:
            infos += attr(IFLA_BRIDGE_VLAN_INFO, _VLAN.pack(flags, first))
        else:
            infos += attr(IFLA_BRIDGE_VLAN_INFO, _VLAN.pack(flags | RANGE_BEGIN, first))
            infos += attr(IFLA_BRIDGE_VLAN_INFO, _VLAN.pack(flags | RANGE_END, last))
    return kind, 0, IFINFO.pack(AF_BRIDGE, 0, 0, index, 0, 0) + attr(rtnetlink.IFLA_AF_SPEC | NESTED, infos)


def _replace(netlink: Netlink, name: str, spans: "list[tuple[int, int, int]]", keep: bool) -> None:
    link = rtnetlink.get_link(netlink, name)
    if link is None:
        raise CniError(KERNEL_REFUSED, f"{name}: removed by another process while it was set up")
    messages = []
    if not keep:
        leave = [(vid, vid, 0) for vid in port_vlans(netlink, link.index)]
        if leave:
            messages.append(vlan_message(rtnetlink.RTM_DELLINK, link.index, leave))
    messages.append(vlan_message(RTM_SETLINK, link.index, spans))
    try:
        netlink.call(*messages)
    except NetlinkError as error:
        shown = _shown([(first, last) for first, last, _ in spans])
        raise CniError(KERNEL_REFUSED, f"VLANs {shown} of {name}: {error.strerror}") from None


def _around(spans: "list[tuple[int, int, int]]", native: int) -> "list[tuple[int, int, int]]":
    """Return the spans without the native VLAN, which is untagged."""
    kept = []
    for first, last, flags in spans:
        if first <= native <= last:
            kept += [(low, high, flags) for low, high in ((first, native - 1), (native + 1, last)) if low <= high]
        else:
            kept.append((first, last, flags))
    return kept


def _shown(spans: "Sequence[tuple[int, int]]") -> str:
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)


def _set_filtering(name: str, on: bool) -> tuple[int, int, bytes]:
    data = attr(rtnetlink.IFLA_BR_VLAN_FILTERING, bytes((on,)))
    info = text_attr(rtnetlink.IFLA_INFO_KIND, "bridge") + attr(rtnetlink.IFLA_INFO_DATA | NESTED, data)
    body = rtnetlink.ifinfo() + text_attr(rtnetlink.IFLA_IFNAME, name)
    return rtnetlink.RTM_NEWLINK, 0, body + attr(rtnetlink.IFLA_LINKINFO | NESTED, info)
