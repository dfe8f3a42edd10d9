"""Wait for a condition, up to a time limit. Every test waits this way."""

import time
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")


def wait_for(look: Callable[[], Answer], what: str, bound: float = 10.0) -> Answer:
    """Call `look` until its answer is true, and return that answer.

    Raises AssertionError, which names `what`, after `bound` seconds.
    """
    end = time.monotonic() + bound
    while not (answer := look()):
        assert time.monotonic() < end, f"not within {bound:g} s: {what}"
        time.sleep(0.01)
    return answer
