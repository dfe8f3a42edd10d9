"""Who answers for pods' addresses on the bridge right now, against who should."""

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cnictl.core.errors import Problem
from cnictl.core.rtnetlink import format_mac
from cnictl.node.ipam import TORN, Listing, Row
from cnictl.probe import arp

LIVE, STALE_BOOT, GONE = "live", "stale boot", "namespace gone"
UNHELD, TWICE, IN_FLIGHT, UNKNOWN = "held without a lease", "seen twice on the wire", "in flight", "unknown"
PROBLEMS = (STALE_BOOT, GONE, TORN, UNHELD, TWICE)

_WAIT = 0.3
"""Seconds to wait for answers."""
_AT_ONCE = 32


@dataclass(frozen=True)
class Checked:
    """One address: what it is found to be, and what shows it."""

    row: Row
    found: str
    evidence: str


def check(listing: Listing, link: str, source: str) -> list[Checked]:
    """Sort every row; IPv4 addresses are asked for on `link` from our address `source`, unless that is empty."""
    asked = [row.address for row in listing.rows if row.address and "." in row.address] if source else []
    heard = answering(asked, link, source) if asked else {}
    return [_sorted(row, heard.get(row.address, set())) for row in listing.rows]


def _sorted(row: Row, macs: set[str]) -> Checked:
    own = row.record.mac if row.record is not None else ""
    others = sorted(macs - {own})
    answered = f"; {', '.join(sorted(macs))} answers for it" if macs else ""
    if row.state == "live" and others and own:
        return Checked(row, TWICE, f"{', '.join(others)} answers for it too, beside {own} of {row.holder}")
    if row.state == "stale":
        found = STALE_BOOT if "boot" in row.reason else GONE
        return Checked(row, TWICE if macs else found, row.reason + answered)
    if row.state == "live" and row.address and not row.leased and not (row.record and row.record.ipam):
        return Checked(row, UNHELD, row.reason)
    names = {"live": LIVE, "in flight": IN_FLIGHT, TORN: TORN}
    return Checked(row, names.get(row.state, UNKNOWN), row.reason + answered)


def answering(addresses: Iterable[str], link: str, source: str) -> dict[str, set[str]]:
    """The MACs that answer ARP for each address. Raises Problem if the link is gone or is no Ethernet."""
    listed = list(dict.fromkeys(addresses))
    try:
        with ThreadPoolExecutor(min(_AT_ONCE, len(listed))) as pool:
            found = pool.map(lambda address: _macs(address, link, source), listed)
            return dict(zip(listed, found, strict=True))
    except OSError as error:
        raise Problem(f"{link}: {error.strerror}", "cnictl bridge show") from None


def _macs(address: str, link: str, source: str) -> set[str]:
    with arp.asked(address, link, source) as asking:
        found = set()
        deadline = time.monotonic() + _WAIT
        while (left := deadline - time.monotonic()) > 0:
            asking.settimeout(left)
            try:
                frame = asking.recv(2048)
            except TimeoutError:
                break
            if arp.is_answer(frame, address):
                found.add(format_mac(frame[22:28]))  # the sender's hardware address, RFC 826
        return found
