"""Collect what `cnictl ipam show` shows about one address or attachment."""

from typing import Any

from cnictl.core.attachments import Record
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import Netlink
from cnictl.core.netns import identity
from cnictl.node.addresses.lease_list import Listing, Row


def details(listing: Listing, row: Row) -> dict[str, Any]:
    """Return one address as JSON values: its lease, record, link and namespace as they are now."""
    shown: dict[str, Any] = {"network": listing.network, **row.as_json()}
    shown["lease"] = f"{listing.data_dir}/{listing.network}/{row.address}" if shown.pop("leased") else None
    shown["record"] = row.record.path if shown.pop("recorded") and row.record else None
    if row.record is not None:
        shown["complete"] = row.record.complete
        shown["mac"] = row.record.mac
        shown["pod_uid"] = row.record.pod_uid
        shown["runtime"] = row.record.runtime
        if row.record.ipam:
            shown["ipam"] = row.record.ipam
    if row.host_veth:
        shown["host_veth"] = _describe_link(row.host_veth)
        if row.record is not None and row.record.host_veth:
            shown["host_veth"]["bridge_intended"] = row.record.bridge
            shown["netns"] = _describe_netns(row.record)
    return shown


def _describe_link(name: str) -> dict[str, Any]:
    with Netlink() as host:
        links = {link.index: link for link in rtnetlink.all_links(host)}
    link = next((link for link in links.values() if link.name == name), None)
    if link is None:
        return {"name": name, "present": False}
    master = links.get(link.master)
    return {
        "name": link.name,
        "present": True,
        "up": link.up,
        "mac": link.mac,
        "mtu": link.mtu,
        "bridge": master.name if master else "",
    }


def _describe_netns(record: Record) -> dict[str, Any]:
    now = identity(record.netns)
    then = (record.netns_dev, record.netns_ino)
    verdict = "gone" if now is None else "the same" if now == then else "another namespace now"
    return {"path": record.netns, "device": then[0], "inode": then[1], "now": verdict}
