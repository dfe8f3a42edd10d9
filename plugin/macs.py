"""Refuse a requested MAC that the bridge, one of its ports or another pod on it already has.

The bridge would take the pod's frames for its own, or send them to the wrong pod. Loaded only if a MAC is requested.
Source: net/bridge/br_fdb.c (the MACs of the bridge and of its ports are local entries).
"""

from cnictl.core import attachments, liveness
from cnictl.core.attachments import Record
from cnictl.core.errors import ADDRESS_CONFLICT, CniError
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.messages import Netlink
from cnictl.core.netlink.rtnetlink import Link
from cnictl.core.netlink.veth_peer import end_of, veth_ports


def refuse_taken(host: Netlink, bridge: str, record: Record, key: str) -> None:
    """Raise CniError 101 if `record`'s MAC is used on the bridge, naming the user.

    The record is already written, so that of two concurrent calls at least one sees the other. `key`: the key that
    requests the MAC.
    """
    holder = _holder(host, bridge, record)
    if holder:
        raise CniError(
            ADDRESS_CONFLICT,
            f"{key}: {record.mac} is already in use, as the MAC of {holder}",
            "request another MAC, or none to get a random one",
        )


def _holder(host: Netlink, name: str, record: Record) -> str:
    links = rtnetlink.all_links(host)
    bridge = next((link for link in links if link.name == name), None)
    if bridge is None:
        return ""
    for link in links:
        if link.mac == record.mac:
            if link.index == bridge.index:
                return f"bridge {name}"
            if link.master == bridge.index:
                return f"{link.name}, a port of bridge {name}"
            if link.name.startswith(f"{name}."):
                return f"{link.name}, the gateway in a VLAN of bridge {name}"
    return _on_a_port(host, bridge, record.mac) or _in_a_record(host, name, record)


def _on_a_port(host: Netlink, bridge: Link, mac: str) -> str:
    """Return who has the MAC behind a port, even if another plugin attached it or the MAC was changed later."""
    for port, _ in veth_ports(host, bridge).values():
        end = end_of(host, port)
        if end is not None and end.mac == mac:
            return f"the interface behind {port.name}{_shown(port.alias)}"
    return ""


def _in_a_record(host: Netlink, bridge: str, record: Record) -> str:
    """Return an attachment with the MAC that has no port: it is being made, or its port was taken off the bridge."""
    own = (record.network, record.container, record.ifname)
    for other in attachments.every_record():
        if (other.bridge, other.mac) != (bridge, record.mac) or (other.network, other.container, other.ifname) == own:
            continue
        if liveness.judge(other, host).state != liveness.STALE:
            return f"{other.pod or other.container} {other.ifname} on network {other.network}"
    return ""


def _shown(alias: str) -> str:
    return f" ({alias})" if alias else ""
