"""DEL: remove what ADD made, even if some of it is already gone. Spec 1.1.0, section 2."""

from cnictl.core.attachments import Record
from cnictl.core.conf.netconf import NetConf
from cnictl.core.detach import detach
from cnictl.core.errors import CniError
from cnictl.core.netlink.rtnetlink import Netlink

from .environment import Call


def delete(call: Call, conf: NetConf) -> str:
    """Detach the container; a missing attachment is not an error. Returns the freed addresses, for the log.

    An IPAM plugin is run first, because dhcp releases its lease through the pod's interface. Its CniError is raised
    after the rest is done.
    """
    failure = _release_delegated(call, conf) if conf.ipam_type and not conf.served else None
    with Netlink() as host:

        def remove_foreign(record: Record) -> None:
            from .unrecorded import remove_foreign_pair  # a plain DEL doesn't need it

            remove_foreign_pair(host, call, conf, record)

        attachment = (conf.name, call.container, call.ifname, conf.data_dir)
        record = detach(host, *attachment, before_release=remove_foreign, pod=call.pod, netns=call.netns)
        if record is None:
            from .unrecorded import delete_unrecorded

            record = delete_unrecorded(host, call, conf)
    if failure is not None:
        raise failure
    return " ".join(record.addresses) if record is not None else ""


def _release_delegated(call: Call, conf: NetConf) -> CniError | None:
    from . import delegate

    try:
        delegate.delete(call, conf)
    except CniError as error:
        return error
    return None
