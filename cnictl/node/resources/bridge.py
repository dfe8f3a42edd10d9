"""The bridge, its address and its netfilter hook. All are made by `core.bridge`, as the plugin's ADD makes them."""

import errno
from collections.abc import Iterable

from cnictl.core import rtnetlink
from cnictl.core.bridge import ensure_bridge, has_bridge_netfilter, remove_if_empty
from cnictl.core.cidr import Cidr, parse_cidr, parse_interface
from cnictl.core.errors import Problem
from cnictl.core.rtnetlink import Netlink, NetlinkError, attr, attributes, ifinfo, text_attr, u32_attr
from cnictl.node import former, host
from cnictl.node.peers import is_link_local
from cnictl.node.spec import NodeSpec, is_ipv6
from cnictl.node.spine import Change, State

OWNER_MARK = "cnictl:"
"""A link's alias begins with it if cnictl made the link."""


def gateways(spec: NodeSpec) -> list[Cidr]:
    """The bridge's addresses: each subnet's first, with the subnet's prefix length."""
    return [Cidr(subnet.nth(1), subnet.prefix) for subnet in map(parse_cidr, spec.subnets)]


class Bridge:
    """The bridge link: there, up, with its MTU. One that cnictl did not make is adopted, and kept at a reset."""

    def __init__(self, spec: NodeSpec) -> None:
        self._name = spec.bridge
        self.id = f"bridge/{spec.bridge}"

    def observe(self) -> State | None:
        """Kind, MTU, whether it is up, and the alias that says whose it is."""
        with Netlink() as netlink:
            link = rtnetlink.get_link(netlink, self._name)
        if link is None:
            return None
        return {"kind": link.kind, "mtu": link.mtu, "up": link.up, "owner": link.alias}

    def desired(self, spec: NodeSpec) -> State | None:
        """An adopted one keeps its MTU unless the spec names one."""
        found = self.observe()
        owner = OWNER_MARK + spec.name
        if found is None or _is_ours(found):
            return {"kind": "bridge", "mtu": host.mtu(spec), "up": True, "owner": owner}
        return {"kind": "bridge", "mtu": spec.mtu or found["mtu"], "up": True, "owner": found["owner"]}

    def remember(self) -> None:
        """Keep what an adopted bridge was like."""
        former.remember(self.id, {"state": self.observe()})

    def former(self) -> State | None:
        """None for a bridge of ours; an adopted one as it was found."""
        found = self.observe()
        if found is None or _is_ours(found):
            return None
        remembered = former.recall(self.id)
        return remembered["state"] if remembered and remembered["state"] else found

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:
        """The summary and the `ip link` commands."""
        name = self._name
        if after is None:
            return f"remove the bridge {name}", f"ip link delete {name}"
        if before is None:
            return f"make the bridge {name}, MTU {after['mtu']}", "\n".join(
                (
                    f"ip link add {name} address {_example_mac()} type bridge",
                    f"ip link set {name} mtu {after['mtu'] - 1}",
                    f"ip link set {name} mtu {after['mtu']} alias {after['owner']} up",
                    f"sysctl -w net.ipv6.conf.{name}.accept_ra=0",
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
        summary = f"set {name} to {', '.join(words)}" if words else f"make {name} a bridge"
        return summary, f"ip link set {name} {' '.join(options)}"

    def carry_out(self, change: Change) -> None:
        """Make, set or remove it. Raises Problem, CniError."""
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
            if found["owner"] != after["owner"]:
                netlink.call(rtnetlink.set_alias(self._name, after["owner"]))
            if not after["up"]:
                down = ifinfo(0, 0, rtnetlink.IFF_UP) + text_attr(rtnetlink.IFLA_IFNAME, self._name)
                netlink.call((rtnetlink.RTM_NEWLINK, 0, down))

    def _remove(self, netlink: Netlink) -> None:
        if remove_if_empty(netlink, self._name):
            return
        link = rtnetlink.get_link(netlink, self._name)
        if link is None:
            return
        ports = [other.name for other in rtnetlink.all_links(netlink) if other.master == link.index]
        raise Problem(
            f"{self._name} still has {len(ports)} port{'s' if len(ports) != 1 else ''}: {', '.join(ports[:8])}",
            f"what isn't cnictl's: ip link set {ports[0]} nomaster" if ports else "",
        )


class Address:
    """The bridge's address of each family. Others on an adopted bridge are left alone; so is its own, if it was there.

    Of IPv6 only those are looked at that a spec asked for: a link has others that come and go by themselves.
    """

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
        former.remember(self.id, {"state": _addresses(self._all())})

    def former(self) -> State | None:
        """Those without ours, unless ours was there before us."""
        remembered = former.recall(self.id)
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


_SWITCHES = {"nf_call_iptables": rtnetlink.IFLA_BR_NF_CALL_IPTABLES, "nf_call_ip6tables": 37}
"""IFLA_BR_NF_CALL_IPTABLES and IFLA_BR_NF_CALL_IP6TABLES (linux/if_link.h)."""


class BridgeNetfilter:
    """Packets bridged between pods pass iptables, where br_netfilter is there: Services need it on the same node."""

    def __init__(self, spec: NodeSpec) -> None:
        self._name = spec.bridge
        six = any(map(is_ipv6, spec.subnets))
        self._switches = _SWITCHES if six else {"nf_call_iptables": _SWITCHES["nf_call_iptables"]}
        self.id = f"netfilter/{spec.bridge}"

    def observe(self) -> State | None:
        """The bridge's own switches, of iptables and, with IPv6, of ip6tables."""
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
        """On, or whatever it is where there is no br_netfilter."""
        return dict.fromkeys(self._switches, 1) if has_bridge_netfilter() else self.observe()

    def remember(self) -> None:
        """Keep an adopted bridge's own setting."""
        former.remember(self.id, {"state": self._read(_SWITCHES)})

    def former(self) -> State | None:
        """That setting; None on a bridge of ours, with which it goes."""
        found = self.observe()
        with Netlink() as netlink:
            link = rtnetlink.get_link(netlink, self._name)
        if found is None or link is None or link.alias.startswith(OWNER_MARK):
            return None
        remembered = former.recall(self.id)
        before = (remembered["state"] or {}) if remembered else {}
        return {name: before.get(name, value) for name, value in found.items()}

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:  # noqa: ARG002
        """The summary and the `ip link` command."""
        values = self._values(after)
        summary = f"{'show' if any(values.values()) else 'stop showing'} iptables what passes between the ports of"
        options = " ".join(f"{name} {value}" for name, value in values.items())
        return f"{summary} {self._name}", f"ip link set {self._name} type bridge {options}"

    def carry_out(self, change: Change) -> None:
        """Set them; to go without is to have them off."""
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
