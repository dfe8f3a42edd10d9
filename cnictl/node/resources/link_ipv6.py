"""Set IPv6 on single links: uplinks keep accepting router advertisements, and the bridge supports IPv6."""

import os

from cnictl.core import advertisements, sysctl
from cnictl.core.advertisements import NEVER, ROUTERS_TOO
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.messages import Netlink
from cnictl.core.netlink.rtnetlink import OWNER_MARK
from cnictl.node.resources.sysctl import write
from cnictl.node.spec.node_spec import NodeSpec
from cnictl.node.spine import Change, State
from cnictl.node.state import original_state

_CONF = "net/ipv6/conf"


class RouterAdvertisements:
    """accept_ra of each link on which a router may advertise, with or without a route from a router.

    A host that forwards ignores advertisements if accept_ra is 1, and the kernel drops default routes learned from them
    when forwarding is turned on (net/ipv6/route.c, rt6_purge_dflt_routers). So this comes before forwarding. If a
    daemon processes the advertisements instead of the kernel, accept_ra is 0 and stays 0.
    """

    id = "sysctl/net.ipv6.accept_ra"
    has_parts = True

    def __init__(self) -> None:
        self._links: list[str] | None = None
        """Chosen once, because the choice depends on forwarding, which the same run may change."""

    def observe(self) -> State | None:
        """Return the value on each such link, and on each link that cnictl changed earlier; None if there is none."""
        if self._links is None:
            self._links = sorted({*_remembered(), *_advertised()})
        values = {link: _value(link, "accept_ra") for link in self._links}
        return {link: value for link, value in values.items() if value} or None

    def desired(self, spec: NodeSpec) -> State | None:  # noqa: ARG002 - called only if the spec has IPv6
        """Return 2 for each link, so that it accepts while forwarding; a link that an operator turned off stays off."""
        return {link: v if v == NEVER else ROUTERS_TOO for link, v in (self.observe() or {}).items()} or None

    def remember(self) -> None:
        """Record the original values of links that are not recorded yet."""
        new = {link: value for link, value in (self.observe() or {}).items() if link not in _remembered()}
        if new:
            original_state.amend(self.id, {**_remembered(), **new})

    def state_after_reset(self) -> State | None:
        """Return the original values, except where somebody has changed our value since."""
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
        """Write the values that differ."""
        for link, value in (change.after or {}).items():
            if _value(link, "accept_ra") not in ("", value):
                write(f"{_CONF}/{link}/accept_ra", value)


def accepting() -> dict[str, bool]:
    """Return the links on which cnictl keeps router advertisements accepted; False if turned off since."""
    return {link: value != NEVER for link, value in (RouterAdvertisements().observe() or {}).items()}


def _remembered() -> dict[str, str]:
    return dict(original_state.recall(RouterAdvertisements.id) or {})


def _advertised() -> list[str]:
    """Return the links whose accept_ra must be 2: all before forwarding is turned on, then those with a route."""
    if not os.path.isdir(f"/proc/sys/{_CONF}"):
        return []
    with Netlink() as netlink:
        links, routes = rtnetlink.all_links(netlink), advertisements.learned(netlink)
    if sysctl.read(sysctl.FORWARDING[16]) == "1":
        links = [link for link in links if link.index in routes]
    return advertisements.to_keep(links, routes, lambda name: _value(name, "accept_ra"))


class BridgeIpv6:
    """IPv6 on the bridge: it is enabled, its addresses are usable immediately, and no pod is accepted as a router.

    Some hosts disable IPv6 on every new link. An adopted bridge that is an uplink keeps accepting router
    advertisements. accept_dad is 0, because otherwise the bridge's link-local address, from which it asks for pods'
    MACs, is not usable for a second or two after the first pod. Duplicates are unlikely: no other link has its MAC.
    """

    def __init__(self, spec: NodeSpec) -> None:
        self._name = spec.bridge
        self.id = f"sysctl/net.ipv6.conf.{spec.bridge}"

    def observe(self) -> State | None:
        """Return the bridge's values; None if the bridge does not exist."""
        values = {key: _value(self._name, key) for key in ("disable_ipv6", "accept_dad", "accept_ra")}
        return values if values["disable_ipv6"] else None

    def desired(self, spec: NodeSpec) -> State | None:  # noqa: ARG002 - called only if the spec has IPv6
        """Return 0 for all values except accept_ra of an uplink."""
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
        """Record an adopted bridge's original values."""
        original_state.remember(self.id, {"state": self.observe()})

    def state_after_reset(self) -> State | None:
        """Return the original values of an adopted bridge; the present ones of our own bridge, which is removed."""
        remembered, now = original_state.recall(self.id), self.observe()
        return remembered["state"] if now and remembered and remembered["state"] else now

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:
        """Return the summary and the sysctl commands."""
        changed = {key: value for key, value in (after or {}).items() if (before or {}).get(key) != value}
        commands = [f"sysctl -w net/ipv6/conf/{self._name}/{key}={value}" for key, value in changed.items()]
        ready = after is not None and after["disable_ipv6"] == "0"
        return f"{'enable' if ready else 'disable'} IPv6 on {self._name}", "\n".join(commands)

    def carry_out(self, change: Change) -> None:
        """Write the values that differ."""
        for key, value in (change.after or {}).items():
            if _value(self._name, key) not in ("", value):
                write(f"{_CONF}/{self._name}/{key}", value)


def _value(link: str, key: str) -> str:
    """Return a link's kernel setting; empty if the link does not exist."""
    return sysctl.read(f"{_CONF}/{link}/{key}")
