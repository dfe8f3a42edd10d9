"""The steps of an ADD in order, and their undo if one of them fails."""

import time
from posix import F_OK, access, stat

from cnictl.core import attachments, host_veth, liveness, sysctl
from cnictl.core.attachments import Record
from cnictl.core.bridge import BridgeMade, ensure_bridge, gateway_mac, give_addresses, remove_if_empty
from cnictl.core.cidr import Cidr
from cnictl.core.conf.netconf import NetConf
from cnictl.core.conf.routes import complete
from cnictl.core.detach import detach, detach_stale, torn_leases
from cnictl.core.errors import KERNEL_REFUSED, TRY_AGAIN, CniError
from cnictl.core.leases.lease import Duplicate, Exhausted, Taken
from cnictl.core.leases.lease_store import Store
from cnictl.core.locks import Locked
from cnictl.core.masquerade import backends
from cnictl.core.masquerade.rule_set import RuleSet
from cnictl.core.netlink import conntrack, rtnetlink
from cnictl.core.netlink.rtnetlink import Link, Netlink, format_mac, random_mac
from cnictl.core.netns import Inside, Netns
from cnictl.core.paths import NODE_FILE
from cnictl.core.untrusted_text import LONGEST_NAME, cut

from .answer import Given, answer
from .attach import NameTaken, activate, configure, make_pair
from .environment import Call, calling_process, kept_args
from .existing import refuse_second

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


_CLOCK_TICK = 0.01
"""Seconds that a file's modification time may lag behind the clock: a tick of a kernel with 100 Hz."""


class AddUnderway(CniError):
    """Another ADD of the same attachment wrote its record first."""


