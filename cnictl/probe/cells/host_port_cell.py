"""The cells `host-port` and `hairpin`: a probe pod's port, mapped to a port of this host by a plugin of the chain.

`host-port` reaches it from this host and from another pod, `hairpin` from the pod itself. The port is free on the host,
and the pod listens, so only the mapping can lead to an answer.
"""

import socket
from collections.abc import Callable, Iterator, Sequence

from cnictl.core import durable, sysctl
from cnictl.node import hint
from cnictl.node.spec.node_spec import is_ipv6
from cnictl.probe.answer import REFUSED
from cnictl.probe.cells.cell import Asked, Cell, Evidence, Part, Row, Skipped, failed, of_answers
from cnictl.probe.cells.names import HAIRPIN, HOST_PORT
from cnictl.probe.cells.stops import dropped
from cnictl.probe.checks import FAILED, CheckResult
from cnictl.probe.failure import FailureCause
from cnictl.probe.netns_thread import inside
from cnictl.probe.pods import CheckedPod
from cnictl.probe.ports import SERVED_PORT, TCP

_QUEUE = 64


def plan(part: Part, chosen: frozenset[str], without: str) -> Iterator[Cell]:
    """Yield those of the two cells that are chosen. `without`: why no pod has a mapped port."""
    if part.other is None or not part.other.address or not part.other.host_port:
        reason = without or "the probe pod has no mapped port"
        fault = part.other.port_fault if part.other is not None else ""
        for check in (HOST_PORT, HAIRPIN):
            row = Row(check, part.family, part.pod.address, "")
            if check in chosen:
                yield Refused(row, fault) if fault else Skipped(row, reason)
        return
    if HOST_PORT in chosen:
        yield HostPortCell(HOST_PORT, part, CheckedPod("this host", "", (part.own,)))
        yield HostPortCell(HOST_PORT, part, part.pod)
    if HAIRPIN in chosen:
        yield HostPortCell(HAIRPIN, part, part.other)


def listen(pod: CheckedPod) -> list[socket.socket]:
    """Return sockets that accept connections to the pod's mapped port, one for each family of the pod.

    The kernel completes connections by itself until the queue of unaccepted connections is full.
    """

    def make() -> list[socket.socket]:
        made = []
        for family in dict.fromkeys(
            socket.AF_INET6 if is_ipv6(address) else socket.AF_INET for address in pod.addresses
        ):
            listening = socket.socket(family)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.bind(("", SERVED_PORT))
            listening.listen(_QUEUE)
            made.append(listening)
        return made

    return inside(pod.netns, make)


class Refused:
    """A mapping that the plugin refused to make."""

    def __init__(self, row: Row, fault: str) -> None:
        self._row, self._fault = row, fault

    def tasks(self) -> Sequence[Callable[[], None]]:
        """Return nothing: there is no port to reach."""
        return ()

    def results(self, _evidence: Evidence) -> list[CheckResult]:
        """Return the one row, with the plugin's message."""
        return [self._row.result(FAILED, FailureCause("no-mapping", self._fault, hint.advice(
            "correct the fault that the plugin reports: pods with a hostPort do not start either",
            because="the plugin does not belong to cnictl",
        )))]  # fmt: skip


class HostPortCell:
    """Connections from one sender to the mapped port of this host."""

    def __init__(self, check: str, part: Part, sender: CheckedPod) -> None:
        assert part.other is not None
        self._check, self._part, self._sender, self._mapped = check, part, sender, part.other
        self._asked = Asked(TCP, sender.netns, part.own, part.other.host_port, part.wanted)

    def tasks(self) -> Sequence[Callable[[], None]]:
        """Return the connections."""
        return (self._asked.run,)

    def results(self, evidence: Evidence) -> list[CheckResult]:
        """Return the one row."""
        asked = self._asked
        row = Row(self._check, self._part.family, self._sender.address, asked.place)
        detail = f"pod {self._mapped.address}"
        answered = of_answers(row, asked, refusals=False, detail=detail)
        return [answered if answered is not None else failed(row, asked, self._cause(evidence))]

    def _cause(self, evidence: Evidence) -> FailureCause:
        """Return why nothing came from the pod. A reset comes from this host: it did not forward the connection."""
        asked, sender = self._asked, self._sender
        if any(answer.state == REFUSED for answer in asked.answers):
            return self._not_mapped()
        inherited = evidence.cause_to(asked.to) if sender.netns else None
        cause = inherited or dropped(self._part.host, sender.address, asked)
        return cause or (self._no_hairpin() if self._check == HAIRPIN else self._silent())

    @property
    def _words(self) -> str:
        return f"TCP port {self._asked.port} of {self._asked.to} is mapped to pod {self._mapped.address}"

    def _not_mapped(self) -> FailureCause:
        words = f"{self._words}, but connections from {self._sender.address} do not reach it ({self._asked.words})"
        return FailureCause("not-sent-on", words, hint.advice(
            "look for rules before the port mappings: iptables -t nat -S PREROUTING; iptables -t nat -S OUTPUT",
            because="another tool's rule takes the packets first, or the plugin made no rule",
        ))  # fmt: skip

    def _no_hairpin(self) -> FailureCause:
        words = f"{self._words}, but the pod does not reach itself through it ({self._asked.words})"
        veth = self._mapped.host_end
        if _hairpin_mode(veth) == "0" and sysctl.read("net/bridge/bridge-nf-call-iptables") == "1":
            return FailureCause(
                "hairpin-off",
                f"{words}: hairpin mode is off on its bridge port {veth}, and bridged packets pass iptables here",
                hint.advice('set "hairpinMode": true for the plugin that makes the bridge port; cnictl apply writes it '
                            "into this node's conf", because="the conf may belong to someone else"),
            )  # fmt: skip
        return FailureCause(
            "hairpin-off",
            f"{words}: its connection comes back with the pod's own source address",
            hint.advice('remove "snat": false from the port-mapping plugin of the conf, or masquerade what a pod sends '
                        "to itself", because="the conf's owner chose it"),
        )  # fmt: skip

    def _silent(self) -> FailureCause:
        words = f"{self._words}, but connections from {self._sender.address} get no answer ({self._asked.words})"
        return FailureCause(
            "host-port-silent", words, hint.advice("cnictl doctor", because="it reads and changes nothing")
        )


def _hairpin_mode(veth: str) -> str:
    """Return a bridge port's hairpin mode; empty if the link is not a bridge port."""
    try:
        return durable.contents(f"/sys/class/net/{veth}/brport/hairpin_mode").decode("ascii").strip()
    except OSError:
        return ""
