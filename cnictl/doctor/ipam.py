"""Check leases: unused addresses that are leased, used ones that are not, and how many addresses are free."""

from collections.abc import Callable, Iterable

from cnictl.core import durable
from cnictl.core.counted import counted
from cnictl.core.leases.lease_store import Store
from cnictl.core.liveness import LIVE, STALE
from cnictl.doctor.check import Action, Check, Finding, HostFault, Remedy
from cnictl.doctor.facts import Facts
from cnictl.node import hint
from cnictl.node.addresses import reclaim
from cnictl.node.addresses.lease_list import TORN, Listing, Row

_LOW = 0.1
"""The share of free addresses below which doctor warns."""
_NAMED = 5


def _gone(facts: Facts) -> Iterable[HostFault]:
    return _counted(facts, STALE, "held for pods that are gone")


def _torn(facts: Facts) -> Iterable[HostFault]:
    return _counted(facts, TORN, "held by a lease file without an owner, left by a power failure")


def _counted(facts: Facts, state: str, words: str) -> Iterable[HostFault]:
    for listing in facts.listings:
        # another node may be about to write these leases
        rows = [row for row in listing.rows if row.state == state and row.leased and not row.elsewhere]
        held = [row.address or row.container for row in rows]
        if held:
            named = ", ".join(held[:_NAMED]) + (", …" if len(held) > _NAMED else "")
            count = counted(len(held), "address")
            yield HostFault(
                listing.network, f"{count} {words}: {named}", hint.command(f"cnictl ipam gc --name {listing.network}")
            )


def gc_remedy(network: str, read: Callable[[], Iterable[Listing]]) -> Remedy:
    """Return the fix that frees a network's stale leases. `read` returns its listing, perhaps among others."""

    def collect() -> None:
        for listing in read():
            if listing.network == network:
                reclaim.collect(listing, dry_run=False)

    return Remedy(actions=(Action(f"cnictl ipam gc --name {network}", collect),))


def _collect(facts: Facts, finding: Finding) -> Remedy:
    return gc_remedy(finding.subject, lambda: facts.listings)


def _left(listing: Listing) -> int | None:
    """Return how many addresses the next pods can get; ADD reclaims stale leases when it needs them."""
    if listing.free is None:
        return None
    return listing.free + sum(row.leased and not reclaim.keep_reason(row) for row in listing.rows)


def _full(facts: Facts) -> Iterable[HostFault]:
    for listing in facts.listings:
        if _left(listing) == 0:
            yield HostFault(
                listing.network,
                f"every address of {', '.join(listing.ranges)} is in use: no pod can start",
                hint.advice(
                    "stop pods, or give the node a larger pod CIDR: cnictl init-node --subnet CIDR",
                    because="only the operator knows which pods can go, and which addresses are free",
                ),
            )


def _nearly_full(facts: Facts) -> Iterable[HostFault]:
    for listing in facts.listings:
        left, total = _left(listing), listing.total
        if left and total and left < _LOW * total:
            yield HostFault(
                listing.network,
                f"only {left} of {total} addresses left",
                hint.advice(
                    "plan a larger --subnet, or fewer pods on this node",
                    because="the operator plans the pod CIDR and the number of pods",
                ),
            )


def _unheld(facts: Facts) -> Iterable[HostFault]:
    for row in _rows_unheld(facts):
        yield HostFault(
            row.address,
            f"{row.holder} uses it without a lease: the next pod may get it too",
            hint.command(f"printf '%s\\r\\n%s' {row.container} {row.ifname} > {_lease_file(row)}"),
        )


def _rows_unheld(facts: Facts) -> list[Row]:
    return [
        row
        for listing in facts.listings
        for row in listing.rows
        if row.state == LIVE and row.address and not row.leased and row.record is not None and not row.record.ipam
        and not any(other.address == row.address and other.leased for other in listing.rows)
    ]  # fmt: skip


def _lease_file(row: Row) -> str:
    return f"{Store(row.record.network, row.record.data_dir).folder}/{row.address}" if row.record is not None else ""


def _lease_again(facts: Facts, finding: Finding) -> Remedy:
    for row in _rows_unheld(facts):
        if row.address == finding.subject and row.record is not None:
            return Remedy(actions=(_leasing(row, Store(row.record.network, row.record.data_dir)),))
    return Remedy()


def _leasing(row: Row, store: Store) -> Action:
    def lease() -> None:
        with store.locked():
            if store.read(row.address) is None:
                durable.replace(_lease_file(row), f"{row.container}\r\n{row.ifname}".encode(), 0o600)

    return Action(f"printf '%s\\r\\n%s' {row.container} {row.ifname} > {_lease_file(row)}", lease)


CHECKS = (
    Check(
        "stale-lease", 26, "warning",
        "each lease's record: boot id, device and inode of its namespace, its host veth",
        "The address of a pod that is gone counts as used until it is reclaimed.",
        "cnictl ipam list\ncnictl ipam gc", _gone, _collect,
    ),
    Check(
        "torn-lease", 27, "warning", "lease files that are empty or name no owner",
        "No DEL will ever free that address.", "find /var/lib/cni/networks -size 0\ncnictl ipam gc",
        _torn, _collect,
    ),
    Check(
        "pool-full", 28, "error", "leases of each range set, without stale ones, against its size",
        "The next pod on this node fails, although the node may still be reported as ready.",
        "cnictl ipam list", _full,
    ),
    Check(
        "pool-low", 28, "warning", "leases of each range set: fewer than one address in ten is free",
        "A rolling update needs addresses for old and new pods at the same time.",
        "cnictl ipam list", _nearly_full, behind=("pool-full",),
    ),
    Check(
        "unheld-address", 30, "error", "live attachments whose addresses have no lease",
        "A live pod's address without a lease will be given to a second pod.",
        "cnictl ipam list\nprintf 'CONTAINER\\r\\neth0' > /var/lib/cni/networks/mynet/10.244.0.7",
        _unheld, _lease_again,
    ),
)  # fmt: skip
