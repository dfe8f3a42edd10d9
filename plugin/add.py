"""ADD: make a pod's interface with its addresses and routes, completely or not at all. Spec 1.1.0, section 2."""

from posix import close

from cnictl.core import attachments, jsontext
from cnictl.core.conf.netconf import NetConf
from cnictl.core.errors import INVALID_ENVIRONMENT, CniError
from cnictl.core.leases.pool import distribute
from cnictl.core.locks import Locked
from cnictl.core.netlink.rtnetlink import Netlink
from cnictl.core.netns import Netns

from .answer import previous
from .attempt import AddUnderway, Attempt, wanted_addresses
from .environment import Call
from .existing import refuse_second

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def add(call: Call, conf: NetConf, publish: "Callable[[str], None]", lock: Locked) -> str:
    """Attach the container and pass the result to `publish`. Returns the addresses, for the log.

    `lock` is the node's lock, held shared. If this raises CniError, everything that this call made is undone.
    """
    netns = Netns(call.netns)
    if netns.ours:
        raise CniError(INVALID_ENVIRONMENT, f"CNI_NETNS {call.netns!r}: it is the host's own namespace")
    # refuse unavailable addresses and a malformed prevResult before anything is made
    if conf.served:
        distribute(conf.sets, wanted_addresses(call, conf))
    previous(conf)
    with Netlink() as host:
        for may_retry in (True, False):
            refuse_second(host, call, conf, netns)
            attempt = Attempt(host, call, conf, netns)
            try:
                result = attempt.make()
                attachments.mark_complete(attempt.held)
                publish(jsontext.dumps(result))
                break
            except BaseException as cause:
                try:
                    attempt.undo(lock)
                except (CniError, OSError) as leftover:  # the record stays for the runtime's DEL, or for GC
                    if isinstance(cause, CniError):
                        cause.hint = "; ".join(filter(None, (cause.hint, f"not undone: {leftover}")))
                    raise cause from None
                if may_retry and isinstance(cause, AddUnderway):  # wait for that ADD, and judge its attachment
                    continue
                if isinstance(cause, (CniError, OSError)):
                    from . import needs  # only a failed ADD needs it

                    raise needs.explained(host, conf, cause) from None
                raise
        close(attempt.held)
        return " ".join(attempt.record.addresses)
