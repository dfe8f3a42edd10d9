"""Asking on, where a peer's pod does not answer: does the peer forward, has it its bridge, is there such a pod?

What tells is the errors that routers report, and a router reports one a second to the same address, six at once
(linux ip-sysctl.rst, icmp_ratelimit). So none counts as missing that was not asked for twice, that long apart: an
earlier run may have spent the allowance.
"""

import time
from collections.abc import Callable, Sequence

from cnictl.probe.failure import PeerEvidence
from cnictl.probe.icmp import Series, linger, ping

_ARP_GIVES_UP = 3.5
"""Seconds until a node reports that no pod has an address: three ARP requests a second apart, and some slack."""
_NEXT_ERROR = 1.1
"""Seconds until a router whose allowance was spent reports an error again, and some slack."""
_INTERVAL = 0.1
_TIMEOUT = 0.2


def ask_on(unanswered: Sequence[tuple[Series, PeerEvidence]], start: float, on_step: Callable[[str], None]) -> None:
    """Complete the evidence of checks of peers' pods that began at the monotonic time `start`."""
    _ask_again([pair for pair in unanswered if pair[1].gateway_from_pod.answered], on_step)
    pairs = [
        (series, at.pod_from_node)
        for series, at in unanswered
        if at.expiring and at.expiring.refusals and at.pod_from_node and not series.heard
    ]
    if not pairs:
        return
    everyone = [one for pair in pairs for one in pair]

    def unheard() -> list[Series]:
        return [second for series, second in pairs if not series.heard and not second.heard]

    ping([second for _, second in pairs], _INTERVAL, _TIMEOUT)
    linger(everyone, time.monotonic() + _NEXT_ERROR, lambda: not unheard())
    if not unheard():
        return
    on_step("waiting for the other host to say whether it has the pod")
    ping(unheard(), _INTERVAL, _TIMEOUT)
    linger(everyone, start + _ARP_GIVES_UP, lambda: not unheard())


def _ask_again(unheard: Sequence[tuple[Series, PeerEvidence]], on_step: Callable[[str], None]) -> None:
    """Once more of each that a peer which rejects or expires it would report."""
    if not unheard:
        return
    on_step("waiting until the other host would report an error again")
    mains = [series for series, _ in unheard]
    linger(mains, time.monotonic() + _NEXT_ERROR, lambda: all(main.heard for main in mains))
    again = [Series(main.sender, main.to, 1) for main in mains]
    ping([*again, *(at.expiring for _, at in unheard if at.expiring)], _INTERVAL, _TIMEOUT)
    for main, second in zip(mains, again, strict=True):
        main.refusals += second.refusals
