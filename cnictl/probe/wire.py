"""Compare the MACs that answer for pods' addresses on the bridge with the recorded ones."""

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cnictl.core.cidr import format_address
from cnictl.core.netlink.rtnetlink import format_mac
from cnictl.node.addresses.lease_list import TORN, Listing, Row
from cnictl.node.resources.bridge import gateways
from cnictl.node.spec.node_spec import NodeSpec, is_ipv6
from cnictl.probe import arp, ndp

LIVE, STALE_BOOT, GONE = "live", "stale boot", "namespace gone"
UNHELD, TWICE, IN_FLIGHT, UNKNOWN = "held without a lease", "seen twice on the wire", "in flight", "unknown"
PROBLEMS = (STALE_BOOT, GONE, TORN, UNHELD, TWICE)

_WAIT = 0.3
"""Seconds to wait for answers."""
_AT_ONCE = 32


@dataclass(frozen=True)
class Checked:
    """One address, its state and the evidence."""

    row: Row
    verdict: str
    evidence: str


def check_on(listing: Listing, spec: NodeSpec | None) -> tuple[list[Checked], list[str]]:
    """Check a listing. For the node's own network, also query the bridge, unless `spec` is None."""
    if spec is None or spec.name != listing.network:
        return check(listing, "", ())
    return check(listing, spec.bridge, [format_address(gateway.packed) for gateway in gateways(spec)])


def check(listing: Listing, link: str, sources: Sequence[str]) -> tuple[list[Checked], list[str]]:
    """Return the state of every row, and why a family's addresses could not be queried on `link`.

    `sources` are our addresses on the link, at most one per family.
    """
    answers: dict[str, set[str]] = {}
    unasked: dict[bool, str] = {}
    for source in sources:
        six = is_ipv6(source)
        addresses = [row.address for row in listing.rows if row.address and is_ipv6(row.address) == six]
        try:
            answers.update(answering(addresses, link, source))
        except OSError as error:
            unasked[six] = f"{link}: {error.strerror}"
    rows = [
        _judged(row, answers.get(row.address, set()), unasked.get(is_ipv6(row.address), "")) for row in listing.rows
    ]
    return rows, list(dict.fromkeys(unasked.values()))


def _judged(row: Row, macs: set[str], unasked: str) -> Checked:
    own = row.record.mac if row.record is not None else ""
    others = sorted(macs - {own})
    answered = f"; {', '.join(sorted(macs))} answers for it" if macs else ""
    if unasked and row.address:
        answered = f"; not checked on the bridge ({unasked})"
    if row.state == "live" and others and (own or len(others) > 1):
        rightful = f"{own} of {row.holder}" if own else row.holder
        return Checked(row, TWICE, f"{', '.join(others)} also answers for it, besides {rightful}")
    if row.state == "stale":
        stale = STALE_BOOT if "boot" in row.reason else GONE
        return Checked(row, TWICE if macs else stale, row.reason + answered)
    if row.state == "live" and row.address and not row.leased and not (row.record and row.record.ipam):
        return Checked(row, UNHELD, row.reason)
    names = {"live": LIVE, "in flight": IN_FLIGHT, TORN: TORN}
    return Checked(row, names.get(row.state, UNKNOWN), row.reason + answered)


def answers(address: str, link: str, source: str) -> bool:
    """Return whether an address answers now. The neighbour table may still list a host that is gone. Raises OSError."""
    return bool(_macs(address, link, source))


def answering(addresses: Iterable[str], link: str, source: str) -> dict[str, set[str]]:
    """Return the MACs that answer ARP or neighbour solicitations for each address. All are of one family.

    Raises OSError if the link is gone, down or not an Ethernet link.
    """
    listed = list(dict.fromkeys(addresses))
    if not listed:
        return {}
    with ThreadPoolExecutor(min(_AT_ONCE, len(listed))) as pool:
        macs = pool.map(lambda address: _macs(address, link, source), listed)
        return dict(zip(listed, macs, strict=True))


def _macs(address: str, link: str, source: str) -> set[str]:
    protocol = ndp if is_ipv6(address) else arp
    with protocol.asked(address, link, source) as asking:
        macs = set()
        deadline = time.monotonic() + _WAIT
        while (left := deadline - time.monotonic()) > 0:
            asking.settimeout(left)
            try:
                frame = asking.recv(2048)
            except TimeoutError:
                break
            if mac := protocol.answering_mac(frame, address):
                macs.add(format_mac(mac))
        return macs
