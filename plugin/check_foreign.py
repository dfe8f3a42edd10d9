"""CHECK of an attachment that the reference plugin made before cnictl took over its network."""

from cnictl.core import reference_rules
from cnictl.core.cidr import Cidr
from cnictl.core.conf.netconf import NetConf
from cnictl.core.errors import CHECK_FAILED, CniError
from cnictl.core.foreign_links import ForeignLinks
from cnictl.core.masquerade.backends import backend
from cnictl.core.masquerade.rule_set import RuleSet
from cnictl.core.netlink.rtnetlink import Link, Netlink

from .environment import Call


def foreign_host_veth(host: Netlink, call: Call) -> Link | None:
    """Return the host veth that another plugin made for the pod's interface; None if there is none, or it is ours."""
    return ForeignLinks(host).into(call.netns, call.ifname)


def check_foreign_rules(call: Call, conf: NetConf, addresses: list[Cidr]) -> None:
    """Raise CniError 104 unless our rules or the reference's masquerade and guard the pod as configured."""
    if conf.masquerade:
        ours = conf.served and not conf.subnets_vary
        rules = RuleSet(conf.name, conf.subnets, conf.networks)
        if not (ours and backend(conf.backend).is_loaded(rules)) and not reference_rules.masquerades(
            conf.name, call.container, call.ifname, addresses
        ):
            raise CniError(
                CHECK_FAILED,
                f"the masquerade rules of {call.container} {call.ifname} are missing",
                "the next ADD loads those of the network; or: cnictl nat enable",
            )
    if conf.mac_check and not reference_rules.guards(call.container, call.ifname):
        raise CniError(
            CHECK_FAILED, f"macspoofchk: the rules for {call.container} {call.ifname} are missing", "recreate the pod"
        )
