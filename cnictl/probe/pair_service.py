"""Serve one `cnictl cluster test` on this host: make a probe pod, ping the given targets, and report the results.

The messages are those of `pair_reports`. The service ends after its last report, at the end of stdin, on a signal, or
when its time is up. In each case it removes the pod.
"""

import os
import select
import time
from collections.abc import Callable
from contextlib import closing

from cnictl import __version__
from cnictl.core.errors import Problem
from cnictl.node.spec.node_spec import NodeSpec, by_family
from cnictl.probe import icmp, pair_reports
from cnictl.probe.chain import Chain
from cnictl.probe.failure import gateway_of
from cnictl.probe.host import Host
from cnictl.probe.pair_checks import run_pairs
from cnictl.probe.pair_reports import Ready
from cnictl.probe.pods import CheckedPod, probe_pods
from cnictl.probe.receiving import Receiver
from cnictl.probe.targets import external_address, own_address

_STDIN = 0


class Lines:
    """Reads lines from a descriptor until a deadline."""

    def __init__(self, descriptor: int, seconds: float) -> None:
        self._descriptor, self._deadline = descriptor, time.monotonic() + seconds
        self._buffer = bytearray()

    def next(self) -> str:
        """Return the next line; empty at the end of the input. Raises Problem when the time is up."""
        while b"\n" not in self._buffer:
            left = self._deadline - time.monotonic()
            if left <= 0 or not select.select([self._descriptor], [], [], left)[0]:
                raise Problem("the time for this test is up")
            chunk = os.read(self._descriptor, 1 << 16)
            if not chunk:
                return ""
            self._buffer += chunk
            if len(self._buffer) > pair_reports.LONGEST_LINE:
                raise Problem(f"a line of more than {pair_reports.LONGEST_LINE} bytes")
        line, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer[:] = rest
        return line.decode("utf-8", "replace")


def serve(
    spec: NodeSpec, chain: Chain, seconds: float, write: Callable[[str], None], on_step: Callable[[str], None]
) -> None:
    """Read requests from stdin and send reports with `write`. Raises Problem."""
    lines = Lines(_STDIN, seconds)
    with probe_pods(chain, 1) as (pod,), closing(Receiver(pod)) as receiver:
        write(pair_reports.ready_line(_ready(spec, pod)))
        request_line = lines.next()
        if not request_line:
            return
        request = pair_reports.read_request(request_line)
        receiver.listen(target.token for target in request.targets)
        write(pair_reports.pings_line(run_pairs(spec, pod, request, on_step)))
        if lines.next():
            write(pair_reports.seen_line(receiver.seen()))


def _ready(spec: NodeSpec, pod: CheckedPod) -> Ready:
    own, bridge = [], Host(spec).bridge
    for part in by_family(spec):
        address = own_address(part, Host(part, spec), external_address(part))
        if address != gateway_of(part.subnet):  # without an uplink, no other host can reach the address
            own.append(address)
    return Ready(
        icmp.own_token(),
        __version__,
        pod.addresses,
        tuple(own),
        spec.subnets,
        spec.networks,
        bridge.mtu if bridge else 0,
    )
