"""GC: every attachment of this network that the runtime no longer knows is undone. Spec 1.1.0, section 2."""

from cnictl.core import attachments, rtnetlink
from cnictl.core.conf import NetConf
from cnictl.core.detach import detach, torn_leases
from cnictl.core.digest import host_veth_name
from cnictl.core.errors import INVALID_CONFIG, TRY_AGAIN, CniError
from cnictl.core.leases import Store
from cnictl.core.rtnetlink import Netlink, NetlinkError


def collect(conf: NetConf) -> None:
    """Undo what is not among the valid attachments; an ADD in flight and other networks are left alone.

    Works through all of them, then raises the first CniError, if any. Raises CniError 7 if no list was given:
    'none said' is not 'none valid'.
    """
    if conf.valid_attachments is None:
        raise CniError(
            INVALID_CONFIG,
            "cni.dev/valid-attachments: missing; GC frees what is not in it",
            "the runtime gives the list, empty if no attachment is valid",
        )
    valid = set(conf.valid_attachments)
    store = Store(conf.name, conf.data_dir)
    store.ensure_claimed()
    failures = []
    with Netlink() as host:
        for record in attachments.all_records(conf.name):
            if (record.container, record.ifname) in valid or attachments.in_flight(record):
                continue
            try:
                detach(host, conf.name, record.container, record.ifname, conf.data_dir)
            except (CniError, NetlinkError, OSError) as error:
                failures.append(f"{record.container} {record.ifname}: {error}")
        _release_unnamed(store, conf, valid)
        _delete_strays(host, conf, valid)
    if failures:
        raise CniError(TRY_AGAIN, f"{len(failures)} attachments could not be undone", "; ".join(failures))


def _release_unnamed(store: Store, conf: NetConf, valid: set[tuple[str, str]]) -> None:
    """Torn leases, and those whose record was lost.

    The leases are looked at first: an ADD in flight writes its record before it takes its lease.
    """
    for address in torn_leases(conf.name, conf.data_dir):
        store.release_torn(address)
    leases = list(store.all())
    named = {address for record in attachments.all_records(conf.name) for address in record.addresses}
    for lease in leases:
        if lease.address not in named and lease.container and (lease.container, lease.ifname) not in valid:
            store.release(lease.address, lease.container, lease.ifname)


def _delete_strays(host: Netlink, conf: NetConf, valid: set[tuple[str, str]]) -> None:
    """Host veths of this network that no record names: their alias says whose they are.

    The links are looked at first: an ADD in flight writes its record before it makes its link.
    """
    links = rtnetlink.all_links(host)
    known = {host_veth_name(conf.name, container, ifname) for container, ifname in valid}
    known |= {record.host_veth for record in attachments.all_records(conf.name)}
    for link in links:
        if link.kind == "veth" and link.alias.startswith(f"cnictl:{conf.name}/") and link.name not in known:
            rtnetlink.delete_link(host, link.name)
