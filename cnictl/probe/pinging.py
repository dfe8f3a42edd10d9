"""Run one `cnictl ping`: find both ends, send the requests, and on a failure find its cause."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from cnictl.core.errors import UsageProblem
from cnictl.node.spec import node_file
from cnictl.node.spec.node_spec import NodeSpec
from cnictl.probe import ends, icmp, packet_trace, why
from cnictl.probe.answer import Answer
from cnictl.probe.chain import Chain
from cnictl.probe.echo_requests import EchoRequests
from cnictl.probe.ends import Origin, Target
from cnictl.probe.exchange import Exchange, Requests
from cnictl.probe.failure import FailureCause
from cnictl.probe.packet_path import Step
from cnictl.probe.place import Place, parse_place
from cnictl.probe.pods import CheckedPod, probe_pods
from cnictl.probe.port_requests import PortRequests
from cnictl.probe.ports import TCP
from cnictl.probe.serving import Serving

SMALLEST_PACKET, LARGEST_PACKET = icmp.smallest(ipv6=True), 65535
"""The sizes that `--size` takes, in bytes."""
_TRACED_TIMEOUT = 1.0
"""The most seconds to wait for the answer to a request that is traced: a TCP connection is then tried again."""


@dataclass(frozen=True)
class Options:
    """How to send."""

    count: int = 3
    interval: float = 0.5
    """Seconds between requests."""
    timeout: float = 1.0
    """Seconds to wait for each answer."""
    size: int = 0
    """Bytes of each IP packet, which is then not fragmented; 0 for the usual size."""
    ipv6: bool | None = None
    """Whether the family has to be IPv6 (True) or IPv4 (False)."""


def check(to: str, options: Options) -> Place:
    """Return the parts of a target. Raises UsageProblem for a size that its protocol can't have."""
    place = parse_place(to)
    if not options.size:
        return place
    if place.protocol == TCP:
        raise UsageProblem("--size applies to ICMP and UDP: TCP chooses the size of its packets itself")
    if options.size < SMALLEST_PACKET:
        raise UsageProblem(f"--size {options.size}: the smallest packet has {SMALLEST_PACKET} bytes")
    return place


@dataclass
class Run:
    """The requests between two ends."""

    source: Origin
    to: Target
    spec: NodeSpec | None
    options: Options
    answers: list[Answer] = field(default_factory=list)
    """The outcome of each request, in the order in which it became known."""

    @property
    def served(self) -> bool:
        """Whether every request was answered."""
        return bool(self.answers) and all(answer.counts(self.to.place.protocol) for answer in self.answers)

    def send(self, on_answer: Callable[[Answer], None]) -> None:
        """Send all requests. An interrupted run keeps its answers."""

        def note(answer: Answer) -> None:
            self.answers.append(answer)
            on_answer(answer)

        self._exchange(self.options.count, self.options.timeout, note)

    def once(self) -> Answer:
        """Send one more request, which is not counted; return its outcome."""
        fate: list[Answer] = []
        self._exchange(1, min(self.options.timeout, _TRACED_TIMEOUT), fate.append)
        return fate[0]

    def cause(self, on_step: Callable[[str], None]) -> FailureCause:
        """Return why a request failed."""
        size = self.options.size
        failed = why.Failed(self.source, self.to, self.spec, tuple(self.answers), size, self.once)
        return why.find_cause(failed, on_step)

    def follow(self) -> list[Step]:
        """Send one more request, and return its steps on this host. Raises Problem if the kernel can't trace."""
        return packet_trace.follow(self.source, self.to, self.once)

    def _exchange(self, count: int, timeout: float, on_answer: Callable[[Answer], None]) -> None:
        requests = self._requests()
        try:
            Exchange(requests, count, self.options.interval, timeout).run(on_answer)
        finally:
            requests.close()

    def _requests(self) -> Requests:
        place, netns, to = self.to.place, self.source.pod.netns, self.to
        if not place.port:
            return EchoRequests(netns, to.address, to.scope, self.options.size)
        return PortRequests(place.protocol, netns, to.address, place.port, to.scope, self.options.size)


@contextmanager
def between(source: str, to: str, options: Options, chain: Callable[[], Chain]) -> Iterator[Run]:
    """Yield the run between two named ends. Probe pods, which `chain` makes, live as long as the context.

    Raises UsageProblem, Problem.
    """
    place = check(to, options)
    spec = node_file.load()
    known = ends.names(spec)
    with ExitStack() as stack:
        new = [source == ends.POD, place.name == ends.POD]
        made: list[CheckedPod] = []
        if any(new):
            if not new[0]:
                ends.origin(source, known)  # refuse a wrong name before a pod is made
            made = stack.enter_context(probe_pods(chain(), sum(new)))
        origin = ends.origin(source, known, made[0] if new[0] else None)
        target = ends.target(to, known, origin, options.ipv6, made[-1] if new[1] else None)
        if new[1] and place.port:
            stack.enter_context(Serving(made[-1], place.port))
        yield Run(origin, target, spec, options)
