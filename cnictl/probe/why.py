"""Find out why a request of `cnictl ping` failed.

An answer itself comes first: a refusal, or a report that a packet is too big. Then come rules that drop packets to the
port. Otherwise the target is pinged as `test-connectivity` does, and its finders look for the cause.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from cnictl.node import hint
from cnictl.node.hint import Hint
from cnictl.node.host import route_lookup
from cnictl.node.host.route_lookup import Packet
from cnictl.node.spec.node_spec import NodeSpec
from cnictl.probe import causes_plain, icmp, packet_trace, path_mtu, service, stopped, trace
from cnictl.probe.answer import REFUSED, REJECTED, TOO_BIG, UNSENT, Answer
from cnictl.probe.checks import CheckResult
from cnictl.probe.drop_hint import for_drop
from cnictl.probe.ends import NAMESPACE, Origin, Target
from cnictl.probe.failure import EXTERNAL, OTHER_HOST, OTHER_HOST_POD, OWN_HOST, FailureCause
from cnictl.probe.host import Host
from cnictl.probe.one_check import check_one, part_for
from cnictl.probe.place import Place
from cnictl.probe.pods import CheckedPod
from cnictl.probe.ports import UDP

_REMOTE = (OTHER_HOST, OTHER_HOST_POD, EXTERNAL)


@dataclass(frozen=True)
class Failed:
    """Requests of which at least one was not answered properly."""

    source: Origin
    to: Target
    spec: NodeSpec | None
    answers: tuple[Answer, ...]
    size: int
    send: Callable[[], object]
    """Sends one more request and waits for its outcome."""
    sent_to: Target | None = None
    """The original target, if a Service forwards requests to `to`."""

    @property
    def port(self) -> tuple[str, int] | None:
        """Protocol and port for the trace; None for ICMP."""
        place = self.to.place
        return (place.protocol, place.port) if place.port else None

    @property
    def sender(self) -> CheckedPod:
        """The sender as the finders know it: this host with the one address that it sends from."""
        if not self.source.is_host:
            return self.source.pod
        own = self.source.source(self.to.address, self.to.scope)
        return CheckedPod("this host", "", (own,) if own else ())

    def first(self, *states: str) -> Answer | None:
        """Return the first answer in one of these states."""
        return next((answer for answer in self.answers if answer.state in states), None)


def find_cause(failed: Failed, on_step: Callable[[str], None]) -> FailureCause:
    """Return the cause of a failure."""
    too_big = failed.first(TOO_BIG)
    if too_big is not None:
        return _too_big(failed, too_big)
    lost = [answer for answer in failed.answers if not answer.came]
    if lost and len(lost) < len(failed.answers):
        return FailureCause("loss", f"{len(lost)} of {len(failed.answers)} requests lost", hint.NONE)
    refused = failed.first(REFUSED)
    of_service = _of_service(failed, on_step)
    if of_service is not None:
        return of_service
    if refused is not None or failed.first(REJECTED) is not None:
        return _refused(failed, refused, on_step)
    return _silent(failed, on_step)


def _too_big(failed: Failed, answer: Answer) -> FailureCause:
    """Return the cause if a link on the path has a smaller MTU."""
    if answer.by:
        why = f"{answer.by} answers that the MTU of its next link is {answer.mtu or 'smaller'}"
    else:
        why = f"the link of {failed.source.name} has an MTU of {answer.mtu or 'less'}"
    return FailureCause("mtu", f"a packet of {failed.size} bytes is too big: {why}", _smaller(failed, answer.mtu))


def _smaller(failed: Failed, mtu: int) -> Hint:
    """Return the hint for packets that are too big: a size that passes."""
    if mtu >= icmp.smallest(":" in failed.to.address):
        return hint.option(
            f"--size {mtu}", "cnictl doctor --only mtu-path shows whether pods' packets are larger than that"
        )
    return hint.advice("cnictl doctor --only mtu-path", because="the MTU was not reported")


def _of_service(failed: Failed, on_step: Callable[[str], None]) -> FailureCause | None:
    """Return the cause if the target is a Service's address; None if it is not."""
    to = failed.to
    target_service = service.find(to.address) if failed.sent_to is None else None
    if target_service is None:
        return None
    listed = ", ".join(f"{port.port}/{port.protocol}" for port in target_service.ports) or "not known"
    if not to.place.port:
        words = f"{to.address} is a Service address, which does not answer pings; its ports: {listed}"
        example = next((f"{port.port}/{port.protocol}" for port in target_service.ports), "PORT")
        return FailureCause("service-address", words, hint.advice(
            f"name one of its ports, such as {_with_port(to.address, example)}", because="the operator chose the target"
        ))  # fmt: skip
    ports = [port for port in target_service.ports if (port.protocol, port.port) == failed.port]
    if target_service.ports and not ports:
        words = f"Service {to.address} has no {to.place.service}; its ports: {listed}"
        return FailureCause("no-such-port", words, hint.advice(
            "name one of these ports", because="the operator chose the port"
        ))  # fmt: skip
    if ports and not any(port.has_endpoints for port in ports):
        words = f"no pod serves {to.place.service} of Service {to.address}: its rules reject connections"
        return FailureCause("no-endpoints", words, hint.advice(
            "start a pod that the Service selects: kubectl get endpointslices",
            because="the cluster decides which pods serve it",
        ))  # fmt: skip
    endpoint = _endpoint(failed)
    if endpoint is None:
        return None
    address, port = endpoint
    behind = replace(to, address=address, place=Place(to.name, port or to.place.port, to.place.protocol), pod=None)
    answers = tuple(replace(answer, by=address) if answer.by == to.address else answer for answer in failed.answers)
    cause = find_cause(replace(failed, to=behind, answers=answers, sent_to=to), on_step)
    return replace(cause, words=f"Service {to.address} forwards to {address}: {cause.words}")


