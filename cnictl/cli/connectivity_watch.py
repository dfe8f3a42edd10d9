"""Repeat the rounds of `test-connectivity --watch`, and show what changes."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cnictl.cli.output import Format, Progress, pause, print_json_line, write
from cnictl.probe.checks import CheckResult, Report

Place = tuple[str, str, str, str]
"""Check, family, sender and target of a row."""
INTERVAL = 5.0
"""Seconds between two rounds without `--interval`."""


@dataclass
class LastRound:
    """The report of the last round that was completed."""

    report: Report | None = None

    @property
    def result(self) -> Report:
        """The report. Raises KeyboardInterrupt if the first round was interrupted."""
        if self.report is None:
            raise KeyboardInterrupt
        return self.report


@contextmanager
def until_interrupted() -> Iterator[LastRound]:
    """End the context at Ctrl-C without an error. Everything inside the context is cleaned up first."""
    try:
        yield LastRound()
    except KeyboardInterrupt:
        return


def follow(
    run: Callable[[], Report],
    interval: float,
    output: Format,
    last_round: LastRound,
    tell: Progress,
    show: Callable[[Report], None],
) -> None:
    """Run rounds, each `interval` seconds after the end of the previous one, until KeyboardInterrupt.

    A terminal shows the last round in place, a pipe the first round and then a line for each change; with `-o json`,
    each round is one line.
    """
    in_place = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    while True:
        previous, report = last_round.report, run()
        tell.pause()
        last_round.report = report
        if output is Format.JSON:
            print_json_line({"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **report.as_json()})
        elif in_place:
            print("\x1b[H\x1b[2J", end="")
            show(report)
            write(f"{time.strftime('%H:%M:%S')}, every {interval:g} s until Ctrl-C")
        elif previous is None:
            show(report)
        else:
            for line in changes(previous, report):
                write(f"{time.strftime('%H:%M:%S')}  {line}")
        pause(interval)


def changes(previous: Report, report: Report) -> Iterator[str]:
    """Yield a line for each row that is new, is gone, or has another state or cause than in the previous round."""
    before, after = _by_place(previous), _by_place(report)
    for place, new in after.items():
        old = before.get(place)
        if old is None or _state(old) != _state(new):
            cause = f": {new.cause.words}" if new.cause is not None else ""
            fix = f"  hint: {new.cause.hint}" if new.cause is not None and new.cause.hint else ""
            yield f"{_words(place)}  {old.state if old is not None else 'new'} → {new.state}{cause}{fix}"
    for place, old in before.items():
        if place not in after:
            yield f"{_words(place)}  {old.state} → gone"


def _by_place(report: Report) -> dict[Place, CheckResult]:
    return {(result.check, result.family, result.source, result.to): result for result in report.checks}


def _words(place: Place) -> str:
    check, family, source, to = place
    return f"{check}  {source or family}{f' → {to}' if to else ''}"


def _state(result: CheckResult) -> tuple[str, str]:
    """Return what counts as a change: how many requests were lost or how long they took does not."""
    return result.state, result.cause.name if result.cause is not None else ""
