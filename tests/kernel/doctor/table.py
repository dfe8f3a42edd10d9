"""Run the tests that cause faults for doctor, and write the faults into docs/doctor.md.

python -m tests.kernel.doctor.table
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from cnictl.doctor.catalogue import CHECKS

from .harness import TABLE

_ROOT = Path(__file__).parents[3]
PAGE = _ROOT / "docs" / "doctor.md"
_SHOWN = ("<!-- shown: begin (make doctor) -->", "<!-- shown: end -->")
_KNOWN = ("<!-- checks: begin (make doctor) -->", "<!-- checks: end -->")


def main() -> None:
    """Run the tests, and update the page if none fails."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/rows"
        made_in = ("kernel/doctor", "coexistence", "kernel/node/test_program.py", "kernel/node/test_reach.py")
        tests = [str(_ROOT / "tests" / name) for name in made_in]
        argv = [sys.executable, "-m", "pytest", "-q", "-n", "3", "--dist", "loadfile", *tests]
        status = subprocess.run(argv, env={**os.environ, TABLE: path}, check=False).returncode
        if status:
            sys.exit(status)
        rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    order = [check.id for check in CHECKS]
    rows.sort(key=lambda row: order.index(row["check"]))
    shown = ["| finding | fault | symptom | fixed by |", "|---|---|---|---|"]
    lines = (
        f"| {row['check']} | `{_cell(row['fault'])}` | {row['symptom']} | `{_cell(row['fixed'])}` |" for row in rows
    )
    shown += dict.fromkeys(lines)  # several tests may cause the same fault
    text = _between(PAGE.read_text(encoding="utf-8"), _SHOWN, shown)
    PAGE.write_text(_between(text, _KNOWN, checks_table()), encoding="utf-8")


def checks_table() -> list[str]:
    """Return the page's table of every check."""
    lines = ["| row | check | severity | looks at | why | `--fix` |", "|--:|---|---|---|---|---|"]
    for check in sorted(CHECKS, key=lambda check: check.row):
        fix = "yes" if check.fix else ""
        lines.append(f"| {check.row} | {check.id} | {check.severity} | {_cell(check.looks_at)} | {check.why} | {fix} |")
    return lines


def shown_checks() -> set[str]:
    """Return the checks for which the page shows a fault."""
    _, _, rest = PAGE.read_text(encoding="utf-8").partition(_SHOWN[0])
    rows = [line.split("|")[1].strip() for line in rest.partition(_SHOWN[1])[0].splitlines() if line.startswith("| ")]
    return set(rows[1:])


def _between(text: str, marks: tuple[str, str], lines: list[str]) -> str:
    head, _, rest = text.partition(marks[0])
    body = "\n".join(lines)
    return f"{head}{marks[0]}\n\n{body}\n\n{marks[1]}{rest.partition(marks[1])[2]}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    main()