def _with_port(address: str, port: str) -> str:
    host = f"[{address}]" if ":" in address else address
    return f"{host}:{port.removesuffix('/tcp')}"


def _endpoint(failed: Failed) -> tuple[str, int] | None:
    """Return the address and port to which this host forwards the request; None if it does not."""
    address, port = packet_trace.sent_on_to(failed.source, failed.to, failed.send)
    return (address, port) if address not in ("", failed.to.address) else None


def _refused(failed: Failed, refused: Answer | None, on_step: Callable[[str], None]) -> FailureCause:
    """Return the cause if a host rejected the request: which host, and by which rule if known."""
    answer = refused or failed.first(REJECTED)
    assert answer is not None
    place = failed.to.place
    says = f"{answer.by} answers: {answer.words}"
    drop = _drop(failed)
    if drop is not None:
        words = f"{place.service} is refused on this node by {drop.words} ({says})"
        return FailureCause("rejected-here", words, _accept(failed, drop))
    if refused is not None:
        at = "there" if answer.by == failed.to.address else f"at {answer.by}"
        words = f"{says}: nothing listens on {place.service} {at}, or a firewall there refuses it"
        what_to_do = hint.advice(
            f"check the service on {failed.to.address}: ss -lntup", because="only its owner knows what should listen"
        )
        return FailureCause("refused", words, what_to_do)
    result = _pinged(failed, on_step)
    if result is not None and result.cause is not None and not result.received:
        return result.cause
    words = f"{says} (to {place.service}; pings pass)" if result is not None and result.received else says
    what_to_do = hint.advice(
        f"check the routes and firewall of {answer.by}", because="the rules of another host can't be read from here"
    )
    return FailureCause("refused", words, what_to_do)


def _silent(failed: Failed, on_step: Callable[[str], None]) -> FailureCause:
    """Return the cause if nothing came back."""
    if (down := causes_plain.loopback_down(failed.source, failed.to)) is not None:
        return down
    if failed.size and (cause := _black_hole(failed)) is not None:
        return cause
    if failed.port is not None and (drop := _drop(failed)) is not None:
        return _dropped(failed, drop)
    result = _pinged(failed, on_step)
    if result is None:
        return _plain(failed)
    if not result.received and result.cause is not None:
        return result.cause
    if failed.port is None:
        words = "it answers again now: the earlier requests were lost"
        return FailureCause("loss", words, hint.NONE)
    return _port_silent(failed, result)


