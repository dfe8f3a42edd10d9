"""GC: undo every attachment of this network that the runtime no longer knows. Spec 1.1.0, section 2."""

from cnictl.core import attachments, host_veth, isolation, liveness, macspoof
from cnictl.core.attachments import Record
from cnictl.core.conf.netconf import NetConf
from cnictl.core.detach import detach, torn_leases
from cnictl.core.errors import INVALID_CONFIG, TRY_AGAIN, CniError
from cnictl.core.leases.lease_store import Store
from cnictl.core.leases.shared_store import may_be_shared
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import Netlink, NetlinkError
from cnictl.core.unlinking import unlink

from .environment import Call, calling_process


def collect(call: Call, conf: NetConf) -> None:
    """Undo the attachments that are not in the list of valid ones.

    The list contains only the calling runtime's attachments, so another runtime's are undone only if they are stale.
    Also left alone are running ADDs, other networks, and leases without a record in a store that other nodes use: they
    may belong to those nodes' pods. A failure doesn't stop the others; CniError 11 names all of them at the end. Raises
    CniError 7 if the list is missing, because that doesn't mean that no attachment is valid.
    """
    if conf.valid_attachments is None:
        raise CniError(
            INVALID_CONFIG,
            "cni.dev/valid-attachments: missing; GC removes what is not in it",
            "the runtime has to give the list, an empty one if no attachment is valid",
        )
    valid = set(conf.valid_attachments)
    # a lease from before host-local 0.8, and so its record, names no interface
    valid |= {(container, "") for container, _ in valid}
    store = Store(conf.name, conf.data_dir)
    store.ensure_claimed()
    failures = []
    with Netlink() as host:
        for record in attachments.all_records(conf.name):
            owner = (record.container, record.ifname)
            if owner in valid or attachments.in_flight(record):
                continue
            if _is_anothers(record, host):
                valid.add(owner)
                continue
            try:
                _undo(host, call, conf, record)
            except (CniError, NetlinkError, OSError) as error:
                failures.append(f"{record.container} {record.ifname}: {error}")
        _release_unnamed(store, conf, valid)
        _delete_unrecorded_veths(host, conf, valid)
    if conf.ipam_type and not conf.served:
        from . import delegate

        delegate.collect(call, conf, {attachment for attachment in valid if attachment[1]})
    if failures:
        from cnictl.core.counted import counted

        message = f"{counted(len(failures), 'attachment')} could not be undone"
        raise CniError(TRY_AGAIN, message, "; ".join(failures))


def _is_anothers(record: Record, host: Netlink) -> bool:
    """Return whether the attachment may be live and belongs to another runtime or another node."""
    if not record.host_veth and record.complete and may_be_shared(record.data_dir):
        return True  # an earlier cnictl wrote records for other nodes' leases
    caller = calling_process()
    if not record.runtime or not caller or record.runtime == caller:
        return False
    return liveness.judge(record, host).state != liveness.STALE


def _undo(host: Netlink, call: Call, conf: NetConf, record: Record) -> None:
    """Have the IPAM plugin free the addresses, then detach; that happens even if the IPAM plugin fails."""
    failure = None
    if record.ipam and record.ipam == conf.ipam_type:
        from . import delegate

        try:
            delegate.forget(call, conf, record)
        except CniError as error:
            failure = error

    def remove_foreign(record: Record) -> None:
        from cnictl.core.foreign_pair import remove_pair

        remove_pair(host, record, bridge=conf.bridge)

    detach(host, conf.name, record.container, record.ifname, conf.data_dir, before_release=remove_foreign)
    if failure is not None:
        raise failure


def _release_unnamed(store: Store, conf: NetConf, valid: set[tuple[str, str]]) -> None:
    """Free torn leases and leases whose record is lost, unless other nodes use the store.

    The leases are read before the records, because an ADD writes its record before it takes its lease.
    """
    store.clear_unfinished()
    if store.shared:
        return
    for address in torn_leases(conf.name, conf.data_dir):
        store.release_torn(address)
    leases = list(store.all())
    named = {address for record in attachments.all_records(conf.name) for address in record.addresses}
    for lease in leases:
        if lease.address not in named and lease.container and (lease.container, lease.ifname) not in valid:
            store.release(lease.address, lease.container, lease.ifname)


def _delete_unrecorded_veths(host: Netlink, conf: NetConf, valid: set[tuple[str, str]]) -> None:
    """Delete host veths with this network's alias that no record names, and rules that guard a missing port.

    The links are listed before the records, because an ADD writes its record before it makes its link.
    """
    mark = f"cnictl:{conf.name}/"
    unrecorded = [link for link in rtnetlink.all_links(host) if link.kind == "veth" and link.alias.startswith(mark)]
    known = attachments.host_veths(conf.name) if unrecorded else set()
    unrecorded = [link for link in unrecorded if link.name not in known]
    for container, ifname in valid if unrecorded else ():
        known.update(host_veth.all_names(conf.name, container, ifname))
    for link in unrecorded:
        if link.name not in known:
            unlink(host, link.name)
    macspoof.remove_others(_Links(host))
    isolation.remove_others(_Links(host))


class _Links:
    """The host's links, each looked up when needed: a running ADD may add a link and its rules at any time."""

    def __init__(self, host: Netlink) -> None:
        self._host = host

    def __contains__(self, name: object) -> bool:
        return rtnetlink.get_link(self._host, str(name)) is not None
