"""Find CIDRs that overlap or cover each other, in a time that grows with their number, not with its square."""

from collections.abc import Iterable, Iterator, Sequence

from cnictl.core.cidr import Cidr


def overlapping(cidrs: Sequence[Cidr]) -> Iterator[tuple[int, int]]:
    """Yield the positions of CIDRs that overlap, the earlier one of each pair first.

    Two CIDRs overlap only if one covers the other. So they are sorted by first address, wider ones first, and each is
    compared only with the narrowest one around it: three nested CIDRs give two pairs.
    """
    order = sorted(range(len(cidrs)), key=lambda at: (cidrs[at].bits, cidrs[at].first, cidrs[at].prefix))
    around: list[int] = []
    for at in order:
        cidr = cidrs[at]
        while around and not (cidrs[around[-1]].bits == cidr.bits and cidr.first <= cidrs[around[-1]].last):
            around.pop()
        if around:
            yield min(around[-1], at), max(around[-1], at)
        around.append(at)


class CidrIndex:
    """An index of CIDRs that finds those that cover another one, without comparing it with each."""

    def __init__(self, cidrs: Iterable[Cidr]) -> None:
        self._known: dict[tuple[int, int], dict[int, Cidr]] = {}
        for cidr in cidrs:
            self._known.setdefault((cidr.bits, cidr.prefix), {})[cidr.first] = cidr

    def covering(self, inner: Cidr) -> list[Cidr]:
        """Return the CIDRs that cover `inner`, the widest first."""
        covering_cidrs = []
        for (bits, prefix), by_first in sorted(self._known.items(), key=lambda entry: entry[0]):
            if bits == inner.bits and prefix <= inner.prefix:
                cidr = by_first.get(Cidr(inner.packed, prefix).first)
                if cidr is not None:
                    covering_cidrs.append(cidr)
        return covering_cidrs
