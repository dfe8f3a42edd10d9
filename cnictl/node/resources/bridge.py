"""Set up the bridge and its addresses. `core.bridge` makes both, as in the plugin's ADD."""

import errno
import shlex
import sys
from collections.abc import Collection, Iterable

from cnictl.core import durable, sysctl
from cnictl.core.bridge import another_mtu, ensure_bridge, gateway_mac, remove_if_empty
from cnictl.core.cidr import Cidr, parse_cidr, parse_interface
from cnictl.core.counted import counted
from cnictl.core.errors import Problem
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import OWNER_MARK as OWNER_MARK
from cnictl.core.netlink.rtnetlink import Link, Netlink, NetlinkError, ifinfo, text_attr, u32_attr
from cnictl.node.host import host_links
from cnictl.node.spec.node_spec import NodeSpec, is_ipv6
from cnictl.node.spec.peers import is_link_local
from cnictl.node.spine import Change, State
from cnictl.node.state import original_state

_SYSFS = "/sys/class/net"
_NET_ADDR_SET = b"3"

_NOTIFY = ("net/ipv4/conf/{}/arp_notify", "net/ipv6/conf/{}/ndisc_notify")


def gateways(spec: NodeSpec) -> list[Cidr]:
    """Return the bridge's addresses: the first of each subnet, with the subnet's prefix length."""
    return [Cidr(subnet.nth(1), subnet.prefix) for subnet in map(parse_cidr, spec.subnets)]


def note_mtu(spec: NodeSpec, state: State | None) -> None:
    """Record the MTU of our bridge. It is lowered for a peer; only `apply` raises it again."""
    key = f"mtu/{spec.bridge}"
    if state and _is_ours(state) and not spec.mtu and original_state.recall(key) != state["mtu"]:
        original_state.amend(key, state["mtu"])


