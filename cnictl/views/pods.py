"""Collect what `cnictl pod list` shows: every attachment of a network on this node."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from cnictl.core.liveness import LIVE
from cnictl.node.addresses.lease_list import Listing, Row


def listed(listing: Listing) -> list[dict[str, Any]]:
    """Return each attachment as JSON values: its names, all its addresses, its state, and its two ends."""
    by_owner: dict[tuple[str, str], list[Row]] = {}
    for row in listing.rows:
        if row.container:
            by_owner.setdefault((row.container, row.ifname), []).append(row)
    names = _names(by_owner.values())
    return [_attachment(name, rows) for name, rows in zip(names, by_owner.values(), strict=True)]


def _names(attachments: Iterable[list[Row]]) -> list[str]:
    """Return a unique name for each attachment: the pod's name, an address, or the container's id."""
    owners = [(rows[0], next((row.address for row in rows if row.address), "")) for rows in attachments]
    pods = Counter(row.pod for row, _ in owners)
    containers = Counter(row.container for row, _ in owners)
    names = []
    for row, address in owners:
        if row.pod and pods[row.pod] == 1:
            names.append(row.pod)
        else:
            names.append(row.container if containers[row.container] == 1 or not address else address)
    return names


def _attachment(name: str, rows: list[Row]) -> dict[str, Any]:
    worst = next((row for row in rows if row.state != LIVE), rows[0])
    first = rows[0]
    record = next((row.record for row in rows if row.record is not None and row.record.host_veth), None)
    host_veth = next((row.host_veth for row in rows if row.host_veth), "")
    return {
        "name": name,
        "pod": first.pod,
        "container": first.container,
        "interface": first.ifname,
        "addresses": [row.address for row in rows if row.address],
        "state": worst.state,
        "reason": worst.reason,
        "since": first.since or None,
        "host_veth": host_veth,
        "netns": record.netns if record is not None else "",
    }
