"""CHECK: compare an attachment with what its ADD promised. Spec 1.1.0, section 2.

Changes that another plugin of the chain makes by design are not deviations: a MAC that its result names, routes that it
moved to another table, addresses and interfaces that it added.
"""

from posix import close

from cnictl.core import attachments
from cnictl.core.attachments import Record
from cnictl.core.cidr import AddressError, Cidr, parse_address, parse_interface
from cnictl.core.conf.netconf import NetConf
from cnictl.core.conf.routes import METRICS, Route
from cnictl.core.digest import host_veth_name
from cnictl.core.errors import CHECK_FAILED, INVALID_CONFIG, UNKNOWN_CONTAINER, CniError
from cnictl.core.leases.lease_store import Store
from cnictl.core.masquerade.backends import backend
from cnictl.core.masquerade.rule_set import RuleSet
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.kernel_routes import KernelRoute, listed
from cnictl.core.netlink.rtnetlink import AF_INET, AF_INET6, AF_UNSPEC, Link, Netlink
from cnictl.core.netns import Inside, Netns
from cnictl.core.result import objects

from .environment import Call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_Routes = dict[tuple[bytes, int], list[KernelRoute]]
"""A pod's routes by destination and prefix length; there may be thousands."""


def check(call: Call, conf: NetConf) -> str:
    """Check an attachment and return its addresses, for the log.

    Raises CniError 104 naming the first thing that is missing or wrong, 3 if there is no such attachment.
    """
    if conf.prev_result is None:
        raise CniError(
            INVALID_CONFIG,
            "prevResult: missing; CHECK compares the attachment with it",
            "the runtime passes ADD's result",
        )
    ips = _promised(call, conf)
    try:
        held = attachments.seize(conf.name, call.container, call.ifname, 0.0, shared=True)
    except CniError:
        return _check_in_flight(call, conf, ips)
    return _check(call, conf, ips, held, home=False)


def _check_in_flight(call: Call, conf: NetConf, ips: "list[tuple[Cidr, Cidr | None]]") -> str:
    """Check while an ADD or DEL is running: a fault counts only if it remains after that call has ended."""
    try:
        return _check(call, conf, ips, -1, home=True)
    except CniError:
        from cnictl.core.detach import SEIZE_WAIT  # a plain CHECK doesn't need it

        held = attachments.seize(conf.name, call.container, call.ifname, SEIZE_WAIT, shared=True)
    return _check(call, conf, ips, held, home=True)


def _check(call: Call, conf: NetConf, ips: "list[tuple[Cidr, Cidr | None]]", held: int, home: bool) -> str:
    """Check. `held`: the record's locked descriptor, or -1. `home`: return to the host's namespace at the end."""
    netns = Netns(call.netns)
    addresses = [address for address, _ in ips]
    record = attachments.read(conf.name, call.container, call.ifname)
    with Netlink() as host:
        foreign = None
        if record is None or not record.host_veth:
            from .check_foreign import (
                check_foreign_rules,
                foreign_host_veth,
            )  # the reference made it, or the record is lost

            foreign = foreign_host_veth(host, call)
        name = foreign.name if foreign is not None else _host_veth(call, conf, record)
        veth = _check_host(host, conf, name, [gateway for _, gateway in ips if gateway is not None])
        if foreign is None:
            _check_rules(call, conf, record, veth.name)
        else:
            check_foreign_rules(call, conf, addresses)
        if record is None and foreign is None:
            raise CniError(UNKNOWN_CONTAINER, f"{call.container} {call.ifname} is not attached to {conf.name}")
        if record is not None and record.isolated:
            _check_isolation(conf, record, veth.name, [address.address for address in addresses])
        _check_lease(call, conf, addresses, foreign is not None)
        if conf.ipam_type and not conf.served:
            from . import delegate

            if held >= 0:
                close(held)  # the plugin may take longer than a DEL should have to wait
            delegate.check(call, conf)
        if home:
            with Inside(netns), Netlink() as pod:
                _check_pod(pod, call, conf, veth, addresses)
        else:
            netns.enter()
            with Netlink() as pod:
                _check_pod(pod, call, conf, veth, addresses)
    return " ".join(address.address for address in addresses)


