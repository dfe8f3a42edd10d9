"""Keep each live pod's host veth on the bridge, even after the bridge was recreated."""

from cnictl.core import attachments, liveness
from cnictl.core.bridge import has_bridge_netfilter
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import Netlink, ifinfo, text_attr, u32_attr
from cnictl.node.resources.bridge import announce
from cnictl.node.spec.node_spec import NodeSpec
from cnictl.node.spine import Change, State

_DOWN = "down"


class Ports:
    """The ports of this network's pods that are down or not on their bridge. The desired state is none."""

    def __init__(self, spec: NodeSpec) -> None:
        self._network, self._bridge = spec.name, spec.bridge
        self.id = f"ports/{spec.bridge}"

    def observe(self) -> State | None:
        """Return each port's fault by the port's name; None if there is no fault."""
        with Netlink() as netlink:
            bridge = rtnetlink.get_link(netlink, self._bridge)
            links = {link.name: link for link in rtnetlink.all_links(netlink)}
            faults = {}
            for record in attachments.all_records(self._network):
                link = links.get(record.host_veth)
                if link is None or record.bridge != self._bridge:
                    continue
                on_bridge = bridge is not None and link.master == bridge.index
                if on_bridge and link.up:
                    continue
                if liveness.judge(record, netlink).state == liveness.LIVE:
                    faults[link.name] = _DOWN if on_bridge else f"not on {self._bridge}"
        return faults or None

    def desired(self, spec: NodeSpec) -> State | None:  # noqa: ARG002
        """Return None: no port has a fault."""
        return None

    def state_after_reset(self) -> State | None:
        """Return the present state: a reset ends pods and does not repair them."""
        return self.observe()

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:
        """Return the summary and the manual commands. An undo does not cut pods off again."""
        if after is not None:
            return f"leave pods' ports on {self._bridge}", ""
        wrong = before or {}
        commands = []
        for name, fault in wrong.items():
            commands.append(f"ip link set {name} {'' if fault == _DOWN else f'master {self._bridge} '}up")
            if fault != _DOWN and has_bridge_netfilter():
                commands.append(f"bridge link set dev {name} hairpin on")
        return f"connect pods to {self._bridge} again: {', '.join(wrong)}", "\n".join(commands)

    def carry_out(self, change: Change) -> None:
        """Attach the ports to the bridge, set them up, and announce the bridge's MAC to the pods. Raises CniError."""
        if change.after is not None:
            return
        with Netlink() as netlink:
            bridge = rtnetlink.get_link(netlink, self._bridge)
            if bridge is None:
                return
            for name in self.observe() or {}:
                master = ifinfo(0, rtnetlink.IFF_UP, rtnetlink.IFF_UP) + text_attr(rtnetlink.IFLA_IFNAME, name)
                # a port loses its settings when it leaves its bridge: set hairpin again, as the conf asks
                netlink.call(
                    (rtnetlink.RTM_NEWLINK, 0, master + u32_attr(rtnetlink.IFLA_MASTER, bridge.index)),
                    rtnetlink.set_port(name, has_bridge_netfilter(), False),
                )
            announce(netlink, bridge)
