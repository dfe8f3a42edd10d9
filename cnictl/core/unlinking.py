"""A link's deletion, with what follows it done while the kernel still frees memory.

The kernel answers RTM_DELLINK only after an RCU grace period, 12 ms and more, though the link has been gone from every
namespace since the first of them (net/core/dev.c, netdev_run_todo). So a thread of its own asks for it, and whoever has
leases to free sees that the link is gone, frees them, and waits for the answer last.
"""

import time
from _thread import allocate_lock, start_new_thread

from cnictl.core import rtnetlink
from cnictl.core.rtnetlink import Netlink

_POLL = 0.0002
"""Seconds between questions: one asked while the deletion is at work is answered when the link is gone."""


class Unlinking:
    """The deletion of one link, asked for over `netlink`, which nobody else may use until `finish`."""

    def __init__(self, netlink: Netlink, name: str) -> None:
        self._name = name
        self._was_there = False
        self._failure: OSError | None = None
        self._answered = allocate_lock()
        self._answered.acquire()
        try:
            start_new_thread(self._delete, (netlink,))
        except RuntimeError:  # no more threads in this control group
            self._delete(netlink)

    def _delete(self, netlink: Netlink) -> None:
        try:
            self._was_there = rtnetlink.delete_link(netlink, self._name)
        except OSError as error:
            self._failure = error
        finally:
            self._answered.release()

    def wait_until_gone(self) -> None:
        """Return once there is no such link (a veth's other end goes with it). Raises OSError if it stays.

        Called in the network namespace that the link is in.
        """
        with Netlink() as asking:
            while self._answered.locked() and rtnetlink.get_link(asking, self._name) is not None:
                time.sleep(_POLL)
        if self._failure is not None:
            raise self._failure

    def finish(self) -> bool:
        """Wait for the kernel's answer: whether the link was there. Raises OSError."""
        with self._answered:
            if self._failure is not None:
                raise self._failure
            return self._was_there
