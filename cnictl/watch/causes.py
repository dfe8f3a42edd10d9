"""Decide which program is named as the cause of a change: only one whose event is about that kind of thing. Pure."""

from collections.abc import Collection, Iterable
from typing import NamedTuple

from cnictl.watch.events import ADDRESS, FORWARDING, LINK, ROUTE, RULES

_BRIDGE_KINDS = ("bridge", "address", "netfilter", "ports")
_ROUTE_KINDS = ("route", "routes")
_KINDS = {
    ADDRESS: ("address", *_ROUTE_KINDS),  # the kernel removes the routes that use an address with it
    ROUTE: _ROUTE_KINDS,
    FORWARDING: ("sysctl",),
    RULES: ("masquerade", "forward"),
}
"""The kinds of resources that an event may change. Link events depend on the link: see `_kinds`."""


class Cause(NamedTuple):
    """A process, and what its event was about."""

    about: str
    """As in `watch.events.Event`."""
    process: str
    """`nft (process 77)`"""


def named(resources: Collection[str], causes: Iterable[Cause], bridge: str) -> str:
    """Return the processes that may have changed any of these resources, in words; empty if none is known."""
    kinds = {resource.partition("/")[0] for resource in resources}
    return ", ".join(
        dict.fromkeys(cause.process for cause in causes if kinds.intersection(_kinds(cause.about, bridge)))
    )


def _kinds(about: str, bridge: str) -> tuple[str, ...]:
    if about.startswith(LINK):
        # the kernel removes the routes of a link that goes down, and sends no event for those of IPv4
        return _BRIDGE_KINDS if about == f"{LINK}{bridge}" else _ROUTE_KINDS
    return _KINDS.get(about, ())
