"""The cell `cluster-ip`: a TCP connection from the pod to a Service that kube-proxy has rules for on this host."""

from collections.abc import Callable, Iterator, Sequence

from cnictl.node import hint
from cnictl.probe import service
from cnictl.probe.answer import REFUSED
from cnictl.probe.cells.cell import Asked, Cell, Evidence, Part, Row, Skipped, failed, of_answers
from cnictl.probe.cells.names import CLUSTER_IP
from cnictl.probe.cells.service_list import ServicePort, preferred
from cnictl.probe.cells.stops import SentOn, dropped, sent_on
from cnictl.probe.checks import FAILED, UNCERTAIN, CheckResult
from cnictl.probe.failure import FailureCause
from cnictl.probe.place import as_target
from cnictl.probe.ports import TCP

_API = "default/kubernetes"


def plan(part: Part, services: Sequence[ServicePort]) -> Iterator[Cell]:
    """Yield the one cell of a family: the API server's Service, else any other."""
    chosen = preferred(services, TCP, part.host.ipv6, _API)
    if chosen is None:
        reason = f"no {part.host.family} Service has rules on this host (kube-proxy's iptables, nftables or IPVS)"
        yield Skipped(Row(CLUSTER_IP, part.family, part.pod.address, ""), reason)
    else:
        yield ServiceCell(part, chosen)


class ServiceCell:
    """Connections to a Service."""

    def __init__(self, part: Part, chosen: ServicePort) -> None:
        self._part, self._service = part, chosen
        self._asked = Asked(TCP, part.pod.netns, chosen.address, chosen.port, part.wanted)

    def tasks(self) -> Sequence[Callable[[], None]]:
        """Return the pod's connections."""
        return (self._asked.run,)

    def results(self, evidence: Evidence) -> list[CheckResult]:
        """Return the one row."""
        part, asked = self._part, self._asked
        row = Row(CLUSTER_IP, part.family, part.pod.address, asked.place)
        answered = of_answers(row, asked, refusals=False, detail=self._service.name)
        if answered is not None:
            return [answered]
        refused = any(answer.state == REFUSED for answer in asked.answers)
        if refused and self._leads_to_endpoints():
            return [failed(row, asked, self._refused(), UNCERTAIN)]
        endpoint = sent_on(part.pod.address, asked)
        cause = dropped(part.host, part.pod.address, asked)
        if cause is None:
            cause = self._not_sent_on() if endpoint is None else self._silent(endpoint, evidence)
        return [failed(row, asked, cause, FAILED)]

    @property
    def _words(self) -> str:
        name = f" ({self._service.name})" if self._service.name else ""
        return f"Service {self._asked.place}{name}"

    def _leads_to_endpoints(self) -> bool:
        """Return whether the rules lead to an endpoint. Tracked connections don't show it: a refused one is forgotten.

        IPVS has no rules. It lists the Service with its endpoints, which `service_list` has seen.
        """
        found = service.find(self._service.address)
        ports = [port for port in found.ports if port.port == self._service.port] if found is not None else []
        return any(port.has_endpoints for port in ports) or not ports

    def _refused(self) -> FailureCause:
        words = f"{self._words} is forwarded to an endpoint, which refuses connections"
        return FailureCause("refused", words, hint.advice(
            f"check the Service's pods: kubectl get endpointslices; cnictl pod POD --to {self._service.address}",
            because="the endpoints belong to the cluster",
        ))  # fmt: skip

    def _not_sent_on(self) -> FailureCause:
        words = f"{self._words} has rules here, but the pod's connections are not forwarded to an endpoint"
        return FailureCause("not-sent-on", words, hint.advice(
            "restart kube-proxy on this node, and look for rules before its own in nat PREROUTING",
            because="kube-proxy writes its rules, and another tool's may come first",
        ))  # fmt: skip

    def _silent(self, endpoint: SentOn, evidence: Evidence) -> FailureCause:
        """Return the cause if an endpoint does not answer the pod, compared with whether it answers this host."""
        inherited = evidence.cause_to(endpoint.address)
        at = as_target(endpoint.address, endpoint.port)
        if inherited is not None:
            return FailureCause(inherited.name, f"{self._words} forwards to {at}: {inherited.words}", inherited.hint)
        from_host = Asked(TCP, "", endpoint.address, endpoint.port, self._part.wanted)
        from_host.run()
        if from_host.answered(refusals=True):
            words, where = f"which answers this host, but not the pod ({self._asked.words})", "between the pod and it"
        else:
            words, where = "which does not answer this host either", f"of {endpoint.address} and its program"
        return FailureCause("endpoint-silent", f"{self._words} forwards to {at}, {words}", hint.advice(
            f"check the firewall {where}, and whether the endpoint is alive: kubectl get endpointslices",
            because="the endpoints belong to the cluster",
        ))  # fmt: skip
