"""STATUS: whether the next ADD could be served, without making anything. Spec 1.1.0, section 2."""

from cnictl.core import attachments, durable, liveness, rtnetlink
from cnictl.core.cidr import format_address
from cnictl.core.conf import NetConf
from cnictl.core.detach import torn_leases
from cnictl.core.errors import LIMITED_CONNECTIVITY, NOT_AVAILABLE, CniError
from cnictl.core.leases import Store
from cnictl.core.rtnetlink import AF_INET, Netlink


def status(conf: NetConf) -> None:
    """Raises CniError 50 if no ADD can be served, 51 if pods that run suffer too.

    50 makes Kubernetes evict: it is said of what is certain, never of a doubt.
    """
    with Netlink() as host:
        _check_bridge(host, conf)
        _check_addresses(host, conf)
    if durable.contents("/proc/sys/net/ipv4/ip_forward").strip() == b"0":
        raise CniError(
            LIMITED_CONNECTIVITY,
            "net.ipv4.ip_forward is 0: pods reach nothing beyond this node",
            "cnictl apply, or: sysctl -w net.ipv4.ip_forward=1",
        )


def _check_bridge(host: Netlink, conf: NetConf) -> None:
    link = rtnetlink.get_link(host, conf.bridge)
    if link is None:
        return  # ADD makes it
    if link.kind != "bridge":
        raise CniError(NOT_AVAILABLE, f"{conf.bridge} exists and is no bridge but a {link.kind or 'physical'} link")
    present = rtnetlink.addresses(host, link.index, AF_INET)
    if present and (conf.pool.gateway, conf.pool.subnet.prefix) not in present:
        packed, prefix = present[0]
        raise CniError(
            NOT_AVAILABLE, f"bridge {conf.bridge} has the address {format_address(packed)}/{prefix}, not {conf.gateway}"
        )


def _check_addresses(host: Netlink, conf: NetConf) -> None:
    if Store(conf.name, conf.data_dir).count(conf.pool) < conf.pool.size or torn_leases(conf.name, conf.data_dir):
        return
    records = attachments.all_records(conf.name)
    if not any(liveness.judge(record, host).state == liveness.STALE for record in records):
        raise CniError(
            NOT_AVAILABLE, f"no address left in {conf.pool.subnet}: all {conf.pool.size} are leased", "cnictl ipam list"
        )
