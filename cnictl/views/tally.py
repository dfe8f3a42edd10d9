"""The plugin's calls, counted from its log: totals that only grow, over rotations and reboots.

The plugin itself counts nothing: it is a process a call, and a counter would be one more file to lock and write. Each
reading goes on where the last one ended, and keeps place and totals together in one file, so that two readers at once
come to the same and a reader that is cut off loses nothing.
"""

import json
import os
from typing import Any

from cnictl.core import durable
from cnictl.core.digest import short_digest
from cnictl.core.paths import METRICS_FILE, STATE_DIR
from cnictl.node.host.plugin_log import LARGEST, open_part, parse

_LONGEST_LINE = 1 << 20

BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds of a call's duration, in seconds."""

Totals = dict[str, dict[str, Any]]
"""By `VERB outcome` (ok, error): `count`, `sum` in seconds, and `buckets`, each with all below its bound."""


def totals(path: str, keep: bool = True) -> Totals:
    """Of every call that was ever logged to `path`. Without `keep` (not root) only looks. Raises OSError."""
    state = _load()
    found: Totals = state["totals"]
    name, offset, before = state["log"], int(state["offset"]), state["before"]
    now, rotated = _name(path), _name(f"{path}.1")
    if (rotated not in ("", before) and name != now) or not name:  # what was rotated away isn't read to its end yet
        text, offset = _rest(f"{path}.1", offset if name == rotated else 0)
        _count(found, text)
        name = before = rotated
    if now and now != name:
        name, offset = now, 0
    if now and now == name:
        if _size(path) < offset:
            offset = 0  # copied away and cut off, as `copytruncate` does
        text, offset = _rest(path, offset)
        _count(found, text)
    new = {"log": name, "offset": offset, "before": before, "totals": found}
    if keep and new != state:
        durable.make_folder(STATE_DIR)
        durable.replace(METRICS_FILE, json.dumps(new).encode() + b"\n", 0o600)
    return found


def _load() -> dict[str, Any]:
    try:
        found = dict(json.loads(durable.contents(METRICS_FILE)))
        return {key: found[key] for key in ("log", "offset", "before", "totals")}
    except (FileNotFoundError, ValueError, KeyError):
        return {"log": "", "offset": 0, "before": "", "totals": {}}


def _name(path: str) -> str:
    """Tells one log from another: inode and first line, for an inode is used again; empty where there is no line."""
    file = open_part(path)
    if file is None:
        return ""
    with file:
        first = file.readline(_LONGEST_LINE)
        return f"{os.fstat(file.fileno()).st_ino}-{short_digest(repr(first))}" if first.endswith(b"\n") else ""


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _rest(path: str, offset: int) -> tuple[str, int]:
    """The whole lines after `offset`, and where they end."""
    file = open_part(path)
    if file is None:
        return "", 0
    with file:
        file.seek(offset)
        data = file.read(LARGEST)  # the next reading goes on from there
    whole = data[: data.rfind(b"\n") + 1]
    return whole.decode("utf-8", "replace"), offset + len(whole)


def _count(found: Totals, text: str) -> None:
    for call in filter(None, map(parse, text.splitlines())):
        key = f"{call.verb} {'error' if call.failed else 'ok'}"
        one = found.setdefault(key, {"count": 0, "sum": 0.0, "buckets": [0] * len(BUCKETS)})
        seconds = call.milliseconds / 1000
        one["count"] += 1
        one["sum"] += seconds
        one["buckets"] = [count + (seconds <= bound) for count, bound in zip(one["buckets"], BUCKETS, strict=True)]