def _port_silent(failed: Failed, result: CheckResult) -> FailureCause:
    """Return the cause if pings pass, but packets to the port are not answered."""
    place, to = failed.to.place, failed.to
    words = f"{place.service} of {to.address} does not answer, although pings pass"
    part = part_for(failed.spec, to.address) if failed.spec is not None else None
    if result.check == OWN_HOST and part is not None and not failed.source.is_host:
        cause = stopped.named_cause(result.check, failed.sender, Host(part, failed.spec), words, None)
        if cause.name != "ports-dropped":
            return cause
    if place.protocol == UDP:
        words += ": the service gives no answer to this datagram, or a firewall there drops it"
    else:
        words += ": a firewall there drops it, or the service is too busy to accept connections"
    if result.check in _REMOTE:
        there = hint.advice(
            f"check the firewall of {to.address}; on a node: cnictl doctor",
            because="the rules of another host can't be read from here",
        )
        return FailureCause("port-silent", words, there)
    return FailureCause("port-silent", words, hint.advice(
        f"check the firewall inside {to.name} and its service: ss -lntup", because="they belong to the pod"
    ))  # fmt: skip


def _black_hole(failed: Failed) -> FailureCause | None:
    """Return the cause if smaller packets pass, but larger ones are lost without a report."""
    passing = path_mtu.path_mtu(failed.source.pod.netns, failed.to.address, failed.size)
    if not passing.size or passing.size >= failed.size:
        return None
    words = (
        f"packets of up to {passing.size} bytes pass, larger ones are lost"
        if passing.by
        else f"packets of up to {passing.size} bytes pass, larger ones are lost, and no router reports it"
    )
    return FailureCause("mtu", words, _smaller(failed, passing.size))


def _pinged(failed: Failed, on_step: Callable[[str], None]) -> CheckResult | None:
    """Return the result of test-connectivity's pings to the target; None if its finders do not apply."""
    if failed.spec is None or failed.source.kind == NAMESPACE or failed.to.scope:
        return None
    sender = failed.sender
    if not sender.addresses:
        return None
    sender = sender.in_family_of(failed.to.address)
    refusals = [answer.refusal for answer in failed.answers if answer.refusal is not None]
    return check_one(failed.spec, sender, failed.to.address, failed.to.pod, on_step, refusals)


def _plain(failed: Failed) -> FailureCause:
    """Return the cause that the kernel's state shows, without a node file."""
    source, to = failed.source, failed.to
    cause = (
        causes_plain.no_route(source, to)
        or causes_plain.neighbour_unresolved(source, to)
        or causes_plain.dropped(source, to, failed.send, failed.port)
    )
    unsent = failed.first(UNSENT)
    if cause is None and unsent is not None:
        return FailureCause("unsent", f"{source.name} could not send: {unsent.words}", hint.NONE)
    return cause or causes_plain.silent(source, to)


def _drop(failed: Failed) -> trace.Drop | None:
    """Return the rule of this host that drops or rejects the request or its answer."""
    return packet_trace.find_drop(failed.source, failed.sent_to or failed.to, failed.send)


def _dropped(failed: Failed, drop: trace.Drop) -> FailureCause:
    words = f"{failed.to.place.service} to {failed.to.address} does not pass"
    part = part_for(failed.spec, failed.to.address) if failed.spec is not None else None
    if part is not None and not failed.source.is_host and _is_this_host(failed.to.address):
        return stopped.named_cause(OWN_HOST, failed.sender, Host(part, failed.spec), words, drop)
    return FailureCause("dropped-here", f"{words}: dropped on this node by {drop.words}", _accept(failed, drop))


def _is_this_host(address: str) -> bool:
    return route_lookup.look_up(Packet(address)).kind == route_lookup.LOCAL


def _accept(failed: Failed, drop: trace.Drop) -> Hint:
    """Return the hint for a rule that drops the request."""
    part = part_for(failed.spec, failed.to.address) if failed.spec is not None else None
    if part is not None and Host(part, failed.spec).differs("forward/", "firewalld/"):
        return hint.command("cnictl apply")
    own = failed.source.source(failed.to.address, failed.to.scope)
    return for_drop(drop, own)
