"""Waiting with a bound for one answer among all that a raw socket hears."""

import socket
import time
from collections.abc import Callable

_LONGEST = 256
"""Bytes of a message that are looked at: an ARP reply and a neighbour advertisement are shorter."""


def heard(asking: socket.socket, wanted: Callable[[bytes], bool], wait: float) -> bool:
    """Whether a message that is `wanted` arrives within `wait` seconds. Raises OSError if the link goes."""
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
