"""STATUS: say whether the next ADD can succeed, without changing anything. Spec 1.1.0, section 2."""

from cnictl.core import attachments, durable, sysctl
from cnictl.core.conf.netconf import NetConf
from cnictl.core.errors import LIMITED_CONNECTIVITY, NOT_AVAILABLE, CniError
from cnictl.core.netlink.rtnetlink import Netlink
from cnictl.core.paths import CONFLICT_FILE

from . import needs
from .environment import Call


def status(call: Call, conf: NetConf) -> None:
    """Raise CniError 50 if no ADD can succeed, 51 if running pods are affected too, or an IPAM plugin's own error.

    Because of 50, Kubernetes evicts pods, so it is raised only for what is certain (`needs`).
    """
    with Netlink() as host:
        unmet = needs.first_unmet(host, conf)
        if unmet is not None:
            raise unmet
        present = needs.addresses_of_bridge(host, conf) if conf.is_gateway else []
    _check_conflict(conf.name)
    if conf.ipam_type and not conf.served:
        from . import delegate

        delegate.status(call, conf)
    # ADD turns forwarding on, unless the node file does; if so, or if pods are running, it must already be on
    if conf.is_gateway and (conf.walk_through or attachments.owners(conf.name)):
        for bits in sorted({subnet.bits for subnet in (conf.subnets or present)}):
            _check_forwarding(bits)


def _check_conflict(name: str) -> None:
    """Raise CniError 50 while the source of peers gives this node's pod CIDR to another node: no pod may start here."""
    try:
        network, why, source, *_ = [
            *durable.contents(CONFLICT_FILE, 4096).decode("utf-8", "replace").split("\n"),
            "",
            "",
        ]
    except OSError:
        return
    if network == name:
        raise CniError(
            NOT_AVAILABLE,
            f"network {name}: {why}",
            f"running pods keep their addresses; drain this node and run `cnictl init-node --from {source}`; "
            "or restore its pod CIDR in the source",
        )


def _check_forwarding(bits: int) -> None:
    """Raise CniError 51 if forwarding is off; a kernel without the family has no such setting, and forwards nothing."""
    setting = sysctl.FORWARDING[bits // 8]
    if sysctl.read(setting) in ("", "0"):
        name = setting.replace("/", ".")
        raise CniError(
            LIMITED_CONNECTIVITY,
            f"{name} is 0: pods reach nothing beyond this node",
            f"cnictl apply, or: sysctl -w {name}=1",
        )
