"""Run scenarios on both sides, each on its own host, in several processes at once."""

import os
import subprocess
import traceback
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor

from tests.kernel.plugin.client import plugin_executable
from tests.parity import cycle
from tests.parity.answers import Facts
from tests.parity.faults import FAULTS
from tests.parity.places import SIDES, place
from tests.parity.product import BAD_SCENARIOS, SCENARIOS, VERSION_ROW, rows_of
from tests.parity.rules import Verdict, judge

Job = tuple[str, int]
"""A list's name and an index in it, which are passed to a worker."""


def features() -> frozenset[str]:
    """Return the optional features that this kernel has, found by using them in a new namespace."""
    done = subprocess.run(
        ["unshare", "--net", "ip", "link", "add", "b", "type", "bridge", "vlan_filtering", "1"],
        capture_output=True,
        check=False,
    )
    return frozenset({"vlan"} if done.returncode == 0 else ())


def jobs() -> list[Job]:
    """Return all jobs, the slowest first."""
    return [
        *(("fault", number) for number in range(len(FAULTS))),
        *(("scenario", number) for number in range(len(SCENARIOS))),
        *(("bad", number) for number in range(len(BAD_SCENARIOS))),
    ]


def label(job: Job) -> str:
    """Return the job's name in lists."""
    kind, number = job
    if kind == "fault":
        return f"fault: {FAULTS[number].id}"
    return (SCENARIOS if kind == "scenario" else BAD_SCENARIOS)[number].id


def verdicts(chosen: Iterable[Job], workers: int = 0) -> Iterator[tuple[Job, list[Verdict], str]]:
    """Yield each job in the order of the list, with its verdicts, or with the traceback if it failed to run."""
    plugin_executable()  # build it once, before the workers are forked
    kernel = features()
    with ProcessPoolExecutor(max_workers=workers or 3 * (os.cpu_count() or 2)) as pool:
        started = [(job, pool.submit(_run, job, kernel)) for job in chosen]
        for job, future in started:
            yield (job, *future.result())


def _run(job: Job, kernel: frozenset[str]) -> tuple[list[Verdict], str]:
    try:
        return (_fault(job[1], kernel) if job[0] == "fault" else _scenario(job, kernel)), ""
    except (OSError, ValueError, LookupError, AssertionError, subprocess.SubprocessError):
        return [], traceback.format_exc()


def _scenario(job: Job, kernel: frozenset[str]) -> list[Verdict]:
    kind, number = job
    scenario = (SCENARIOS if kind == "scenario" else BAD_SCENARIOS)[number]
    seen: dict[str, dict[str, Facts]] = {}
    for side in SIDES:
        with place(side, _executable(side)) as made:
            seen[side] = cycle.run(scenario, made)
    rows = [*rows_of(scenario), *([VERSION_ROW] if job == ("scenario", 0) else [])]
    return [judge(row, {side: facts.get(row.verb, {}) for side, facts in seen.items()}, kernel) for row in rows]


def _fault(number: int, kernel: frozenset[str]) -> list[Verdict]:
    fault = FAULTS[number]
    seen = {}
    for side in SIDES:
        with place(side, _executable(side)) as made:
            seen[side] = fault.run(made)
    return [judge(fault.row, seen, kernel)]


def _executable(side: str) -> str:
    return "/usr/lib/cni/bridge" if side == "reference" else plugin_executable()
