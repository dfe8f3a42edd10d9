"""List a network's leases with their attachment records, and judge whether each is still in use.

This module only reads; it writes no records for leases that have none. The functions that join and judge are pure.
`cnictl.node.addresses.reclaim` frees addresses.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from cnictl.core import attachments, liveness
from cnictl.core.attachments import Record
from cnictl.core.cidr import parse_address
from cnictl.core.conf.network import network_name_fault
from cnictl.core.errors import Problem, UsageProblem
from cnictl.core.foreign_links import ForeignLinks
from cnictl.core.leases.lease import Lease, folder_networks
from cnictl.core.leases.lease_store import Store
from cnictl.core.leases.pool import RangeSet
from cnictl.core.liveness import IN_FLIGHT, LIVE, Verdict
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import Netlink
from cnictl.core.paths import NETWORKS_DIR
from cnictl.node import command_line
from cnictl.node.addresses import ranges
from cnictl.node.spec import node_file, pod_names, swapped
from cnictl.node.spec.node_spec import NodeSpec
from cnictl.node.spec.pod_names import Names

TORN = "torn"
SHOWN_ID = 12
"""Characters of a container id to show, as many as runtimes do."""


@dataclass(frozen=True)
class Row:
    """One address and its holder, or an attachment without an address."""

    address: str
    """Empty for an attachment without an address, in a layer-2 network or early in its ADD."""
    container: str
    ifname: str
    pod: str
    since: float
    """Seconds since the epoch; 0 if unknown."""
    state: str
    """live, stale, in flight, unknown or torn."""
    reason: str
    leased: bool
    """Whether the store has this lease. A running ADD may have a record, but no lease yet."""
    record: Record | None = None
    elsewhere: bool = False
    """Whether it is torn and may belong to another node."""
    foreign_veth: str = ""
    """The host veth that another plugin made for it, if known."""

    @property
    def host_veth(self) -> str:
        """Return the host end of its veth pair; empty if unknown."""
        return (self.record.host_veth if self.record is not None else "") or self.foreign_veth

    @property
    def packed(self) -> bytes:
        """Return the address as bytes."""
        return parse_address(self.address) if self.address else b""

    @property
    def holder(self) -> str:
        """Return the pod as the runtime named it, else the container and its interface."""
        return f"pod {self.pod}" if self.pod else f"{self.container[:SHOWN_ID]} {self.ifname}".strip()

    @property
    def words(self) -> str:
        """Return the state, with its reason if the state alone is not enough."""
        plain = (self.leased or not self.address) and self.state in (LIVE, IN_FLIGHT)
        return self.state if plain else f"{self.state}: {self.reason}"

    def as_json(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        return {
            "address": self.address or None,
            "container": self.container,
            "interface": self.ifname,
            "pod": self.pod,
            "since": self.since or None,
            "state": self.state,
            "reason": self.reason,
            "leased": self.leased,
            "recorded": self.record is not None,
        }


@dataclass(frozen=True)
class Listing:
    """What this host knows about a network's addresses."""

    network: str
    data_dir: str
    rows: tuple[Row, ...]
    sets: tuple[RangeSet, ...] = ()
    """The ranges that the network gives addresses from; empty if unknown on this host."""
    unrecorded_veths: tuple[str, ...] = ()
    """Host veths with this network's mark that no record names."""

    @property
    def used(self) -> int:
        """Return the number of leased addresses, in the ranges or outside."""
        return sum(row.leased for row in self.rows)

    @property
    def total(self) -> int | None:
        """Return the number of addresses that pods can have; None if unknown."""
        return sum(range_set.size for range_set in self.sets) if self.sets else None

    @property
    def free(self) -> int | None:
        """Return the number of addresses that the next pods can have; None if unknown."""
        return None if self.total is None else self.total - (self.used - self.outside)

    @property
    def ranges(self) -> list[str]:
        """Return the range sets as text: subnets, or the first and last address of a part of one."""
        return list(map(str, self.sets))

    @property
    def outside(self) -> int:
        """Return the number of leases outside the ranges, such as those of an earlier subnet."""
        return self.used - sum(map(self.used_of, self.sets)) if self.sets else 0

    def used_of(self, range_set: RangeSet) -> int:
        """Return the number of leased addresses of a range set."""
        return sum(row.leased and range_set.holds(row.packed) for row in self.rows)

    def ordered(self, order: str, stale_only: bool = False) -> "Listing":
        """Return the listing with its rows in an order of `ORDERS`; with `stale_only`, only with its stale rows.

        Equal rows stay in the order of their addresses. Numbers of addresses count only the rows that are left.
        """
        rows = [row for row in self.rows if row.state == liveness.STALE or not stale_only]
        return replace(self, rows=tuple(sorted(rows, key=ORDERS[order])))

    def as_json(self) -> dict[str, Any]:
        """Return the listing as JSON values."""
        return {
            "network": self.network,
            "data_dir": self.data_dir,
            "ranges": self.ranges,
            "range_sets": [
                {
                    "ranges": list(map(str, range_set.ranges)),
                    "used": self.used_of(range_set),
                    "total": range_set.size,
                    "limited": range_set.limited,
                }
                for range_set in self.sets
            ],
            "used": self.used,
            "free": self.free,
            "total": self.total,
            "outside": self.outside,
            "leases": [row.as_json() for row in self.rows],
            "stray_veths": list(self.unrecorded_veths),
        }


