"""The cell `dns`: a question to each DNS server of the pod. Any answer counts, even that the name does not exist.

The runtime decides which servers a pod asks. So the servers come from the CNI result, else from a running process of
the pod; else, as with the kubelet, from the cluster's DNS Service, else from this host's resolv.conf.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from cnictl.core.cidr import parse_address
from cnictl.node import hint
from cnictl.node.spec.node_spec import is_ipv6
from cnictl.probe import dns, resolvers
from cnictl.probe.cells.cell import Asked, Cell, Evidence, Part, Row, Skipped
from cnictl.probe.cells.names import DNS
from cnictl.probe.cells.service_list import ServicePort, preferred
from cnictl.probe.cells.stops import dropped
from cnictl.probe.checks import FAILED, OK, UNCERTAIN, CheckResult
from cnictl.probe.failure import FailureCause
from cnictl.probe.place import as_target
from cnictl.probe.pods import CheckedPod
from cnictl.probe.ports import UDP

_PORT, _SERVER_FAILURE, _TRIES = 53, 2, 2
_CLUSTER_DNS = "kube-system/kube-dns"
_RESOLV_CONFS = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")
"""systemd-resolved lists the servers behind its loopback address in the second file, which kubelets are given."""


@dataclass(frozen=True)
class Servers:
    """The DNS servers of a pod, and where they are named."""

    addresses: tuple[str, ...]
    source: str


def servers_of(pod: CheckedPod, services: Sequence[ServicePort]) -> Servers:
    """Return the DNS servers of a pod. `services` are the Services that this host has rules for."""
    if pod.dns:
        return Servers(pod.dns, "the CNI result")
    resolver = resolvers.resolver_of(pod.netns)
    if resolver.netns and _reachable(resolver.servers):
        return Servers(_reachable(resolver.servers), resolver.source)
    dns_services = [preferred(services, UDP, ipv6, _CLUSTER_DNS, _PORT) for ipv6 in (False, True)]
    of_cluster = tuple(service.address for service in dns_services if service is not None)
    if of_cluster:
        names = dict.fromkeys(service.name for service in dns_services if service is not None and service.name)
        return Servers(of_cluster, f"Service {' '.join(names)}" if names else "a Service of port 53")
    for path in _RESOLV_CONFS:
        addresses = _reachable(resolvers.servers_in(path))
        if addresses:
            return Servers(addresses, f"this host's {path}")
    return Servers((), f"{_RESOLV_CONFS[0]} names no server that a pod can reach")


def _reachable(servers: Sequence[str]) -> tuple[str, ...]:
    """Return the servers except loopback addresses, at which a pod reaches only itself."""
    return tuple(server for server in servers if not _is_loopback(parse_address(server)))


def _is_loopback(packed: bytes) -> bool:
    return packed == bytes(15) + b"\1" or (len(packed) == 4 and packed[0] == 127)


def plan(part: Part, servers: Servers) -> Iterator[Cell]:
    """Yield a cell for each server of the family."""
    addresses = [server for server in servers.addresses if is_ipv6(server) == part.host.ipv6]
    for server in addresses:
        yield DnsCell(part, server, servers.source)
    if not addresses:
        reason = (
            f"the pod's DNS servers have no {part.host.family} address: {' '.join(servers.addresses)}"
            if servers.addresses
            else f"no DNS server is known: {servers.source}"
        )
        yield Skipped(Row(DNS, part.family, part.pod.address, ""), reason)


class DnsCell:
    """A question to one DNS server, from the pod and, for comparison, from this host."""

    def __init__(self, part: Part, server: str, source: str) -> None:
        self._part, self._server, self._source = part, server, source
        self._answers: dict[str, dns.DnsAnswer] = {}
        self._errors: dict[str, str] = {}
        self._sent = 0

    def tasks(self) -> Sequence[Callable[[], None]]:
        """Return the pod's question and, if it is not answered, this host's for comparison."""
        return (self._try,)

    def _try(self) -> None:
        self._ask(self._part.pod.netns)
        if not self._answers:
            self._ask("")

    def _ask(self, netns: str) -> None:
        """Ask for the root's name servers, which every server knows or can look up."""
        for _ in range(_TRIES):
            self._sent += bool(netns)
            try:
                answer = dns.ask(netns, self._server, ".", dns.NS, self._part.wanted.timeout)
            except OSError as error:
                self._errors[netns] = (error.strerror or str(error)).lower()
                return
            if answer is not None:
                self._answers[netns] = answer
                return

    def results(self, evidence: Evidence) -> list[CheckResult]:
        """Return the one row."""
        answer = self._answers.get(self._part.pod.netns)
        if answer is None:
            return [self._row(FAILED, self._cause(evidence))]
        took = answer.seconds * 1000
        if answer.rcode == _SERVER_FAILURE:
            cause = FailureCause("dns-error", f"{self._server} answers: {answer.words} ({self._source})", hint.advice(
                f"check the log of the DNS server {self._server}: it can't reach its own servers",
                because="the server does not belong to cnictl",
            ))  # fmt: skip
            return [self._row(UNCERTAIN, cause, took)]
        return [self._row(OK, None, took)]

    def _row(self, state: str, cause: FailureCause | None, took: float | None = None) -> CheckResult:
        part = self._part
        return CheckResult(
            DNS, part.pod.address, as_target(self._server, _PORT), state, self._sent, int(took is not None),
            None if took is None else (took, took, took), cause, part.family, detail=self._source,
        )  # fmt: skip

    def _cause(self, evidence: Evidence) -> FailureCause:
        part, server = self._part, self._server
        error = self._errors.get(part.pod.netns, "")
        inherited = evidence.cause_to(server)
        asked = Asked(UDP, part.pod.netns, server, _PORT, part.wanted)
        cause = inherited or dropped(part.host, part.pod.address, asked)
        if cause is not None:
            return cause
        says = f"DNS server {server} ({self._source}) {f'is unreachable: {error}' if error else 'does not answer'}"
        if "" in self._answers:
            return FailureCause("dns-silent", f"{says}, but it answers this host", hint.advice(
                f"check the firewall between the pod and {server}: it lets this host through",
                because="the rule is not on this node, or the trace did not show it",
            ))  # fmt: skip
        return FailureCause("dns-silent", f"{says}, and this host gets no answer either", hint.advice(
            f"start the DNS server {server}, or name another one in {self._source}", because="it is not cnictl's"
        ))  # fmt: skip
