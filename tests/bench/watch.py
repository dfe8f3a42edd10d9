"""Measure on a lab node how long `cnictl watch` takes to restore what was removed.

python -m tests.bench.watch            # prints medians in milliseconds; asserts no times
python -m tests.bench.watch --write    # also writes them to docs/watch.md
"""

import argparse
import json
import os
import select
import statistics
from pathlib import Path

from cnictl.lab.lab import Lab, Node

_ROUNDS = 7
_CASES = {
    "`nft flush ruleset`": ("nft flush ruleset", "nft list table inet cnictl"),
    "the bridge's address deleted": (
        "ip address flush dev cni0",
        "ip -4 address show dev cni0 | grep -q 10.244.0.1/24",
    ),
    "a peer's route deleted": ("ip route del 10.244.1.0/24", "ip route show 10.244.1.0/24 | grep -q via"),
    "forwarding switched off": ("sysctl -qw net.ipv4.ip_forward=0", "grep -q 1 /proc/sys/net/ipv4/ip_forward"),
}
_MEASURE = """
import subprocess, sys, time
subprocess.run(sys.argv[1], shell=True, check=True)
begun = time.monotonic()
while subprocess.run(sys.argv[2], shell=True, stdout=-3, stderr=-3).returncode:
    if time.monotonic() - begun > 30:
        sys.exit("not restored within 30 s")
print((time.monotonic() - begun) * 1000)
"""
_BEGIN, _END = "<!-- measured: begin (python -m tests.bench.watch --write) -->", "<!-- measured: end -->"
_PAGE = Path(__file__).parents[2] / "docs" / "watch.md"


def main() -> None:
    """Measure and print the table, and with --write also put it into docs/watch.md."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.watch", description="See the module's docstring.")
    parser.add_argument("--write", action="store_true", help="put the table into docs/watch.md")
    options = parser.parse_args()
    with Lab(nodes=1) as lab:
        table = _measure(lab.nodes[0])
    print(table)
    if options.write:
        text = _PAGE.read_text(encoding="utf-8")
        head, _, rest = text.partition(_BEGIN)
        _PAGE.write_text(f"{head}{_BEGIN}\n\n{table}\n\n{_END}{rest.partition(_END)[2]}", encoding="utf-8")


def _measure(node: Node) -> str:
    peer = ["--peer", "10.244.1.0/24=10.0.10.51"]
    node.run(["cnictl", "init-node", "--subnet", node.pod_cidr, "--network", "10.244.0.0/20", *peer])
    watching = node.popen(["cnictl", "watch"])
    assert watching.stderr is not None
    while "watching" not in watching.stderr.readline():
        pass
    where = f"load {os.getloadavg()[0]:.1f}, Linux {os.uname().release}"
    lines = [f"{_ROUNDS} runs each, {where}; milliseconds until restored.", ""]
    lines += ["| removed | median | longest |", "|---|--:|--:|"]
    for what, (taken, there) in _CASES.items():
        milliseconds = []
        for _ in range(_ROUNDS):
            milliseconds.append(float(node.run(["/usr/bin/python3", "-c", _MEASURE, taken, there], timeout=60).stdout))
            _settle(node)
        lines.append(f"| {what} | {statistics.median(milliseconds):.0f} | {max(milliseconds):.0f} |")
    node.run(["kill", str(json.loads(node.run(["cat", "/run/cnictl/watch.json"]).stdout)["pid"])])
    watching.communicate(timeout=20)
    return "\n".join(lines)


def _settle(node: Node) -> None:
    """Reload watch, which ends the pauses between repairs, so that each case counts as the first of its kind."""
    node.run(["sh", "-c", "kill -HUP $(sed 's/.*\"pid\": \\([0-9]*\\).*/\\1/' /run/cnictl/watch.json)"])
    select.select([], [], [], 1.0)


if __name__ == "__main__":
    main()
