"""The bridge and its addresses. Both are made by `core.bridge`, as the plugin's ADD makes them."""

import errno
from collections.abc import Collection, Iterable

from cnictl.core import durable, sysctl
from cnictl.core.bridge import another_mtu, ensure_bridge, remove_if_empty
from cnictl.core.cidr import Cidr, parse_cidr, parse_interface
from cnictl.core.errors import Problem
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import Link, Netlink, NetlinkError, ifinfo, text_attr, u32_attr
from cnictl.node.host import host_links
from cnictl.node.spec.node_spec import NodeSpec, is_ipv6
from cnictl.node.spec.peers import is_link_local
from cnictl.node.spine import Change, State
from cnictl.node.state import original_state

_SYSFS = "/sys/class/net"
_NET_ADDR_SET = b"3"

_NOTIFY = ("net/ipv4/conf/{}/arp_notify", "net/ipv6/conf/{}/ndisc_notify")

OWNER_MARK = "cnictl:"
"""A link's alias begins with it if cnictl made the link."""


def gateways(spec: NodeSpec) -> list[Cidr]:
    """The bridge's addresses: each subnet's first, with the subnet's prefix length."""
    return [Cidr(subnet.nth(1), subnet.prefix) for subnet in map(parse_cidr, spec.subnets)]


def _mtu_key(name: str) -> str:
    return f"mtu/{name}"


def note_mtu(spec: NodeSpec, state: State | None) -> None:
    """Keep the MTU that our bridge has been given: it is lowered for a peer, and grows again with `apply` alone."""
    if (
        state is not None
        and _is_ours(state)
        and not spec.mtu
        and original_state.recall(_mtu_key(spec.bridge)) != state["mtu"]
    ):
        original_state.amend(_mtu_key(spec.bridge), state["mtu"])


