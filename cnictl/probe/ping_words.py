"""Format what `cnictl ping` finds as lines for people and as JSON values. Pure."""

from collections.abc import Sequence
from typing import Any

from cnictl.node import hint
from cnictl.probe.answer import REFUSED, REJECTED, REPLY, SILENT, TOO_BIG, Answer, times
from cnictl.probe.ends import Origin, Target
from cnictl.probe.failure import FailureCause
from cnictl.probe.packet_path import Step
from cnictl.probe.ports import UDP

OK, FAILED, LOSS = "ok", "failed", "loss"
_MANY = 10
"""How many times are enough for percentiles."""


def heading(source: Origin, own: str, to: Target, size: int) -> str:
    """Return the first line: both ends and what is sent."""
    sender = f"{source.name} ({own})" if own and own != source.name else source.name
    target = f"{to.name} ({to.address})" if to.name != to.address else to.address
    sized = f", {size} bytes" if size else ""
    return f"{sender} to {target}, {to.place.service}{sized}"


def resolved(to: Target, source: str) -> str:
    """Return how a DNS name was resolved; empty if the target was not a DNS name. `source` is the resolver's."""
    if to.resolved is None:
        return ""
    if not to.resolved.server:
        return f"{to.name} is {to.address}, from the hosts file"
    found = to.resolved.name.strip(".")
    name = f"{to.name} ({found})" if found != to.name.strip(".") else to.name
    took = f"{to.resolved.seconds * 1000:.1f} ms"
    addresses = ", ".join(to.resolved.addresses)
    return f"{name} is {addresses}, from DNS server {to.resolved.server} in {took} ({source})"


def line(answer: Answer, timeout: float) -> str:
    """Return the line for one request."""
    number = f"seq={answer.sequence + 1}"
    took = f"time={answer.seconds * 1000:.3f} ms"
    if answer.state == REPLY:
        return f"reply from {answer.by}: {number} {took}"
    if answer.state == REFUSED:
        return f"refused by {answer.by}: {number} {took} ({answer.words})"
    if answer.state == REJECTED:
        return f"{answer.by} answers: {number} {answer.words}"
    if answer.state == TOO_BIG:
        mtu = f", the MTU is {answer.mtu}" if answer.mtu else ""
        return f"{answer.by} answers: {number} packet too big{mtu}" if answer.by else f"not sent: {number} too big{mtu}"
    if answer.state == SILENT:
        return f"no answer: {number} within {timeout:g} s"
    return f"not sent: {number} {answer.words}"


def summary(to: Target, answers: Sequence[Answer]) -> list[str]:
    """Return the last lines: how many came back, and how long they took. In UDP a refusal is one of the answers."""
    counted = tally(answers)
    answered = sum(answer.counts(to.place.protocol) for answer in answers)
    words = f"{counted['sent']} sent, {answered} answered"
    if counted["refused"]:
        words += f" ({counted['refused']} refused)" if to.place.protocol == UDP else f", {counted['refused']} refused"
    return [f"{words}, {counted['loss']:g} % lost", *_times(answers)]


def _times(answers: Sequence[Answer]) -> list[str]:
    """Return the line of times; it has percentiles only if there are enough times for them to differ."""
    figures = times(answers)
    if figures is None:
        return []
    number = sum(answer.came for answer in answers)
    if number == 1:
        return [f"time: {figures.mean_ms:.3f} ms"]
    percentiles = figures.in_ms
    shown = {"min": percentiles.pop("min"), "avg": figures.mean_ms, **percentiles}
    few = ("min", "avg", "max")
    chosen = [f"{name} {value:.3f}" for name, value in shown.items() if number >= _MANY or name in few]
    return [f"time: {', '.join(chosen)} ms"]


def tally(answers: Sequence[Answer]) -> dict[str, Any]:
    """Return how many requests were sent, answered and refused, and the loss in percent."""
    came = sum(answer.came for answer in answers)
    return {
        "sent": len(answers),
        "answered": sum(answer.state == REPLY for answer in answers),
        "refused": sum(answer.state == REFUSED for answer in answers),
        "loss": round(100 * (len(answers) - came) / len(answers), 1) if answers else 0.0,
    }


def note(to: Target, answers: Sequence[Answer]) -> str:
    """Return a note about a refused datagram, which counts as an answer; empty if none was refused."""
    if to.place.protocol != UDP or not any(answer.state == REFUSED for answer in answers):
        return ""
    return f"nothing listens on {to.place.service} of {to.address}; its refusals show that packets pass both ways"


def path_lines(path: Sequence[Step]) -> list[tuple[str, str]]:
    """Return each step of a traced request and its reply: its first columns, which are aligned, and what happened."""
    width = max((len(step.place) for step in path), default=0)
    return [(f"  {step.packet:7}  {step.place:{width}}  ", step.what) for step in path]


def as_json(
    source: Origin,
    own: str,
    to: Target,
    answers: Sequence[Answer],
    served: bool,
    cause: FailureCause | None,
    path: Sequence[Step] | None,
) -> dict[str, Any]:
    """Return what `-o json` prints, without the version."""
    figures = times(answers)
    came = any(answer.state == REPLY for answer in answers)
    return {
        "from": {"name": source.name, "kind": source.kind, "address": own or None, "netns": source.pod.netns},
        "to": {
            "name": to.name,
            "kind": to.kind,
            "address": to.address,
            "protocol": to.place.protocol,
            "port": to.place.port or None,
            "dns_server": to.resolved.server if to.resolved is not None else None,
        },
        "result": OK if served else LOSS if came else FAILED,
        **tally(answers),
        "rtt_ms": figures.in_ms if figures is not None else None,
        "items": [_answer(answer) for answer in sorted(answers, key=lambda answer: answer.sequence)],
        "cause": cause.words if cause is not None else None,
        "cause_name": cause.name if cause is not None else None,
        "hint": hint.as_json(cause.hint) if cause is not None else None,
        "trace": [step.as_json() for step in path] if path is not None else None,
    }


def _answer(answer: Answer) -> dict[str, Any]:
    return {
        "seq": answer.sequence + 1,
        "state": answer.state,
        "time_ms": round(answer.seconds * 1000, 3) if answer.came else None,
        "by": answer.by or None,
        "words": answer.words,
        "mtu": answer.mtu or None,
    }
