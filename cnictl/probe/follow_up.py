"""Ping again if a peer's pod does not answer: check whether the peer forwards packets, has its bridge and has the pod.

The ICMP errors of routers show this. A router limits its errors to one address: six together, then one a second
(linux ip-sysctl.rst, icmp_ratelimit). An earlier command may have used up that limit, so an error counts as missing
only after two requests more than a second apart.
"""

import time
from collections.abc import Callable, Sequence

from cnictl.probe.failure import PeerEvidence
from cnictl.probe.icmp import Series, linger, ping

_ARP_GIVES_UP = 3.5
"""Seconds until a node reports that no pod has an address: three ARP requests, one a second, plus some slack."""
_NEXT_ERROR = 1.1
"""Seconds until a router at its limit reports an error again, plus some slack."""
_INTERVAL = 0.1
_TIMEOUT = 0.2


def ask_on(
    unanswered: Sequence[tuple[Series, PeerEvidence]], start: float | None, on_step: Callable[[str], None]
) -> None:
    """Complete the evidence for peers' pods that do not answer.

    The first request to each pod was sent at the monotonic time `start`, when its node began to search for it. None if
    there were requests before the checks: then a search may end early, and the last request here begins another one.
    """
    _ask_again([pair for pair in unanswered if pair[1].gateway_from_pod.answered], on_step)
    pairs = [
        (series, at.pod_from_node)
        for series, at in unanswered
        if at.expiring and at.expiring.refusals and at.pod_from_node and not series.heard
    ]
    if not pairs:
        return
    all_series = [series for pair in pairs for series in pair]

    def unheard() -> list[Series]:
        return [second for series, second in pairs if not series.heard and not second.heard]

    ping([second for _, second in pairs], _INTERVAL, _TIMEOUT)
    linger(all_series, time.monotonic() + _NEXT_ERROR, lambda: not unheard())
    if not unheard():
        return
    on_step("waiting for the other host to report whether it has the pod")
    last_search = time.monotonic() if start is None else start
    ping(unheard(), _INTERVAL, _TIMEOUT)
    linger(all_series, last_search + _ARP_GIVES_UP, lambda: not unheard())


def ask_outside(unheard: Sequence[Series], on_step: Callable[[str], None]) -> None:
    """Ask each silent address outside once more: earlier requests may have used up the limit of the router's errors."""
    if not unheard:
        return
    on_step("waiting until routers may report errors again")
    linger(unheard, time.monotonic() + _NEXT_ERROR, lambda: all(main.heard for main in unheard))
    again = [(main, Series(main.sender, main.to, 1)) for main in unheard if not main.heard]
    ping([second for _, second in again], _INTERVAL, _TIMEOUT)
    for main, second in again:
        main.refusals += second.refusals


def _ask_again(unheard: Sequence[tuple[Series, PeerEvidence]], on_step: Callable[[str], None]) -> None:
    """Ping each pod again: its peer may have rejected or expired the first requests without a report."""
    if not unheard:
        return
    on_step("waiting until the other host may report errors again")
    mains = [series for series, _ in unheard]
    linger(mains, time.monotonic() + _NEXT_ERROR, lambda: all(main.heard for main in mains))
    again = [Series(main.sender, main.to, 1) for main in mains]
    ping([*again, *(at.expiring for _, at in unheard if at.expiring)], _INTERVAL, _TIMEOUT)
    for main, second in zip(mains, again, strict=True):
        main.refusals += second.refusals
