"""The cell `path-mtu`: the largest packet that passes unfragmented from the pod to each peer's pods and outside.

A router that reports a smaller MTU is no fault: senders then make their packets smaller. Packets that are lost without
a report are a fault: connections open and then hang.
"""

from collections.abc import Callable, Iterator, Sequence

from cnictl.core.cidr import parse_address, parse_cidr
from cnictl.node import hint
from cnictl.node.hint import Hint
from cnictl.node.spec.node_spec import is_ipv6
from cnictl.probe.cells.cell import Cell, Evidence, Part, Row
from cnictl.probe.cells.names import PATH_MTU
from cnictl.probe.checks import FAILED, OK, CheckResult
from cnictl.probe.failure import FailureCause, gateway_of
from cnictl.probe.path_mtu import PathMtu, path_mtu

_LEAST_IPV6 = 1280
"""RFC 8200, section 5."""


def plan(part: Part) -> Iterator[Cell]:
    """Yield a cell for each peer (its named pod, else its gateway), and one for an outside host."""
    for peer in (*part.host.spec.known_peers, *part.wanted.peers):
        cidr = parse_cidr(peer.pod_cidr)
        if is_ipv6(peer.pod_cidr) == part.host.ipv6:
            pods = [pod for pod in part.wanted.pods if cidr.holds(parse_address(pod))]
            yield MtuCell(part, pods[0] if pods else gateway_of(peer.pod_cidr))
    yield MtuCell(part, part.external)


class MtuCell:
    """Echo requests of several sizes to one address."""

    def __init__(self, part: Part, to: str) -> None:
        self._part, self._to = part, to
        self._path_mtu = PathMtu(0, 0)

    def tasks(self) -> Sequence[Callable[[], None]]:
        """Return the search for the largest size."""
        return (self._measure,)

    def _measure(self) -> None:
        timeout = min(0.3, self._part.wanted.timeout)
        self._path_mtu = path_mtu(self._part.pod.netns, self._to, timeout=timeout)

    def results(self, evidence: Evidence) -> list[CheckResult]:
        """Return the one row."""
        row, measured = Row(PATH_MTU, self._part.family, self._part.pod.address, self._to), self._path_mtu
        if not measured.size:
            inherited = evidence.cause_to(self._to)
            if inherited is not None:
                return [row.result(FAILED, inherited)]
            return [row.skipped(f"{self._to} does not answer pings, so no size can be tried")]
        size = f"{measured.size} bytes"
        if measured.size >= measured.asked:
            return [row.result(OK, detail=size)]
        if measured.by:
            return [row.result(OK, detail=f"{size}, as {measured.by} reports")]
        words = f"packets of up to {size} pass to {self._to}, larger ones are lost, and no router reports it"
        return [row.result(FAILED, FailureCause("mtu", words, self._smaller(measured.size)), size)]

    def _smaller(self, mtu: int) -> Hint:
        if mtu < _LEAST_IPV6 and any(map(is_ipv6, self._part.host.whole.subnets)):
            return hint.advice(
                f"raise the path's MTU to at least {_LEAST_IPV6} bytes, which IPv6 requires",
                because="the bridge and pods can't have less, and cnictl does not own the links on the path",
            )
        return hint.command(f"cnictl bridge up --mtu {mtu}", "running pods have to be restarted to get it")
