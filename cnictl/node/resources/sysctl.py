"""IPv4 forwarding. Turning it on has side effects, and a hardened host wants every one of them back as it was."""

import os

from cnictl.node import former
from cnictl.node.spec import NodeSpec
from cnictl.node.spine import Change, State

IP_FORWARD = "/proc/sys/net/ipv4/ip_forward"
_CONF = "/proc/sys/net/ipv4/conf"

SIDE_EFFECTS = ("forwarding", "accept_redirects")
"""What the kernel rewrites beside it, for `all`, `default` and each link (net/ipv4/devinet.c, inet_forward_change)."""


class IpForward:
    """net.ipv4.ip_forward, live."""

    id = "sysctl/net.ipv4.ip_forward"

    def observe(self) -> State | None:
        """Its value."""
        return {"value": _read(IP_FORWARD)}

    def desired(self, spec: NodeSpec) -> State | None:  # noqa: ARG002 - the same for every node
        """On."""
        return {"value": "1"}

    def remember(self) -> None:
        """Keep the value and every value that turning it on rewrites."""
        if former.recall(self.id) is None:
            former.remember(self.id, {"value": _read(IP_FORWARD), "conf": _side_effects()})

    def former(self) -> State | None:
        """The value before cnictl; what it is now, if cnictl never had to do with it."""
        remembered = former.recall(self.id)
        return {"value": remembered["value"]} if remembered else self.observe()

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:  # noqa: ARG002
        """The summary and the sysctl command."""
        value = after["value"] if after else "0"
        summary = "let the host forward IPv4 packets" if value == "1" else "stop forwarding IPv4 packets"
        return summary, f"sysctl -w net.ipv4.ip_forward={value}"

    def carry_out(self, change: Change) -> None:
        """Write it; on the way back, put each side effect back that nobody has changed since."""
        value = change.after["value"] if change.after else "0"
        remembered = former.recall(self.id)
        if remembered is None or value != remembered["value"]:
            _write(IP_FORWARD, value)
            if remembered is not None and "left" not in remembered:
                former.amend(self.id, {**remembered, "left": _side_effects()})
            return
        now, left = _side_effects(), remembered.get("left", {})
        _write(IP_FORWARD, value)
        for name, old in remembered["conf"].items():
            if name in now:
                _restore(name, old if now[name] == left.get(name, now[name]) else now[name])


def _side_effects() -> dict[str, str]:
    """`LINK/KEY` to its value, `all` first: writing that one reaches the others."""
    names = sorted(os.listdir(_CONF), key=lambda name: (name != "all", name != "default", name))
    found = {}
    for name in names:
        for key in SIDE_EFFECTS:
            try:
                found[f"{name}/{key}"] = _read(f"{_CONF}/{name}/{key}")
            except FileNotFoundError:
                continue  # the link went away meanwhile
    return found


def _restore(name: str, value: str) -> None:
    path = f"{_CONF}/{name}"
    try:
        if _read(path) != value:
            _write(path, value)
    except FileNotFoundError:
        return


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read().strip()


def _write(path: str, value: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(value)
