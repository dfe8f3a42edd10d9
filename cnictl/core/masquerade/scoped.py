"""Masquerade where subnets come with each pod: one rule set a subnet, as long as a pod is in it.

They do where another IPAM plugin gives addresses out, or the runtime says the ranges. So each attachment's record
names the rule sets it counts on, and the last one that does takes them along. The network's folder of records is
locked meanwhile: of an ADD and a DEL at once, either the DEL sees the ADD's record, or the ADD sees the rules gone.
"""

from posix import O_CLOEXEC, O_DIRECTORY, O_RDONLY, close
from posix import open as open_descriptor

from cnictl.core import attachments
from cnictl.core.attachments import Record
from cnictl.core.cidr import AddressError, Cidr, parse_cidr
from cnictl.core.locks import LOCK_WAIT, hold
from cnictl.core.masquerade import backends
from cnictl.core.masquerade.backends import BACKENDS, backend
from cnictl.core.masquerade.rule_set import RuleSet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cnictl.core.conf.netconf import NetConf


def named(addresses: "Iterable[Cidr]", kind: str) -> list[str]:
    """What a record's `masqueraded` says for these addresses: backend and subnet of each rule set."""
    return list(dict.fromkeys(f"{kind} {address.network}" for address in addresses))


def rule_sets(record: Record, networks: "Sequence[Cidr]") -> list[tuple[RuleSet, str]]:
    """The rule sets that a record names, each with its backend; never masqueraded within `networks`.

    What can't be read was written by no release, and names nothing.
    """
    found = []
    for named_set in record.masqueraded:
        kind, _, subnet = named_set.partition(" ")
        try:
            source = parse_cidr(subnet)
        except AddressError:
            continue
        if kind in BACKENDS:
            found.append((RuleSet(record.network, (source,), networks, scope=subnet), kind))
    return found


def networks_of(record: Record, conf: "NetConf") -> "Sequence[Cidr]":
    """The networks that an attachment's rule sets don't masquerade to.

    Where the runtime gave the ranges, the record alone knows them: a later call needn't get them again.
    """
    if not conf.served:
        return conf.networks
    families = {network.bits for network in conf.pod_networks}
    own = (rules.subnets[0] for rules, _ in rule_sets(record, ()))
    return (*conf.pod_networks, *(subnet for subnet in own if subnet.bits not in families))


def missing(record: Record, networks: "Sequence[Cidr]") -> list[str]:
    """The subnets whose rule sets a record names and that don't stand. Raises CniError 106."""
    return [rules.scope for rules, kind in rule_sets(record, networks) if not backend(kind).stands(rules)]


def ensure(record: Record, networks: "Sequence[Cidr]") -> None:
    """Load what the record names, which has to be on disk by now. Raises CniError 106, 2, 11."""
    descriptor = _lock(record)
    try:
        for rules, kind in rule_sets(record, networks):
            backends.ensure(rules, kind)
    finally:
        close(descriptor)


def remove_with_record(record: Record) -> None:
    """Remove a record, and of the rule sets it names those that no other record does. Raises CniError 106, 11."""
    descriptor = _lock(record)
    try:
        others = attachments.all_records(record.network)
        needed = {one for other in others if other.path != record.path for one in other.masqueraded}
        for rules, kind in rule_sets(record, ()):
            if f"{kind} {rules.scope}" not in needed:
                backend(kind).remove(record.network, rules.scope)
        attachments.remove(record.network, record.container, record.ifname)
    finally:
        close(descriptor)


def _lock(record: Record) -> int:
    folder = record.path.rpartition("/")[0]
    descriptor = open_descriptor(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    try:
        hold(descriptor, folder, wait=LOCK_WAIT)
    except BaseException:
        close(descriptor)
        raise
    return descriptor
