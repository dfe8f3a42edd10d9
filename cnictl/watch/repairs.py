"""Count the repairs of each resource, and decide when to repair again and when to give up.

The only I/O is the state file.
"""

import json
import os
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from cnictl.core import durable
from cnictl.core.paths import RUN_DIR, WATCH_FILE

FIGHT = 5
"""Repairs of one resource within `WINDOW` after which watch gives up, because another program keeps changing it."""
WINDOW = 60.0
"""Seconds in which repairs of a resource are counted."""
CALM = 300.0
"""Seconds that a resource has to stay right before watch repairs it again after giving up."""
_FIRST_PAUSE = 0.5
"""Seconds before the third repair in a row; doubled for each further repair."""


@dataclass
class _Repaired:
    """The repairs of one resource."""

    times: deque[float] = field(default_factory=lambda: deque(maxlen=FIGHT))
    count: int = 0
    cause: str = ""
    given_up: bool = False
    right_since: float = 0.0


class Repairs:
    """The repairs of one run of `cnictl watch`. Times are in seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._resources: dict[str, _Repaired] = {}
        self.passes = 0
        """The number of checks of the node so far."""

    def due(self, resource: str, now: float) -> float:
        """Return the seconds until this may be repaired: 0 or less means now, infinity means it was given up."""
        repaired = self._resources.get(resource)
        if repaired is None or not repaired.times:
            return 0.0
        if repaired.given_up:
            return float("inf")
        recent = sum(now - repaired_at < WINDOW for repaired_at in repaired.times)
        return repaired.times[-1] + _FIRST_PAUSE * 2 ** (recent - 2) - now if recent >= 2 else 0.0

    def note(self, resource: str, now: float, cause: str) -> bool:
        """Count a repair; return whether watch gives up, because there were too many within the window."""
        repaired = self._resources.setdefault(resource, _Repaired())
        repaired.times.append(now)
        repaired.count += 1
        repaired.cause = cause or repaired.cause
        if len(repaired.times) == FIGHT and now - repaired.times[0] < WINDOW:
            repaired.given_up = True
            repaired.right_since = 0.0
        return repaired.given_up

    def seen(self, wrong: set[str], now: float) -> None:
        """Note which resources a check found wrong. Resume repairs of one that was given up and stays right."""
        self.passes += 1
        for resource, repaired in self._resources.items():
            if resource in wrong:
                repaired.right_since = 0.0
            elif repaired.given_up:
                repaired.right_since = repaired.right_since or now
                if now - repaired.right_since >= CALM:
                    self.forgive(resource)

    def forgive(self, resource: str = "") -> None:
        """Resume the repairs of this resource after giving up, or of all resources."""
        for name, repaired in self._resources.items():
            if resource in ("", name):
                repaired.given_up = False
                repaired.times.clear()

    def as_data(self) -> dict[str, Any]:
        """Return the content of the state file."""
        return {
            "pid": os.getpid(),
            "looks": self.passes,
            "repairs": {name: repaired.count for name, repaired in self._resources.items()},
            "given_up": {name: repaired.cause for name, repaired in self._resources.items() if repaired.given_up},
        }

    def save(self) -> None:
        """Write the state file. Raises OSError."""
        durable.make_folder(RUN_DIR)
        durable.replace(WATCH_FILE, json.dumps(self.as_data()).encode() + b"\n", 0o644)


def saved() -> dict[str, Any] | None:
    """Return the state of a running `cnictl watch`; None if none runs."""
    try:
        state = json.loads(durable.contents(WATCH_FILE))
        os.kill(int(state["pid"]), 0)
    except (FileNotFoundError, ValueError, LookupError, TypeError, ProcessLookupError):
        return None
    except PermissionError:
        pass  # it runs as root, and this process does not
    return dict(state)
