"""DEL: what ADD made is gone when it returns, whatever else is gone already. Spec 1.1.0, section 2."""

from cnictl.core.conf import NetConf
from cnictl.core.detach import detach
from cnictl.core.rtnetlink import Netlink

from .environment import Call


def delete(call: Call, conf: NetConf) -> str:
    """Detach the container; nothing there is no error. Returns the address that was freed, for the log."""
    with Netlink() as host:
        record = detach(host, conf.name, call.container, call.ifname, conf.data_dir)
        if record is None or not record.host_veth:
            from .foreign import remove_foreign  # not what a DEL normally pays for

            remove_foreign(host, call, conf, record)
    return " ".join(record.addresses) if record is not None else ""