class Attempt:
    """One run of an ADD; it remembers what it has made, to undo that if it fails."""

    def __init__(self, host: Netlink, call: Call, conf: NetConf, netns: Netns) -> None:
        self._host = host
        self._call = call
        self._conf = conf
        self._netns = netns
        self._bridge: BridgeMade | None = None
        self._rules_new = False
        self._delegated = False
        self._switched: list[tuple[str, str]] = []
        """The changed kernel settings, with their old values."""
        self.record = _new_record(call, conf, netns)
        self.record.host_veth = host_veth.choose(host, self.record)
        self.held = -1
        """The record's descriptor, once it is written."""

    def make(self) -> "dict[str, Any]":
        """Make everything, in the order in which a crash leaves least behind; return the result."""
        host, conf, record = self._host, self._conf, self.record
        noting = not (conf.walk_through and access(NODE_FILE, F_OK))  # a node file is responsible for the addresses
        bridge = self._bridge = ensure_bridge(
            host,
            conf.bridge,
            None,
            conf.mtu,
            owner=f"cnictl:{conf.name}",
            noting=noting,
            mac=gateway_mac(conf.gateways),
        )
        self._set_bridge(bridge)
        gateway = self._give_gateways(bridge, conf.gateways)
        if conf.served:
            self._ensure_masquerade()
            given = self._lease()
        else:
            given = Given()
            self._write_record()
        if conf.mac or self._call.mac:
            from . import macs

            macs.refuse_taken(host, bridge.name, record, conf.mac_key or "CNI_ARGS MAC")
        host_mac = self._make_pair(bridge)
        self._guard_port()
        if conf.ipam_type and not conf.served:
            given = self._delegate()
            gateway = self._give_gateways(bridge, given.gateways if conf.is_gateway else ())
        self._ensure_scoped_masquerade()
        if record.isolated:
            self._isolate(given)
        self._forget_connections(given)
        with Inside(self._netns), Netlink() as pod:
            given.routes = configure(host, pod, conf, record, given.addresses, given.routes)
            own = given.gateways if conf.is_gateway else ()
            link = None if conf.container_down else activate(host, pod, bridge, record, given.addresses, own)
        link = link or rtnetlink.get_link(host, bridge.name)
        if link is None:
            raise CniError(KERNEL_REFUSED, f"bridge {bridge.name}: removed by another process while it was in use")
        if conf.is_gateway:
            self._open_forwarding(given)
        return answer(conf, record, self._call.netns, link, host_mac, given, gateway)

    def undo(self, lock: Locked) -> None:
        """Undo what was made. What other calls may rely on is undone only if no other call runs or has run since."""
        try:
            self._undo(lock)
        finally:
            if self._bridge is not None and self._bridge.note is not None:
                from cnictl.core import bridge_notes

                self._bridge.note.release()
                bridge_notes.settle(self._host)

    def _undo(self, lock: Locked) -> None:
        conf, record = self._conf, self.record
        if self._delegated:
            from . import delegate

            delegate.undo(self._call, conf)
        if self.held >= 0:
            locked_record, self.held = self.held, -1
            detach(self._host, conf.name, record.container, record.ifname, conf.data_dir, locked_record=locked_record)
        bridge = self._bridge
        changed = bridge is not None and (
            bridge.made or bridge.undo_messages or bridge.switched or self._switched or self._rules_new
        )
        if bridge is None or not changed or not lock.make_exclusive():
            return
        if not self._is_relied_on():
            for path, old in reversed(self._switched):
                sysctl.put(path, old)
            bridge.undo(self._host)
        if bridge.made:
            remove_if_empty(self._host, conf.bridge)
        if self._rules_new and not attachments.owners(conf.name):
            backends.backend(conf.backend).remove(conf.name)

    def _is_relied_on(self) -> bool:
        """Return whether an attachment was made since this ADD began, so that it may rely on what this one changed."""
        start = self.record.created - _CLOCK_TICK
        for network in attachments.networks():
            for container, ifname in attachments.owners(network):
                try:
                    written = stat(attachments.record_path(network, container, ifname)).st_mtime
                except FileNotFoundError:
                    continue
                if written >= start:
                    return True
        return False

    def _set_bridge(self, bridge: BridgeMade) -> None:
        """Set accept_ra, and the bridge's optional settings (promiscuous mode, VLAN filtering)."""
        conf = self._conf
        self._set_accept_ra(bridge)
        if conf.promiscuous:
            link = rtnetlink.get_link(self._host, bridge.name)
            if link is not None and not link.flags & rtnetlink.IFF_PROMISC:
                undo = rtnetlink.set_promiscuous(bridge.name, False)
                bridge.changing(undo)
                self._host.call(rtnetlink.set_promiscuous(bridge.name, True))
                bridge.undo_messages.append(undo)
        if conf.vlan or conf.vlan_trunk:
            from . import vlan

            vlan.ensure_filtering(self._host, bridge, vlan.key_and_value(conf))

    def _set_accept_ra(self, bridge: BridgeMade) -> None:
        """Keep pods from becoming the node's router; an adopted bridge may lead to the node's real router."""
        if bridge.note is not None:
            from cnictl.core import bridge_notes

            link = rtnetlink.get_link(self._host, bridge.name)
            changed = bridge_notes.guard(self._host, link, bridge.note) if link is not None else None
            if changed is not None:
                bridge.switched.append(changed)
            return
        path = f"net/ipv6/conf/{bridge.name}/accept_ra"
        old = "" if bridge.made else sysctl.read(path)
        if old not in ("", "0") and sysctl.put(path, "0"):
            bridge.switched.append((path, old))

    def _give_gateways(self, bridge: BridgeMade, gateways: "Sequence[Cidr]") -> Link | None:
        """Give the bridge the gateways' addresses; in a VLAN a separate interface gets them, which is returned."""
        conf = self._conf
        if not gateways:
            return None
        if not conf.vlan:
            give_addresses(self._host, bridge, bridge, gateways, conf.force_address)
            return None
        from . import vlan

        link = vlan.ensure_gateway(self._host, bridge, conf, f"cnictl:{conf.name}")
        give_addresses(self._host, bridge, link, gateways, conf.force_address)
        return link

    def _ensure_masquerade(self) -> None:
        """Load the node's masquerade rules, the same as `cnictl nat enable` does, if they are missing."""
        conf = self._conf
        if conf.masquerade and not conf.subnets_vary:
            rules = RuleSet(conf.name, conf.subnets, conf.networks)
            self._rules_new = backends.ensure(rules, conf.backend)

    def _write_record(self) -> None:
        try:
            self.held = self.record.write()
        except FileExistsError:
            who = f"{self.record.container} {self.record.ifname}"
            raise AddUnderway(TRY_AGAIN, f"{who}: another ADD is working on it") from None

    def _lease(self) -> Given:
        """Lease an address of each range set.

        If a set is full, or a requested address is taken, stale attachments are undone before a second try.
        """
        conf, record = self._conf, self.record

        def before(addresses: list[str]) -> None:
            record.addresses = addresses
            self._write_record()

        store = Store(conf.name, conf.data_dir)
        wanted = wanted_addresses(self._call, conf)
        try:
            leased = store.allocate(conf.sets, record.container, record.ifname, before, wanted)
        except Duplicate:  # host-local made the lease; only now is there a record to judge it by
            refuse_second(self._host, self._call, conf, self._netns)
            leased = store.allocate(conf.sets, record.container, record.ifname, before, wanted)
        except (Exhausted, Taken):
            freed = len(detach_stale(self._host, conf.name, conf.data_dir))
            freed += sum(store.release_torn(torn) for torn in torn_leases(conf.name, conf.data_dir))
            if not freed:
                raise
            leased = store.allocate(conf.sets, record.container, record.ifname, before, wanted)
        ips = [(Cidr(packed, span.subnet.prefix), span.gateway) for packed, span in leased]
        return Given(ips, complete(conf.routes, [gateway for _, gateway in ips], conf.default_route))

    def _delegate(self) -> Given:
        """Get the addresses from the IPAM plugin that the configuration names."""
        from . import delegate
        from .delegated import bring_up, given_by

        conf, record = self._conf, self.record
        with Inside(self._netns), Netlink() as pod:
            bring_up(self._host, pod, conf, record)
        result = delegate.add(self._call, conf)
        self._delegated = True
        given = given_by(result, conf)
        record.addresses = [address.address for address in given.addresses]
        if conf.masquerade:
            from cnictl.core.masquerade import scoped

            record.masqueraded = scoped.named(given.addresses, conf.backend)
        record.amend(self.held)
        return given

    def _ensure_scoped_masquerade(self) -> None:
        """Load the masquerade rules for subnets that came with this pod, which the record already names."""
        if self.record.masqueraded:
            from cnictl.core.masquerade import scoped

            scoped.ensure(self.record, self._conf.networks)

    def _make_pair(self, bridge: BridgeMade) -> bytes:
        """Make the veth pair, under the next name if another link took the first; return the host end's MAC."""
        while True:
            try:
                return make_pair(self._host, self._conf, bridge, self.record, self._netns)
            except NameTaken:
                self.record.host_veth = host_veth.choose(self._host, self.record)
                self.record.amend(self.held)

    def _guard_port(self) -> None:
        """Set up the optional guards of the host veth (MAC check, isolation)."""
        conf, record = self._conf, self.record
        if conf.mac_check:
            from cnictl.core import macspoof

            macspoof.ensure(record.host_veth, record.mac)
        if conf.vlan or conf.vlan_trunk:
            from . import vlan

            vlan.set_port(self._host, record.host_veth, conf)

    def _isolate(self, given: Given) -> None:
        """Keep other isolated pods from reaching this one through the node."""
        from cnictl.core import isolation

        from . import vlan

        conf, record = self._conf, self.record
        interface = vlan.gateway_name(conf.bridge, conf.vlan) if conf.vlan else conf.bridge
        others = [
            (other.host_veth, other.addresses)
            for other in attachments.every_record()
            if other.isolated and other.bridge == conf.bridge and rtnetlink.get_link(self._host, other.host_veth)
        ]
        addresses = [address.address for address in given.addresses]
        if addresses:
            isolation.ensure(conf.bridge, interface, (record.host_veth, addresses), others, conf.backend)

    def _forget_connections(self, given: Given) -> None:
        if given.ips and sysctl.read("net/netfilter/nf_conntrack_count") not in ("", "0"):
            conntrack.forget(address.packed for address in given.addresses)

    def _open_forwarding(self, given: Given) -> None:
        """Turn on forwarding for the pod's families, as the reference's isGateway does."""
        for family in {len(address.packed) for address in given.addresses}:
            if sysctl.read(sysctl.FORWARDING[family]) == "0":
                from . import forwarding

                forwarding.open_forwarding(self._host, family, self._switched)


