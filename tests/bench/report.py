"""Print the results of a benchmark run, and write them to docs/dev/speed.md and its chart."""

import os
import platform
import time
from pathlib import Path

from tests.bench.cases import VERBS, Case
from tests.bench.chart import chart
from tests.bench.spent import KINDS, Parts
from tests.bench.startup import Step

_DOCS = Path(__file__).parents[2] / "docs" / "dev"
_BEGIN, _END = "<!-- measured: begin (make bench BENCH=--write) -->\n", "<!-- measured: end -->\n"


def print_case(case: Case) -> None:
    """Print a case's rows and its ratio."""
    columns = VERBS if case.calls == "sum" else ()
    print(f"\n{case.title}\n  {'':44}" + "".join(f"{key:>9}" for key in (*columns, case.calls)))
    for row in case.rows:
        print(f"  {row.label:44}" + "".join(f"{row.median(key):9.1f}" for key in (*columns, case.calls)))
    print(f"  {'ratio':44}{case.ratio:{9 * (len(columns) + 1)}.2f}", flush=True)


def print_verdicts(cases: list[Case]) -> None:
    """Print each ratio and whether it meets its target."""
    print("\nratios against their targets")
    for case in cases:
        demanded = f"at most {case.target:g}" if case.target else "none set"
        verdict = ("met" if case.ratio <= case.target else "MISSED") if case.target else ""
        print(f"  {case.title:74}{case.ratio:8.3f}  {demanded:14}{verdict}")


def print_steps(steps: list[Step]) -> None:
    """Print the steps of a call's start."""
    print(f"\nstart-up\n  {'':56}{'until here':>12}{'step':>8}{'median':>10}")
    before = 0.0
    for step in steps:
        grown = "" if step.apart else f"{step.quickest - before:.1f}"
        print(f"  {step.label:56}{step.quickest:12.1f}{grown:>8}{step.median:10.1f}", flush=True)
        before = step.quickest


def print_parts(parts: list[Parts]) -> None:
    """Print each verb's time by kind."""
    print(f"\ntime by kind, in the quickest of many calls\n  {'':56}" + "".join(f"{part.verb:>8}" for part in parts))
    for kind, words in KINDS.items():
        print(f"  {words:56}" + "".join(f"{part.by_kind[kind]:8.1f}" for part in parts))
    print(f"  {'whole':56}" + "".join(f"{part.whole:8.1f}" for part in parts), flush=True)


def write(cases: list[Case], steps: list[Step], parts: list[Parts], load: float) -> None:
    """Replace the previous run's tables in docs/dev/speed.md and its chart, docs/dev/speed.svg."""
    page = _DOCS / "speed.md"
    before, begin, rest = page.read_text(encoding="utf-8").partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"{page} has no place for measured values: {_BEGIN.strip()} … {_END.strip()}")
    where = (
        f"Linux {platform.release()}, Python {platform.python_version()}, {os.cpu_count()} CPUs, load {load:.1f} at "
        f"the start, {time.strftime('%Y-%m-%d', time.gmtime())}; ms, medians."
    )
    tables = [where, _compared(cases)]
    if steps:
        tables += ["### A call's start\n\nThe fastest of many runs, in ms.", _start(steps)]
    if parts:
        tables += [
            "### Where each verb's time goes\n\nThe fastest of many calls, in ms, with ipMasq. The profiler's hook "
            "makes our own code look slower than it is.",
            _where(parts),
        ]
    page.write_text(before + begin + "\n" + "\n\n".join(tables) + "\n\n" + end + after, encoding="utf-8")
    (_DOCS / "speed.svg").write_text(chart(cases, "A pod's network: whole calls, beside the reference's"), "utf-8")
    print(f"\nwritten: {page}, {_DOCS / 'speed.svg'}")


def _compared(cases: list[Case]) -> str:
    lines = ["| case | | ADD | CHECK | DEL | sum | ratio | at most |", "|---|---|--:|--:|--:|--:|--:|--:|"]
    for case in cases:
        target = f"{case.target:g}" if case.target else ""
        for place, row in enumerate(case.rows):
            cells = "".join(f" {row.median(key):,.1f} |" if row.taken[key] else " |" for key in (*VERBS, "sum"))
            ends = f" **{case.ratio:.{3 if case.ratio < 0.1 else 2}f}** | {target} |" if place == 0 else " | |"
            lines.append(f"| {case.title if place == 0 else ''} | {row.label} |{cells}{ends}")
    return "\n".join(lines)


def _start(steps: list[Step]) -> str:
    lines = ["| | until here | step |", "|---|--:|--:|"]
    before = 0.0
    for step in steps:
        grown = "" if step.apart else f"{step.quickest - before:.1f}"
        lines.append(f"| {step.label} | {step.quickest:.1f} | {grown} |")
        before = step.quickest
    return "\n".join(lines)


def _where(parts: list[Parts]) -> str:
    lines = [f"| | {' | '.join(part.verb for part in parts)} |", "|---|" + "--:|" * len(parts)]
    for kind, words in KINDS.items():
        lines.append(f"| {words} | {' | '.join(f'{part.by_kind[kind]:.1f}' for part in parts)} |")
    lines.append(f"| whole | {' | '.join(f'{part.whole:.1f}' for part in parts)} |")
    return "\n".join(lines)