ORDERS: dict[str, Callable[[Row], Any]] = {
    "address": lambda row: (len(row.packed), row.packed),
    "age": lambda row: row.since or float("inf"),
    "pod": lambda row: (row.pod == "", row.pod, row.container),
    "state": lambda row: row.state,
}
"""How the rows of a listing can be ordered: by age, the longest held first; by pod, those without a name last."""


def choose_network(wanted: str, configured: str, stores: Sequence[str]) -> str:
    """Return the network to work on: the wanted one, else the node's own, else the only one. Raises Problem."""
    known = f"networks here: {', '.join(stores)}" if stores else "no network has leases here"
    if wanted and wanted != configured and wanted not in stores:
        raise Problem(f"network {wanted!r} has no leases here", known)
    if wanted or configured:
        return wanted or configured
    if not stores:
        raise Problem("no network has leases on this host", "`cnictl init-node` sets one up")
    if len(stores) > 1:
        raise Problem("several networks have leases here; name one with --name", known)
    return stores[0]


def assemble(
    leases: Iterable[Lease],
    records: Iterable[Record],
    verdicts: Mapping[tuple[str, str], Verdict],
    judge_lone: Callable[[Lease], Verdict],
    shared: bool = False,
) -> list[Row]:
    """Join leases and records by owner, and return them in the order of their addresses.

    `verdicts` has the verdict on each record, by owner; `judge_lone` judges a lease without a record. `shared`: other
    nodes use the store too.
    """
    by_owner = {(record.container, record.ifname): record for record in records}
    intended = {address: record for record in by_owner.values() for address in record.addresses}
    rows, holders = [], {}
    for lease in leases:
        owner = (lease.container, lease.ifname)
        holders[lease.address] = owner
        if lease.container:
            verdict = verdicts[owner] if owner in by_owner else judge_lone(lease)
            rows.append(_row(lease.address, owner, verdict, by_owner.get(owner), lease.modified))
        else:
            rows.append(_torn_row(lease, intended.get(lease.address), shared))
    leasing = set(holders.values())
    for owner, record in by_owner.items():
        if not record.addresses and owner not in leasing:
            rows.append(_row("", owner, verdicts[owner], record))
        for address in record.addresses:
            holder = holders.get(address, ())
            if holder not in (owner, ("", "")):
                missing = f"{record.ipam} gave its address" if record.ipam else "it has no lease"
                reason = f"{' '.join(holder)} holds its lease" if holder else missing
                verdict = Verdict(verdicts[owner].state, f"{verdicts[owner].reason}; {reason}")
                rows.append(_row(address, owner, verdict, record))
    return sorted(rows, key=lambda row: (len(row.packed), row.packed, row.container))


def _row(
    address: str, owner: tuple[str, str], verdict: Verdict, record: Record | None, modified: float | None = None
) -> Row:
    since = (record.created if record else 0.0) or modified or 0.0
    pod = record.pod if record else ""
    leased = modified is not None
    return Row(address, *owner, pod, since, verdict.state, verdict.reason, leased, record, foreign_veth=verdict.link)


def _torn_row(lease: Lease, record: Record | None, shared: bool) -> Row:
    reason = "its lease names no owner"
    if record is not None:
        reason += f", but the record of {record.container} {record.ifname} has the address"
    elif shared:
        reason += "; another node that uses the store may be about to write it"
    return Row(lease.address, "", "", "", lease.modified, TORN, reason, True, record, shared and record is None)


@contextmanager
def refusals(command: str) -> Iterator[None]:
    """Turn a kernel's refusal in the block into a Problem; `command`, such as `ipam list`, is what needs root."""
    try:
        yield
    except PermissionError as error:
        message = f"cnictl {command} needs root: {error.filename or 'netlink'}: {error.strerror}"
        raise Problem(message, command_line.as_root() if os.geteuid() else "") from None
    except OSError as error:
        raise Problem(f"{error.filename or command}: {error.strerror}") from None


