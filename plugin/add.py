"""ADD: a pod's interface with its address and routes, whole or not at all. Spec 1.1.0, section 2."""

import errno
import time
from posix import close, urandom

from cnictl.core import attachments, jsontext, liveness, masquerade, rtnetlink
from cnictl.core.attachments import Record
from cnictl.core.bridge import BridgeMade, ensure_bridge, remove_if_empty
from cnictl.core.cidr import Cidr, format_address
from cnictl.core.conf import NetConf
from cnictl.core.detach import detach, detach_stale, torn_leases
from cnictl.core.digest import host_veth_name
from cnictl.core.errors import (
    INTERFACE_EXISTS,
    INVALID_ENVIRONMENT,
    KERNEL_REFUSED,
    TRY_AGAIN,
    CniError,
)
from cnictl.core.leases import Exhausted, Store
from cnictl.core.locks import Locked
from cnictl.core.netns import Netns
from cnictl.core.pool import distribute
from cnictl.core.result import objects, shape
from cnictl.core.routes import Route, complete
from cnictl.core.rtnetlink import Netlink, NetlinkError, format_mac

from .environment import Call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from cnictl.core.pool import Range

ALIAS_LIMIT = 255
"""Bytes the kernel takes for a link's alias; longer is ERANGE."""

_OPERSTATE_UP = 6
_ACTIVATION_WAIT = 2.0
"""Seconds to wait for links to send: normally well under a millisecond."""


def add(call: Call, conf: NetConf, publish: "Callable[[str], None]", lock: Locked) -> str:
    """Attach the container; its result goes out through `publish`. Returns the address, for the log.

    `lock` is the node's, held shared. Raises CniError; then everything this call made is undone.
    """
    netns = Netns(call.netns)
    if netns.ours:
        raise CniError(INVALID_ENVIRONMENT, f"CNI_NETNS {call.netns!r}: it is the host's own namespace")
    distribute(conf.sets, _wanted(call, conf))  # what can't be had is refused before anything is made
    _previous(conf)  # one that can't be handed on is refused before anything is made
    with Netlink() as host:
        _refuse_second(host, call, conf)
        gateways = conf.gateways
        owner = f"cnictl:{conf.name}"
        bridge = ensure_bridge(host, conf.bridge, gateways[0] if gateways else None, conf.mtu, owner)
        for more in gateways[1:]:
            ensure_bridge(host, conf.bridge, more)
        held: list[int] = []
        ruled = False
        try:
            ruled = _ensure_masquerade(conf)
            record = _intend(call, conf, netns)
            leased = _lease(host, call, conf, record, held)
            if record.masqueraded:
                from cnictl.core import masquerade_scoped  # rare

                masquerade_scoped.ensure(record, conf.networks)
            result = _attach(host, call, conf, netns, bridge, record, leased)
            attachments.mark_complete(held[0])
            publish(jsontext.dumps(result))
        except BaseException:
            if held:
                detach(host, conf.name, call.container, call.ifname, conf.data_dir, held=held.pop())
            # with nobody else at work, no other ADD counts on a bridge that has no port yet, nor on its rules
            if bridge.made and lock.alone() and remove_if_empty(host, conf.bridge) and ruled:
                masquerade.remove(conf.name, conf.backend)
            raise
        close(held[0])
        return " ".join(record.addresses)


def _wanted(call: Call, conf: NetConf) -> list[bytes]:
    """The addresses asked for: CNI_ARGS' and the configuration's."""
    return [*call.wanted, *conf.wanted]


def _refuse_second(host: Netlink, call: Call, conf: NetConf) -> None:
    """One attachment a container and interface; what an ADD that died left behind is cleared away first."""
    name = host_veth_name(conf.name, call.container, call.ifname)
    record = attachments.read(conf.name, call.container, call.ifname)
    if record is not None:
        verdict = liveness.judge(record, host)
        if verdict.state == liveness.STALE:
            detach(host, conf.name, call.container, call.ifname, conf.data_dir)
            return
        if verdict.state == liveness.IN_FLIGHT:
            raise CniError(TRY_AGAIN, f"{call.container} {call.ifname}: another call is at work on it")
        where = " ".join(filter(None, (record.host_veth, *record.addresses)))
        raise CniError(
            INTERFACE_EXISTS,
            f"{call.container} {call.ifname} is attached to {conf.name} already: {where}",
            "the runtime has to DEL this attachment before it may ADD it again",
        )
    if rtnetlink.get_link(host, name) is not None:
        raise CniError(
            INTERFACE_EXISTS,
            f"host veth {name} of {call.container} {call.ifname} exists already, without a record",
            "the runtime has to DEL this attachment before it may ADD it again",
        )