class Bridge:
    """The bridge link: it exists, is up and has its MTU. A bridge that cnictl did not make is adopted.

    A reset keeps an adopted bridge.
    """

    def __init__(self, spec: NodeSpec, raises: bool = False) -> None:
        """`raises`: whether the MTU may be raised, as by `apply`. Running pods keep their MTU."""
        self._name = spec.bridge
        self._gateways = gateways(spec)
        self._raises = raises
        self.id = f"bridge/{spec.bridge}"

    def observe(self) -> State | None:
        """Return kind, MTU, whether it is up, and its alias as owner; for an adopted bridge, whether its MAC is set."""
        with Netlink() as netlink:
            link = rtnetlink.get_link(netlink, self._name)
        if link is None:
            return None
        state: State = {"kind": link.kind, "mtu": link.mtu, "up": link.up, "owner": link.alias}
        if not _is_ours(state) and link.kind == "bridge":
            state["mac_stays"] = _mac_stays(self._name)
        return state

    def desired(self, spec: NodeSpec) -> State | None:
        """Return the state for `spec`. An adopted bridge gets a fixed MAC; only a spec with an MTU changes its MTU."""
        now = self.observe()
        owner = OWNER_MARK + spec.name
        if now is None or _is_ours(now):
            # the smallest over the links to other hosts, which only `apply` raises again
            accepted = None if self._raises or spec.mtu else original_state.recall(f"mtu/{spec.bridge}")
            mtu = min(host_links.mtu(spec), accepted or sys.maxsize)
            return {"kind": "bridge", "mtu": mtu, "up": True, "owner": owner}
        adopted: State = {"kind": "bridge", "mtu": spec.mtu or now["mtu"], "up": True, "owner": now["owner"]}
        return adopted | ({"mac_stays": True} if "mac_stays" in now else {})

    def remember(self) -> None:
        """Record the original state of an adopted bridge."""
        original_state.remember(self.id, {"state": self.observe()})

    def state_after_reset(self) -> State | None:
        """Return the original state of an adopted bridge, except for a fixed MAC, which can't be undone; else None."""
        now = self.observe()
        if now is None or _is_ours(now):
            return None
        remembered = original_state.recall(self.id)
        state: State = remembered["state"] if remembered and remembered["state"] else now
        return state | ({"mac_stays": now["mac_stays"]} if "mac_stays" in now else {})

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:
        """Return the summary and the `ip link` commands."""
        name = self._name
        if after is None:
            return f"remove the bridge {name}", f"ip link delete {name}"
        if before is None:
            return f"make the bridge {name}, MTU {after['mtu']}", "\n".join(
                (
                    f"ip link add {name} address {rtnetlink.format_mac(gateway_mac(self._gateways))} type bridge",
                    "# two steps: an MTU that the bridge already has would not be fixed, and its ports would change it",
                    f"ip link set {name} mtu {another_mtu(after['mtu'])}",
                    f"ip link set {name} mtu {after['mtu']} alias {shlex.quote(after['owner'])} up",
                    f"sysctl -w net/ipv6/conf/{name}/accept_ra=0 net/ipv6/conf/{name}/accept_dad=0",
                )
            )
        words, options = [], []
        if before["mtu"] != after["mtu"]:
            words.append(f"MTU {after['mtu']}")
            options.append(f"mtu {after['mtu']}")
        if before["owner"] != after["owner"]:
            words.append(f"alias {after['owner']}")
            options.append(f"alias {shlex.quote(after['owner'])}")
        if before["up"] != after["up"]:
            words.append("up" if after["up"] else "down")
            options.append(words[-1])
        if after.get("mac_stays") and not before.get("mac_stays"):
            words.append("a fixed MAC")
            options.append(f"address $(cat {_SYSFS}/{name}/address)")
        summary = f"set {name} to {', '.join(words)}" if words else f"make {name} a bridge"
        return summary, f"ip link set {name} {' '.join(options)}"

    def needed_by(self) -> str:
        """Return the message that it has ports, or addresses that do not belong to the node."""
        with Netlink() as netlink:
            link = rtnetlink.get_link(netlink, self._name)
            if link is None:
                return ""
            ports = _ports(netlink, link.index)
            others = [other for other in _texts(netlink, link) if other not in map(str, self._gateways)]
        ports_used = [f"{counted(len(ports), 'port')} ({', '.join(ports[:8])})"] if ports else []
        uses = [*ports_used, *(f"the address {other}" for other in others)]
        return f"it has {', '.join(uses)}" if uses else ""

    def carry_out(self, change: Change) -> None:
        """Create, change or remove the bridge. Raises Problem."""
        with Netlink() as netlink:
            if change.after is None:
                self._remove(netlink)
                return
            after = change.after
            # the resource BridgeNetfilter sets the netfilter hook
            mac = gateway_mac(self._gateways)
            ensure_bridge(netlink, self._name, None, mtu=after["mtu"], owner=after["owner"], nf_call=False, mac=mac)
            now = self.observe()
            if now is None:
                raise Problem(f"{self._name}: another program removed it during the set-up")
            link = ifinfo() + text_attr(rtnetlink.IFLA_IFNAME, self._name)
            if now["mtu"] != after["mtu"]:
                netlink.call((rtnetlink.RTM_NEWLINK, 0, link + u32_attr(rtnetlink.IFLA_MTU, after["mtu"])))
            present = rtnetlink.get_link(netlink, self._name)
            if present is not None and after.get("mac_stays") and not now.get("mac_stays"):
                announce(
                    netlink, present
                )  # this sets the MAC; without it, a bridge's MAC follows its ports, and pods lose it
            if now["owner"] != after["owner"]:
                netlink.call(rtnetlink.set_alias(self._name, after["owner"]))
            if not after["up"]:
                down = ifinfo(0, 0, rtnetlink.IFF_UP) + text_attr(rtnetlink.IFLA_IFNAME, self._name)
                netlink.call((rtnetlink.RTM_NEWLINK, 0, down))

    def refuse_others(self, ours: Collection[str]) -> None:
        """Raise Problem if the bridge has a port that is not in `ours`, because it can't be removed then."""
        with Netlink() as netlink:
            link = rtnetlink.get_link(netlink, self._name)
            others = [] if link is None else [port for port in _ports(netlink, link.index) if port not in ours]
        if others:
            self._refuse(others)

    def _remove(self, netlink: Netlink) -> None:
        if remove_if_empty(netlink, self._name):
            return
        link = rtnetlink.get_link(netlink, self._name)
        if link is not None:
            self._refuse(_ports(netlink, link.index))

    def _refuse(self, ports: list[str]) -> None:
        raise Problem(
            f"{self._name} still has {counted(len(ports), 'port')}: {', '.join(ports[:8])}",
            f"for a port that is not cnictl's: ip link set {ports[0]} nomaster" if ports else "",
        )


def announce(netlink: Netlink, bridge: Link) -> None:
    """Make the kernel announce a bridge's MAC, because pods keep sending to the MAC that they know.

    Without this, pods learn the new one only when their neighbour entry expires, after half a minute. Raises CniError.
    """
    before = {path: sysctl.read(path) for path in (template.format(bridge.name) for template in _NOTIFY)}
    for path in before:
        sysctl.put(path, "1")
    try:
        netlink.call(rtnetlink.set_mac(bridge.name, rtnetlink.parse_mac(bridge.mac)))
    finally:
        for path, value in before.items():
            sysctl.put(path, value)