def wanted_addresses(call: Call, conf: NetConf) -> list[bytes]:
    """Return the addresses that CNI_ARGS and the configuration request."""
    return [*call.wanted, *conf.wanted]


def _new_record(call: Call, conf: NetConf, netns: Netns) -> Record:
    record = Record(conf.name, call.container, call.ifname)
    record.bridge = conf.bridge
    record.mac = format_mac(conf.mac or call.mac or random_mac())
    record.netns, record.netns_dev, record.netns_ino = netns.path, netns.device, netns.inode
    record.pod_namespace = cut(call.args.get("K8S_POD_NAMESPACE", ""), LONGEST_NAME)
    record.pod_name = cut(call.args.get("K8S_POD_NAME", ""), LONGEST_NAME)
    record.pod_uid = cut(call.args.get("K8S_POD_UID", ""), LONGEST_NAME)
    record.boot_id = liveness.boot_id()
    record.created = time.time()
    record.data_dir = conf.data_dir
    record.runtime = calling_process()
    record.ipam = "" if conf.served else conf.ipam_type
    record.cni_args = kept_args() if record.ipam else ""
    record.mac_check = conf.mac_check
    record.isolated = conf.isolated and bool(conf.ipam_type)
    record.vlan = conf.vlan
    if conf.masquerade and conf.subnets_vary:
        from cnictl.core.masquerade import scoped

        record.masqueraded = scoped.named(conf.subnets, conf.backend)
    return record
