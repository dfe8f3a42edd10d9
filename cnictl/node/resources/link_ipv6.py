"""Set IPv6 on single links: uplinks keep accepting router advertisements, and the bridge can have addresses."""

import os

from cnictl.core import advertisements, sysctl
from cnictl.core.advertisements import NEVER, OWNER_MARK, ROUTERS_TOO
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.messages import Netlink
from cnictl.node.resources.sysctl import write
from cnictl.node.spec.node_spec import NodeSpec
from cnictl.node.spine import Change, State
from cnictl.node.state import original_state

_CONF = "net/ipv6/conf"


class RouterAdvertisements:
    """accept_ra of each link on which a router may advertise, with or without a route from one.

    A host that forwards is a router and ignores others' advertisements at accept_ra 1; the kernel drops the default
    routes learned from them when forwarding is turned on (net/ipv6/route.c, rt6_purge_dflt_routers). So this comes
    before it. Where a daemon reads them in the kernel's place, accept_ra is 0 and nothing is to be done.
    """

    id = "sysctl/net.ipv6.accept_ra"
    parted = True

    def __init__(self) -> None:
        self._links: list[str] | None = None
        """Chosen once: which links count depends on forwarding, and that may change in the same run."""

    def observe(self) -> State | None:
        """Return the value on each such link, and on each that cnictl changed before; None without any."""
        if self._links is None:
            self._links = sorted({*_remembered(), *_advertised()})
        found = {}
        for link in self._links:
            value = _value(link, "accept_ra")
            if value:
                found[link] = value
        return found or None

    def desired(self, spec: NodeSpec) -> State | None:  # noqa: ARG002 - it is asked only where the spec has IPv6
        """Return 2, which accepts them while forwarding too; a link that an operator turned off stays off."""
        return {link: v if v == NEVER else ROUTERS_TOO for link, v in (self.observe() or {}).items()} or None

    def remember(self) -> None:
        """Save the values of new links."""
        new = {link: value for link, value in (self.observe() or {}).items() if link not in _remembered()}
        if new:
            original_state.amend(self.id, {**_remembered(), **new})

    def former(self) -> State | None:
        """Return the values before cnictl, unless somebody has changed ours since."""
        now = self.observe() or {}
        return {link: _remembered().get(link, v) if v == ROUTERS_TOO else v for link, v in now.items()} or None

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:
        """Return the summary and the sysctl commands."""
        changed = {link: value for link, value in (after or {}).items() if (before or {}).get(link) != value}
        links = ", ".join(changed or after or {})
        commands = [f"sysctl -w net/ipv6/conf/{link}/accept_ra={value}" for link, value in changed.items()]
        if after is not None and ROUTERS_TOO in (changed or after).values():
            return f"keep accepting router advertisements on {links}", "\n".join(commands)
        return f"accept router advertisements as before on {links}", "\n".join(commands)

    def carry_out(self, change: Change) -> None:
        """Write what differs."""
        for link, value in (change.after or {}).items():
            if _value(link, "accept_ra") not in ("", value):
                write(f"{_CONF}/{link}/accept_ra", value)


def accepting() -> dict[str, bool]:
    """Return whether each link that cnictl set still accepts router advertisements while the host forwards."""
    return {link: value != NEVER for link, value in (RouterAdvertisements().observe() or {}).items()}


def _remembered() -> dict[str, str]:
    return dict(original_state.recall(RouterAdvertisements.id) or {})


def _advertised() -> list[str]:
    """Return the links whose accept_ra has to be 2: all, or those with a learned route if the host forwards already."""
    if not os.path.isdir(f"/proc/sys/{_CONF}"):
        return []
    with Netlink() as netlink:
        links, routes = rtnetlink.all_links(netlink), advertisements.learned(netlink)
    if sysctl.read(sysctl.FORWARDING[16]) == "1":
        links = [link for link in links if link.index in routes]
    return advertisements.to_keep(links, routes, lambda name: _value(name, "accept_ra"))


class BridgeIpv6:
    """IPv6 on the bridge: enabled, its own addresses usable at once, and no pod accepted as a router.

    Some hosts disable IPv6 on every new link. An adopted bridge that is an uplink keeps accepting router
    advertisements. Without accept_dad 0 its link-local address, which it asks its pods' MACs from, is not usable for a
    second or two after the first pod came. The MAC that it follows from is random: no other host has it.
    """

    def __init__(self, spec: NodeSpec) -> None:
        self._name = spec.bridge
        self.id = f"sysctl/net.ipv6.conf.{spec.bridge}"

    def observe(self) -> State | None:
        """Return the values; None without the bridge."""
        found = {key: _value(self._name, key) for key in ("disable_ipv6", "accept_dad", "accept_ra")}
        return found if found["disable_ipv6"] else None

    def desired(self, spec: NodeSpec) -> State | None:  # noqa: ARG002 - it is asked only where the spec has IPv6
        """Return 0 for each, except accept_ra of an uplink."""
        return {"disable_ipv6": "0", "accept_dad": "0", "accept_ra": self._accept_ra()}

    def _accept_ra(self) -> str:
        with Netlink() as netlink:
            links = rtnetlink.all_links(netlink)
            bridge = next((link for link in links if link.name == self._name), None)
            if bridge is None or bridge.alias.startswith(OWNER_MARK):
                return NEVER
            keeps = advertisements.is_uplink(bridge, links, advertisements.learned(netlink))
        remembered = (original_state.recall(self.id) or {}).get("state") or {}
        original = remembered.get("accept_ra") or _value(self._name, "accept_ra")
        return advertisements.wanted(original, keeps, forwards=True)

    def remember(self) -> None:
        """Save the values of an adopted bridge."""
        original_state.remember(self.id, {"state": self.observe()})

    def former(self) -> State | None:
        """Return the saved values; the present ones for a bridge of ours, which is removed."""
        remembered, found = original_state.recall(self.id), self.observe()
        return remembered["state"] if found and remembered and remembered["state"] else found

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:
        """Return the summary and the sysctl commands."""
        changed = {key: value for key, value in (after or {}).items() if (before or {}).get(key) != value}
        commands = [f"sysctl -w net/ipv6/conf/{self._name}/{key}={value}" for key, value in changed.items()]
        ready = after is not None and after["disable_ipv6"] == "0"
        return f"{'let' if ready else 'no longer let'} {self._name} speak IPv6", "\n".join(commands)

    def carry_out(self, change: Change) -> None:
        """Write what differs."""
        for key, value in (change.after or {}).items():
            if _value(self._name, key) not in ("", value):
                write(f"{_CONF}/{self._name}/{key}", value)


def _value(link: str, key: str) -> str:
    """Return a link's kernel setting; empty if there is no such link."""
    return sysctl.read(f"{_CONF}/{link}/{key}")
