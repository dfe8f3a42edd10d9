"""Run the fixed list and print the verdicts: `python -m tests.parity [--write] [--part N/M] [WORDS]`."""

import argparse
import collections
import os
import sys

from tests.parity import report, run
from tests.parity.rules import WORSE, Verdict

_INSIDE = "CNICTL_PARITY_INSIDE"


def main() -> int:
    """Run the chosen jobs. Return 1 if cnictl-bridge is worse in a row or a job could not be judged, else 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description=sys.modules["tests.parity"].__doc__)
    parser.add_argument("--write", action="store_true", help="rewrite docs/dev/drop-in.md from the whole list")
    parser.add_argument("--part", default="1/1", help="N/M: run every M-th job of the list, beginning with the N-th")
    parser.add_argument("--jobs", type=int, default=0, help="scenarios at the same time (default: three per core)")
    parser.add_argument("--verbose", action="store_true", help="also show where the reference falls short")
    parser.add_argument("words", nargs="*", help="run only scenarios whose name contains one of these")
    options = parser.parse_args()
    if options.write and (options.words or options.part != "1/1"):
        parser.error("--write needs the whole list: leave out --part and the words")
    _as_root()
    first, every = (int(number) for number in options.part.split("/"))
    chosen = [job for job in run.jobs() if not options.words or any(word in run.label(job) for word in options.words)]
    judged: list[Verdict] = []
    broken = 0
    for job, verdicts, trouble in run.verdicts(chosen[first - 1 :: every], options.jobs):
        if trouble:
            broken += 1
            print(f"could not be judged: {run.label(job)}\n{trouble}")
        for verdict in verdicts:
            judged.append(verdict)
            if verdict.verdict == WORSE or options.verbose:
                print(report.text(verdict))
    counts = collections.Counter(verdict.verdict for verdict in judged)
    print(f"{len(judged)} rows: {', '.join(f'{number} {name}' for name, number in counts.most_common())}")
    if options.write and not broken:
        report.write(judged)
    return 1 if broken or counts[WORSE] else 0


def _as_root() -> None:
    """Restart an ordinary user's run in new user and network namespaces, from which it can make and enter hosts."""
    if os.geteuid() and not os.environ.get(_INSIDE):
        command = ["unshare", "--user", "--map-root-user", "--net", "--", sys.executable, "-m", "tests.parity"]
        os.execvpe(command[0], [*command, *sys.argv[1:]], {**os.environ, _INSIDE: "1"})


if __name__ == "__main__":
    sys.exit(main())
