"""Define the measured cases: the plugins compared, the state beforehand, and the number of calls."""

import statistics
from collections import defaultdict
from dataclasses import dataclass, field

from tests.bench.sides import Side

VERBS = ("ADD", "CHECK", "DEL")


@dataclass
class Row:
    """The times of one side of a case, in milliseconds."""

    label: str
    taken: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Times by verb; `sum` holds the total of each pod's three calls."""

    def median(self, key: str) -> float:
        """Return the median of a verb, or of `sum`."""
        return statistics.median(self.taken[key]) if self.taken[key] else 0.0

    def quartiles(self, key: str) -> tuple[float, float]:
        """Return the first and the third quartile."""
        if len(self.taken[key]) < 2:
            return self.median(key), self.median(key)
        first, _, third = statistics.quantiles(self.taken[key], n=4)
        return first, third


@dataclass
class Case:
    """One comparison: the rows, ours first, and the highest ratio that is allowed (0: no target)."""

    key: str
    title: str
    rows: list[Row]
    target: float = 0.0
    calls: str = "sum"
    """The key of the compared times: `sum`, or a verb."""

    @property
    def ratio(self) -> float:
        """The first row's median divided by the last row's."""
        return self.rows[0].median(self.calls) / self.rows[-1].median(self.calls)

    def row(self, label: str) -> Row:
        """Return the row of a side."""
        return next(row for row in self.rows if row.label == label)


def measure(case: Case, sides: list[Side], cycles: int) -> Case:
    """Attach, check and detach one pod at a time while other pods stay attached. The sides take turns at each call.

    The first cycle is not counted: it makes the bridge, the rules, and records for the leases in the store.
    Raises Unequal if a side does not do its part of the work.
    """
    case.rows = [Row(side.label) for side in sides]
    for place, side in enumerate(sides):
        side.make_pod(f"measured{place}")
    for cycle in range(cycles + 1):
        sums = [0.0] * len(sides)
        for verb in VERBS:
            for step in range(len(sides)):
                place = (cycle + step) % len(sides)
                pod = f"measured{place}"
                milliseconds = sides[place].call(verb, pod)
                sums[place] += milliseconds
                if cycle:
                    case.rows[place].taken[verb].append(milliseconds)
                if verb == "ADD" and cycle in (0, cycles):
                    sides[place].must_masquerade(pod)
        if cycle:
            for row, total in zip(case.rows, sums, strict=True):
                row.taken["sum"].append(total)
    for side in sides:
        side.must_be_clean()
    return case
