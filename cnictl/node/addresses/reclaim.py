"""Free addresses: those that an operator names (`ipam release`), or those that are provably stale (`ipam gc`).

Each row is judged by itself. With a record, `core.detach` removes veth, lease and record together; without one,
`core.leases` frees the lease by owner.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cnictl.core import attachments, liveness
from cnictl.core.attachments import Record
from cnictl.core.detach import detach
from cnictl.core.errors import Problem
from cnictl.core.foreign_pair import remove_pair
from cnictl.core.leases.lease_store import Store
from cnictl.core.liveness import IN_FLIGHT, LIVE, STALE
from cnictl.core.locks import Locked
from cnictl.core.netlink.rtnetlink import Netlink
from cnictl.core.paths import NODE_LOCK
from cnictl.node.addresses import lease_list
from cnictl.node.addresses.lease_list import TORN, Listing, Row
from cnictl.node.state import run_lock
from cnictl.node.state.journal import DONE, FAILED, Journal

_IN_FLIGHT_WAIT = 5.0
"""Seconds that a release waits for a call that works on the same attachment; a DEL takes milliseconds."""


@dataclass(frozen=True)
class ReleaseOutcome:
    """The outcome of one row."""

    row: Row
    action: str
    """freed, would free, left or failed."""
    reason: str


def refusal(row: Row, force: bool) -> str:
    """Return why an operator may not release this row; empty if it is allowed. Two pods must not get one address."""
    if row.state == IN_FLIGHT:
        return f"{row.address or 'the attachment'} of {row.holder}: {row.reason}"
    if force or row.state == STALE or (row.state == TORN and not row.elsewhere):
        return ""
    shown = "live" if row.state == LIVE else "not proven stale"
    return f"{row.address or 'the attachment'} is {shown}: {row.holder} ({row.reason})"


def choose(network: str, data_dir: str, target: str, force: bool) -> tuple[Listing, list[Row]]:
    """Return the rows to release, always whole attachments, after waiting for calls that work on them.

    Raises Problem if one of them may not be released, or as `lease_list.requested_listing` and `find` do.
    """
    listing, rows = _find(network, data_dir, target)
    if await_others(rows):
        listing, rows = _find(network, data_dir, target)
    refused = [reason for row in rows if (reason := refusal(row, force))]
    if refused:
        in_flight = any(row.state == IN_FLIGHT for row in rows)
        raise Problem(
            "; ".join(refused),
            "wait for it to end" if in_flight else "stop the pod, or use --force if you know that it is gone",
        )
    return listing, rows


def _find(network: str, data_dir: str, target: str) -> tuple[Listing, list[Row]]:
    listing = lease_list.requested_listing(network, data_dir)
    return listing, lease_list.attachments_of(listing.rows, lease_list.find(listing.rows, target))


def stale_rows(listing: Listing) -> list[Row]:
    """Return the rows that `collect` frees."""
    return [row for row in listing.rows if not keep_reason(row)]


@contextmanager
def journalled(command: str) -> Iterator[Journal]:
    """Wait for other commands, hold the node for a run that frees addresses, and yield its journal."""
    with run_lock.exclusive():
        journal = Journal(command)
        try:
            yield journal
        except BaseException:
            journal.end(FAILED)
            raise
        journal.end(DONE)


def await_others(rows: list[Row]) -> bool:
    """Wait some seconds for calls that work on these attachments; False if there was none, or one is still running."""
    busy = [row.record for row in rows if row.state == IN_FLIGHT and row.record is not None]
    deadline = time.monotonic() + _IN_FLIGHT_WAIT
    for record in busy:
        try:
            wait = max(0.0, deadline - time.monotonic())
            descriptor = attachments.seize(record.network, record.container, record.ifname, wait, shared=True)
        except Problem:
            return False
        if descriptor >= 0:
            os.close(descriptor)
    return bool(busy)


def keep_reason(row: Row) -> str:
    """Return why `gc` leaves this row; empty if it is provably stale."""
    stale = row.state == STALE or (row.state == TORN and row.record is None and not row.elsewhere)
    return "" if stale else row.reason


def commands(listing: Listing, row: Row) -> list[str]:
    """Return the manual command of the release."""
    if row.state == TORN:
        return [f"rm {listing.data_dir}/{listing.network}/{row.address}"]
    lines = [f"ip link delete {row.host_veth}"] if row.host_veth else []
    if row.leased:
        lines.append(f"rm {listing.data_dir}/{listing.network}/{row.address}")
    return [*lines, f"rm {row.record.path}"] if row.record else lines


def as_json(listing: Listing, outcomes: list[ReleaseOutcome]) -> dict[str, Any]:
    """Return the outcomes as JSON values, with the manual commands of what was released."""
    rows = []
    for done in outcomes:
        manual = [] if done.action == "left" else commands(listing, done.row)
        rows.append({**done.row.as_json(), "action": done.action, "reason": done.reason, "commands": manual})
    return {
        "network": listing.network,
        "data_dir": listing.data_dir,
        "outcomes": rows,
        "stray_veths": list(listing.unrecorded_veths),
    }


def release(listing: Listing, rows: list[Row], force: bool, journal: Journal) -> list[ReleaseOutcome]:
    """Free these rows, journalling each first. Without `force`, each is judged again under its lock.

    Raises CniError 11 (node locked).
    """
    return _work(listing, [(row, "") for row in rows], not force, journal)


def collect(listing: Listing, dry_run: bool, journal: Journal | None = None) -> list[ReleaseOutcome]:
    """Free what is provably stale, journalling each row first; return the outcome of every row.

    Raises CniError 11 (node locked).
    """
    judged = [(row, keep_reason(row)) for row in listing.rows]
    if dry_run:
        return [ReleaseOutcome(row, "left" if kept else "would free", kept or row.reason) for row, kept in judged]
    Store(listing.network, listing.data_dir).clear_unfinished()
    return _work(listing, judged, True, journal)


def _work(
    listing: Listing, judged: list[tuple[Row, str]], check: bool, journal: Journal | None
) -> list[ReleaseOutcome]:
    outcomes = []
    gone: set[tuple[str, str]] = set()
    with Locked(NODE_LOCK, shared=True), Netlink() as host:  # shared, as in the plugin's calls
        for row, kept in judged:
            if kept:
                outcomes.append(ReleaseOutcome(row, "left", kept))
                continue
            if journal is not None:
                name = row.address or f"{row.container}@{row.ifname}"
                was = {"container": row.container, "interface": row.ifname, "pod": row.pod, "found": row.words}
                manual = "\n".join(commands(listing, row))
                journal.begin(f"lease/{listing.network}/{name}", was, None, manual, f"free {name} of {row.holder}")
            try:
                freed = _free(host, listing, row, check, gone)
            except (Problem, OSError) as error:
                outcomes.append(ReleaseOutcome(row, "failed", str(error)))
                continue
            reason = row.reason if freed else "another call changed it meanwhile"
            if freed and row.record is not None and row.record.ipam:
                reason += f"; only {row.record.ipam} can free the address"
            outcomes.append(ReleaseOutcome(row, "freed" if freed else "left", reason))
    return outcomes


def _free(netlink: Netlink, listing: Listing, row: Row, check: bool, gone: set[tuple[str, str]]) -> bool:
    """Free one row; False if it is gone or no longer stale. `gone` has the attachments that this run detached."""
    store = Store(listing.network, listing.data_dir)
    if row.state == TORN:
        return store.release_torn(row.address)
    owner = (row.container, row.ifname)
    if row.record is None:
        lone = Record(listing.network, *owner)
        lone.addresses, lone.created, lone.data_dir = [row.address], row.since, listing.data_dir
        if not check:
            remove_pair(netlink, lone)
        elif not _still_stale(lone):
            return False
        return store.release(row.address, *owner)
    if owner not in gone:
        # a stale attachment has no link of another plugin
        proceed_if, before_release = (
            (_still_stale, None) if check else (None, lambda record: remove_pair(netlink, record))
        )
        if (
            detach(
                netlink, listing.network, *owner, listing.data_dir, proceed_if=proceed_if, before_release=before_release
            )
            is None
        ):
            return False
        gone.add(owner)
    if row.leased:
        store.release(row.address, *owner)  # an address that the record doesn't name
    return True


def _still_stale(record: Record) -> bool:
    return liveness.judge_settled(record).state == STALE
