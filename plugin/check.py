"""CHECK: an attachment compared with what its ADD promised. Spec 1.1.0, section 2.

What another plugin of the chain changes by design is no deviation: a MAC that its result names, a route in a table of
its own, addresses and interfaces that it added.
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
"""A pod's routes by destination and prefix length: a configuration may list thousands."""


def check(call: Call, conf: NetConf) -> str:
    """Raises CniError 104 naming the first thing that is missing or wrong; 3 if there is no such attachment.

    Returns the attachment's addresses, for the log.
    """
    if conf.prev_result is None:
        raise CniError(INVALID_CONFIG, "prevResult: missing; CHECK compares with it", "the runtime passes ADD's result")
    ips = _promised(call, conf)
    try:
        held = attachments.seize(conf.name, call.container, call.ifname, 0.0, shared=True)
    except CniError:
        return _check_in_flight(call, conf, ips)
    return _check(call, conf, ips, held, home=False)


def _check_in_flight(call: Call, conf: NetConf, ips: "list[tuple[Cidr, Cidr | None]]") -> str:
    """CHECK beside an ADD or DEL that is at work: what it finds wrong then counts only once that has ended."""
    try:
        return _check(call, conf, ips, -1, home=True)
    except CniError:
        from cnictl.core.detach import SEIZE_WAIT  # a CHECK loads it for nothing else

        held = attachments.seize(conf.name, call.container, call.ifname, SEIZE_WAIT, shared=True)
    return _check(call, conf, ips, held, home=True)


def _check(call: Call, conf: NetConf, ips: "list[tuple[Cidr, Cidr | None]]", held: int, home: bool) -> str:
    """`held`: the record's descriptor, by which nobody begins to work on it. `home`: whether to leave the pod again."""
    netns = Netns(call.netns)
    addresses = [address for address, _ in ips]
    record = attachments.read(conf.name, call.container, call.ifname)
    with Netlink() as host:
        foreign = None
        if record is None or not record.host_veth:
            from .check_foreign import check_foreign_rules, foreign_host_veth  # made by the reference, or lost

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
                close(held)  # that may take longer than a DEL is to wait
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
    """The name of the pair's host end: as the record says, else as ADD's result does."""
    if record is not None and record.host_veth:
        return record.host_veth
    interfaces = objects(conf.prev_result, "interfaces", "name")
    names = [one["name"] for one in interfaces if not one.get("sandbox") and one["name"] != conf.bridge]
    return names[0] if names else host_veth_name(conf.name, call.container, call.ifname)


def _promised(call: Call, conf: NetConf) -> list[tuple[Cidr, Cidr | None]]:
    """The addresses that prevResult gives to this interface, each with its gateway in its subnet."""
    interfaces = objects(conf.prev_result, "interfaces", "name")
    mine = [place for place, one in enumerate(interfaces) if one["name"] == call.ifname and one.get("sandbox")]
    if not mine:
        raise CniError(INVALID_CONFIG, f"prevResult: names no interface {call.ifname} in a container")
    found: list[tuple[Cidr, Cidr | None]] = []
    for one in objects(conf.prev_result, "ips", "address"):
        if one.get("interface") in mine:
            try:
                address = parse_interface(one["address"], "prevResult.ips")
                through = parse_address(one["gateway"], "prevResult.ips.gateway") if one.get("gateway") else b""
            except AddressError as error:
                raise CniError(INVALID_CONFIG, str(error)) from None
            found.append((address, Cidr(through, address.prefix) if through else None))
    if not found and conf.ipam_type:
        raise CniError(INVALID_CONFIG, f"prevResult: gives {call.ifname} no address")
    return found


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
    link, what = bridge, f"bridge {conf.bridge}"
    if conf.vlan:
        from . import vlan

        name = vlan.gateway_name(conf.bridge, conf.vlan)
        inside = rtnetlink.get_link(host, name)
        if inside is None or not inside.up:
            raise _failed(f"{name}, the gateway in VLAN {conf.vlan}, is {'missing' if inside is None else 'down'}")
        link, what = inside, name
    present = rtnetlink.addresses(host, link.index, _family(gateways))
    for gateway in gateways:
        if (gateway.packed, gateway.prefix) not in present:
            raise _failed(f"{what} has lost its address {gateway}", "cnictl apply")


def _family(addresses: list[Cidr]) -> int:
    """The one to list: half the work where there is no IPv6."""
    return AF_INET if all(one.bits == 32 for one in addresses) else AF_UNSPEC


def _check_settings(host: Netlink, conf: NetConf, bridge: Link, veth: Link) -> None:
    """What few configurations ask of the bridge and its port; more than was asked for is nobody's business here."""
    if conf.promiscuous and not bridge.flags & rtnetlink.IFF_PROMISC:
        raise _failed(f"promiscMode: bridge {bridge.name} isn't promiscuous", f"ip link set {bridge.name} promisc on")
    if conf.hairpin and veth.port.get(rtnetlink.IFLA_BRPORT_MODE) != b"\1":
        raise _failed(f"hairpinMode: {veth.name} has none", f"bridge link set dev {veth.name} hairpin on")
    if conf.isolated and veth.port.get(rtnetlink.IFLA_BRPORT_ISOLATED) != b"\1":
        raise _failed(f"portIsolation: {veth.name} isn't isolated", f"bridge link set dev {veth.name} isolated on")
    if conf.vlan or conf.vlan_trunk:
        from . import vlan

        present = vlan.port_vlans(host, veth.index)
        for vid, flags in vlan.wanted_port(conf).items():
            if present.get(vid) != flags:
                raise _failed(f"{vlan.asked(conf)}: {veth.name} isn't in VLAN {vid} as ADD put it there")


