"""Masquerade for subnets that come with each pod: one rule set for each subnet, as long as a pod needs it.

The subnet comes with the pod if another IPAM plugin gives the address, or the runtime gives the ranges. Each
attachment's record names the rule sets that it needs, and they are removed with the last attachment that names them.
The network's folder of records is locked meanwhile, so that if an ADD and a DEL run at the same time, either the DEL
sees the ADD's record, or the ADD sees that the rules are gone.
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
    """Return a record's `masqueraded` for these addresses: backend and subnet of each rule set."""
    return list(dict.fromkeys(f"{kind} {address.network}" for address in addresses))


def rule_sets(record: Record, networks: "Sequence[Cidr]") -> list[tuple[RuleSet, str]]:
    """Return the rule sets that a record names, each with its backend; they don't masquerade to `networks`.

    An entry that can't be read was not written by cnictl and is skipped.
    """
    named_sets = []
    for named_set in record.masqueraded:
        kind, _, subnet = named_set.partition(" ")
        try:
            source = parse_cidr(subnet)
        except AddressError:
            continue
        if kind in BACKENDS:
            named_sets.append((RuleSet(record.network, (source,), networks, scope=subnet), kind))
    return named_sets


def networks_of(record: Record, conf: "NetConf") -> "Sequence[Cidr]":
    """Return the networks that an attachment's rule sets don't masquerade to.

    If the runtime gave the ranges, only the record has them: the runtime need not repeat them in later calls.
    """
    if not conf.served:
        return conf.networks
    families = {network.bits for network in conf.pod_networks}
    own = (rules.subnets[0] for rules, _ in rule_sets(record, ()))
    return (*conf.pod_networks, *(subnet for subnet in own if subnet.bits not in families))


def missing(record: Record, networks: "Sequence[Cidr]") -> list[str]:
    """Return the subnets whose rule sets a record names, but that are not loaded. Raises CniError 106."""
    return [rules.scope for rules, kind in rule_sets(record, networks) if not backend(kind).is_loaded(rules)]


def ensure(record: Record, networks: "Sequence[Cidr]") -> None:
    """Load the rule sets that the record names; it must already be written. Raises CniError 106, 2, 11."""
    descriptor = _lock(record)
    try:
        for rules, kind in rule_sets(record, networks):
            backends.ensure(rules, kind)
    finally:
        close(descriptor)


def remove_with_record(record: Record) -> None:
    """Remove a record and the rule sets that it alone names. Raises CniError 106, 11."""
    descriptor = _lock(record)
    try:
        others = attachments.all_records(record.network)
        needed = {rule_set for other in others if other.path != record.path for rule_set in other.masqueraded}
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
