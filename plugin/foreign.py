"""DEL of an attachment that this plugin didn't make, or lost the record of: found by what DEL was given."""

from cnictl.core import rtnetlink
from cnictl.core.attachments import Record
from cnictl.core.cidr import AddressError, parse_address
from cnictl.core.conf import NetConf
from cnictl.core.errors import CniError
from cnictl.core.leases import Store
from cnictl.core.netns import Netns
from cnictl.core.reference_rules import remove_reference_rules
from cnictl.core.rtnetlink import Netlink

from .environment import Call


def remove_foreign(host: Netlink, call: Call, conf: NetConf, record: Record | None) -> None:
    """Remove its lease, its veth pair and the reference plugin's masquerade rules; `record` is of its lease, if any."""
    if record is None:
        _release_promised(call, conf)
    _delete_veth(host, call, conf)
    if record is not None:
        remove_reference_rules(conf.name, call.container, call.ifname)


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


def _delete_veth(host: Netlink, call: Call, conf: NetConf) -> None:
    """The pair of an attachment that another plugin made before this one took its network over.

    Only a veth on this network's bridge: the interface may be another network's, whose name made our ADD fail.
    """
    bridge = rtnetlink.get_link(host, conf.bridge)
    if bridge is None:
        return
    ports = {link.index: link for link in rtnetlink.all_links(host) if link.master == bridge.index}
    listed = (conf.prev_result or {}).get("interfaces")
    for entry in listed if isinstance(listed, list) else []:
        if isinstance(entry, dict) and not entry.get("sandbox"):
            for port in ports.values():
                if port.kind == "veth" and (port.name, port.mac) == (entry.get("name"), entry.get("mac")):
                    rtnetlink.delete_link(host, port.name)
                    return
    if not call.netns:
        return
    try:
        netns = Netns(call.netns)
    except CniError:
        return  # the namespace is gone, and the pair with it
    if netns.ours:
        return
    netns.enter()
    with Netlink() as pod:
        link = rtnetlink.get_link(pod, call.ifname)
    if link is not None and link.kind == "veth":
        host_end = ports.get(link.peer)
        if host_end is not None and not host_end.alias.startswith("cnictl:"):
            rtnetlink.delete_link(host, host_end.name)
