"""Delete a link without waiting for the kernel to free its memory.

The kernel answers RTM_DELLINK at least 12 ms after the link has left its namespace, with its addresses, its routes and
its place on a bridge: it waits for an RCU barrier before it frees the memory (net/core/dev.c, netdev_run_todo). So a
child process sends the request and outlives its parent by that time, unless nobody would collect it then.
"""

import time
from posix import WNOHANG, _exit, closerange, fork, waitpid

from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import Netlink
from cnictl.core.reaper import collects

_POLL = 0.0002
"""Seconds between queries; one that is sent during the deletion is answered when the link is gone."""

_DESCRIPTORS = 1024
"""The child closes all descriptors below this: a runtime waits for the end of stdout, other calls for a lock."""

_left: list[int] = []
"""Children that were still running when their link was gone; the next deletion collects them."""


def unlink(netlink: Netlink, name: str, seen: bool = False) -> bool:
    """Delete a link, with a veth's other end, and return once it is gone; return False if there was none.

    Caller, `netlink` and link are in the same network namespace. `seen`: the caller knows that the link is there.
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
            return rtnetlink.delete_link(netlink, name)  # the child was refused or killed: this raises the reason
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
    except ChildProcessError:  # our caller ignores SIGCHLD, and we inherit that
        return True