class Bridge:
    """The bridge link: there, up, with its MTU. One that cnictl did not make is adopted, and kept at a reset."""

    def __init__(self, spec: NodeSpec, raises: bool = False) -> None:
        """`raises`: whether its MTU may grow by itself, as with `apply`: running pods keep what they have."""
        self._name = spec.bridge
        self._gateways = gateways(spec)
        self._raises = raises
        self.id = f"bridge/{spec.bridge}"

    def observe(self) -> State | None:
        """Kind, MTU, whether it is up, the alias that says whose it is; of one made by hand, whether its MAC stays."""
        with Netlink() as netlink:
            link = rtnetlink.get_link(netlink, self._name)
        if link is None:
            return None
        state: State = {"kind": link.kind, "mtu": link.mtu, "up": link.up, "owner": link.alias}
        if not _is_ours(state) and link.kind == "bridge":
            state["mac_stays"] = _mac_stays(self._name)
        return state

    def desired(self, spec: NodeSpec) -> State | None:
        """An adopted one keeps its MTU unless the spec names one, and its MAC when its ports come and go."""
        found = self.observe()
        owner = OWNER_MARK + spec.name
        if found is None or _is_ours(found):
            return {"kind": "bridge", "mtu": self._mtu(spec), "up": True, "owner": owner}
        adopted: State = {"kind": "bridge", "mtu": spec.mtu or found["mtu"], "up": True, "owner": found["owner"]}
        return adopted | ({"mac_stays": True} if "mac_stays" in found else {})

    def _mtu(self, spec: NodeSpec) -> int:
        """The spec's MTU, else the smallest over the links to others, which grows again with `apply` alone."""
        smallest = host_links.mtu(spec)
        accepted = None if self._raises or spec.mtu else original_state.recall(_mtu_key(spec.bridge))
        return min(smallest, accepted) if accepted else smallest

    def remember(self) -> None:
        """Keep what an adopted bridge was like."""
        original_state.remember(self.id, {"state": self.observe()})

    def former(self) -> State | None:
        """None for a bridge of ours; an adopted one as it was found, but for its MAC: what is set can't be unset."""
        found = self.observe()
        if found is None or _is_ours(found):
            return None
        remembered = original_state.recall(self.id)
        state: State = remembered["state"] if remembered and remembered["state"] else found
        return state | ({"mac_stays": found["mac_stays"]} if "mac_stays" in found else {})

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:
        """The summary and the `ip link` commands."""
        name = self._name
        if after is None:
            return f"remove the bridge {name}", f"ip link delete {name}"
        if before is None:
            return f"make the bridge {name}, MTU {after['mtu']}", "\n".join(
                (
                    f"ip link add {name} address {_example_mac()} type bridge",
                    f"ip link set {name} mtu {another_mtu(after['mtu'])}",
                    f"ip link set {name} mtu {after['mtu']} alias {after['owner']} up",
                    f"sysctl -w net/ipv6/conf/{name}/accept_ra=0 net/ipv6/conf/{name}/accept_dad=0",
                )
            )
        words, options = [], []
        if before["mtu"] != after["mtu"]:
            words.append(f"MTU {after['mtu']}")
            options.append(f"mtu {after['mtu']}")
        if before["owner"] != after["owner"]:
            words.append(f"alias {after['owner']}")
            options.append(f"alias {after['owner']!r}")
        if before["up"] != after["up"]:
            words.append("up" if after["up"] else "down")
            options.append(words[-1])
        if after.get("mac_stays") and not before.get("mac_stays"):
            words.append("a MAC that stays when ports come and go")
            options.append(f"address $(cat {_SYSFS}/{name}/address)")
        summary = f"set {name} to {', '.join(words)}" if words else f"make {name} a bridge"
        return summary, f"ip link set {name} {' '.join(options)}"

    def carries(self) -> str:
        """Its ports, and addresses that are not the node's."""
        with Netlink() as netlink:
            link = rtnetlink.get_link(netlink, self._name)
            if link is None:
                return ""
            ports = _ports(netlink, link.index)
            own = [(one.packed, one.prefix) for one in self._gateways]
            others = [
                str(Cidr(packed, prefix))
                for packed, prefix in rtnetlink.addresses(netlink, link.index)
                if (packed, prefix) not in own and not is_link_local(packed)
            ]
        standing = [f"{len(ports)} port{'s' if len(ports) != 1 else ''} ({', '.join(ports[:8])})"] if ports else []
        return ", ".join([*standing, *(f"the address {other}" for other in others)])

    def carry_out(self, change: Change) -> None:
        """Make, set or remove it. Raises Problem."""
        with Netlink() as netlink:
            if change.after is None:
                self._remove(netlink)
                return
            after = change.after
            # the netfilter hook is a step of its own
            ensure_bridge(netlink, self._name, None, mtu=after["mtu"], owner=after["owner"], nf_call=False)
            found = self.observe()
            if found is None:
                raise Problem(f"{self._name}: removed by another program while it was set up")
            link = ifinfo() + text_attr(rtnetlink.IFLA_IFNAME, self._name)
            if found["mtu"] != after["mtu"]:
                netlink.call((rtnetlink.RTM_NEWLINK, 0, link + u32_attr(rtnetlink.IFLA_MTU, after["mtu"])))
            if after.get("mac_stays") and not found.get("mac_stays"):
                self._pin_mac(netlink)
            if found["owner"] != after["owner"]:
                netlink.call(rtnetlink.set_alias(self._name, after["owner"]))
            if not after["up"]:
                down = ifinfo(0, 0, rtnetlink.IFF_UP) + text_attr(rtnetlink.IFLA_IFNAME, self._name)
                netlink.call((rtnetlink.RTM_NEWLINK, 0, down))

    def _pin_mac(self, netlink: Netlink) -> None:
        """Give it the MAC it has: until it is given one, a bridge takes that of its lowest port, and pods lose it."""
        link = rtnetlink.get_link(netlink, self._name)
        if link is not None:
            announce(netlink, link)

    def refuse_others(self, ours: Collection[str]) -> None:
        """Raise Problem if it has a port that is not among `ours`: it can't be removed then."""
        with Netlink() as netlink:
            link = rtnetlink.get_link(netlink, self._name)
            others = [] if link is None else [one for one in _ports(netlink, link.index) if one not in ours]
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
            f"{self._name} still has {len(ports)} port{'s' if len(ports) != 1 else ''}: {', '.join(ports[:8])}",
            f"what isn't cnictl's: ip link set {ports[0]} nomaster" if ports else "",
        )


def announce(netlink: Netlink, bridge: Link) -> None:
    """Have the kernel tell all behind a bridge the MAC of its addresses: pods go on sending to the one they know.

    Without it they find out after the half minute that a neighbour is believed in unasked. Raises CniError.
    """
    before = {path: sysctl.read(path) for path in (one.format(bridge.name) for one in _NOTIFY)}
    for path in before:
        sysctl.put(path, "1")
    try:
        netlink.call(rtnetlink.set_mac(bridge.name, rtnetlink.parse_mac(bridge.mac)))
    finally:
        for path, value in before.items():
            sysctl.put(path, value)


