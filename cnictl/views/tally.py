"""Count the plugin's calls from its log: totals that only grow, across rotations and reboots.

The plugin itself counts nothing: each call is a separate process, and a counter would be one more file to lock and
write. Each reading continues where the last one ended. The position and the totals are kept in one file, so that two
readers get the same result and a reader that is killed loses nothing.
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
"""`VERB outcome` maps to `count`, `sum` in seconds, and `buckets`: for each bound, the calls not above it."""


def totals(path: str) -> Totals:
    """Return the totals of all calls that were ever logged to `path`, and save them. Raises OSError."""
    state = _load()
    counted: Totals = state["totals"]
    name, offset, before = state["log"], int(state["offset"]), state["before"]
    now, rotated = _name(path), _name(f"{path}.1")
    if (rotated not in ("", before) and name != now) or not name:  # the rotated file is not read to its end
        text, offset = _rest(f"{path}.1", offset if name == rotated else 0)
        _count(counted, text)
        name = before = rotated
    if now and now != name:
        name, offset = now, 0
    if now and now == name:
        if _size(path) < offset:
            offset = 0  # logrotate's `copytruncate` copied and truncated it
        text, offset = _rest(path, offset)
        _count(counted, text)
    new = {"log": name, "offset": offset, "before": before, "totals": counted}
    if new != state:
        durable.make_folder(STATE_DIR)
        durable.replace(METRICS_FILE, json.dumps(new).encode() + b"\n", 0o600)
    return counted


def _load() -> dict[str, Any]:
    try:
        state = dict(json.loads(durable.contents(METRICS_FILE)))
        return {key: state[key] for key in ("log", "offset", "before", "totals")}
    except (FileNotFoundError, ValueError, KeyError):
        return {"log": "", "offset": 0, "before": "", "totals": {}}


def _name(path: str) -> str:
    """Return what identifies a log: its inode, and its first line because inodes are reused; empty without a line."""
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
    """Return the whole lines after `offset`, and where they end."""
    file = open_part(path)
    if file is None:
        return "", 0
    with file:
        file.seek(offset)
        data = file.read(LARGEST)  # the next reading continues from there
    whole = data[: data.rfind(b"\n") + 1]
    return whole.decode("utf-8", "replace"), offset + len(whole)


def _count(counted: Totals, text: str) -> None:
    for call in filter(None, map(parse, text.splitlines())):
        key = f"{call.verb} {'error' if call.failed else 'ok'}"
        total = counted.setdefault(key, {"count": 0, "sum": 0.0, "buckets": [0] * len(BUCKETS)})
        seconds = call.milliseconds / 1000
        total["count"] += 1
        total["sum"] += seconds
        total["buckets"] = [count + (seconds <= bound) for count, bound in zip(total["buckets"], BUCKETS, strict=True)]
