"""Count the repairs of each resource, and decide when to repair again and when to give up. Pure but for its file."""

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
"""Seconds."""
CALM = 300.0
"""Seconds that a resource has to stay right before watch repairs it again after giving up."""
_FIRST_PAUSE = 0.5
"""Seconds before the third repair in a row; doubled for each further one."""


@dataclass
class _Thing:
    times: deque[float] = field(default_factory=lambda: deque(maxlen=FIGHT))
    count: int = 0
    cause: str = ""
    given_up: bool = False
    right_since: float = 0.0


class Repairs:
    """The repairs of one run of `cnictl watch`. Times are in seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._things: dict[str, _Thing] = {}
        self.passes = 0
        """The number of looks at the node so far."""

    def due(self, resource: str, now: float) -> float:
        """Return the seconds until this may be repaired; 0 or less: at once; infinite after giving up."""
        thing = self._things.get(resource)
        if thing is None or not thing.times:
            return 0.0
        if thing.given_up:
            return float("inf")
        recent = sum(now - repaired_at < WINDOW for repaired_at in thing.times)
        return thing.times[-1] + _FIRST_PAUSE * 2 ** (recent - 2) - now if recent >= 2 else 0.0

    def note(self, resource: str, now: float, cause: str) -> bool:
        """Count a repair; return whether it was one too many within the window, so that watch gives up."""
        thing = self._things.setdefault(resource, _Thing())
        thing.times.append(now)
        thing.count += 1
        thing.cause = cause or thing.cause
        if len(thing.times) == FIGHT and now - thing.times[0] < WINDOW:
            thing.given_up = True
            thing.right_since = 0.0
        return thing.given_up

    def seen(self, wrong: set[str], now: float) -> None:
        """Note which resources a look found wrong. One that was given up and stays right is repaired again."""
        self.passes += 1
        for resource, thing in self._things.items():
            if resource in wrong:
                thing.right_since = 0.0
            elif thing.given_up:
                thing.right_since = thing.right_since or now
                if now - thing.right_since >= CALM:
                    self.forgive(resource)

    def forgive(self, resource: str = "") -> None:
        """Repair this resource again after giving up, or all of them."""
        for name, thing in self._things.items():
            if resource in ("", name):
                thing.given_up = False
                thing.times.clear()

    def as_data(self) -> dict[str, Any]:
        """Return the content of the state file."""
        return {
            "pid": os.getpid(),
            "looks": self.passes,
            "repairs": {name: thing.count for name, thing in self._things.items()},
            "given_up": {name: thing.cause for name, thing in self._things.items() if thing.given_up},
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