def _host_veth(call: Call, conf: NetConf, record: Record | None) -> str:
    """Return the name of the host veth from the record, else from ADD's result."""
    if record is not None and record.host_veth:
        return record.host_veth
    interfaces = objects(conf.prev_result, "interfaces", "name")
    names = [link["name"] for link in interfaces if not link.get("sandbox") and link["name"] != conf.bridge]
    return names[0] if names else host_veth_name(conf.name, call.container, call.ifname)


def _promised(call: Call, conf: NetConf) -> list[tuple[Cidr, Cidr | None]]:
    """Return the addresses that prevResult gives this interface, each with its gateway (None if there is none)."""
    interfaces = objects(conf.prev_result, "interfaces", "name")
    mine = [place for place, link in enumerate(interfaces) if link["name"] == call.ifname and link.get("sandbox")]
    if not mine:
        raise CniError(INVALID_CONFIG, f"prevResult names no interface {call.ifname} in a container")
    promised: list[tuple[Cidr, Cidr | None]] = []
    for entry in objects(conf.prev_result, "ips", "address"):
        if entry.get("interface") in mine:
            try:
                address = parse_interface(entry["address"], "prevResult.ips")
                through = parse_address(entry["gateway"], "prevResult.ips.gateway") if entry.get("gateway") else b""
            except AddressError as error:
                raise CniError(INVALID_CONFIG, str(error)) from None
            promised.append((address, Cidr(through, address.prefix) if through else None))
    if not promised and conf.ipam_type:
        raise CniError(INVALID_CONFIG, f"prevResult: gives {call.ifname} no address")
    return promised


def _check_host(host: Netlink, conf: NetConf, name: str, gateways: list[Cidr]) -> Link:
    bridge = rtnetlink.get_link(host, conf.bridge)
    if bridge is None or bridge.kind != "bridge":
        raise _failed(f"bridge {conf.bridge} is missing")
    if not bridge.up:
        raise _failed(f"bridge {conf.bridge} is down", f"ip link set {conf.bridge} up")
    if conf.is_gateway and gateways:
        _check_gateways(host, conf, bridge, gateways)
    veth = rtnetlink.get_link(host, name)
    if veth is None:
        raise _failed(f"host veth {name} is missing")
    if veth.master != bridge.index:
        raise _failed(f"host veth {name} is not on bridge {conf.bridge}", f"ip link set {name} master {conf.bridge}")
    if not veth.up:
        raise _failed(f"host veth {name} is down", f"ip link set {name} up")
    _compare_mac(conf, veth, sandbox=False)
    _check_settings(host, conf, bridge, veth)
    return veth


def _check_gateways(host: Netlink, conf: NetConf, bridge: Link, gateways: list[Cidr]) -> None:
    link, subject = bridge, f"bridge {conf.bridge}"
    if conf.vlan:
        from . import vlan

        name = vlan.gateway_name(conf.bridge, conf.vlan)
        inside = rtnetlink.get_link(host, name)
        if inside is None or not inside.up:
            raise _failed(f"{name}, the gateway in VLAN {conf.vlan}, is {'missing' if inside is None else 'down'}")
        link, subject = inside, name
    present = rtnetlink.addresses(host, link.index, _family(gateways))
    for gateway in gateways:
        if (gateway.packed, gateway.prefix) not in present:
            raise _failed(f"{subject} has lost its address {gateway}", "cnictl apply")


def _family(addresses: list[Cidr]) -> int:
    """Return the family to list: without IPv6 that halves the work."""
    return AF_INET if all(address.bits == 32 for address in addresses) else AF_UNSPEC


