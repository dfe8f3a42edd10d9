"""Define the outcome of one request of any protocol, and the round-trip times of many."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cnictl.probe.icmp import Refusal
from cnictl.probe.ports import UDP

REPLY = "reply"
REFUSED = "refused"
"""The target itself reports that nothing listens on the port: by a reset (TCP) or port unreachable (UDP)."""
REJECTED = "rejected"
"""A host on the path answered with an ICMP error."""
TOO_BIG = "too big"
"""The packet is larger than the MTU of a link on the path."""
UNSENT = "not sent"
"""The sender's kernel refused to send."""
SILENT = "no answer"


@dataclass(frozen=True)
class Answer:
    """The outcome of one request."""

    sequence: int
    state: str
    seconds: float = 0.0
    """Time until the answer; 0 if none came."""
    by: str = ""
    """The address that answered; empty if none did."""
    words: str = ""
    """The text of the answer if it says more than the state."""
    mtu: int = 0
    """The MTU that a packet is too big for, if it was reported."""
    refusal: Refusal | None = None
    """The ICMP error that came to an echo request."""

    @property
    def came(self) -> bool:
        """Whether the other side answered: with a reply, or with the refusal of a closed port."""
        return self.state in (REPLY, REFUSED)

    def counts(self, protocol: str) -> bool:
        """Whether the request was answered. In UDP, the refusal of a closed port is an answer; in TCP it is not."""
        return self.state == REPLY or (self.state == REFUSED and protocol == UDP)


@dataclass(frozen=True)
class Times:
    """Round-trip times, in seconds."""

    least: float
    mean: float
    p50: float
    p95: float
    p99: float
    most: float

    @property
    def mean_ms(self) -> float:
        """The mean in milliseconds, rounded to microseconds."""
        return round(self.mean * 1000, 3)

    @property
    def in_ms(self) -> dict[str, float]:
        """The others in milliseconds by name, rounded to microseconds."""
        named = {"min": self.least, "p50": self.p50, "p95": self.p95, "p99": self.p99, "max": self.most}
        return {name: round(seconds * 1000, 3) for name, seconds in named.items()}


def times(answers: Iterable[Answer]) -> Times | None:
    """Return the round-trip times of the answered requests; None if none was answered."""
    took = sorted(answer.seconds for answer in answers if answer.came)
    if not took:
        return None
    return Times(
        took[0], sum(took) / len(took), percentile(took, 50), percentile(took, 95), percentile(took, 99), took[-1]
    )


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the smallest value that at least `percent` of the values do not exceed (nearest rank)."""
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]
