"""What a run found, at the terminal and in docs/speed.md with its chart."""

from tests.bench.cases import VERBS, Case
from tests.bench.spent import KINDS, Parts
from tests.bench.startup import Step


def print_case(case: Case) -> None:
    """Its rows, and the ratio."""
    columns = VERBS if case.calls == "sum" else ()
    print(f"\n{case.title}\n  {'':44}" + "".join(f"{key:>9}" for key in (*columns, case.calls)))
    for row in case.rows:
        print(f"  {row.label:44}" + "".join(f"{row.median(key):9.1f}" for key in (*columns, case.calls)))
    print(f"  {'ratio':44}{case.ratio:{9 * (len(columns) + 1)}.2f}", flush=True)


def print_verdicts(cases: list[Case]) -> None:
    """Each ratio against what is demanded of it."""
    print("\nratios against their targets")
    for case in cases:
        demanded = f"at most {case.target:g}" if case.target else "none set"
        verdict = ("met" if case.ratio <= case.target else "MISSED") if case.target else ""
        print(f"  {case.title:62}{case.ratio:8.3f}  {demanded:14}{verdict}")


def print_steps(steps: list[Step]) -> None:
    """The start, step by step."""
    print(f"\nstart-up\n  {'':56}{'until here':>12}{'step':>8}{'median':>10}")
    before = 0.0
    for step in steps:
        grown = "" if step.apart else f"{step.quickest - before:.1f}"
        print(f"  {step.label:56}{step.quickest:12.1f}{grown:>8}{step.median:10.1f}", flush=True)
        before = step.quickest


def print_parts(parts: list[Parts]) -> None:
    """Where each verb's time goes."""
    print(f"\nwhere it goes\n  {'':56}" + "".join(f"{one.verb:>8}" for one in parts))
    for kind, words in KINDS.items():
        print(f"  {words:56}" + "".join(f"{one.by_kind[kind]:8.1f}" for one in parts))
    print(f"  {'whole':56}" + "".join(f"{one.whole:8.1f}" for one in parts), flush=True)
