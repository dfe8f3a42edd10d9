"""Run `cluster test`: choose the pairs, gather the hosts' reports, and combine them into the matrix."""

import resource
from collections.abc import Callable, Sequence

from cnictl.cluster import matrix, probing, sample
from cnictl.cluster.matrix import Matrix
from cnictl.cluster.probing import LIMITS, Limits
from cnictl.cluster.transport import Transport


def run(
    hosts: Sequence[str],
    transport: Transport,
    on_step: Callable[[str], None],
    full: bool = False,
    seed: int = 0,
    limits: Limits = LIMITS,
    externals: tuple[str, ...] = (),
) -> Matrix:
    """Return the matrix of these hosts. `full` and `seed` are those of `sample.choose`.

    `externals`: the addresses outside to ping; by default each host pings its own.
    """
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # each host needs several descriptors
    pairs = sample.Pairs({})

    def choose(ready: Sequence[str]) -> dict[str, tuple[str, ...]]:
        nonlocal pairs
        pairs = sample.choose(ready, full, seed)
        return pairs.partners

    reports = probing.gather(hosts, transport, choose, on_step, limits, externals=externals)
    return matrix.build(reports, pairs)
