"""Look for the same attachment before an ADD: refuse the ADD if it exists, undo what a dead ADD left of it."""

import time
from posix import close

from cnictl.core import attachments, liveness
from cnictl.core.attachments import Record
from cnictl.core.conf.netconf import NetConf
from cnictl.core.detach import SEIZE_WAIT, detach
from cnictl.core.errors import INTERFACE_EXISTS, CniError
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import Netlink
from cnictl.core.netns import Inside, Netns

from .environment import Call


def refuse_second(host: Netlink, call: Call, conf: NetConf, netns: Netns) -> None:
    """Raise CniError 102 if the attachment already exists; undo what a dead ADD left of it.

    Another call on the same attachment is waited for, because a runtime may ADD again while a DEL is still removing the
    link. Raises CniError 11 if that takes too long.
    """
    deadline = time.monotonic() + SEIZE_WAIT
    while True:
        record = attachments.read(conf.name, call.container, call.ifname)
        if record is None:
            return

        def is_dead(settled: Record) -> bool:
            state = liveness.judge_settled(settled, host).state
            return state == liveness.STALE or not (settled.host_veth or _in_container(netns, call.ifname))

        verdict = liveness.judge(record, host)
        if verdict.state != liveness.IN_FLIGHT and is_dead(record):
            if record.ipam and record.ipam == conf.ipam_type:
                from . import delegate

                delegate.forget(call, conf, record)
            detach(host, conf.name, call.container, call.ifname, conf.data_dir, proceed_if=is_dead, pod=call.pod)
            return
        if verdict.state == liveness.IN_FLIGHT:
            wait = max(0.0, deadline - time.monotonic())
            free = attachments.seize(conf.name, call.container, call.ifname, wait, shared=True)
            if free >= 0:
                close(free)
            continue
        where = " ".join(filter(None, (record.host_veth, *record.addresses)))
        raise CniError(
            INTERFACE_EXISTS,
            f"{call.container} {call.ifname} is already attached to {conf.name}: {where}",
            "the runtime must DEL this attachment before it can ADD it again",
        )


def _in_container(netns: Netns, ifname: str) -> bool:
    """Return whether the container has the interface; if not, host-local's lease for it is left from a dead ADD."""
    with Inside(netns), Netlink() as pod:
        return rtnetlink.get_link(pod, ifname) is not None
