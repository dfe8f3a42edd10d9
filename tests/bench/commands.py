"""How long `cnictl ipam list` takes beside what it is built on, on a lab node with 20 leases.

python -m tests.bench.commands     # medians of processor time in milliseconds; no time is asserted
"""

import json
import statistics
import sys

from cnictl.lab.lab import Lab

_ROUNDS = 40
_INIT = ("cnictl", "init-node", "--subnet", "10.244.0.0/24", "--network", "10.244.0.0/20")
_AT_MOST = 1.6
_MEASURE = """
import json, os, resource, subprocess, sys
folder = "/var/lib/cni/networks/mynet"
os.makedirs(folder, exist_ok=True)
for host in range(2, 22):
    with open(f"{folder}/10.244.0.{host}", "w", newline="") as file:
        file.write(f"{host:064x}\\r\\neth0")
sides = [["cnictl", "ipam", "list"], [sys.argv[1], "-c", "import typer, rich.table"]]
taken = [[], []]
def spent():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
for _ in range(int(sys.argv[2])):
    for side, argv in enumerate(sides):
        before = spent()
        subprocess.run(argv, stdout=-3, check=True)
        taken[side].append(spent() - before)
print(json.dumps(taken))
"""


def main() -> None:
    """Measure both in turns, and print their medians and the ratio."""
    with Lab(nodes=1) as lab:
        node = lab.nodes[0]
        node.run(list(_INIT))
        done = node.run([sys.executable, "-c", _MEASURE, sys.executable, str(_ROUNDS)], timeout=300)
    command, imports = (1000 * statistics.median(side) for side in json.loads(done.stdout))
    print(f"cnictl ipam list: {command:.0f} ms; import typer, rich.table: {imports:.0f} ms")
    print(f"ratio {command / imports:.2f}, at most {_AT_MOST}")


if __name__ == "__main__":
    main()
