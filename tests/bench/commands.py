"""Measure commands on a lab node with 20 leases, and compare them with importing typer and rich alone.

python -m tests.bench.commands     # prints medians; asserts no times
"""

import compileall
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cnictl
from cnictl.lab.lab import Lab, Node

_ROUNDS = 20
_FEW_ROUNDS = 5
_INIT = ("cnictl", "init-node", "--subnet", "10.244.0.0/24", "--network", "10.244.0.0/20")
_SILENT_PEERS = 10
_BASE = "import typer, rich.table"
_TAB = {"_CNICTL_COMPLETE": "complete_bash", "COMP_CWORD": "2"}
RATIOS: tuple[tuple[Sequence[str], dict[str, str], float], ...] = (
    (("--version",), {}, 0.6),
    ((), {**_TAB, "COMP_WORDS": "cnictl\nipam\nsho"}, 1.2),
    ((), {**_TAB, "COMP_WORDS": "cnictl\npod\n10.244.0."}, 1.2),
    ((), {**_TAB, "COMP_WORDS": "cnictl\nundo\n"}, 1.2),
    (("--help",), {}, 1.5),
    (("doctor", "--help"), {}, 1.5),
    (("ipam", "list"), {}, 1.6),
    (("node", "list"), {}, 4),
    (("status",), {}, 4),
)
"""Commands with their environment variables, and the highest allowed ratio of their processor time to `_BASE`."""
SECONDS = ((("doctor",), 1.0, 2.5), (("metrics",), 0.5, 0.5))
"""Commands, and the highest allowed wall time in seconds: on a healthy node, and with peers that do not answer."""
_MEASURE = """
import json, os, resource, subprocess, sys, time
sides = json.loads(sys.argv[2])
taken = [([], []) for _ in sides]
def spent():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
for _ in range(int(sys.argv[1])):
    for (processor, wall), (argv, variables) in zip(taken, sides):
        before, begun = spent(), time.monotonic()
        subprocess.run(argv, stdout=-3, stderr=-3, env=os.environ | variables)
        wall.append(time.monotonic() - begun)
        processor.append(spent() - before)
print(json.dumps(taken))
"""
_LEASES = """
import os, sys
folder = "/var/lib/cni/networks/mynet"
os.makedirs(folder, exist_ok=True)
for host in range(2, 22):
    with open(f"{folder}/10.244.0.{host}", "w", newline="") as file:
        file.write(f"{host:064x}\\r\\neth0")
"""


def main() -> None:
    """Measure the commands in turns, and print the medians, the ratios and their limits."""
    # an installed cnictl comes with its bytecode; a checkout may lack it
    compileall.compile_dir(Path(cnictl.__file__).parent, quiet=1)
    with Lab(nodes=1) as lab:
        node = lab.nodes[0]
        node.run(list(_INIT))
        healthy = _seconds(node)
        peers = [f"10.244.{number}.0/24={_neighbour(node, number)}" for number in range(1, _SILENT_PEERS + 1)]
        node.run(["cnictl", "route", "add-peer", *peers])
        silent = _seconds(node)
        node.run(["cnictl", "route", "del-peer", "--yes", *(peer.partition("=")[0] for peer in peers)])
        node.run([sys.executable, "-c", _LEASES])
        ratios = _ratios(node)
    print(f"python -c '{_BASE}': {ratios[0]:.0f} ms of processor time\n")
    print("| command | ms | ratio | at most |\n|---|--:|--:|--:|")
    for (words, variables, most), spent in zip(RATIOS, ratios[1:], strict=True):
        shown = f"a Tab after `{' '.join(variables['COMP_WORDS'].split())}`" if variables else f"`{' '.join(words)}`"
        print(f"| {shown} | {spent:.0f} | **{spent / ratios[0]:.2f}** | {most} |")
    print(
        f"\n| command | healthy node, s | at most | {_SILENT_PEERS} silent peers, s | at most |\n|---|--:|--:|--:|--:|"
    )
    for (words, most, most_silent), whole, waited in zip(SECONDS, healthy, silent, strict=True):
        print(f"| `{' '.join(words)}` | {whole:.2f} | {most} | {waited:.2f} | {most_silent} |")


def _ratios(node: Node) -> list[float]:
    """Return each command's median processor time in milliseconds, with that of `_BASE` first."""
    sides: list[Any] = [[[sys.executable, "-c", _BASE], {}]]
    sides += [[["cnictl", *words], variables] for words, variables, _ in RATIOS]
    return [1000 * statistics.median(processor) for processor, _ in _measured(node, _ROUNDS, sides)]


def _seconds(node: Node) -> list[float]:
    """Return each command's median wall time in seconds."""
    sides = [[["cnictl", *words], {}] for words, _, _ in SECONDS]
    return [statistics.median(wall) for _, wall in _measured(node, _FEW_ROUNDS, sides)]


def _measured(node: Node, rounds: int, sides: list[Any]) -> Any:
    done = node.run([sys.executable, "-c", _MEASURE, str(rounds), json.dumps(sides)], timeout=300)
    return json.loads(done.stdout)


def _neighbour(node: Node, number: int) -> str:
    """Return an address on the node's link that no host has."""
    return f"{node.address.rpartition('.')[0]}.{100 + number}"


if __name__ == "__main__":
    main()
