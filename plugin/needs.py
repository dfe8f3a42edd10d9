"""Check what an ADD needs from its node, whatever the pod. STATUS and the error of a failed ADD use these checks.

A check changes nothing. It raises CniError naming the bridge, folder or key if it is certain that every ADD of this
configuration would fail. A doubt is not an error: because of code 50, Kubernetes evicts pods.
"""

import errno
from fcntl import LOCK_NB, LOCK_SH, flock
from posix import O_RDWR, W_OK, X_OK, access, close, lstat, stat, statvfs
from posix import open as open_descriptor

from cnictl.core import attachments, durable, liveness, sysctl
from cnictl.core.cidr import Cidr, parse_address
from cnictl.core.conf.netconf import NetConf
from cnictl.core.detach import torn_leases
from cnictl.core.errors import KERNEL_REFUSED, NOT_AVAILABLE, UNSUPPORTED_FIELD, CniError
from cnictl.core.foreign_links import ForeignLinks
from cnictl.core.leases.lease_store import Store
from cnictl.core.locks import NO_LOCKS, no_locks
from cnictl.core.masquerade.backends import backend
from cnictl.core.masquerade.rule_set import RuleSet
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import Link, Netlink, NetlinkError

MOST_PORTS = 1023
"""Ports of a bridge (net/bridge/br_private.h, BR_PORT_BITS; number 0 is not used)."""
IPV6_MTU = 1280
"""Bytes; the kernel disables IPv6 on a link with a lower MTU (RFC 8200, section 5; linux/ipv6.h, IPV6_MIN_MTU)."""

_READ_ONLY = 1  # ST_RDONLY of statvfs(3)
_DIRECTORY, _KIND = 0o040000, 0o170000
_LINK_LOCAL = Cidr(b"\xfe\x80" + bytes(14), 10)


def first_unmet(host: Netlink, conf: NetConf) -> CniError | None:
    """Return STATUS's error for what makes every ADD of this configuration fail; None if nothing does."""
    for need in NEEDS:
        try:
            need(host, conf)
        except NetlinkError:
            continue  # the kernel gave no answer, so this is a doubt
        except CniError as error:
            error.code = NOT_AVAILABLE
            return error
    return None


def explained(host: Netlink, conf: NetConf, failure: BaseException) -> BaseException:
    """Return an ADD's failure, or, if the kernel's message says less, one that names what the node lacks."""
    own = isinstance(failure, CniError) and failure.code in (KERNEL_REFUSED, UNSUPPORTED_FIELD)
    if not own and not isinstance(failure, NetlinkError):
        return failure
    try:
        unmet = first_unmet(host, conf)
    except (CniError, OSError):
        return failure
    if unmet is None:
        return failure
    if not isinstance(failure, CniError):
        return CniError(KERNEL_REFUSED, unmet.message, unmet.hint)
    if failure.message == unmet.message:
        return failure
    return CniError(failure.code, unmet.message, "; ".join(filter(None, (unmet.hint, failure.message))))


def addresses_of_bridge(host: Netlink, conf: NetConf) -> list[Cidr]:
    """Return the addresses of the bridge, or of its gateway in the VLAN, except link-local ones."""
    link = _gateway_link(host, conf)
    listed = rtnetlink.addresses(host, link.index) if link is not None else ()
    return [Cidr(packed, prefix) for packed, prefix in listed if not _LINK_LOCAL.holds(packed)]


def _gateway_link(host: Netlink, conf: NetConf) -> Link | None:
    if not conf.vlan:
        return rtnetlink.get_link(host, conf.bridge)
    from . import vlan

    return rtnetlink.get_link(host, vlan.gateway_name(conf.bridge, conf.vlan))


def _check_bridge(host: Netlink, conf: NetConf) -> None:
    """Check that the bridge's name is free or a bridge's, and that its addresses don't exclude the gateways'."""
    link = rtnetlink.get_link(host, conf.bridge)
    if link is not None and link.kind != "bridge":
        raise _lacking(f"{conf.bridge} exists and is not a bridge but a {link.kind or 'physical'} link")
    if not conf.is_gateway or (link is None and not conf.vlan):
        return
    link = _gateway_link(host, conf)  # raises if the name would be too long
    if link is None or conf.force_address:
        return
    present = addresses_of_bridge(host, conf)
    for gateway in conf.gateways:
        others = [address for address in present if address not in conf.gateways and address.bits == gateway.bits]
        if gateway not in present:
            for other in others:
                # the only IPv4 address must be this network's; an IPv6 address must not overlap
                if gateway.bits == 32 or gateway.overlaps(other):
                    raise _lacking(
                        f"bridge {link.name} has the address {other}, not {gateway}",
                        f"if nothing uses it: ip address del {other} dev {link.name}; or set forceAddress",
                    )


