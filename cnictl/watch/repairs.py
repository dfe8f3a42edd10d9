"""How often each thing was put back, when the next time is, and when a fight is given up. Pure, but for its file."""

import json
import os
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from cnictl.core import durable
from cnictl.core.paths import RUN_DIR, WATCH_FILE

FIGHT = 5
"""Repairs of one thing within `WINDOW`, after which it is another program's will, and left to people."""
WINDOW = 60.0
"""Seconds."""
CALM = 300.0
"""Seconds that a thing given up has to stay as it should be, before it is looked after again."""
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
    """The account of one run of `cnictl watch`. Times are of a clock that only goes on, in seconds."""

    def __init__(self) -> None:
        self._things: dict[str, _Thing] = {}
        self.passes = 0
        """Looks at the node so far."""

    def due(self, resource: str, now: float) -> float:
        """Seconds until this may be put back; 0 or below: at once. Infinite where the fight was given up."""
        thing = self._things.get(resource)
        if thing is None or not thing.times:
            return 0.0
        if thing.given_up:
            return float("inf")
        recent = sum(now - repaired_at < WINDOW for repaired_at in thing.times)
        return thing.times[-1] + _FIRST_PAUSE * 2 ** (recent - 2) - now if recent >= 2 else 0.0

    def note(self, resource: str, now: float, cause: str) -> bool:
        """Count a repair; whether it was one too many within the window, so that the fight is given up from here."""
        thing = self._things.setdefault(resource, _Thing())
        thing.times.append(now)
        thing.count += 1
        thing.cause = cause or thing.cause
        if len(thing.times) == FIGHT and now - thing.times[0] < WINDOW:
            thing.given_up = True
            thing.right_since = 0.0
        return thing.given_up

    def seen(self, wrong: set[str], now: float) -> None:
        """What a look found wrong: a thing given up that stays right for long is looked after again."""
        self.passes += 1
        for resource, thing in self._things.items():
            if resource in wrong:
                thing.right_since = 0.0
            elif thing.given_up:
                thing.right_since = thing.right_since or now
                if now - thing.right_since >= CALM:
                    self.forgive(resource)

    def forgive(self, resource: str = "") -> None:
        """Look after it again, or after everything: a person said so."""
        for name, thing in self._things.items():
            if resource in ("", name):
                thing.given_up = False
                thing.times.clear()

    def cause(self, resource: str) -> str:
        """Who took it away, as far as was seen; empty if nothing told."""
        thing = self._things.get(resource)
        return thing.cause if thing is not None else ""

    def as_data(self) -> dict[str, Any]:
        """For the state file."""
        return {
            "pid": os.getpid(),
            "looks": self.passes,
            "repairs": {name: thing.count for name, thing in self._things.items()},
            "given_up": {name: thing.cause for name, thing in self._things.items() if thing.given_up},
        }

    def save(self) -> None:
        """Put it where others read it. Raises OSError."""
        durable.make_folder(RUN_DIR)
        durable.replace(WATCH_FILE, json.dumps(self.as_data()).encode() + b"\n", 0o644)


def saved() -> dict[str, Any] | None:
    """What a `cnictl watch` that runs says of itself; None if none does."""
    try:
        state = json.loads(durable.contents(WATCH_FILE))
        os.kill(int(state["pid"]), 0)
    except (FileNotFoundError, ValueError, LookupError, TypeError, ProcessLookupError):
        return None
    except PermissionError:
        pass  # it is root's, and we are not
    return dict(state)
