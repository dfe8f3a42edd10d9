"""STATUS: whether the next ADD could be served, without making anything. Spec 1.1.0, section 2."""

from posix import statvfs

from cnictl.core import attachments, liveness, rtnetlink, sysctl
from cnictl.core.cidr import Cidr, parse_address
from cnictl.core.conf import NetConf
from cnictl.core.detach import torn_leases
from cnictl.core.errors import LIMITED_CONNECTIVITY, NOT_AVAILABLE, CniError
from cnictl.core.foreign import ForeignLinks
from cnictl.core.leases import Store
from cnictl.core.rtnetlink import Netlink

from .environment import Call

_READ_ONLY = 1
"""ST_RDONLY of statvfs(3)."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from os import statvfs_result

_LINK_LOCAL = Cidr(b"\xfe\x80" + bytes(14), 10)


def status(call: Call, conf: NetConf) -> None:
    """Raises CniError 50 if no ADD can be served, 51 if pods that run suffer too; an IPAM plugin's own.

    50 makes Kubernetes evict: it is said of what is certain, never of a doubt.
    """
    with Netlink() as host:
        present = _check_bridge(host, conf)
        _check_addresses(host, conf)
    _check_disks(conf)
    if conf.ipam_type and not conf.served:
        from . import delegate

        delegate.status(call, conf)
    # an ADD turns forwarding on; where the node's owner does, and for pods that run, it has to be on by now
    if conf.is_gateway and (conf.walk_through or attachments.owners(conf.name)):
        for bits in sorted({subnet.bits for subnet in (conf.subnets or present)}):
            _check_forwarding(bits)


def _check_bridge(host: Netlink, conf: NetConf) -> list[Cidr]:
    """The bridge's addresses, but for those that the kernel gave it."""
    link = rtnetlink.get_link(host, conf.bridge)
    if link is None:
        return []  # ADD makes it
    if link.kind != "bridge":
        raise CniError(NOT_AVAILABLE, f"{conf.bridge} exists and is no bridge but a {link.kind or 'physical'} link")
    if conf.vlan:
        from cnictl.core import vlan

        link = rtnetlink.get_link(host, vlan.gateway_name(conf.bridge, conf.vlan))
        if link is None:
            return []
    listed = (Cidr(packed, prefix) for packed, prefix in rtnetlink.addresses(host, link.index))
    present = [address for address in listed if not _LINK_LOCAL.holds(address.packed)]
    if conf.force_address:
        return present
    for gateway in conf.gateways:
        others = [address for address in present if address not in conf.gateways and address.bits == gateway.bits]
        if gateway not in present:
            for other in others:
                # of IPv4 addresses the bridge has this network's alone; of IPv6 ones any that don't overlap
                if gateway.bits == 32 or gateway.overlaps(other):
                    raise CniError(NOT_AVAILABLE, f"bridge {link.name} has the address {other}, not {gateway}")
    return present


def _check_disks(conf: NetConf) -> None:
    """An ADD writes a lease and a record: it can't on a disk that is full, or read-only as after an I/O error."""
    record = attachments.record_path(conf.name, "", "").rpartition("/")[0]
    for folder in [f"{conf.data_dir}/{conf.name}", record] if conf.served else [record]:
        disk = _disk_of(folder)
        if disk.f_flag & _READ_ONLY:
            raise CniError(NOT_AVAILABLE, f"{folder}: read-only file system", "see dmesg for why; mount -o remount,rw")
        # btrfs counts no files
        if not disk.f_bfree or (disk.f_files and not disk.f_ffree):
            raise CniError(NOT_AVAILABLE, f"{folder}: no space left on device", f"df {folder}; df -i {folder}")


def _disk_of(folder: str) -> "statvfs_result":
    """Of the file system that a folder is on, or will be once it is made."""
    while True:
        try:
            return statvfs(folder or "/")
        except FileNotFoundError:
            folder = folder.rpartition("/")[0]


def _check_addresses(host: Netlink, conf: NetConf) -> None:
    """Each range set has to have an address left: an ADD takes one of each. Stale leases count as free."""
    store = Store(conf.name, conf.data_dir)
    full = [one for one in conf.sets if store.count(one) >= one.size]
    if not full:
        return
    spare = {parse_address(address) for address in torn_leases(conf.name, conf.data_dir)}
    foreign = ForeignLinks(host)
    for record in attachments.all_records(conf.name):
        if liveness.judge(record, host, foreign).state == liveness.STALE:
            spare |= {parse_address(address) for address in record.addresses}
    for one in full:
        if not any(one.holds(packed) for packed in spare):
            raise CniError(NOT_AVAILABLE, f"no address left in {one}: all {one.size} are leased", "cnictl ipam list")


def _check_forwarding(bits: int) -> None:
    """A kernel without the family has no such file, and forwards nothing of it."""
    switch = sysctl.FORWARDING[bits // 8]
    if sysctl.read(switch) in ("", "0"):
        name = switch.replace("/", ".")
        raise CniError(
            LIMITED_CONNECTIVITY,
            f"{name} is 0: pods reach nothing beyond this node",
            f"cnictl apply, or: sysctl -w {name}=1",
        )
