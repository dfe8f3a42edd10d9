"""Wait, with a limit, for one answer among all messages that a raw socket receives."""

import socket
import time
from collections.abc import Callable

_LONGEST = 256
"""Bytes read of a message; an ARP reply and a neighbour advertisement are shorter."""


def heard(asking: socket.socket, wanted: Callable[[bytes], bool], wait: float) -> bool:
    """Return whether a `wanted` message arrives within `wait` seconds. Raises OSError if the link disappears."""
    deadline = time.monotonic() + wait
    while (left := deadline - time.monotonic()) > 0:
        asking.settimeout(left)
        try:
            message = asking.recv(_LONGEST)
        except TimeoutError:
            return False
        if wanted(message):
            return True
    return False
