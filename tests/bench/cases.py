"""Define the measured cases: the plugins compared, the state beforehand, and the number of calls."""

import statistics
from collections import defaultdict
from dataclasses import dataclass, field

from tests.bench.sides import Side

VERBS = ("ADD", "CHECK", "DEL")


@dataclass
class Row:
    """One side of a case, in milliseconds."""

    label: str
    taken: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """By verb; `sum` is of one pod's three calls."""

    def median(self, key: str) -> float:
        """The median of a verb, or of the sum."""
        return statistics.median(self.taken[key]) if self.taken[key] else 0.0

    def quartiles(self, key: str) -> tuple[float, float]:
        """The first and the third."""
        if len(self.taken[key]) < 2:
            return self.median(key), self.median(key)
        first, _, third = statistics.quantiles(self.taken[key], n=4)
        return first, third


@dataclass
class Case:
    """What was compared, ours first, and the most that the ratio of the sums may be (0: nothing is demanded)."""

    key: str
    title: str
    rows: list[Row]
    target: float = 0.0
    calls: str = "sum"
    """What is compared: `sum`, or a verb."""

    @property
    def ratio(self) -> float:
        """Of the medians, the first row's to the last's."""
        return self.rows[0].median(self.calls) / self.rows[-1].median(self.calls)

    def row(self, label: str) -> Row:
        """A side's."""
        return next(row for row in self.rows if row.label == label)


def measure(case: Case, sides: list[Side], cycles: int) -> Case:
    """Attach, check and detach one pod at a time, beside those that stand; the sides take turns at each call.

    The first cycle is not counted: it makes the bridge and the rules, and takes over what the store holds.
    Raises Unequal where a side doesn't do its part.
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
