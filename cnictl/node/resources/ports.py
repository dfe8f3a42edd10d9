"""The bridge's ports: each pod that lives is plugged in, also on a bridge that was made anew under it."""

from cnictl.core import attachments, liveness
from cnictl.core.bridge import has_bridge_netfilter
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import Link, Netlink, ifinfo, text_attr, u32_attr
from cnictl.node.resources.bridge import announce
from cnictl.node.spec.node_spec import NodeSpec
from cnictl.node.spine import Change, State

_DOWN = "down"


class Ports:
    """Ports of this network's pods that are off their bridge or down. There should be none, so none are desired."""

    def __init__(self, spec: NodeSpec) -> None:
        self._network, self._bridge = spec.name, spec.bridge
        self.id = f"ports/{spec.bridge}"

    def observe(self) -> State | None:
        """What is wrong, by the port's name; None where nothing is."""
        with Netlink() as netlink:
            bridge = rtnetlink.get_link(netlink, self._bridge)
            links = {link.name: link for link in rtnetlink.all_links(netlink)}
            found = {}
            for record in attachments.all_records(self._network):
                link = links.get(record.host_veth)
                if link is None or record.bridge != self._bridge or not (wrong := self._wrong(link, bridge)):
                    continue
                if liveness.judge(record, netlink).state == liveness.LIVE:
                    found[link.name] = wrong
        return found or None

    def _wrong(self, link: Link, bridge: Link | None) -> str:
        if bridge is None or link.master != bridge.index:
            return f"not on {self._bridge}"
        return "" if link.up else _DOWN

    def desired(self, spec: NodeSpec) -> State | None:  # noqa: ARG002
        """None: every port as it should be."""
        return None

    def former(self) -> State | None:
        """As they are: a reset has pods ended, not repaired."""
        return self.observe()

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:
        """The summary and the commands; there is no way back to pods that are cut off."""
        if after is not None:
            return f"leave pods' ports on {self._bridge}", ""
        wrong = before or {}
        commands = []
        for name, what in wrong.items():
            commands.append(f"ip link set {name} {'' if what == _DOWN else f'master {self._bridge} '}up")
            if what != _DOWN and has_bridge_netfilter():
                commands.append(f"bridge link set dev {name} hairpin on")
        return f"plug pods in at {self._bridge} again: {', '.join(wrong)}", "\n".join(commands)

    def carry_out(self, change: Change) -> None:
        """Put the ports on the bridge and up, then have the bridge tell the pods its MAC. Raises CniError."""
        if change.after is not None:
            return
        with Netlink() as netlink:
            bridge = rtnetlink.get_link(netlink, self._bridge)
            if bridge is None:
                return
            for name in self.observe() or {}:
                master = ifinfo(0, rtnetlink.IFF_UP, rtnetlink.IFF_UP) + text_attr(rtnetlink.IFLA_IFNAME, name)
                # what a port was told is forgotten when it leaves its bridge: hairpin as the conf asks for it
                netlink.call(
                    (rtnetlink.RTM_NEWLINK, 0, master + u32_attr(rtnetlink.IFLA_MASTER, bridge.index)),
                    rtnetlink.set_port(name, has_bridge_netfilter(), False),
                )
            announce(netlink, bridge)
