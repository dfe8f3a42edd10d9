"""What an ADD finds of the same attachment: one that stands is refused, what one that died left is cleared away."""

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
    """One attachment a container and interface; what an ADD that died left behind is cleared away first.

    Another call that is at work on it is waited for: a DEL's link may outlive it, and the runtime ADDs at once.
    Raises CniError 11 past a bound, 102 if the attachment stands.
    """
    deadline = time.monotonic() + SEIZE_WAIT
    while True:
        record = attachments.read(conf.name, call.container, call.ifname)
        if record is None:
            return

        def is_dead(found: Record) -> bool:
            judged = liveness.judge_settled(found, host).state
            return judged == liveness.STALE or not (found.host_veth or _in_container(netns, call.ifname))

        verdict = liveness.judge(record, host)
        if verdict.state != liveness.IN_FLIGHT and is_dead(record):
            if record.ipam and record.ipam == conf.ipam_type:
                from . import delegate

                delegate.forget(call, conf, record)
            detach(host, conf.name, call.container, call.ifname, conf.data_dir, still=is_dead, pod=call.pod)
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
            f"{call.container} {call.ifname} is attached to {conf.name} already: {where}",
            "the runtime has to DEL this attachment before it may ADD it again",
        )


def _in_container(netns: Netns, ifname: str) -> bool:
    """Whether the container has the interface; if not, a lease of host-local's for it is an ADD's that was cut off."""
    with Inside(netns), Netlink() as pod:
        return rtnetlink.get_link(pod, ifname) is not None