def _check_rules(call: Call, conf: NetConf, record: Record | None, host_veth: str) -> None:
    """The firewall's part: what a flush takes away."""
    with_pod = conf.subnets_vary or (record is not None and record.masqueraded)
    if conf.masquerade and conf.served and not with_pod:
        wanted = RuleSet(conf.name, conf.subnets, conf.networks)
        if not backend(conf.backend).stands(wanted):
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

        pod = [one for one in objects(conf.prev_result, "interfaces", "name") if one["name"] == call.ifname]
        macs = [str(one.get("mac") or "").lower() for one in pod if one.get("sandbox")]
        if not macs or not macspoof.stands(host_veth, macs[0]):
            raise _failed(f"macspoofchk: the rules for {host_veth} are missing")


def _check_isolation(conf: NetConf, record: Record, host_veth: str, addresses: list[str]) -> None:
    """The rules that keep isolated pods apart by way of the node; attachments of the first release have none."""
    from cnictl.core import isolation

    from . import vlan

    interface = vlan.gateway_name(conf.bridge, conf.vlan) if conf.vlan else conf.bridge
    pod = (host_veth, [address for address in record.addresses if address in addresses])
    if not isolation.stands(conf.bridge, interface, pod):
        raise _failed(f"portIsolation: the rules for {host_veth} are missing")


def _check_lease(call: Call, conf: NetConf, ips: list[Cidr], foreign: bool) -> None:
    """`foreign`: another plugin leased it; before its 0.8 host-local wrote the container alone."""
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
        state = "up in the container, against disableContainerInterface" if link.up else "down in the container"
        raise _failed(f"{call.ifname} is {state}")
    _compare_mac(conf, link, sandbox=True)
    present = rtnetlink.addresses(pod, link.index, _family(ips)) if ips else []
    for address in ips:
        if (address.packed, address.prefix) not in present:
            raise _failed(f"{call.ifname} has lost the address {address}")
    found: dict[int, _Routes] = {}
    asked: dict[Cidr, list[Route]] = {}
    for route in conf.routes:
        asked.setdefault(route.destination, []).append(route)
    for one in objects(conf.prev_result, "routes", "dst"):
        family = AF_INET6 if ":" in one["dst"] else AF_INET
        if family not in found:
            found[family] = _by_destination(listed(pod, family))
        _check_route(conf, one, found[family], asked, link, ips)


def _by_destination(routes: list[KernelRoute]) -> _Routes:
    found: _Routes = {}
    for one in routes:
        found.setdefault((one.destination, one.prefix), []).append(one)
    return found


def _check_route(
    conf: NetConf,
    promised: "dict[str, Any]",
    routes: _Routes,
    asked: dict[Cidr, list[Route]],
    link: Link,
    ips: list[Cidr],
) -> None:
    """A route that has no table of its own may be in any: sbr moves them (plugins/meta/sbr).

    One through a gateway in this interface's subnets has to lead through this interface, not another network's.
    """
    try:
        destination = parse_interface(promised["dst"], "prevResult.routes.dst").network
        gateway = parse_address(promised["gw"], "prevResult.routes.gw") if promised.get("gw") else b""
    except AddressError as error:
        raise CniError(INVALID_CONFIG, str(error)) from None
    wanted, least = _metrics(conf, promised, destination, asked.get(destination, ()))
    packed = destination.packed if destination.prefix else b""
    same = routes.get((packed, destination.prefix), [])
    same = [one for one in same if not gateway or one.leads_through(gateway)]
    if gateway and any(address.network.holds(gateway) for address in ips):
        same = [one for one in same if link.index in one.links]
    if not same:
        through = f" through {promised['gw']}" if gateway else ""
        raise _failed(f"the container has lost its route to {destination}{through}")
    same = [one for one in same if one.priority >= least]
    if not any(all(getattr(one, key) == value for key, value in wanted.items()) for one in same):
        wanted = wanted | ({"priority": least} if least else {})
        shown = ", ".join(f"{key} {value}" for key, value in wanted.items())
        raise _failed(f"the container's route to {destination} has lost its {shown}")


def _metrics(
    conf: NetConf, promised: "dict[str, Any]", destination: Cidr, asked: "Iterable[Route]"
) -> tuple[dict[str, int], int]:
    """What a route has beside its gateway: results before 1.1.0 don't say, but the configuration does.

    The second value is the least priority: ADD raises what the configuration says where another network has that.
    """
    least = 0
    metrics = {key: promised[key] for key in METRICS if isinstance(promised.get(key), int)}
    if conf.cni_version != "1.1.0":
        for route in asked:
            given = ((key, getattr(route, key)) for key in METRICS)
            metrics.update((key, value) for key, value in given if value is not None)
        least = metrics.pop("priority", 0)
    if destination.bits == 128:
        metrics.pop("scope", None)  # which IPv6 has none of
    return {key: value for key, value in metrics.items() if value or key == "scope"}, least


def _compare_mac(conf: NetConf, link: Link, sandbox: bool) -> None:
    for one in objects(conf.prev_result, "interfaces", "name"):
        if one["name"] == link.name and bool(one.get("sandbox")) == sandbox:
            promised = str(one.get("mac") or "").lower()
            if promised and promised != link.mac:
                raise _failed(f"{link.name} has the MAC {link.mac}, ADD gave it {promised}")


def _failed(message: str, hint: str = "") -> CniError:
    return CniError(CHECK_FAILED, message, hint)