def _check_settings(host: Netlink, conf: NetConf, bridge: Link, veth: Link) -> None:
    """Check the optional settings of the bridge and its port (promiscuous mode, hairpin); others are not a fault."""
    if conf.promiscuous and not bridge.flags & rtnetlink.IFF_PROMISC:
        raise _failed(f"promiscMode: bridge {bridge.name} isn't promiscuous", f"ip link set {bridge.name} promisc on")
    if conf.hairpin and veth.port.get(rtnetlink.IFLA_BRPORT_MODE) != b"\1":
        raise _failed(f"hairpinMode: hairpin mode is off on {veth.name}", f"bridge link set dev {veth.name} hairpin on")
    if conf.isolated and veth.port.get(rtnetlink.IFLA_BRPORT_ISOLATED) != b"\1":
        raise _failed(f"portIsolation: {veth.name} isn't isolated", f"bridge link set dev {veth.name} isolated on")
    if conf.vlan or conf.vlan_trunk:
        from . import vlan

        present = vlan.port_vlans(host, veth.index)
        for vid, flags in vlan.wanted_port(conf).items():
            if present.get(vid) != flags:
                raise _failed(f"{vlan.key_and_value(conf)}: {veth.name} isn't in VLAN {vid} as ADD put it there")


def _check_rules(call: Call, conf: NetConf, record: Record | None, host_veth: str) -> None:
    """Check the firewall rules, which somebody may have flushed."""
    with_pod = conf.subnets_vary or (record is not None and record.masqueraded)
    if conf.masquerade and conf.served and not with_pod:
        wanted = RuleSet(conf.name, conf.subnets, conf.networks)
        if not backend(conf.backend).is_loaded(wanted):
            raise _failed(f"the masquerade rules of {conf.name} are missing", "cnictl nat enable")
    elif conf.masquerade:
        from cnictl.core.masquerade import scoped

        networks = scoped.networks_of(record, conf) if record is not None else ()
        missing = scoped.missing(record, networks) if record is not None else []
        if missing:
            raise _failed(
                f"the masquerade rules of {', '.join(missing)} are missing", "the next ADD of that subnet loads them"
            )
    if conf.mac_check:
        from cnictl.core import macspoof

        ends = [link for link in objects(conf.prev_result, "interfaces", "name") if link["name"] == call.ifname]
        macs = [str(end.get("mac") or "").lower() for end in ends if end.get("sandbox")]
        if not macs or not macspoof.is_loaded(host_veth, macs[0]):
            raise _failed(f"macspoofchk: the rules for {host_veth} are missing")


def _check_isolation(conf: NetConf, record: Record, host_veth: str, addresses: list[str]) -> None:
    """Check the rules that isolate pods from each other on the node."""
    from cnictl.core import isolation

    from . import vlan

    interface = vlan.gateway_name(conf.bridge, conf.vlan) if conf.vlan else conf.bridge
    pod = (host_veth, [address for address in record.addresses if address in addresses])
    if not isolation.is_loaded(conf.bridge, interface, pod):
        raise _failed(f"portIsolation: the rules for {host_veth} are missing")


def _check_lease(call: Call, conf: NetConf, ips: list[Cidr], foreign: bool) -> None:
    """Check the leases. `foreign`: another plugin made them; host-local before 0.8 wrote only the container."""
    owners = ((call.container, call.ifname), (call.container, "")) if foreign else ((call.container, call.ifname),)
    store = Store(conf.name, conf.data_dir)
    for address in ips:
        if not any(subnet.holds(address.packed) for subnet in conf.subnets):
            continue  # another plugin of the chain gave it
        lease = store.read(address.address)
        if lease is None or (lease.container, lease.ifname) not in owners:
            holder = f"{lease.container} {lease.ifname} holds it" if lease else "nobody holds it"
            raise _failed(f"the lease of {address.address} is lost: {holder}")


