"""STATUS: whether the next ADD could be served, without making anything. Spec 1.1.0, section 2."""

from cnictl.core import attachments, durable, sysctl
from cnictl.core.conf.netconf import NetConf
from cnictl.core.errors import LIMITED_CONNECTIVITY, NOT_AVAILABLE, CniError
from cnictl.core.netlink.rtnetlink import Netlink
from cnictl.core.paths import CONFLICT_FILE

from . import needs
from .environment import Call


def status(call: Call, conf: NetConf) -> None:
    """Raises CniError 50 if no ADD can be served, 51 if pods that run suffer too; an IPAM plugin's own.

    50 makes Kubernetes evict: it is said of what is certain (`needs`), never of a doubt.
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
    # an ADD turns forwarding on; where the node's owner does, and for pods that run, it has to be on by now
    if conf.is_gateway and (conf.walk_through or attachments.owners(conf.name)):
        for bits in sorted({subnet.bits for subnet in (conf.subnets or present)}):
            _check_forwarding(bits)


def _check_conflict(name: str) -> None:
    """Raise CniError 50 while the source of peers gives this node's pod CIDR to another node: no pod may come here."""
    try:
        network, _, why = durable.contents(CONFLICT_FILE, 4096).decode("utf-8", "replace").partition("\n")
    except OSError:
        return
    if network == name:
        raise CniError(
            NOT_AVAILABLE,
            f"network {name}: {why.strip()}",
            "pods that run keep their addresses; drain this node, then: cnictl init-node --from the source",
        )


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
