"""Complete live names in a shell. Each function returns what an argument may be, given its beginning.

A shell asks at each Tab: what can't be read is left out, and no error is shown.
"""

from __future__ import annotations

from cnictl.node.addresses import live_names

_SOURCES = ("host", "pod")
_TARGETS = ("host", "pod", "external")


def ping_sources(incomplete: str) -> list[str]:
    """Return the places that `ping` can send from."""
    return _beginning(incomplete, [*_SOURCES, *live_names.pods()])


def ping_targets(incomplete: str) -> list[str]:
    """Return the targets of `ping` that have a name here."""
    known = [*_TARGETS, *live_names.pods(), *live_names.peers(), *live_names.peer_addresses()]
    return _beginning(incomplete, known)


def _beginning(incomplete: str, names: list[str]) -> list[str]:
    """Return the names that begin so, each also by its part behind the namespace."""
    short = [name.rpartition("/")[2] for name in names if "/" in name]
    return [name for name in dict.fromkeys([*names, *short]) if name.startswith(incomplete)]
