"""IPv6 on single links: the uplinks go on hearing their routers, and the bridge can have an address at all."""

import os

from cnictl.node import former
from cnictl.node.resources.sysctl import SYSCTLS, read, write
from cnictl.node.spec import NodeSpec
from cnictl.node.spine import Change, State

_CONF = f"{SYSCTLS}/net/ipv6/conf"
_RTPROT_RA = 9  # linux/rtnetlink.h: a route that a router advertised
_AF_INET6 = 10
_NEVER, _HOSTS_ONLY, _ROUTERS_TOO = "0", "1", "2"


class RouterAdvertisements:
    """accept_ra of each link that a router's advertisement gave a default route.

    A host that forwards is a router and ignores others' advertisements at accept_ra 1; the kernel drops the default
    routes learned from them when forwarding is turned on (net/ipv6/route.c, rt6_purge_dflt_routers). So this comes
    before it. Where a daemon reads them in the kernel's place, accept_ra is 0 and nothing is to be done.
    """

    id = "sysctl/net.ipv6.accept_ra"
    parted = True

    def observe(self) -> State | None:
        """The value on each such link, and on each that cnictl once changed; None without any."""
        found = {}
        for link in sorted({*_remembered(), *_learned()}):
            value = _value(link, "accept_ra")
            if value:
                found[link] = value
        return found or None

    def desired(self, spec: NodeSpec) -> State | None:  # noqa: ARG002 - it is asked only where the spec has IPv6
        """2: also while forwarding; one that an operator has turned off since stays off."""
        return {link: v if v == _NEVER else _ROUTERS_TOO for link, v in (self.observe() or {}).items()} or None

    def remember(self) -> None:
        """Keep the values of links that are new to it."""
        new = {link: value for link, value in (self.observe() or {}).items() if link not in _remembered()}
        if new:
            former.amend(self.id, {**_remembered(), **new})

    def former(self) -> State | None:
        """The values before cnictl, where nobody has changed ours since."""
        now = self.observe() or {}
        return {link: _remembered().get(link, v) if v == _ROUTERS_TOO else v for link, v in now.items()} or None

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:
        """The summary and the sysctl commands."""
        changed = {link: value for link, value in (after or {}).items() if (before or {}).get(link) != value}
        heed = "keep heeding" if _ROUTERS_TOO in changed.values() else "heed as before"
        links = ", ".join(changed or after or {})
        commands = [f"sysctl -w net/ipv6/conf/{link}/accept_ra={value}" for link, value in changed.items()]
        return f"{heed} router advertisements on {links}", "\n".join(commands)

    def carry_out(self, change: Change) -> None:
        """Write what differs."""
        for link, value in (change.after or {}).items():
            if _value(link, "accept_ra") not in ("", value):
                write(f"{_CONF}/{link}/accept_ra", value)


def heeding() -> dict[str, bool]:
    """The links that cnictl lets heed router advertisements while the host forwards; False: turned off since."""
    return {link: value != _NEVER for link, value in (RouterAdvertisements().observe() or {}).items()}


def _remembered() -> dict[str, str]:
    return dict(former.recall(RouterAdvertisements.id) or {})


def _learned() -> list[str]:
    """Links with a default route from a router's advertisement, which the kernel itself heeds while it is a host."""
    if not os.path.isdir(_CONF):
        return []
    from pyroute2 import IPRoute

    with IPRoute() as iproute:
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in iproute.get_links()}
        found = {
            names.get(route.get_attr("RTA_OIF"), "")
            for route in iproute.get_routes(family=_AF_INET6)
            if route["proto"] == _RTPROT_RA and route["dst_len"] == 0
        }
    return [link for link in found if link and _value(link, "accept_ra") == _HOSTS_ONLY]


class BridgeIpv6:
    """IPv6 on the bridge: not disabled (some hosts do so for every new link), its own addresses usable at once, and
    no pod heeded as a router.

    Without accept_dad 0 its link-local address, which it asks its pods' MACs from, is not usable for a second or two
    after the first pod came. The MAC that it follows from is random: no other host has it.
    """

    def __init__(self, spec: NodeSpec) -> None:
        self._name = spec.bridge
        self.id = f"sysctl/net.ipv6.conf.{spec.bridge}"

    def observe(self) -> State | None:
        """The values; None without the bridge."""
        found = {key: _value(self._name, key) for key in ("disable_ipv6", "accept_dad", "accept_ra")}
        return found if found["disable_ipv6"] else None

    def desired(self, spec: NodeSpec) -> State | None:  # noqa: ARG002 - it is asked only where the spec has IPv6
        """All 0."""
        return {"disable_ipv6": "0", "accept_dad": "0", "accept_ra": "0"}

    def remember(self) -> None:
        """Keep an adopted bridge's own values."""
        former.remember(self.id, {"state": self.observe()})

    def former(self) -> State | None:
        """Those values; on a bridge of ours, which goes with them, what they are."""
        remembered, found = former.recall(self.id), self.observe()
        return remembered["state"] if found and remembered and remembered["state"] else found

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:
        """The summary and the sysctl commands."""
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
    """A link's sysctl; empty if there is no such link."""
    try:
        return read(f"{_CONF}/{link}/{key}")
    except FileNotFoundError:
        return ""
