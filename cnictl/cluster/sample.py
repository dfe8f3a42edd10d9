"""Choose which hosts ping each other: every pair or, in a large cluster, a sample that covers each host."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

WHOLE = 16
"""The largest number of hosts for which every pair is tested."""
EACH = 4
"""Partners of each host in a sample; an even number."""


@dataclass(frozen=True)
class Pairs:
    """The hosts that ping each other, in both directions."""

    partners: dict[str, tuple[str, ...]]
    seed: int | None = None
    """The seed of a sample: the same hosts and seed give the same sample. None if every pair is tested."""

    @property
    def count(self) -> int:
        """The number of pairs, each counted once."""
        return sum(map(len, self.partners.values())) // 2


def choose(hosts: Sequence[str], full: bool, seed: int) -> Pairs:
    """Return every pair if `full` or for up to `WHOLE` hosts, else a sample in which each host has `EACH` partners.

    The sample places the hosts in a circle, in an order that depends on `seed`, and pairs each host with its
    neighbours. All hosts are thus tested equally often, and a chain of pairs connects each host to every other.
    """
    if full or len(hosts) <= WHOLE:
        return Pairs({host: tuple(other for other in hosts if other != host) for host in hosts})
    circle = sorted(hosts)
    Random(seed).shuffle(circle)
    partners: dict[str, tuple[str, ...]] = {}
    for at, host in enumerate(circle):
        steps = range(1, EACH // 2 + 1)
        partners[host] = tuple(circle[(at + step * way) % len(circle)] for step in steps for way in (1, -1))
    return Pairs({host: partners[host] for host in hosts}, seed)
