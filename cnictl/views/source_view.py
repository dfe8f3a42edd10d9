"""Describe the source of peers: its kind, the age of its last list, and its faults."""

import time
from typing import Any

from cnictl.node.reach import learning
from cnictl.node.spec.node_spec import NodeSpec
from cnictl.node.state.learned_peers import Learned


def shown(spec: NodeSpec, learned: Learned | None) -> dict[str, Any]:
    """Return the source as JSON values. `learned` is its last list, if any."""
    if learned is None:
        title = f"{spec.reach.source}, never read" if spec.reach.source else "only node.toml"
        return {"title": title, "version": "", "age": None, "stale_since": 0.0, "trouble": "", "conflict": ""}
    return {
        "title": learned.source,
        "version": learned.version,
        "age": round(time.time() - learned.read_at, 1) if learned.read_at else None,
        "stale_since": learned.stale_since,
        "trouble": learned.trouble or learning.absence(learned),
        "conflict": learned.conflict,
    }


def in_words(source: dict[str, Any]) -> str:
    """Return the result of `shown` in one line."""
    age = f", read {_ago(source['age'])}" if source["age"] is not None else ""
    version = f", version {source['version'][:12]}" if source["version"] else ""
    stale = f", stale since {clock(source['stale_since'])}" if source["stale_since"] else ""
    return f"{source['title']}{version}{age}{stale}"


def clock(moment: float) -> str:
    """Return a moment, in seconds since the epoch, as this host's clock shows it."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


def _ago(seconds: float) -> str:
    return f"{seconds:.0f} s ago" if seconds < 120 else f"{seconds / 60:.0f} min ago"
