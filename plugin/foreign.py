"""DEL of an attachment that this plugin didn't make, or lost the record of: found by what DEL was given."""

from cnictl.core import rtnetlink
from cnictl.core.attachments import Record
from cnictl.core.cidr import AddressError, parse_address
from cnictl.core.conf import NetConf
from cnictl.core.detach import detach
from cnictl.core.errors import CniError
from cnictl.core.leases import Store
from cnictl.core.netns import Netns
from cnictl.core.other_end import OtherEnds, veth_ports
from cnictl.core.reference_rules import remove_reference_rules
from cnictl.core.rtnetlink import Link, Netlink
from cnictl.core.unlinking import unlink

from .environment import Call

_LINK_LOCAL = b"\xfe\x80"


def remove_foreign(host: Netlink, call: Call, conf: NetConf, record: Record | None) -> Record | None:
    """Remove its lease, its veth pair and the reference plugin's masquerade rules.

    `record` is of its lease, if any; returned is it, or that of a lease from before leases named an interface.
    """
    if record is None:
        # as host-local finds it: before its 0.8 a lease said the container alone
        record = detach(host, conf.name, call.container, "", conf.data_dir)
    if record is None:
        _release_promised(call, conf)
    pair = _pair(host, call, conf, record.addresses if record is not None else [])
    if pair:
        unlink(host, pair)
    if record is not None or pair:
        remove_reference_rules(conf.name, call.container, call.ifname)
    return record


def _release_promised(call: Call, conf: NetConf) -> None:
    """The lease of an attachment whose record was lost: prevResult says where to look, the lease itself whose it is."""
    listed = (conf.prev_result or {}).get("ips")
    store = Store(conf.name, conf.data_dir)
    for entry in listed if isinstance(listed, list) else []:  # whatever it is, DEL goes on
        address = str(entry.get("address")).partition("/")[0] if isinstance(entry, dict) else ""
        try:
            parse_address(address)
        except AddressError:
            continue
        store.release(address, call.container, call.ifname)


def _pair(host: Netlink, call: Call, conf: NetConf, leased: list[str]) -> str:
    """Host end of the pair that another plugin made before this one took its network over, or empty.

    Only a veth on this network's bridge: the interface may be another network's, whose name made our ADD fail. It is
    told by prevResult, by the pod's interface, or by the `leased` address that its other end has.
    """
    bridge = rtnetlink.get_link(host, conf.bridge)
    if bridge is None:
        return ""
    ports = veth_ports(host, bridge)
    listed = (conf.prev_result or {}).get("interfaces")
    for entry in listed if isinstance(listed, list) else []:
        if isinstance(entry, dict) and not entry.get("sandbox"):
            for port, _ in ports.values():
                if (port.name, port.mac) == (entry.get("name"), entry.get("mac")):
                    return port.name
    theirs = {index: one for index, one in ports.items() if not one[0].alias.startswith("cnictl:")}
    held = {parse_address(address) for address in leased}
    return (call.netns and _by_namespace(call, theirs, held)) or _by_address(theirs, held)


def _by_namespace(call: Call, ports: dict[int, tuple[Link, bytes]], leased: set[bytes]) -> str:
    """The other end of the pod's interface, unless that has another's address: the path may name another pod by now."""
    try:
        netns = Netns(call.netns)
    except CniError:
        return ""  # the namespace is gone, and the pair with it
    if netns.ours:
        return ""
    here = Netns("/proc/self/ns/net")
    netns.enter()
    pod = Netlink()
    here.enter()  # what is run after this has to find the host's rules
    with pod:
        link = rtnetlink.get_link(pod, call.ifname)
        if link is None or link.kind != "veth" or link.peer not in ports:
            return ""
        present = {packed for packed, _ in rtnetlink.addresses(pod, link.index) if packed[:2] != _LINK_LOCAL}
    if leased and present and not leased & present:
        return ""
    return ports[link.peer][0].name


def _by_address(ports: dict[int, tuple[Link, bytes]], leased: set[bytes]) -> str:
    """The port whose other end has an address that this container held the lease of: nobody else's pod has it."""
    if not leased:
        return ""
    try:
        asking = OtherEnds()
    except OSError:
        return ""  # before Linux 4.20 nothing tells; the link goes with its namespace
    with asking:
        for port, namespace in ports.values():
            # without a namespace its other end is in the host's own
            if namespace and leased & asking.addresses(port, namespace):
                return port.name
    return ""
