"""How long a pod's network takes with our plugin and with the reference, whole processes, call by call in turn.

    python -m tests.bench.plugin                 # every case, on tmpfs and on the disk
    python -m tests.bench.plugin --only masquerade --leases 4000 --pods 20 --rounds 3 --store tmpfs

Each side has a host namespace of its own. In a round, every pod is ADDed, then CHECKed, then DELeted, the sides taking
turns at each call; what is printed are medians over pods and rounds, in milliseconds, and their ratios. No time is
asserted: machines differ. What is asserted is that both sides did the work.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from contextlib import suppress

from cnictl.node import interpreters, library
from tests.bench import place, startup
from tests.bench.sides import OUTSIDE, REFERENCE_DIR, Side

VERBS = ("ADD", "CHECK", "DEL")
_SCRATCH = "/var/tmp"


def main() -> None:
    """Run the cases that were asked for."""
    options = _options()
    place.go_inside("tests.bench.plugin")
    with suppress(PermissionError):
        os.nice(-15)  # the calls inherit it, both sides' alike: other work on the machine disturbs them less
    scratch = tempfile.mkdtemp(prefix="cnictl-bench-", dir=_SCRATCH)
    try:
        program = _install(f"{scratch}/lib")
        for store in ("tmpfs", "disk") if options.store == "both" else (options.store,):
            _run_on(store, f"{scratch}/state-{store}", program, options)
    finally:
        shutil.rmtree(scratch)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.plugin", description="See the module's docstring.")
    parser.add_argument("--pods", type=int, default=20, help="pods at once, per side (default 20)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each case is gone through (default 3)")
    parser.add_argument("--leases", type=int, action="append", help="leases in the store beforehand; may be repeated")
    parser.add_argument("--only", choices=("masquerade", "plain", "scale", "startup"), help="one kind of case")
    parser.add_argument("--store", choices=("tmpfs", "disk", "both"), default="both", help="what /var/lib is on")
    return parser.parse_args()


def _install(lib_dir: str) -> str:
    """The plugin as `cnictl plugin install` lays it down; returns its launcher."""
    os.makedirs(lib_dir)
    code = library.sources()
    made = library.build(lib_dir, "bench", code, interpreters.inspect(interpreters.SYSTEM))
    return made.launcher


def _run_on(store: str, state: str, program: str, options: argparse.Namespace) -> None:
    os.makedirs(state)
    place.cover("/run")
    place.cover("/var/log")
    place.cover("/var/lib", state if store == "disk" else "")
    print(f"== /var/lib on {place.file_system('/var/lib')}; {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
    place.ip("netns", "add", OUTSIDE)
    try:
        if options.only in (None, "startup"):
            startup.print_table(program)
        if options.only in (None, "masquerade"):
            for leases in options.leases or (0, 4000):
                _compare(program, True, leases, options)
        if options.only in (None, "plain"):
            for leases in options.leases or (20, 110):
                _compare(program, False, leases, options)
        if options.only in (None, "scale"):
            for leases in options.leases or (60000,):
                _scale(program, leases, options)
    finally:
        place.ip("netns", "delete", OUTSIDE)
        for path in ("/var/lib", "/var/log", "/run"):
            subprocess.run(["umount", "--lazy", path], check=True)


def _compare(program: str, masquerade: bool, leases: int, options: argparse.Namespace) -> None:
    ours = Side("cnictl-bridge", program, 10, masquerade, leases)
    reference = Side("bridge+host-local", f"{REFERENCE_DIR}/bridge", 20, masquerade, leases)
    title = f"{options.pods} pods, {leases} leases beforehand, {'ipMasq' if masquerade else 'no masquerade'}"
    _case(title, [ours, reference], reference, options.pods, options.rounds)


def _scale(program: str, leases: int, options: argparse.Namespace) -> None:
    """Our own cost, empty store against full; the reference for scale, with few pods: it takes seconds a call."""
    empty = Side("cnictl-bridge, 0 leases", program, 10, True)
    full = Side(f"cnictl-bridge, {leases} leases", program, 11, True, leases)
    block = Side("the same, last_reserved_ip at their start", program, 12, True, leases, at_block=True)
    _case(f"{options.pods} pods, our own cost", [empty, full, block], empty, options.pods, options.rounds)
    reference = Side("bridge+host-local", f"{REFERENCE_DIR}/bridge", 20, True, leases)
    full = Side("cnictl-bridge", program, 13, True, leases)
    _case(f"3 pods, {leases} leases beforehand, ipMasq", [full, reference], reference, 3, 1)
    _take_over(program, leases)


def _case(title: str, sides: list[Side], base: Side, pods: int, rounds: int) -> None:
    """Measure the sides in turn, print a row for each and its ratio to `base`; check that all did the work."""
    taken: dict[str, dict[str, list[float]]] = {side.label: defaultdict(list) for side in sides}
    first: dict[str, float] = {}
    for side in sides:
        side.set_up(pods)
    try:
        for side in sides:  # not counted: makes bridge and rules, and takes over the leases that are there
            first[side.label] = side.call("ADD", 0)
            _must_masquerade(side)
            side.call("DEL", 0)
        for turn in range(rounds):
            sums: dict[str, list[float]] = {side.label: [0.0] * pods for side in sides}
            for verb in VERBS:
                for pod in range(pods):
                    shift = (turn + pod) % len(sides)
                    for side in sides[shift:] + sides[:shift]:
                        milliseconds = side.call(verb, pod)
                        taken[side.label][verb].append(milliseconds)
                        sums[side.label][pod] += milliseconds
            for side in sides:
                taken[side.label]["sum"] += sums[side.label]
        for side in sides:
            _must_restore(side)
    finally:
        for side in sides:
            side.tear_down()
    _print_case(title, sides, base, taken, first)


def _must_masquerade(side: Side) -> None:
    if side.masquerade and not side.masquerades(0):
        sys.exit(f"{side.label} doesn't masquerade")


def _must_restore(side: Side) -> None:
    """A rule set that something flushed has to be back after the next ADD. The reference makes its rules anew too."""
    if not side.masquerade:
        return
    with place.within(side.node):
        subprocess.run(["nft", "flush", "ruleset"], check=True)
    side.call("ADD", 0)
    _must_masquerade(side)
    side.call("DEL", 0)


def _print_case(
    title: str, sides: list[Side], base: Side, taken: dict[str, dict[str, list[float]]], first: dict[str, float]
) -> None:
    columns = (*VERBS, "sum")
    medians = {label: {key: statistics.median(times[key]) for key in columns} for label, times in taken.items()}
    print(f"\n{title}; medians in ms")
    print(f"  {'':42}" + "".join(f"{key:>9}" for key in columns) + f"{'first ADD':>11}{'sum, ratio':>12}")
    for side in sides:
        row = medians[side.label]
        ratio = row["sum"] / medians[base.label]["sum"]
        cells = "".join(f"{row[key]:9.1f}" for key in columns)
        print(f"  {side.label:42}{cells}{first[side.label]:11.1f}{ratio:12.2f}", flush=True)


def _take_over(program: str, leases: int) -> None:
    """DEL of what host-local leased: the first gives every lease in the store a record, the others find theirs."""
    host_local = Side("host-local", f"{REFERENCE_DIR}/bridge", 14, False, leases)
    host_local.set_up(3)
    ours = Side("cnictl-bridge", program, 14, False, leases)
    ours.pods = host_local.pods
    took = []
    try:
        host_local.call("ADD", 0)
        host_local.call("ADD", 1)
        took.append(_delete_foreign(ours, host_local, 0))
        took.append(_delete_foreign(ours, host_local, 1))
        host_local.call("ADD", 2)
        took.append(_delete_foreign(ours, host_local, 2))
    finally:
        host_local.tear_down()
    print(f"\nDEL of a pod that host-local leased, {leases} leases, in ms")
    print(f"  the store's first: takes over all leases{took[0]:18.1f}")
    print(f"  another that was taken over then{took[1]:26.1f}")
    print(f"  one leased since: the store is read again{took[2]:17.1f}", flush=True)


def _delete_foreign(ours: Side, host_local: Side, pod: int) -> float:
    ours.results[pod] = host_local.results[pod]
    address = host_local.results[pod]["ips"][0]["address"].partition("/")[0]
    took = ours.call("DEL", pod)
    if os.path.exists(f"{ours.store}/{address}"):
        sys.exit(f"DEL left host-local's lease of {address}")
    return took


if __name__ == "__main__":
    main()
