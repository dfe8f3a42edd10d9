"""Kill `cnictl watch` with SIGKILL before each of its steps while the cluster file changes.

    python -m tests.faults.following                 # before every step (`make faults`)
    python -m tests.faults.following --points 8

After each kill the list of peers must be complete, and a new watch must set the routes that the file asks for.
"""

import argparse
import json
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from cnictl.lab.lab import Lab
from tests.faults.inside import Inside, runs_inside
from tests.faults.runs import AT, ENVIRONMENT, EVERY, Report
from tests.kernel.commands import drifted
from tests.kernel.node.test_reach import Watch, cluster_text, entries_of, join, learned, put
from tests.waiting import wait_for
from tests.warm import commands

_RECORD = "/var/lib/cnictl/peers.json"
_STATE = "/run/cnictl/watch.json"
_CHANGING = 20
"""The number of nodes that join or leave with each change."""
_BOUND = 15.0
_REST = {"10.244.0.0/16": "unreachable"}
"""The route for addresses that no node has."""


class Ground:
    """Two nodes of one cluster file. `cnictl watch` runs on the first."""

    def __init__(self, lab: Lab, inside: Inside) -> None:
        self.node, self._lab, self._inside = lab.nodes[0], lab, inside
        self._large = False

    @property
    def wanted(self) -> dict[str, str]:
        """The routes that the current file asks for."""
        return {cidr: address for _, address, cidr in self._entries()[1:]} | _REST

    def _entries(self) -> list[tuple[str, str, str]]:
        more = [(f"more{at}", f"10.0.0.{100 + at}", f"10.244.{100 + at}.0/24") for at in range(_CHANGING)]
        return [*entries_of(self._lab), *(more if self._large else [])]

    def change(self) -> None:
        """Rewrite the file so that `_CHANGING` nodes join or leave."""
        self._large = not self._large
        put(self.node, cluster_text(self._entries()))

    def watched(self, kill_at: int) -> tuple[int, int]:
        """Change the file while watch runs. Kill watch before step `kill_at`, or end it by SIGTERM once it is done.

        Return its exit status and the number of its steps, which is 0 if it was killed.
        """
        self.node.run(["rm", "-f", _STATE])
        answers = []

        def watch() -> None:
            answers.append(self._inside.call({**ENVIRONMENT, AT: str(kill_at)}, b"", ["cnictl", "watch"]))

        thread = threading.Thread(target=watch)
        thread.start()
        wait_for(lambda: not thread.is_alive() or self._pid(), "watch looks at the node", _BOUND)
        self.change()
        wait_for(lambda: not thread.is_alive() or learned(self.node) == self.wanted, "the routes have changed", _BOUND)
        if thread.is_alive():
            self.node.run(["kill", "-TERM", self._pid()], check=False)
        thread.join(_BOUND)
        (answer,) = answers
        return answer.status, int(answer.stdout.decode().rpartition("\n")[2] or 0) if answer.status == 0 else 0

    def _pid(self) -> str:
        try:
            return str(json.loads(self.node.run(["cat", _STATE], check=False).stdout)["pid"])
        except ValueError:
            return ""

    def assert_whole(self) -> None:
        """Check that a killed watch has left a complete list of peers, and that a new one does what remains."""
        assert json.loads(self.node.run(["cat", _RECORD]).stdout)["form"] == 1
        lasting = {cidr: address for _, address, cidr in entries_of(self._lab)[1:]} | _REST
        assert lasting.items() <= learned(self.node).items(), "a lasting peer's route is lost or wrong"
        with Watch(self.node):
            wait_for(lambda: learned(self.node) == self.wanted, "the routes match the file", _BOUND)


@contextmanager
def ground() -> Iterator[Ground]:
    """Yield a new pair of nodes."""
    with Lab(nodes=2) as lab:
        for node in lab.nodes:
            join(node, cluster_text(entries_of(lab)))
        with runs_inside(lab.nodes[0].command([])) as inside:
            yield Ground(lab, inside)


def sweep(points: int = EVERY) -> Report:
    """Kill watch before each of its steps while its file changes, or before `points` evenly spread steps."""
    report = Report()
    with ground() as where:
        status, report.changes = where.watched(EVERY)
        assert status == 0 and report.changes, "watch did not end by itself"
        step = max(1.0, report.changes / points) if points else 1.0
        for turn in range(int(report.changes / step)):
            number = int(1 + (turn + 0.5) * step)
            try:
                report.kills += where.watched(number)[0] == -signal.SIGKILL
                where.assert_whole()
            except AssertionError as fault:
                report.faults.append(f"ahead of {number}: {fault}")
        report.faults += [f"drifted: {resource}" for resource in drifted(where.node)]
    return report


def main() -> None:
    """Sweep, and exit with status 1 if a fault was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.following", description="See the module's docstring.")
    parser.add_argument("--points", type=int, default=EVERY, help="only that many, evenly spread")
    options = parser.parse_args()
    started = time.monotonic()
    with commands.loaded():
        report = sweep(options.points)
    print(f"watch: {report.kills} kills, {report.changes} steps, {time.monotonic() - started:.1f} s")
    print(*(f"  FAULT {fault}" for fault in report.faults), sep="\n", flush=True)
    sys.exit(1 if report.faults else 0)


if __name__ == "__main__":
    main()
