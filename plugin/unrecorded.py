"""DEL of an attachment that has no record, because another plugin made it or the record is lost."""

from cnictl.core.attachments import Record
from cnictl.core.cidr import AddressError, parse_address
from cnictl.core.conf.netconf import NetConf
from cnictl.core.detach import detach
from cnictl.core.foreign_pair import remove_pair
from cnictl.core.leases.lease_store import Store
from cnictl.core.netlink.rtnetlink import Netlink

from .environment import Call


def delete_unrecorded(host: Netlink, call: Call, conf: NetConf) -> Record | None:
    """Undo an attachment that has no record.

    If it has an old-style lease without an interface name (host-local before 0.8), return a record built from that
    lease; else None.
    """

    def before(record: Record) -> None:
        remove_foreign_pair(host, call, conf, record)

    record = detach(host, conf.name, call.container, "", conf.data_dir, before_release=before)
    if record is None:
        _release_promised(call, conf)
        before(Record(conf.name, call.container, call.ifname))
    return record


def remove_foreign_pair(host: Netlink, call: Call, conf: NetConf, record: Record) -> None:
    """Remove the veth pair and the masquerade rules that the reference plugin made for the container.

    `record` has the container's leased addresses. A link that only a prevResult names is left alone: prevResult is as
    old as the ADD, and another link may have the name by now.
    """
    attachment = Record(conf.name, call.container, call.ifname)
    attachment.addresses, attachment.data_dir = record.addresses, conf.data_dir
    remove_pair(host, attachment, call.netns, conf.bridge)


def _release_promised(call: Call, conf: NetConf) -> None:
    """Free the leases of an attachment whose record is lost: prevResult gives the addresses, the lease the owner."""
    listed = (conf.prev_result or {}).get("ips")
    store = Store(conf.name, conf.data_dir)
    for entry in listed if isinstance(listed, list) else []:  # DEL continues even if it is malformed
        address = str(entry.get("address")).partition("/")[0] if isinstance(entry, dict) else ""
        try:
            parse_address(address)
        except AddressError:
            continue
        store.release(address, call.container, call.ifname)