def requested_listing(network: str, data_dir: str) -> Listing:
    """Return the listing of the network that options name; by default the node's network, else the only one here.

    `data_dir` is the folder of the lease stores, if it differs from the conf's. Raises Problem, UsageProblem, OSError.
    """
    data_dir = data_dir.rstrip("/")
    if swapped.is_cidr(network):
        known = networks(data_dir or NETWORKS_DIR)
        hint = f"the networks here: {', '.join(known)}" if known else "no network has leases here"
        raise UsageProblem(f"{network} is a CIDR; --name takes a CNI network's name, such as mynet", hint)
    fault = network_name_fault(network)
    if fault:
        raise UsageProblem(f"--name: {fault}")
    spec = node_file.load()
    own = spec.name if spec is not None and data_dir in ("", NETWORKS_DIR) else ""
    name = network or own
    folder = data_dir or (ranges.of_network(name, spec).data_dir if name else NETWORKS_DIR)
    return listing_of(choose_network(network, own, networks(folder)), spec, folder)


def listings(spec: NodeSpec | None) -> list[Listing]:
    """Return the listing of each network that has leases or records here, and of the node's own. Raises OSError."""
    own = [spec.name] if spec is not None else []
    return [listing_of(name, spec) for name in sorted({*own, *networks()})]


def listing_of(network: str, spec: NodeSpec | None, data_dir: str = "") -> Listing:
    """Return all that this host knows about a network's addresses. Raises OSError.

    Ranges and store are those of the node file or a CNI conf, unless `data_dir` names another store.
    """
    known = ranges.of_network(network, spec)
    return observe(network, data_dir or known.data_dir, known.sets)


def observe(network: str, data_dir: str = NETWORKS_DIR, sets: Sequence[RangeSet] = ()) -> Listing:
    """Read and judge a network's leases in the host's network namespace. Raises OSError."""
    store = Store(network, data_dir)
    leases = list(
        store.all()
    )  # read before the records: a record is older than its lease, so no lease seems to lack one
    records = [record for record in attachments.all_records(network) if (record.data_dir or NETWORKS_DIR) == data_dir]
    owners = {(record.container, record.ifname) for record in records}
    leases = [lease for lease in leases if (lease.container, lease.ifname) in owners or _still_held(store, lease)]
    listed = {lease.address for lease in leases}
    new = (store.read(address) for record in records for address in record.addresses if address not in listed)
    leases += [lease for lease in new if lease is not None]
    with Netlink() as host:
        foreign = ForeignLinks(host)
        verdicts = {(record.container, record.ifname): liveness.judge(record, host, foreign) for record in records}
        marked = [link for link in rtnetlink.all_links(host) if link.alias.startswith(f"cnictl:{network}/")]
        veths = {link.name for link in marked if link.kind == "veth"} - {record.host_veth for record in records}

        def judge_lone(lease: Lease) -> Verdict:
            return liveness.judge_unmarked([lease.address], lease.modified, data_dir, foreign=foreign)

        rows = assemble(leases, records, verdicts, judge_lone, store.shared)
    return Listing(network, data_dir, tuple(rows), tuple(sets), tuple(sorted(veths)))


def _still_held(store: Store, lease: Lease) -> bool:
    now = store.read(lease.address)
    return now is not None and (now.container, now.ifname) == (lease.container, lease.ifname)


def networks(data_dir: str = NETWORKS_DIR) -> list[str]:
    """Return the networks that have leases in `data_dir`, or records."""
    recorded = attachments.networks() if data_dir == NETWORKS_DIR else []
    return sorted({*folder_networks(data_dir), *recorded})


def find(rows: Sequence[Row], target: str) -> list[Row]:
    """Return the rows of an address, a pod (`namespace/name` or `name`), or a container's id or its beginning.

    Raises Problem if there is none, or if several containers match.
    """
    matches = pod_names.named(target, rows, _names)
    if not matches and pod_names.address_in(target):
        raise Problem(f"{target} is not leased", "`cnictl ipam list` shows the leased addresses")
    if not matches:
        message = f"{target!r} is neither a leased address nor a container or pod that holds one"
        raise Problem(message, "see `cnictl ipam list`")
    containers = sorted({row.container for row in matches})
    if len(containers) == 1 or pod_names.address_in(target):
        return matches
    pods = sorted({row.pod for row in matches})
    if target in pods or target in [pod.rpartition("/")[2] for pod in pods]:
        listed = ", ".join(f"{row.pod} at {row.address or row.ifname} ({row.state})" for row in matches)
        raise Problem(f"{target!r} names several pods: {listed}", "give the namespace with the name, or an address")
    raise Problem(f"{target!r} begins the ids of several containers: {', '.join(containers)}", "give more of the id")


def _names(row: Row) -> Names:
    return Names((row.address,) if row.address else (), row.pod, row.container)


def attachments_of(rows: Sequence[Row], chosen: Sequence[Row]) -> list[Row]:
    """Return the chosen rows and those of their attachments' other addresses, which are freed together."""
    records = {(row.container, row.ifname) for row in chosen if row.record is not None}
    return [row for row in rows if row in chosen or (row.record is not None and (row.container, row.ifname) in records)]
