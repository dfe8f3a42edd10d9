"""DEL: what ADD made is gone when it returns, whatever else is gone already. Spec 1.1.0, section 2."""

from cnictl.core import rtnetlink
from cnictl.core.conf import NetConf
from cnictl.core.detach import detach
from cnictl.core.errors import CniError
from cnictl.core.netns import Netns
from cnictl.core.rtnetlink import Netlink

from .environment import Call


def delete(call: Call, conf: NetConf) -> str:
    """Detach the container; nothing there is no error. Returns the address that was freed, for the log."""
    with Netlink() as host:
        record = detach(host, conf.name, call.container, call.ifname, conf.data_dir)
        if record is None or not record.host_veth:
            _delete_foreign(host, call, conf)
    return " ".join(record.addresses) if record is not None else ""


def _delete_foreign(host: Netlink, call: Call, conf: NetConf) -> None:
    """An attachment that another plugin made before this one took its network over: found by what DEL was given.

    Only a veth on this network's bridge: the interface may be another network's, whose name made our ADD fail.
    """
    bridge = rtnetlink.get_link(host, conf.bridge)
    if bridge is None:
        return
    ports = {link.index: link for link in rtnetlink.all_links(host) if link.master == bridge.index}
    listed = (conf.prev_result or {}).get("interfaces")
    for entry in listed if isinstance(listed, list) else []:  # whatever it is, DEL goes on
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
