"""A link's deletion that its caller needn't wait for to the very end.

The kernel answers RTM_DELLINK only when it may free the link's memory, 12 ms and more after the link left its namespace
with its addresses, its routes and its place on a bridge (net/core/dev.c, netdev_run_todo: an RCU barrier, once the lock
that guards every link is free again). So a process of its own asks, and ends that much later than its caller, wherever
somebody is known to collect it then.
"""

import time
from posix import WNOHANG, _exit, closerange, fork, waitpid

from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import Netlink
from cnictl.core.reaper import collects

_POLL = 0.0002
"""Seconds between questions: one asked while the deletion is at work is answered when the link is gone."""

_DESCRIPTORS = 1024
"""Those below are closed in the asking process: a runtime waits for the end of stdout, other calls for a lock."""

_left: list[int] = []
"""Children that were still at work when their link was gone: the next deletion collects them."""


def unlink(netlink: Netlink, name: str, seen: bool = False) -> bool:
    """Delete a link and return once it is gone (a veth's other end goes with it); False if there was none.

    `netlink` is of the network namespace that the caller is in, and the link. `seen`: the caller has just looked at it.
    Raises OSError if the link stays.
    """
    if not seen and rtnetlink.get_link(netlink, name) is None:
        return False
    _left[:] = [child for child in _left if not _ended(child)]
    if not collects():
        return rtnetlink.delete_link(netlink, name)
    try:
        child = fork()
    except OSError:  # no more processes in this control group
        return rtnetlink.delete_link(netlink, name)
    if child == 0:
        _ask_and_exit(name)
    while rtnetlink.get_link(netlink, name) is not None:
        if _ended(child):
            return rtnetlink.delete_link(netlink, name)  # it was refused or killed: the reason is raised here
        time.sleep(_POLL)
    _left.append(child)
    return True


def _ask_and_exit(name: str) -> None:
    try:
        closerange(0, _DESCRIPTORS)
        with Netlink() as own:
            rtnetlink.delete_link(own, name)
    finally:
        _exit(0)


def _ended(child: int) -> bool:
    try:
        return waitpid(child, WNOHANG)[0] != 0
    except ChildProcessError:  # whoever called us ignores SIGCHLD, and so do we
        return True