def _check_pod(pod: Netlink, call: Call, conf: NetConf, veth: Link, ips: list[Cidr]) -> None:
    link = rtnetlink.get_link(pod, call.ifname)
    if link is None:
        raise _failed(f"{call.ifname} is missing in the container")
    if link.kind != "veth" or (link.peer, veth.peer) != (veth.index, link.index):
        raise _failed(f"{call.ifname} in the container is not the other end of {veth.name}")
    if link.up == conf.container_down:
        state = "up in the container in spite of disableContainerInterface" if link.up else "down in the container"
        raise _failed(f"{call.ifname} is {state}")
    _compare_mac(conf, link, sandbox=True)
    present = rtnetlink.addresses(pod, link.index, _family(ips)) if ips else []
    for address in ips:
        if (address.packed, address.prefix) not in present:
            raise _failed(f"{call.ifname} has lost the address {address}")
    routes: dict[int, _Routes] = {}
    configured: dict[Cidr, list[Route]] = {}
    for route in conf.routes:
        configured.setdefault(route.destination, []).append(route)
    for promised in objects(conf.prev_result, "routes", "dst"):
        family = AF_INET6 if ":" in promised["dst"] else AF_INET
        if family not in routes:
            routes[family] = _by_destination(listed(pod, family))
        _check_route(conf, promised, routes[family], configured, link, ips)


def _by_destination(routes: list[KernelRoute]) -> _Routes:
    grouped: _Routes = {}
    for route in routes:
        grouped.setdefault((route.destination, route.prefix), []).append(route)
    return grouped


def _check_route(
    conf: NetConf,
    promised: "dict[str, Any]",
    routes: _Routes,
    configured: dict[Cidr, list[Route]],
    link: Link,
    ips: list[Cidr],
) -> None:
    """Check that the pod has a promised route; unless a table is promised, it may be in any: sbr moves routes.

    A route through a gateway in this interface's subnets must use this interface, not another network's.
    """
    try:
        destination = parse_interface(promised["dst"], "prevResult.routes.dst").network
        gateway = parse_address(promised["gw"], "prevResult.routes.gw") if promised.get("gw") else b""
    except AddressError as error:
        raise CniError(INVALID_CONFIG, str(error)) from None
    wanted, least = _metrics(conf, promised, destination, configured.get(destination, ()))
    packed = destination.packed if destination.prefix else b""
    matching = routes.get((packed, destination.prefix), [])
    matching = [route for route in matching if not gateway or route.leads_through(gateway)]
    if gateway and any(address.network.holds(gateway) for address in ips):
        matching = [route for route in matching if link.index in route.links]
    if not matching:
        through = f" through {promised['gw']}" if gateway else ""
        raise _failed(f"the container has lost its route to {destination}{through}")
    matching = [route for route in matching if route.priority >= least]
    if not any(all(getattr(route, key) == value for key, value in wanted.items()) for route in matching):
        wanted = wanted | ({"priority": least} if least else {})
        shown = ", ".join(f"{key} {value}" for key, value in wanted.items())
        raise _failed(f"the container's route to {destination} has lost its {shown}")


def _metrics(
    conf: NetConf, promised: "dict[str, Any]", destination: Cidr, configured: "Iterable[Route]"
) -> tuple[dict[str, int], int]:
    """Return a route's metrics, and its least priority if the exact one isn't known.

    Results before 1.1.0 have no metrics, so they come from the configuration; ADD raises its priority if another
    network has the same route.
    """
    least = 0
    metrics = {key: promised[key] for key in METRICS if isinstance(promised.get(key), int)}
    if conf.cni_version != "1.1.0":
        for route in configured:
            values = ((key, getattr(route, key)) for key in METRICS)
            metrics.update((key, value) for key, value in values if value is not None)
        least = metrics.pop("priority", 0)
    if destination.bits == 128:
        metrics.pop("scope", None)  # IPv6 routes have none
    return {key: value for key, value in metrics.items() if value or key == "scope"}, least


def _compare_mac(conf: NetConf, link: Link, sandbox: bool) -> None:
    for entry in objects(conf.prev_result, "interfaces", "name"):
        if entry["name"] == link.name and bool(entry.get("sandbox")) == sandbox:
            promised = str(entry.get("mac") or "").lower()
            if promised and promised != link.mac:
                raise _failed(f"{link.name} has the MAC {link.mac}, ADD gave it {promised}")


def _failed(message: str, hint: str = "") -> CniError:
    return CniError(CHECK_FAILED, message, hint)