def _check_ports(host: Netlink, conf: NetConf) -> None:
    """Check that the bridge has a port left for the pod, and one for the gateway in a VLAN."""
    bridge = rtnetlink.get_link(host, conf.bridge)
    if bridge is None:
        return
    wanted = 1 + bool(conf.vlan and conf.is_gateway and _gateway_link(host, conf) is None)
    ports = sum(link.master == bridge.index for link in rtnetlink.all_links(host))
    if ports + wanted > MOST_PORTS:
        raise _lacking(
            f"bridge {conf.bridge} has {ports} ports; a bridge can have at most {MOST_PORTS}",
            f"stop pods, or define another network with its own bridge; ip link show master {conf.bridge}",
        )


def _check_ipv6(host: Netlink, conf: NetConf) -> None:
    """Check that IPv6 is possible: the kernel has it, the MTU suffices, and the bridge's setting can be changed."""
    six = next((subnet for subnet in conf.subnets if subnet.bits == 128), None)
    if six is None:
        return
    if not sysctl.read("net/ipv6/conf/all/disable_ipv6"):
        raise _lacking(
            f"ipam: {six} is an IPv6 subnet, but this kernel has no IPv6", "see ipv6.disable in /proc/cmdline"
        )
    bridge = rtnetlink.get_link(host, conf.bridge)
    least = f"{six} is an IPv6 subnet and needs at least {IPV6_MTU}"
    if 0 < conf.mtu < IPV6_MTU:
        raise _lacking(f"mtu: {conf.mtu}: {least}", f"set mtu to {IPV6_MTU} or more, or remove the IPv6 subnet")
    if bridge is not None and bridge.mtu < IPV6_MTU and (conf.is_gateway or not conf.mtu):
        raise _lacking(
            f"bridge {conf.bridge} has an MTU of {bridge.mtu}: {least}", f"ip link set {conf.bridge} mtu {IPV6_MTU}"
        )
    if not any(gateway.bits == 128 for gateway in conf.gateways):
        return
    link = _gateway_link(host, conf)
    name = link.name if link is not None else "default"
    setting = f"net/ipv6/conf/{name}/disable_ipv6"
    if sysctl.read(setting) == "1" and not _can_be_set(setting):
        raise _lacking(f"bridge {conf.bridge}: {setting.replace('/', '.')} is 1 and can't be set to 0")


