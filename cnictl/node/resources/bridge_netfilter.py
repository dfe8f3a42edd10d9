"""Set the bridge's netfilter hook, which passes packets between its ports to iptables."""

from cnictl.core.bridge import has_bridge_netfilter
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import Netlink, attr, attributes, ifinfo, text_attr
from cnictl.node.resources.bridge import OWNER_MARK
from cnictl.node.spec.node_spec import NodeSpec, is_ipv6
from cnictl.node.spine import Change, State
from cnictl.node.state import original_state

_SWITCHES = {
    "nf_call_iptables": rtnetlink.IFLA_BR_NF_CALL_IPTABLES,
    "nf_call_ip6tables": rtnetlink.IFLA_BR_NF_CALL_IP6TABLES,
}
"""IFLA_BR_NF_CALL_IPTABLES and IFLA_BR_NF_CALL_IP6TABLES (linux/if_link.h)."""


class BridgeNetfilter:
    """The hook is on if br_netfilter is loaded: Services need iptables to see packets between pods of one node."""

    def __init__(self, spec: NodeSpec) -> None:
        self._name = spec.bridge
        six = any(map(is_ipv6, spec.subnets))
        self._switches = _SWITCHES if six else {"nf_call_iptables": _SWITCHES["nf_call_iptables"]}
        self.id = f"netfilter/{spec.bridge}"

    def observe(self) -> State | None:
        """Return the bridge's own switches for iptables and, with IPv6, for ip6tables."""
        return self._read(self._switches)

    def _read(self, switches: dict[str, int]) -> State | None:
        with Netlink() as netlink:
            try:
                body = ifinfo() + text_attr(rtnetlink.IFLA_IFNAME, self._name)
                answer = netlink.dump(rtnetlink.RTM_GETLINK, body, flags=0)[0]
            except rtnetlink.NetlinkError:
                return None
        info = attributes(attributes(answer, 16).get(rtnetlink.IFLA_LINKINFO, b""))
        data = attributes(info.get(rtnetlink.IFLA_INFO_DATA, b""))
        if info.get(rtnetlink.IFLA_INFO_KIND, b"").rstrip(b"\0") != b"bridge":
            return None
        return {name: data[kind][0] for name, kind in switches.items() if kind in data} or None

    def desired(self, spec: NodeSpec) -> State | None:  # noqa: ARG002 - the same for every node
        """Return a state with all switches on; without br_netfilter, the present state."""
        return dict.fromkeys(self._switches, 1) if has_bridge_netfilter() else self.observe()

    def remember(self) -> None:
        """Record an adopted bridge's original switches."""
        original_state.remember(self.id, {"state": self._read(_SWITCHES)})

    def state_after_reset(self) -> State | None:
        """Return an adopted bridge's original switches; None on our own bridge, which is removed."""
        now = self.observe()
        with Netlink() as netlink:
            link = rtnetlink.get_link(netlink, self._name)
        if now is None or link is None or link.alias.startswith(OWNER_MARK):
            return None
        remembered = original_state.recall(self.id)
        before = (remembered["state"] or {}) if remembered else {}
        return {name: before.get(name, value) for name, value in now.items()}

    def revert(self, now: State, before: State | None, after: State | None) -> tuple[State | None, list[str]]:
        """Revert each switch that nobody has changed since; return None if the run made the bridge.

        If a run was interrupted before it removed the bridge, the switches are already off.
        """
        old, new = self._values(before), self._values(after)
        changed = [name for name, value in now.items() if value not in (old.get(name), new.get(name))]
        if before is None and not changed:
            return None, []
        return {**now, **{name: value for name, value in old.items() if name in now and name not in changed}}, [
            f"{name} has been changed since the run" for name in changed
        ]

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:  # noqa: ARG002
        """Return the summary and the `ip link` command."""
        values = self._values(after)
        summary = f"{'pass' if any(values.values()) else 'stop passing'} packets between the ports of"
        options = " ".join(f"{name} {value}" for name, value in values.items())
        return f"{summary} {self._name} to iptables", f"ip link set {self._name} type bridge {options}"

    def carry_out(self, change: Change) -> None:
        """Set the switches; without a state they are off."""
        values = self._values(change.after)
        if self.observe() is None and not any(values.values()):
            return
        data = b"".join(attr(_SWITCHES[name], bytes((value,))) for name, value in values.items())
        info = text_attr(rtnetlink.IFLA_INFO_KIND, "bridge") + attr(rtnetlink.IFLA_INFO_DATA | rtnetlink.NESTED, data)
        body = ifinfo() + text_attr(rtnetlink.IFLA_IFNAME, self._name)
        with Netlink() as netlink:
            netlink.call((rtnetlink.RTM_NEWLINK, 0, body + attr(rtnetlink.IFLA_LINKINFO | rtnetlink.NESTED, info)))

    def _values(self, state: State | None) -> dict[str, int]:
        return dict(state) if state else dict.fromkeys(self._switches, 0)
