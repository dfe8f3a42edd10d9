"""Turn on forwarding, one setting per family, and record its side effects, so that a reset restores every value."""

import contextlib
import os
from typing import Any

from cnictl.core import sysctl
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.messages import Netlink
from cnictl.core.netlink.rtnetlink import OWNER_MARK
from cnictl.node.spec.node_spec import NodeSpec
from cnictl.node.spec.peers import is_link_local
from cnictl.node.spine import Change, State
from cnictl.node.state import original_state


class Forwarding:
    """The present value of net.ipv4.ip_forward or net.ipv6.conf.all.forwarding."""

    def __init__(self, ipv6: bool = False) -> None:
        self.ipv6 = ipv6
        self._family = "IPv6" if ipv6 else "IPv4"
        self.key = "net.ipv6.conf.all.forwarding" if ipv6 else "net.ipv4.ip_forward"
        self._path = sysctl.FORWARDING[16 if ipv6 else 4]
        self.id = f"sysctl/{self.key}"

    def observe(self) -> State | None:
        """Return the value; None if the kernel lacks the family."""
        value = sysctl.read(self._path)
        return {"value": value} if value else None

    def desired(self, spec: NodeSpec) -> State | None:  # noqa: ARG002 - called only if the spec has the family
        """Return the state with forwarding on."""
        return {"value": "1"}

    def remember(self) -> None:
        """Record the original value, and every value that turning it on changes."""
        if original_state.recall(self.id) is None:
            values = {"value": sysctl.read(self._path), "conf": self._side_effects()}
            original_state.remember(self.id, {**values, "bridges": self._bridges()})

    def state_after_reset(self) -> State | None:
        """Return the original value; the present one if cnictl never changed it or other bridges need it now."""
        remembered = original_state.recall(self.id)
        return self.observe() if remembered is None or self.needed_by() else {"value": remembered["value"]}

    def needed_by(self) -> str:
        """Return the message that bridges with an address, made after cnictl turned on forwarding, need it.

        Docker and libvirt check forwarding only when they start.
        """
        remembered = original_state.recall(self.id) or {"value": "1"}
        if remembered["value"] == "1" or "bridges" not in remembered or sysctl.read(self._path) == "0":
            return ""
        known = {*remembered["bridges"], *(spec.bridge for spec in original_state.specs())}
        others = [name for name in self._bridges() if name not in known]
        return f"bridges created since need it: {', '.join(others)}" if others else ""

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:  # noqa: ARG002
        """Return the summary and the sysctl command."""
        value = after["value"] if after else "0"
        summary = "turn on forwarding of" if value == "1" else "turn off forwarding of"
        commands = [f"sysctl -w {self.key}={value}"]
        remembered = original_state.recall(self.id)
        if value == "0" and remembered is not None and remembered["value"] == "0":
            now = self._side_effects()
            commands += [
                f"sysctl -w {self._conf}/{name}={wanted}"
                for name, wanted in self._restored(remembered, now).items()
                if wanted != self._switched_off(name, now[name])
            ]
        return f"{summary} {self._family} packets", "\n".join(commands)

    def carry_out(self, change: Change) -> None:
        """Write the value. When it is turned off again, restore each side effect that nobody has changed since.

        If forwarding was on before cnictl, it stays on.
        """
        value = change.after["value"] if change.after else "0"
        remembered = original_state.recall(self.id)
        if remembered is None or value != remembered["value"] or value == "1":
            write(self._path, value)
            if remembered is not None and "left" not in remembered:
                original_state.amend(self.id, {**remembered, "left": self._side_effects()})
            return
        restored = self._restored(remembered, self._side_effects())
        write(self._path, value)
        for name, wanted in restored.items():
            with contextlib.suppress(FileNotFoundError):  # the link was removed meanwhile
                if sysctl.read(f"{self._conf}/{name}") not in ("", wanted):
                    write(f"{self._conf}/{name}", wanted)

    @staticmethod
    def _restored(remembered: dict[str, Any], now: dict[str, str]) -> dict[str, str]:
        """Return the values to leave behind: the original ones, except those that somebody has changed since."""
        left = remembered.get("left", {})
        return {
            name: old if now[name] == left.get(name, now[name]) else now[name]
            for name, old in remembered["conf"].items()
            if name in now
        }

    @staticmethod
    def _switched_off(name: str, now: str) -> str:
        """Return the value that the kernel gives a side effect when forwarding is switched off."""
        if name.endswith("/forwarding"):
            return "0"
        return "1" if name in ("all/accept_redirects", "default/accept_redirects") else now

    def _bridges(self) -> list[str]:
        """Return the bridges that have an address of the family and were not made by cnictl's plugin."""
        with Netlink() as netlink:
            names = [
                link.name
                for link in rtnetlink.all_links(netlink)
                if link.kind == "bridge"
                and not link.alias.startswith(OWNER_MARK)
                and any(
                    len(packed) == (16 if self.ipv6 else 4) and not is_link_local(packed)
                    for packed, _ in rtnetlink.addresses(netlink, link.index)
                )
            ]
        return sorted(names)

    @property
    def _conf(self) -> str:
        return f"net/{'ipv6' if self.ipv6 else 'ipv4'}/conf"

    def _side_effects(self) -> dict[str, str]:
        """Return the value of each `LINK/KEY`, `all` first, because writing `all` changes the others.

        What the kernel changes for `all`, `default` and each link: net/ipv4/devinet.c, inet_forward_change;
        net/ipv6/addrconf.c, addrconf_forward_change.
        """
        names = sorted(os.listdir(f"/proc/sys/{self._conf}"), key=lambda name: (name != "all", name != "default", name))
        values = {}
        for name in names:
            for key in ("forwarding",) if self.ipv6 else ("forwarding", "accept_redirects"):
                value = sysctl.read(f"{self._conf}/{name}/{key}")
                if value:  # else the link was removed meanwhile
                    values[f"{name}/{key}"] = value
        return values


def write(path: str, value: str) -> None:
    """Set a kernel setting; `path` is relative to /proc/sys. Raises OSError."""
    with open(f"/proc/sys/{path}", "w", encoding="ascii") as file:
        file.write(value)