def _check_forwarding(host: Netlink, conf: NetConf) -> None:  # noqa: ARG001
    """Check that forwarding is on, or that ADD can turn it on."""
    for bits in sorted({gateway.bits for gateway in conf.gateways}):
        setting = sysctl.FORWARDING[bits // 8]
        if sysctl.read(setting) == "0" and not _can_be_set(setting):
            name = setting.replace("/", ".")
            raise _lacking(f"isGateway: {name} is 0 and can't be set", f"sysctl -w {name}=1")


def _can_be_set(setting: str) -> bool:
    return access(f"/proc/sys/{setting}", W_OK)


def _check_vlan_filtering(host: Netlink, conf: NetConf) -> None:
    """Check that the kernel's bridge supports VLANs if the configuration needs them."""
    if conf.vlan or conf.vlan_trunk:
        from . import vlan

        if not vlan.can_filter(host, conf.bridge):
            raise _lacking(
                f"{vlan.key_and_value(conf)}: this kernel's bridge has no VLAN filtering",
                "use a kernel with CONFIG_BRIDGE_VLAN_FILTERING, or give each VLAN its own bridge",
            )


def _check_folders(host: Netlink, conf: NetConf) -> None:  # noqa: ARG001
    """Check that the folders and files for record, leases and claim mark can be written or created."""
    records = attachments.record_path(conf.name, "", "").rpartition("/")[0]
    store = f"{conf.data_dir}/{conf.name}"
    for folder in (store, records) if conf.served else (records,):
        try:
            _check_folder(folder)
        except OSError as error:
            raise _lacking(f"{folder}: {error.strerror}") from None
    if conf.served:
        _check_lock(f"{store}/lock")
        lasts = (f"{store}/last_reserved_ip.{number}" for number in range(len(conf.sets)))
        for path in (*lasts, attachments.claim_mark(conf.name)):
            try:
                descriptor = open_descriptor(path, O_RDWR | durable.AT_ONCE)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise _lacking(f"{path}: {error.strerror}") from None
            try:
                durable.ensure_regular(descriptor, path)
            except OSError as error:
                raise _lacking(f"{path}: {error.strerror}") from None
            finally:
                close(descriptor)


def _check_folder(folder: str) -> None:
    """Raise CniError or OSError if no file can be created in a folder, which may be missing yet."""
    nearest = folder
    while True:
        try:
            kind = stat(nearest or "/").st_mode & _KIND
            break
        except FileNotFoundError:
            if _is_there(nearest):
                raise _lacking(f"{nearest} is a symbolic link whose target is missing") from None
            nearest = nearest.rpartition("/")[0]
    if kind != _DIRECTORY:
        raise _lacking(f"{nearest} is not a folder")
    disk = statvfs(nearest or "/")
    if disk.f_flag & _READ_ONLY:
        raise _lacking(f"{folder}: read-only file system", "see dmesg for why; mount -o remount,rw")
    # btrfs doesn't count files
    if not disk.f_bfree or (disk.f_files and not disk.f_ffree):
        raise _lacking(f"{folder}: no space left on device", f"df {folder}; df -i {folder}")
    if not access(nearest or "/", W_OK | X_OK):
        raise _lacking(
            f"{folder}: no file can be created in {nearest or '/'}", f"ls -ld {nearest}; lsattr -d {nearest}"
        )


def _is_there(path: str) -> bool:
    try:
        lstat(path)
    except OSError:
        return False
    return True


def _check_lock(path: str) -> None:
    """Check that the store's lock can be opened and locked; it is not a fault if another process holds it."""
    try:
        descriptor = open_descriptor(path, O_RDWR | durable.AT_ONCE)
    except FileNotFoundError:
        return  # ADD creates it
    except OSError as error:
        raise _lacking(f"{path}: {error.strerror}") from None
    try:
        flock(descriptor, LOCK_SH | LOCK_NB)
    except OSError as error:
        if error.errno in NO_LOCKS:
            raise no_locks(path, error) from None
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise _lacking(f"{path}: {error.strerror}") from None
    finally:
        close(descriptor)


def _check_addresses(host: Netlink, conf: NetConf) -> None:
    """Check that each range set has an address left; stale leases count as free."""
    store = Store(conf.name, conf.data_dir)
    full = [ranges for ranges in conf.sets if store.count(ranges) >= ranges.size]
    if not full:
        return
    spare = {parse_address(address) for address in torn_leases(conf.name, conf.data_dir)}
    foreign = ForeignLinks(host)
    for record in attachments.all_records(conf.name):
        if liveness.judge(record, host, foreign).state == liveness.STALE:
            spare |= {parse_address(address) for address in record.addresses}
    for ranges in full:
        if not any(ranges.holds(packed) for packed in spare):
            raise _lacking(f"no address left in {ranges}: all {ranges.size} are leased", "cnictl ipam list")


def _check_resolver(host: Netlink, conf: NetConf) -> None:  # noqa: ARG001
    """Check that the file of ipam.resolvConf can be read."""
    if conf.resolv_conf:
        conf.result_dns()


def _check_rules(host: Netlink, conf: NetConf) -> None:  # noqa: ARG001
    """Check that the packet filter's program and kernel accept the rules that ADD would load."""
    if conf.masquerade:
        _check_masquerade(conf)
    if conf.mac_check:
        from cnictl.core import macspoof

        macspoof.check()
    if conf.isolated and conf.ipam_type:
        from cnictl.core import isolation

        isolation.check(conf.bridge, conf.backend)


def _check_masquerade(conf: NetConf) -> None:
    """Check the masquerade rules; loaded ones need no program. Subnets that come with a pod aren't known yet."""
    chosen = backend(conf.backend)
    if conf.subnets_vary or (conf.ipam_type and not conf.served):
        chosen.check_any(conf.name, Cidr(b"\xc0\0\2\0", 24))
        return
    rules = RuleSet(conf.name, conf.subnets, conf.networks)
    if conf.subnets and not chosen.is_loaded(rules):
        chosen.check(rules)


def _lacking(message: str, hint: str = "") -> CniError:
    return CniError(NOT_AVAILABLE, message, hint)


NEEDS = (
    _check_bridge,
    _check_ports,
    _check_ipv6,
    _check_forwarding,
    _check_vlan_filtering,
    _check_folders,
    _check_addresses,
    _check_resolver,
    _check_rules,
)
"""The checks in the order in which an ADD needs them, except that cheap ones come first."""