def _ensure_masquerade(conf: NetConf) -> bool:
    """The node's rule set as `cnictl nat enable` makes it, reloaded where something flushed it.

    Returns whether nothing of it was there before.
    """
    if not conf.masquerade or conf.subnets_vary:
        return False
    return masquerade.ensure(masquerade.Masquerade(conf.name, conf.subnets, conf.networks), conf.backend)


def _intend(call: Call, conf: NetConf, netns: Netns) -> Record:
    record = Record(conf.name, call.container, call.ifname)
    record.bridge = conf.bridge
    record.host_veth = host_veth_name(conf.name, call.container, call.ifname)
    record.mac = format_mac(conf.mac or call.mac or _random_mac())
    record.netns, record.netns_dev, record.netns_ino = netns.path, netns.device, netns.inode
    record.pod_namespace = call.args.get("K8S_POD_NAMESPACE", "")
    record.pod_name = call.args.get("K8S_POD_NAME", "")
    record.pod_uid = call.args.get("K8S_POD_UID", "")
    record.boot_id = liveness.boot_id()
    record.created = time.time()
    record.data_dir = conf.data_dir
    record.mac_check = conf.mac_check
    if conf.masquerade and conf.subnets_vary:
        from cnictl.core import masquerade_scoped

        record.masqueraded = masquerade_scoped.named(conf.subnets, conf.backend)
    return record


def _lease(host: Netlink, call: Call, conf: NetConf, record: Record, held: list[int]) -> "list[tuple[bytes, Range]]":
    """Lease an address of each range set; a full one first takes back what is proven stale.

    `held` gets the record's descriptor.
    """

    def before(addresses: list[str]) -> None:
        record.addresses = addresses
        try:
            held.append(record.write())
        except FileExistsError:
            raise CniError(TRY_AGAIN, f"{call.container} {call.ifname}: another ADD is at work on it") from None

    store = Store(conf.name, conf.data_dir)
    try:
        return store.allocate(conf.sets, call.container, call.ifname, before, _wanted(call, conf))
    except Exhausted:
        freed = len(detach_stale(host, conf.name, conf.data_dir))
        freed += sum(store.release_torn(torn) for torn in torn_leases(conf.name, conf.data_dir))
        if not freed:
            raise
        return store.allocate(conf.sets, call.container, call.ifname, before, _wanted(call, conf))


def _attach(
    host: Netlink,
    call: Call,
    conf: NetConf,
    netns: Netns,
    bridge: BridgeMade,
    record: Record,
    leased: "list[tuple[bytes, Range]]",
) -> "dict[str, Any]":
    mtu = conf.mtu or bridge.mtu
    host_mac = _random_mac()
    alias = f"cnictl:{conf.name}/{record.pod or call.container}".encode()[:ALIAS_LIMIT].decode("utf-8", "ignore")
    pair = (record.host_veth, host_mac, alias, call.ifname, rtnetlink.parse_mac(record.mac), netns.descriptor, mtu)
    try:
        _make_pair(host, bridge.index, pair, conf.hairpin)
    except NetlinkError as error:
        raise _pair_refused(error, call) from None
    if conf.mac_check:
        from cnictl.core import macspoof  # rare

        macspoof.ensure(record.host_veth, record.mac)  # before the pod's end is up
    addresses = [Cidr(packed, one.subnet.prefix) for packed, one in leased]
    routes = complete(conf.routes, [one.gateway for _, one in leased], conf.default_route)
    netns.enter()
    with Netlink() as pod:
        made = _configure(pod, call.ifname, addresses, routes, len(conf.routes))
        _await_active((host, record.host_veth), (pod, call.ifname), (host, bridge.name))
    return _result(call, conf, bridge, record, format_mac(host_mac), mtu, leased, made)


