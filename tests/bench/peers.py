"""Measure commands on a lab node with 0 to 5,000 peers that do not answer.

python -m tests.bench.peers              # prints wall seconds and peak memory; asserts no times
python -m tests.bench.peers --peers 1000 # for one number of peers
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

from cnictl.core.cidr import format_address
from cnictl.lab.lab import Lab, Node

_COUNTS = (0, 100, 1000, 5000)
NETWORK, OWN = "100.64.0.0/10", "100.64.0.0/24"
UNDERLAY = "172.16.0.1/16"
_FIRST_POD_CIDR, _FIRST_ADDRESS = 100 << 24 | 64 << 16, 172 << 24 | 16 << 16


@dataclass(frozen=True)
class _Cost:
    seconds: float
    megabytes: float
    """Peak resident memory."""


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.peers", description="See the module's docstring.")
    parser.add_argument("--peers", type=int, action="append", help="how many peers (may be given several times)")
    parser.add_argument("--only", action="append", help="measure these columns only")
    options = parser.parse_args()
    print(f"{'peers':>6}  " + "  ".join(f"{name:>16}" for name in _columns(None, 0)))
    for count in options.peers or _COUNTS:
        with Lab(nodes=1) as lab:
            cells = _measure(lab.nodes[0], count, options.only)
        print(f"{count:>6}  " + "  ".join(f"{cell:>16}" for cell in cells), flush=True)


def pod_cidr(number: int) -> str:
    """Return the pod CIDR of a peer. The first peer is number 1."""
    return f"{_dotted(_FIRST_POD_CIDR + (number << 8))}/24"


def address(number: int) -> str:
    """Return the address of a peer on the node's link."""
    return _dotted(_FIRST_ADDRESS + 256 + number)


def _dotted(value: int) -> str:
    return format_address(value.to_bytes(4, "big"))


def _measure(node: Node, count: int, only: list[str] | None) -> list[str]:
    node.run(["ip", "address", "add", UNDERLAY, "dev", "eth0"])
    node.run(["cnictl", "init-node", "--subnet", OWN, "--network", NETWORK])
    tables = "".join(f'\n[[peers]]\npod_cidr = "{pod_cidr(at)}"\nvia = "{address(at)}"\n' for at in range(1, count + 1))
    node.run(["sh", "-c", "cat >> /etc/cnictl/node.toml"], stdin=tables)
    cells = []
    for name, measure in _columns(node, count).items():
        if only and name not in only and name != "apply":
            cells.append("-")
            continue
        cost = measure()
        cells.append(f"{cost.seconds:.2f} s {cost.megabytes:.0f} MB" if cost.megabytes else f"{cost.seconds:.2f} s")
    return cells


def _columns(node: Node | None, count: int) -> dict[str, Callable[[], _Cost]]:
    extra = [pod_cidr(count + 1), address(count + 1)]
    return {
        "plan": lambda: _cost(node, ["cnictl", "plan"]),
        "apply": lambda: _cost(node, ["cnictl", "apply"]),
        "again": lambda: _cost(node, ["cnictl", "apply"]),
        "status": lambda: _cost(node, ["cnictl", "status"]),
        "doctor": lambda: _cost(node, ["cnictl", "doctor"]),
        "add-peer": lambda: _cost(node, ["cnictl", "route", "add-peer", *extra]),
        "ip -batch": lambda: _batch(node, count),
    }


_TIMED = (
    "import os, resource, subprocess, sys, time; begun = time.monotonic(); "
    "done = subprocess.run(sys.argv[1:], stdout=-3, stderr=-1, text=True); "
    "print(time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024); "
    "sys.stderr.write(done.stderr[-2000:]); sys.exit(done.returncode)"
)


def _cost(node: Node | None, command: list[str]) -> _Cost:
    assert node is not None
    done = node.run(["python3", "-c", _TIMED, *command], check=False, timeout=900)
    assert done.status == 0 or command[1] in ("status", "doctor", "plan"), done.stderr
    seconds, megabytes = map(float, done.stdout.split())
    return _Cost(seconds, megabytes)


def _batch(node: Node | None, count: int) -> _Cost:
    """Time how long iproute2 takes to add the same routes with another protocol and metric."""
    assert node is not None
    lines = "".join(
        f"route add {pod_cidr(at)} via {address(at)} dev eth0 proto 99 metric 99\n" for at in range(1, count + 1)
    )
    node.run(["sh", "-c", "cat > /tmp/batch"], stdin=lines)
    begun = time.monotonic()
    node.run(["ip", "-batch", "/tmp/batch"], timeout=900)
    return _Cost(time.monotonic() - begun, 0)


if __name__ == "__main__":
    main()
