"""Measure how long our plugin and the reference take to set up, check and remove a pod's network.

    python -m tests.bench.plugin                              # every case (under five minutes)
    python -m tests.bench.plugin --only masquerade --standing 20 --cycles 100
    python -m tests.bench.plugin --write                      # also write the results to docs/

Each side has its own host namespace. `--standing` pods stay attached all the time. `--leases` are leases of other
containers, which exist only in the store. One more pod at a time is ADDed, CHECKed and DELeted, and the sides take
turns at each call. A call is a whole process. The output shows medians in milliseconds and their ratios. No times are
asserted, because machines differ, but each side must have done its work.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cnictl.node.plugin import interpreters, plugin_version
from tests.bench import place, report, spent, startup
from tests.bench.cases import Case, Row, measure
from tests.bench.sides import OUTSIDE, REFERENCE_DIR, Side, Unequal, filled_id

OURS, REFERENCE = "cnictl-bridge", "bridge + host-local"
_SCRATCH = "/var/tmp"
_KINDS = ("startup", "masquerade", "plain", "dual", "disk", "leases", "scale")


def main() -> None:
    """Run the requested cases."""
    options = _options()
    place.go_inside("tests.bench.plugin")
    with suppress(PermissionError):
        os.nice(-15)  # both sides' calls inherit it, so that other work on the machine disturbs them less
    scratch = tempfile.mkdtemp(prefix="cnictl-bench-", dir=_SCRATCH)
    try:
        for path in ("/run", "/var/log", "/var/lib"):
            place.cover(path)
        place.ip("netns", "add", OUTSIDE)
        bench = _Bench(_install(f"{scratch}/lib"), scratch, options)
        bench.run()
        if options.write:
            report.write(bench.cases, bench.steps, bench.parts, bench.load)
    except Unequal as unequal:
        sys.exit(str(unequal))
    finally:
        shutil.rmtree(scratch)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.plugin", description="See the module's docstring.")
    parser.add_argument("--only", choices=_KINDS, action="append", help="one kind of case; may be repeated")
    parser.add_argument("--standing", type=int, action="append", help="pods attached beforehand; may be repeated")
    parser.add_argument("--leases", type=int, action="append", help="leases in the store beforehand; may be repeated")
    parser.add_argument("--cycles", type=int, default=60, help="pods per case (default 60; fewer in slow cases)")
    parser.add_argument("--write", action="store_true", help="write the tables and the chart to docs/")
    return parser.parse_args()


def _install(lib_dir: str) -> str:
    """Install the plugin as `cnictl plugin install` does, and return the path of its launcher."""
    os.makedirs(lib_dir)
    made = plugin_version.build(lib_dir, "bench", plugin_version.sources(), interpreters.inspect(interpreters.SYSTEM))
    return made.launcher


class _Bench:
    """One run: its hosts and its results."""

    def __init__(self, program: str, scratch: str, options: argparse.Namespace) -> None:
        self.program = program
        self.scratch = scratch
        self.options = options
        self.cases: list[Case] = []
        self.steps: list[startup.Step] = []
        self.parts: list[spent.Parts] = []
        self.load = os.getloadavg()[0]
        self._hosts = iter(range(10, 200))

    def run(self) -> None:
        """Run each requested kind of case."""
        print(f"{os.cpu_count()} CPUs, load {self.load:.1f}; medians in ms")
        for kind in self.options.only or _KINDS:
            getattr(self, f"_run_{kind}")()
        report.print_verdicts(self.cases)

    def _run_startup(self) -> None:
        self.steps = startup.measure(self.program)
        report.print_steps(self.steps)
        host = self._side(OURS, masquerade=True)
        self.parts = spent.measure(host)
        report.print_parts(self.parts)

    def _run_masquerade(self) -> None:
        self._standing("masquerade", True, ((20, 0.5), (110, 0.5)))

    def _run_plain(self) -> None:
        self._standing("plain", False, ((20, 0.0), (110, 1.0), (240, 1.0)))

    def _run_dual(self) -> None:
        sides = self._pair(masquerade=True, dual=True)
        self._compare("dual", "both families, ipMasq", sides, self.options.standing or (20,), {})

    def _run_disk(self) -> None:
        """Repeat the first case with the stores on the machine's disk under /var/tmp."""
        with self._on_disk():
            kind = place.file_system("/var/lib")
            sides = self._pair(masquerade=True)
            self._compare("disk", f"ipMasq, /var/lib on {kind}", sides, self.options.standing or (20,), {})

    def _run_leases(self) -> None:
        for leases in self.options.leases or (4000,):
            sides = self._pair(leases, masquerade=True)
            case = Case(f"leases-{leases}", f"ipMasq, {leases:,} leases", [], 0.25)
            self._found(measure(case, sides, min(15, self.options.cycles)))

    def _run_scale(self) -> None:
        """Compare with more leases than one node's pods need; few cycles, because a reference call takes seconds."""
        leases = max(self.options.leases or (60000,))
        full = self._side(f"{OURS}, {leases:,} leases", True, leases)
        self._found(self._foreign(full, leases))
        full.label = OURS
        reference = self._side(REFERENCE, True, leases)
        self._found(measure(Case(f"leases-{leases}", f"ipMasq, {leases:,} leases", [], 0.06), [full, reference], 3))

    def _foreign(self, full: Side, leases: int) -> Case:
        """Compare DEL of container IDs that host-local leased, in a full store and in a store of few leases."""
        few = self._side(f"{OURS}, 20 leases", True, 20)
        few.make_pod("foreign")
        full.make_pod("foreign")
        rows = [Row(full.label), Row(few.label)]
        for number in range(19):
            for row, side in zip(rows, (full, few), strict=True):
                milliseconds = side.call("DEL", "foreign", filled_id(number))
                side.filled -= 1
                if number:  # the first call makes records for the leases of the small store
                    row.taken["DEL"].append(milliseconds)
        for side in (full, few):
            side.must_be_clean()
        return Case("foreign", f"DEL of an id that host-local leased, {leases:,} leases", rows, 1.2, "DEL")

    def _standing(self, kind: str, masquerade: bool, targets: tuple[tuple[int, float], ...]) -> None:
        wanted = dict(targets)
        words = "ipMasq" if masquerade else "no masquerade"
        self._compare(kind, words, self._pair(masquerade=masquerade), self.options.standing or tuple(wanted), wanted)

    def _compare(
        self, kind: str, words: str, sides: list[Side], counts: tuple[int, ...], targets: dict[int, float]
    ) -> None:
        for standing in sorted(counts):
            for side in sides:
                side.stand(standing)
            case = Case(f"{kind}-{standing}", f"{words}, {standing} pods attached", [], targets.get(standing, 0.0))
            self._found(measure(case, sides, self.options.cycles))
        for side in sides:
            self._must_come_back(side)

    def _must_come_back(self, side: Side) -> None:
        """Check that the next ADD restores rules that were flushed."""
        if side.masquerade:
            with place.within(side.node):
                subprocess.run(["nft", "flush", "ruleset"], check=True)
            side.call("ADD", "measured0")
            side.must_masquerade("measured0")
            side.call("DEL", "measured0")

    def _pair(self, leases: int = 0, masquerade: bool = False, dual: bool = False) -> list[Side]:
        return [self._side(label, masquerade, leases, dual) for label in (OURS, REFERENCE)]

    def _side(self, label: str, masquerade: bool, leases: int = 0, dual: bool = False) -> Side:
        program = f"{REFERENCE_DIR}/bridge" if label == REFERENCE else self.program
        side = Side(label, program, next(self._hosts), masquerade, dual)
        side.set_up(leases)
        side.make_pod("measured0")
        return side

    def _found(self, case: Case) -> None:
        self.cases.append(case)
        report.print_case(case)

    @contextmanager
    def _on_disk(self) -> Iterator[None]:
        folder = f"{self.scratch}/disk"
        os.makedirs(folder)
        place.cover("/var/lib", folder)
        try:
            yield
        finally:
            subprocess.run(["umount", "--lazy", "/var/lib"], check=True)


if __name__ == "__main__":
    main()