def _make_pair(
    host: Netlink, bridge_index: int, pair: tuple[str, bytes, str, str, bytes, int, int], hairpin: bool
) -> None:
    host_name, host_mac, alias, ifname, pod_mac, descriptor, mtu = pair
    host.call(
        rtnetlink.add_veth_pair(host_name, host_mac, bridge_index, ifname, pod_mac, descriptor, mtu),
        rtnetlink.set_alias(host_name, alias),
    )
    if hairpin:
        host.call(rtnetlink.set_port(host_name, hairpin, False))


def _pair_refused(error: NetlinkError, call: Call) -> CniError:
    if error.errno == errno.EEXIST:
        return CniError(
            INTERFACE_EXISTS,
            f"CNI_IFNAME {call.ifname!r}: the container has an interface of that name already",
            "the runtime has to choose another name or DEL the interface first",
        )
    return CniError(KERNEL_REFUSED, f"veth pair for {call.ifname}: {error.strerror}")


def _configure(pod: Netlink, ifname: str, addresses: list[Cidr], routes: list[Route], listed: int) -> list[Route]:
    """Bring the pod's end up with its addresses and routes; returns the routes that were made.

    The first `listed` are the configuration's. A default route through another of the pod's interfaces stays as it is.
    """
    link = rtnetlink.get_link(pod, ifname)
    if link is None:
        raise CniError(KERNEL_REFUSED, f"{ifname} vanished from the container while it was set up")
    messages = [rtnetlink.set_up(link.index)]
    messages += [rtnetlink.add_address(link.index, address.packed, address.prefix) for address in addresses]
    before = len(messages)
    for route in routes:
        to = route.destination.packed if route.destination.prefix else None
        messages.append(rtnetlink.add_route(link.index, to, route.destination.prefix, route.gateway))
    try:
        pod.call(*messages)
    except NetlinkError as error:
        place = error.position - before
        if place >= listed and error.errno == errno.EEXIST:
            return routes[:place] + routes[place + 1 :]
        what = f"route to {routes[place].destination}" if place >= 0 else f"address {', '.join(map(str, addresses))}"
        raise CniError(KERNEL_REFUSED, f"{ifname}: {what}: {error.strerror}") from None
    return routes


def _await_active(*links: tuple[Netlink, str]) -> None:
    """Return once each link sends: what the pod sends before is lost, and what the bridge answers.

    A link that has only just got its carrier drops all it is to send until the kernel's link-watch activates it; with
    the host veth the bridge port begins to forward, and only with its first port does a bridge get a carrier. To ask
    for a link makes link-watch see to it at once (Linux 6.10, rtnl_getlink); before, it is done within a second.
    """
    deadline = time.monotonic() + _ACTIVATION_WAIT
    for netlink, name in links:
        while True:
            link = rtnetlink.get_link(netlink, name)
            if link is None or link.operstate == _OPERSTATE_UP or time.monotonic() > deadline:
                break
            time.sleep(0.0002)


def _result(
    call: Call,
    conf: NetConf,
    bridge: BridgeMade,
    record: Record,
    host_mac: str,
    mtu: int,
    leased: "list[tuple[bytes, Range]]",
    routes: list[Route],
) -> "dict[str, Any]":
    interfaces, ips, listed = _previous(conf)
    first = len(interfaces)
    interfaces += [
        {"name": bridge.name, "mac": bridge.mac, "mtu": bridge.mtu},
        {"name": record.host_veth, "mac": host_mac, "mtu": mtu},
        {"name": call.ifname, "mac": record.mac, "mtu": mtu, "sandbox": call.netns},
    ]
    for packed, one in leased:
        address = Cidr(packed, one.subnet.prefix)
        ips.append({"address": str(address), "gateway": format_address(one.gateway), "interface": first + 2})
    listed += [{"dst": str(route.destination), "gw": format_address(route.gateway)} for route in routes]
    return shape(conf.cni_version, interfaces, ips, listed, conf.result_dns())


def _previous(conf: NetConf) -> "tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]":
    """Interfaces, addresses and routes that the plugins before this one in the chain made."""
    return (
        objects(conf.prev_result, "interfaces", "name"),
        objects(conf.prev_result, "ips", "address"),
        objects(conf.prev_result, "routes", "dst"),
    )


def _random_mac() -> bytes:
    """Locally administered, unicast (IEEE 802)."""
    raw = urandom(6)
    return bytes((raw[0] & 0xFC | 0x02,)) + raw[1:]
