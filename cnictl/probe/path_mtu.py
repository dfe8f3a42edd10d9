"""Find the size of the largest packet that passes between two addresses unfragmented."""

from dataclasses import dataclass

from cnictl.node.spec.node_spec import is_ipv6
from cnictl.probe import icmp
from cnictl.probe.answer import TOO_BIG, Answer
from cnictl.probe.echo_requests import EchoRequests, first_link_mtu
from cnictl.probe.exchange import Exchange

_TRIES = 2
"""Requests of a size that may be lost before the size counts as too big."""
_INTERVAL = 0.05


@dataclass(frozen=True)
class PathMtu:
    """The result of a search."""

    size: int
    """Bytes of the largest IP packet that was answered; 0 if not even the smallest was."""
    asked: int
    """Bytes of the largest IP packet that was sent."""
    by: str = ""
    """The router that reported the MTU; empty if larger packets are lost without a report."""


def path_mtu(netns: str, to: str, most: int = 0, timeout: float = 0.3) -> PathMtu:
    """Return the largest echo request, up to `most` bytes, that `to` answers.

    `netns` is the path of the sender's namespace (empty: our own); without `most`, its link's MTU is the limit.
    `timeout` is for each answer, in seconds. A reported MTU is tried next; without reports, the search is binary.
    """
    most = most or first_link_mtu(netns, to)
    smallest = icmp.smallest(is_ipv6(to))
    if not most or not _passes(netns, to, smallest, timeout)[0]:
        return PathMtu(0, most)
    low, high, size, trusted, by = smallest, most + 1, most, 0, ""
    while high - low > 1:
        passes, report = _passes(netns, to, size, timeout)
        low, high = (size, high) if passes else (low, size)
        reported = report.mtu if report is not None else 0
        if report is not None and reported:
            by = report.by
        if low < reported < high:
            size = trusted = reported
        else:  # a size one byte above a reported MTU shows whether the report is right
            size = low + 1 if passes and low == trusted else (low + high) // 2
    return PathMtu(low, most, by)


def _passes(netns: str, to: str, size: int, timeout: float) -> tuple[bool, Answer | None]:
    """Return whether a packet of that size is answered, and the report of a host that it is too big for."""
    requests = EchoRequests(netns, to, size=size)
    exchange = Exchange(requests, _TRIES, _INTERVAL, timeout)
    try:
        exchange.run(lambda _: None)
    finally:
        requests.close()
    answers = list(exchange.answers.values())
    report = next((answer for answer in answers if answer.state == TOO_BIG), None)
    return any(answer.came for answer in answers), report