class Address:
    """The bridge's address of each family. Other addresses of an adopted bridge stay.

    A reset also leaves an address that the bridge had before cnictl. Only a spec's IPv6 addresses count, because a link
    has others that change without cnictl.
    """

    has_parts = True

    def __init__(self, spec: NodeSpec, earlier: tuple[NodeSpec, ...] = ()) -> None:
        self._name = spec.bridge
        same_bridge = [known for known in (spec, *earlier) if known.bridge == spec.bridge]
        self._ours = {str(cidr) for known in same_bridge for cidr in gateways(known)}
        self.id = f"address/{spec.bridge}"

    def observe(self) -> State | None:
        """Return every IPv4 address of the bridge, and the node's IPv6 addresses."""
        return _addresses(address for address in self._all() if not is_ipv6(address) or address in self._ours)

    def desired(self, spec: NodeSpec) -> State | None:
        """Return the gateway addresses, and the addresses that cnictl never added."""
        others = [address for address in _listed(self.observe()) if address not in self._ours]
        return _addresses([*others, *map(str, gateways(spec))])

    def remember(self) -> None:
        """Record the original addresses."""
        original_state.remember(self.id, {"state": _addresses(self._all())})

    def state_after_reset(self) -> State | None:
        """Return the addresses without ours, unless it was on the bridge before cnictl."""
        remembered = original_state.recall(self.id)
        before = (remembered["state"] or {}).get("addresses", []) if remembered else _listed(self.observe())
        now = _listed(self.observe())
        return _addresses(address for address in now if address not in self._ours or address in before)

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:
        """Return the summary and the `ip address` commands."""
        old, new = _listed(before), _listed(after)
        removed = [address for address in old if address not in new]
        added = [address for address in new if address not in old]
        commands = [f"ip address del {address} dev {self._name}" for address in removed]
        # what `core.bridge` does: IPv4 with broadcast, IPv6 without detection of duplicates
        commands += [
            f"ip address add {address} dev {self._name} nodad"
            if is_ipv6(address)
            else f"ip address add {address} broadcast + dev {self._name}"
            for address in added
        ]
        words = [f"add address {address} to {self._name}" for address in added]
        words += [f"remove address {address} from {self._name}" for address in removed]
        return ", ".join(words), "\n".join(commands)

    def carry_out(self, change: Change) -> None:
        """Remove and add addresses. Raises CniError 105 if the bridge has another address that isn't ours."""
        old, new = _listed(change.before), _listed(change.after)
        with Netlink() as netlink:
            link = rtnetlink.get_link(netlink, self._name)
            if link is None and not new:
                return
            for address in old:
                if address not in new and link is not None:
                    cidr = parse_interface(address)
                    _, _, body = rtnetlink.add_address(link.index, cidr.packed, cidr.prefix)
                    try:
                        netlink.call((rtnetlink.RTM_DELADDR, 0, body))
                    except NetlinkError as error:
                        if error.errno != errno.EADDRNOTAVAIL:  # it is removed when IPv6 is disabled
                            raise
            for address in new:
                if address not in old:
                    ensure_bridge(netlink, self._name, parse_interface(address))

    def _all(self) -> list[str]:
        with Netlink() as netlink:
            link = rtnetlink.get_link(netlink, self._name)
            return _texts(netlink, link) if link is not None else []


def _texts(netlink: Netlink, link: Link) -> list[str]:
    pairs = rtnetlink.addresses(netlink, link.index)
    return [str(Cidr(packed, prefix)) for packed, prefix in pairs if not is_link_local(packed)]


def _ports(netlink: Netlink, index: int) -> list[str]:
    return [link.name for link in rtnetlink.all_links(netlink) if link.master == index]


def _mac_stays(name: str) -> bool:
    """Return whether a link's MAC was set (linux/netdevice.h, NET_ADDR_SET); True if sysfs doesn't show it."""
    try:
        return durable.contents(f"{_SYSFS}/{name}/addr_assign_type").strip() == _NET_ADDR_SET
    except OSError:
        return True


def _is_ours(state: State) -> bool:
    return str(state["owner"]).startswith(OWNER_MARK)


def _addresses(texts: Iterable[str]) -> State | None:
    unique = sorted(set(texts))
    return {"addresses": unique} if unique else None


def _listed(state: State | None) -> list[str]:
    return list(state["addresses"]) if state else []
