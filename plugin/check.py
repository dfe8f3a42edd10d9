"""CHECK: an attachment compared with what its ADD promised. Spec 1.1.0, section 2."""

from cnictl.core import attachments, masquerade, rtnetlink
from cnictl.core.cidr import AddressError, Cidr, format_address, parse_address, parse_interface
from cnictl.core.conf import NetConf
from cnictl.core.digest import host_veth_name
from cnictl.core.errors import CHECK_FAILED, INVALID_CONFIG, UNKNOWN_CONTAINER, CniError
from cnictl.core.leases import Store
from cnictl.core.netns import Netns
from cnictl.core.result import objects
from cnictl.core.rtnetlink import AF_INET, AF_INET6, Link, Netlink

from .environment import Call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def check(call: Call, conf: NetConf) -> str:
    """Raises CniError 104 naming the first thing that is missing or wrong; 3 if there is no such attachment.

    Returns the attachment's address, for the log.
    """
    if conf.prev_result is None:
        raise CniError(INVALID_CONFIG, "prevResult: missing; CHECK compares with it", "the runtime passes ADD's result")
    ips = _promised(call, conf)
    netns = Netns(call.netns)
    with Netlink() as host:
        _check_host(host, call, conf)
        _check_lease(call, conf, ips)
        netns.enter()
        with Netlink() as pod:
            _check_pod(pod, call, conf, ips)
    return " ".join(address.address for address in ips)


def _promised(call: Call, conf: NetConf) -> list[Cidr]:
    """The addresses that prevResult gives to this interface."""
    interfaces = objects(conf.prev_result, "interfaces", "name")
    mine = [place for place, one in enumerate(interfaces) if one["name"] == call.ifname and one.get("sandbox")]
    if not mine:
        raise CniError(INVALID_CONFIG, f"prevResult: names no interface {call.ifname} in a container")
    found = []
    for one in objects(conf.prev_result, "ips", "address"):
        if one.get("interface") in mine:
            try:
                found.append(parse_interface(one["address"], "prevResult.ips"))
            except AddressError as error:
                raise CniError(INVALID_CONFIG, str(error)) from None
    if not found:
        raise CniError(INVALID_CONFIG, f"prevResult: gives {call.ifname} no address")
    return found


def _check_host(host: Netlink, call: Call, conf: NetConf) -> None:
    bridge = rtnetlink.get_link(host, conf.bridge)
    if bridge is None or bridge.kind != "bridge":
        raise _failed(f"bridge {conf.bridge} is missing")
    if not bridge.up:
        raise _failed(f"bridge {conf.bridge} is down", f"ip link set {conf.bridge} up")
    for gateway in conf.gateways:
        family = AF_INET if gateway.bits == 32 else AF_INET6
        if (gateway.packed, gateway.prefix) not in rtnetlink.addresses(host, bridge.index, family):
            raise _failed(f"bridge {conf.bridge} has lost its address {gateway}", "cnictl apply")
    name = host_veth_name(conf.name, call.container, call.ifname)
    veth = rtnetlink.get_link(host, name)
    if veth is None:
        raise _failed(f"host veth {name} is missing")
    if veth.master != bridge.index:
        raise _failed(f"host veth {name} is not on bridge {conf.bridge}", f"ip link set {name} master {conf.bridge}")
    if not veth.up:
        raise _failed(f"host veth {name} is down", f"ip link set {name} up")
    _compare_mac(conf, veth, sandbox=False)
    _check_rules(call, conf, name)


def _check_rules(call: Call, conf: NetConf, host_veth: str) -> None:
    """The firewall's part: what a flush takes away."""
    if conf.masquerade and conf.served and not conf.subnets_vary:
        wanted = masquerade.Masquerade(conf.name, conf.subnets, conf.networks)
        if not masquerade.stands(wanted, conf.backend):
            raise _failed(f"the masquerade rules of {conf.name} are missing", "cnictl nat enable")
    elif conf.masquerade:
        from cnictl.core import masquerade_scoped

        record = attachments.read(conf.name, call.container, call.ifname)
        missing = masquerade_scoped.missing(record, conf.networks) if record is not None else []
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


def _check_lease(call: Call, conf: NetConf, ips: list[Cidr]) -> None:
    record = attachments.read(conf.name, call.container, call.ifname)
    if record is None:
        raise CniError(UNKNOWN_CONTAINER, f"{call.container} {call.ifname} is not attached to {conf.name}")
    store = Store(conf.name, conf.data_dir)
    for address in ips:
        if not any(subnet.holds(address.packed) for subnet in conf.subnets):
            continue  # another plugin of the chain gave it
        lease = store.read(address.address)
        if lease is None or (lease.container, lease.ifname) != (call.container, call.ifname):
            holder = f"{lease.container} {lease.ifname} holds it" if lease else "nobody holds it"
            raise _failed(f"the lease of {address.address} is lost: {holder}")


def _check_pod(pod: Netlink, call: Call, conf: NetConf, ips: list[Cidr]) -> None:
    link = rtnetlink.get_link(pod, call.ifname)
    if link is None:
        raise _failed(f"{call.ifname} is missing in the container")
    if not link.up:
        raise _failed(f"{call.ifname} is down in the container")
    _compare_mac(conf, link, sandbox=True)
    for address in ips:
        present = rtnetlink.addresses(pod, link.index, AF_INET if address.bits == 32 else AF_INET6)
        if (address.packed, address.prefix) not in present:
            raise _failed(f"{call.ifname} has lost the address {address}")
    routes = rtnetlink.routes(pod, AF_INET)
    for one in objects(conf.prev_result, "routes", "dst"):
        _check_route(one, routes)


def _check_route(promised: "Any", routes: list[tuple[bytes | None, int, bytes | None, int]]) -> None:
    if ":" in promised["dst"]:
        return
    try:
        destination = parse_interface(promised["dst"], "prevResult.routes.dst")
        gateway = parse_address(promised["gw"], "prevResult.routes.gw") if promised.get("gw") else None
    except AddressError as error:
        raise CniError(INVALID_CONFIG, str(error)) from None
    wanted = destination.packed if destination.prefix else None
    for to, prefix, via, _ in routes:
        if (to, prefix) == (wanted, destination.prefix) and (gateway is None or via == gateway):
            return
    through = f" through {format_address(gateway)}" if gateway else ""
    raise _failed(f"the container has lost its route to {destination}{through}")


def _compare_mac(conf: NetConf, link: Link, sandbox: bool) -> None:
    for one in objects(conf.prev_result, "interfaces", "name"):
        if one["name"] == link.name and bool(one.get("sandbox")) == sandbox:
            promised = str(one.get("mac") or "").lower()
            if promised and promised != link.mac:
                raise _failed(f"{link.name} has the MAC {link.mac}, ADD gave it {promised}")


def _failed(msg: str, mend: str = "") -> CniError:
    return CniError(CHECK_FAILED, msg, mend)
