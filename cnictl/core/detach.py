"""Undo an attachment, for DEL, GC, a failed ADD, `ipam release` and `reset-node --force`."""

from posix import F_OK, access, close

from cnictl.core import attachments, host_veth
from cnictl.core.attachments import Record
from cnictl.core.leases.lease_store import Store
from cnictl.core.netlink.rtnetlink import Netlink
from cnictl.core.paths import BRIDGES_DIR, NETWORKS_DIR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SEIZE_WAIT = 20.0
"""Seconds to wait for another call that works on the same attachment."""


def detach(
    netlink: Netlink,
    network: str,
    container: str,
    ifname: str,
    data_dir: str = NETWORKS_DIR,
    locked_record: int = -1,
    proceed_if: "Callable[[Record], bool] | None" = None,
    before_release: "Callable[[Record], None] | None" = None,
    pod: str = "",
    netns: str = "",
) -> Record | None:
    """Remove an attachment's veth pair, its leases and its record; what is missing is not an error.

    A link is removed only if it is proven to be this attachment's (`core.host_veth`). The record is removed last, so
    that an interrupted undo can be repeated. `locked_record`: the record's descriptor if the caller has locked it.
    `proceed_if` is called once the record is locked; if it returns False, nothing is done. `before_release` is called
    before the leases are freed if the record names no link, because another plugin may have made a link. `pod` and
    `netns` are the pod's name and its namespace's path as the runtime gives them, needed if the record is lost.
    Returns the record that was undone, or None. Raises CniError 11, NetlinkError, OSError.
    """
    descriptor = locked_record if locked_record >= 0 else attachments.seize(network, container, ifname, SEIZE_WAIT)
    if descriptor < 0:
        Store(network, data_dir).ensure_claimed((container, ifname))
        descriptor = attachments.seize(network, container, ifname, SEIZE_WAIT)
    try:
        record = attachments.read(network, container, ifname)
        if record is not None and proceed_if is not None and not proceed_if(record):
            return None
        if record is not None and record.host_veth:
            ours = host_veth.remove_recorded(netlink, record)
            _release(record, data_dir)
            if record.mac_check and ours:
                from cnictl.core import macspoof  # few configurations need it

                macspoof.remove((record.host_veth,))
            if record.isolated and ours:
                from cnictl.core import isolation  # few configurations need it

                isolation.remove(record.host_veth)
        else:
            known = record or Record(network, container, ifname)
            if not known.pod:
                known.pod_namespace, _, known.pod_name = pod.rpartition("/")
            names = host_veth.remove_unrecorded(netlink, known, netns)
            if record is not None and before_release is not None:
                before_release(record)
            # a link without a record: the record is lost, so its leases have to be searched for
            if known.host_veth or record is not None:
                _release(known, data_dir)
            from cnictl.core import isolation, macspoof

            macspoof.remove(names)
            for name in names:
                isolation.remove(name, recorded=False)
        if record is not None:
            _remove_record(record)
        if access(BRIDGES_DIR, F_OK):
            from cnictl.core import bridge_notes  # only on a node with an adopted bridge

            bridge_notes.settle(netlink)
        return record
    finally:
        if descriptor >= 0:
            close(descriptor)


def detach_stale(netlink: Netlink, network: str, data_dir: str = NETWORKS_DIR) -> list[Record]:
    """Undo every attachment of a network that is proven stale; return their records."""
    from cnictl.core import liveness
    from cnictl.core.foreign_links import ForeignLinks

    freed, foreign = [], ForeignLinks(netlink)
    for record in attachments.all_records(network):
        if liveness.judge(record, netlink, foreign).state == liveness.STALE:
            undone = detach(
                netlink, network, record.container, record.ifname, record.data_dir or data_dir, proceed_if=_is_stale
            )
            if undone is not None:
                freed.append(undone)
    return freed


def torn_leases(network: str, data_dir: str = NETWORKS_DIR) -> list[str]:
    """Return the addresses whose lease names no owner and that no record names: a power cut left them empty.

    In a store that other nodes use there are none: one of them may be about to write the owner. The leases are read
    before the records, because an ADD writes its record before it takes its lease.
    """
    store = Store(network, data_dir)
    torn = [lease.address for lease in store.all() if not lease.container]
    if torn and store.shared:
        return []
    named = {address for record in attachments.all_records(network) for address in record.addresses} if torn else set()
    return [address for address in torn if address not in named]


def _is_stale(record: Record) -> bool:
    """Return whether an attachment is stale, judged again under the record's lock."""
    from cnictl.core import liveness

    return liveness.judge_settled(record).state == liveness.STALE


def _remove_record(record: Record) -> None:
    if record.masqueraded:
        from cnictl.core.masquerade.scoped import remove_with_record  # a plain DEL doesn't need it

        remove_with_record(record)
    else:
        attachments.remove(record.network, record.container, record.ifname)


def _release(record: Record, data_dir: str) -> None:
    store = Store(record.network, record.data_dir or data_dir)
    if record.addresses:
        store.release_all(record.addresses, record.container, record.ifname)
    else:  # the record is torn or lost; the leases still name their owner
        for lease in store.all():
            if (lease.container, lease.ifname) == (record.container, record.ifname):
                store.release(lease.address, record.container, record.ifname)