class Address:
    """The bridge's address of each family. Others on an adopted bridge are left alone; so is its own, if it was there.

    Of IPv6 only those are looked at that a spec asked for: a link has others that come and go by themselves.
    """

    parted = True

    def __init__(self, spec: NodeSpec, earlier: tuple[NodeSpec, ...] = ()) -> None:
        self._name = spec.bridge
        self._ours = {str(cidr) for one in (spec, *earlier) if one.bridge == spec.bridge for cidr in gateways(one)}
        self.id = f"address/{spec.bridge}"

    def observe(self) -> State | None:
        """Every IPv4 address on it, and the IPv6 ones that are the node's."""
        return _addresses(address for address in self._all() if not is_ipv6(address) or address in self._ours)

    def desired(self, spec: NodeSpec) -> State | None:
        """The gateways' addresses, beside those that were never ours."""
        return _addresses([*self._others(), *map(str, gateways(spec))])

    def remember(self) -> None:
        """Keep the addresses that were there."""
        original_state.remember(self.id, {"state": _addresses(self._all())})

    def former(self) -> State | None:
        """Those without ours, unless ours was there before us."""
        remembered = original_state.recall(self.id)
        before = (remembered["state"] or {}).get("addresses", []) if remembered else _listed(self.observe())
        now = _listed(self.observe())
        return _addresses(address for address in now if address not in self._ours or address in before)

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:
        """The summary and the `ip address` commands."""
        old, new = _listed(before), _listed(after)
        gone = [address for address in old if address not in new]
        come = [address for address in new if address not in old]
        commands = [f"ip address del {address} dev {self._name}" for address in gone]
        commands += [_add_command(address, self._name) for address in come]
        words = [f"give {self._name} the address {address}" for address in come]
        words += [f"take {address} from {self._name}" for address in gone]
        return ", ".join(words), "\n".join(commands)

    def carry_out(self, change: Change) -> None:
        """Remove and add. Raises CniError 105 where the bridge has another address that isn't ours."""
        old, new = _listed(change.before), _listed(change.after)
        with Netlink() as netlink:
            link = rtnetlink.get_link(netlink, self._name)
            if link is None and not new:
                return
            for address in old:
                if address not in new and link is not None:
                    _delete_address(netlink, link.index, parse_interface(address))
            for address in new:
                if address not in old:
                    ensure_bridge(netlink, self._name, parse_interface(address))

    def _all(self) -> list[str]:
        with Netlink() as netlink:
            link = rtnetlink.get_link(netlink, self._name)
            found = rtnetlink.addresses(netlink, link.index) if link is not None else []
        return [str(Cidr(packed, prefix)) for packed, prefix in found if not is_link_local(packed)]

    def _others(self) -> list[str]:
        return [address for address in _listed(self.observe()) if address not in self._ours]


def _ports(netlink: Netlink, index: int) -> list[str]:
    return [link.name for link in rtnetlink.all_links(netlink) if link.master == index]


def _mac_stays(name: str) -> bool:
    """Whether a link was given its MAC (linux/netdevice.h, NET_ADDR_SET); where sysfs doesn't say, so be it."""
    try:
        return durable.contents(f"{_SYSFS}/{name}/addr_assign_type").strip() == _NET_ADDR_SET
    except OSError:
        return True


def _is_ours(state: State) -> bool:
    return str(state["owner"]).startswith(OWNER_MARK)


def _addresses(found: Iterable[str]) -> State | None:
    unique = sorted(set(found))
    return {"addresses": unique} if unique else None


def _listed(state: State | None) -> list[str]:
    return list(state["addresses"]) if state else []


def _add_command(address: str, name: str) -> str:
    """As `core.bridge` adds it: an IPv4 one with its broadcast address, an IPv6 one usable at once."""
    if is_ipv6(address):
        return f"ip address add {address} dev {name} nodad"
    return f"ip address add {address} broadcast + dev {name}"


def _delete_address(netlink: Netlink, index: int, address: Cidr) -> None:
    _, _, body = rtnetlink.add_address(index, address.packed, address.prefix)
    try:
        netlink.call((rtnetlink.RTM_DELADDR, 0, body))
    except NetlinkError as error:
        if error.errno != errno.EADDRNOTAVAIL:  # gone already, where IPv6 was just disabled
            raise


def _example_mac() -> str:
    """A MAC of one's own is needed, not this one: without any, the bridge takes that of its lowest port."""
    return "02:00:00:00:00:01"
